"""The file of calibration curves: reading it strictly, and which device each curve belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from training.errors import InputError, Problem
from training.manifest import Event, read_json
from training.metrics import openness

__all__ = ["DEFAULT_CURVES", "CurveSet", "DeviceKey", "Entry", "FitEntry", "key_of", "load_curves"]

DEFAULT_CURVES = Path(__file__).resolve().parent.parent / "calibration" / "openness_curves.json"

DeviceKey = tuple[str, str]
"""Vendor and model of a device, in lower case and without blanks around; empty if not stated."""

NotNegative = Annotated[float, Meta(ge=0)]


class FitEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a curve that was fitted; see `training.metrics.openness_fit.Fit`."""

    method: Literal["measured", "labels"]
    n: Annotated[int, Meta(ge=1)]
    raw_values: Annotated[int, Meta(ge=1)]
    residual: NotNegative
    groups: Annotated[int, Meta(ge=1)]
    uncertainty: NotNegative | None = None
    standard_errors: tuple[NotNegative, ...] | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One curve of the file; `source` says in words where it comes from."""

    id: str
    polarity: openness.Polarity
    points: tuple[tuple[float, float], ...]
    vendor: str | None = None
    models: tuple[str, ...] = ()
    source: str = ""
    fit: FitEntry | None = None


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: Literal[1]
    curves: tuple[Entry, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveSet:
    """Curves by id, which device each belongs to, and what the file says about them."""

    by_id: dict[str, openness.Curve]
    by_device: dict[DeviceKey, openness.Curve]
    entries: dict[str, Entry] = field(default_factory=dict)


def load_curves(path: Path) -> CurveSet:
    """Read calibration curves.

    Raises:
        InputError: the file is malformed, a curve turns back or runs against its polarity, or an id
            or device stands twice.
    """
    by_id: dict[str, openness.Curve] = {}
    by_device: dict[DeviceKey, openness.Curve] = {}
    entries: dict[str, Entry] = {}
    problems: list[Problem] = []

    def bad(index: int, name: str, why: str, got: object) -> None:
        problems.append(Problem(str(path), why, None, f"curves[{index}].{name}", got))

    for index, entry in enumerate(read_json(path, _File).curves):
        curve = openness.Curve(id=entry.id, polarity=entry.polarity, points=entry.points)
        if why := openness.check_curve(curve):
            bad(index, "points", why, [list(point) for point in entry.points])
        if entry.id in by_id:
            bad(index, "id", "stands twice", entry.id)
        by_id[entry.id], entries[entry.id] = curve, entry
        errors = None if entry.fit is None else entry.fit.standard_errors
        if errors is not None and len(errors) != len(entry.points):
            bad(index, "fit.standard_errors", "must hold one for each point", len(errors))
        if entry.models and entry.vendor is None:
            bad(index, "vendor", "is required where there are models", None)
        for model in entry.models:
            device = _fold(entry.vendor), _fold(model)
            if device in by_device:
                bad(index, "models", "has a curve already", model)
            by_device[device] = curve
    if not by_id:
        problems.append(Problem(str(path), "holds no curve", None, "curves"))
    if problems:
        raise InputError(problems)
    return CurveSet(by_id=by_id, by_device=by_device, entries=entries)


def key_of(event: Event) -> DeviceKey:
    """Return the device of an event."""
    return _fold(event.device_vendor), _fold(event.device_model)


def name_of(event: Event) -> str:
    """Return the device of an event as a reader should see it."""
    named = f"{event.device_vendor or ''} {event.device_model or ''}"
    return " ".join(named.split()) or "no device named"


def file_of(entries: list[Entry]) -> dict[str, Any]:
    """Return the content of a file of curves; fields that say nothing are left out."""
    return {
        "schema_version": 1,
        "curves": [
            {
                name: value
                for name, value in msgspec.to_builtins(entry).items()
                if value not in (None, (), [], "")
            }
            for entry in entries
        ],
    }


def _fold(name: str | None) -> str:
    return (name or "").strip().casefold()
