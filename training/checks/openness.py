"""Normalising the hi-hat openness of a manifest: choose each device's curve, apply it, count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from training.errors import InputError, Problem
from training.gates import Report
from training.manifest import Component, Event, describe_file, read_json, read_raw
from training.metrics import openness

__all__ = ["DEFAULT_CURVES", "CurveSet", "Options", "Outcome", "load_curves", "run"]

DEFAULT_CURVES = Path(__file__).resolve().parent.parent / "calibration" / "openness_curves.json"
HISTOGRAM_BINS = 10
# An open stroke below this openness, or a closed one above its mirror, contradicts its label.
_CONTRADICTION = 0.1


class _Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    polarity: openness.Polarity
    points: tuple[tuple[float, float], ...]
    vendor: str | None = None
    models: tuple[str, ...] = ()
    source: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: Literal[1]
    curves: tuple[_Entry, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is normalised, and with which curves.

    `default_curve` names the curve for devices that no curve names; without it they are left as
    they are. With `overwrite` an openness that came from elsewhere is replaced too.
    """

    events: Path
    curves: Path = DEFAULT_CURVES
    default_curve: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveSet:
    """Curves by id, and which device each belongs to (vendor and model in lower case)."""

    by_id: dict[str, openness.Curve]
    by_device: dict[tuple[str, str], openness.Curve]


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The manifest's rows with their openness, and the report on what was done."""

    rows: tuple[dict[str, Any], ...]
    report: Report


@dataclass(slots=True)
class _Device:
    """What was met of one device: where its raw values stand, and what becomes of them."""

    curve: openness.Curve | None
    places: list[tuple[int, int]]
    raw: list[float]
    labels: list[str]
    kept: int = 0


def load_curves(path: Path) -> CurveSet:
    """Read calibration curves.

    Raises:
        InputError: the file is malformed, a curve turns back or runs against its polarity, or an id
            or device stands twice.
    """
    by_id: dict[str, openness.Curve] = {}
    by_device: dict[tuple[str, str], openness.Curve] = {}
    problems = []

    def bad(index: int, field: str, why: str, got: object) -> None:
        problems.append(Problem(str(path), why, None, f"curves[{index}].{field}", got))

    for index, entry in enumerate(read_json(path, _File).curves):
        curve = openness.Curve(id=entry.id, polarity=entry.polarity, points=entry.points)
        if why := openness.check_curve(curve):
            bad(index, "points", why, [list(point) for point in entry.points])
        if entry.id in by_id:
            bad(index, "id", "stands twice", entry.id)
        by_id[entry.id] = curve
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
    return CurveSet(by_id=by_id, by_device=by_device)


def run(options: Options) -> Outcome:
    """Give every component with a raw pedal value its openness, by the curve of its device.

    Raises:
        InputError: an input is missing or malformed, `default_curve` is not in the file, or a
            device's strokes show that its pedal runs the other way than its curve says.
    """
    curves = load_curves(options.curves)
    default = None
    if options.default_curve is not None:
        default = curves.by_id.get(options.default_curve)
        if default is None:
            why = f"has no such curve; there are {', '.join(curves.by_id)}"
            raise InputError.at(options.curves, why, got=options.default_curve)
    records = read_raw(options.events, Event)
    devices = _devices(records.rows, curves, default, overwrite=options.overwrite)
    rows = [row for _, row in records.rows]
    figures: dict[str, Any] = {}
    problems = []
    warnings = []
    for name, device in sorted(devices.items()):
        polarity = _polarity(device)
        values = _apply(rows, device)
        figures[name] = _figures(device, polarity, values)
        if device.curve is None:
            if device.raw:
                warnings.append(_unknown(name, device, polarity))
        elif polarity.polarity not in (None, device.curve.polarity):
            why = (
                f"{name}: curve {device.curve.id} says {device.curve.polarity}, but the closed and "
                f"open strokes say {polarity.polarity} (separation {polarity.separation:.2f})"
            )
            problems.append(Problem(records.source.path, why))
    if problems:
        raise InputError(problems)
    metrics = {
        "events_total": len(rows),
        "normalized": sum(len(d.raw) for d in devices.values() if d.curve is not None),
        "left_untouched": sum(len(d.raw) for d in devices.values() if d.curve is None),
        "kept": sum(device.kept for device in devices.values()),
        "unknown_devices": sorted(n for n, d in devices.items() if d.curve is None and d.raw),
        "devices": figures,
    }
    report = Report(
        tool="normalize-openness",
        inputs=[records.source, describe_file(options.curves)],
        parameters=asdict(options),
        metrics=metrics,
        warnings=warnings,
    )
    return Outcome(rows=tuple(rows), report=report)


def _devices(
    pairs: Sequence[tuple[Event, dict[str, Any]]],
    curves: CurveSet,
    default: openness.Curve | None,
    *,
    overwrite: bool,
) -> dict[str, _Device]:
    devices: dict[str, _Device] = {}
    for place, (event, _) in enumerate(pairs):
        for part, component in enumerate(event.components):
            if component.openness_raw is None:
                continue
            named = f"{event.device_vendor or ''} {event.device_model or ''}"
            name = " ".join(named.split()) or "no device named"
            if name not in devices:
                key = _fold(event.device_vendor), _fold(event.device_model)
                devices[name] = _Device(curves.by_device.get(key, default), [], [], [])
            device = devices[name]
            if _measured_elsewhere(component) and not overwrite:
                device.kept += 1
                continue
            device.places.append((place, part))
            device.raw.append(component.openness_raw)
            device.labels.append(component.label)
    return devices


def _measured_elsewhere(component: Component) -> bool:
    """Whether an openness stands there that no curve of ours has made."""
    return component.openness is not None and component.openness_curve_id is None


def _apply(rows: list[dict[str, Any]], device: _Device) -> openness.Floats:
    if device.curve is None:
        return np.empty(0)
    values = np.round(openness.openness_of(np.asarray(device.raw), device.curve), 4)
    changes: dict[int, dict[int, float]] = defaultdict(dict)
    for (place, part), value in zip(device.places, values.tolist(), strict=True):
        changes[place][part] = value
    for place, by_part in changes.items():
        components = [
            {**part, "openness": by_part[index], "openness_curve_id": device.curve.id}
            if index in by_part
            else part
            for index, part in enumerate(rows[place]["components"])
        ]
        rows[place] = {**rows[place], "components": components}
    return values


def _polarity(device: _Device) -> openness.PolarityFigures:
    raw = np.asarray(device.raw, dtype=np.float64)
    labels = np.asarray(device.labels, dtype=object)
    return openness.detect_polarity(raw[labels == "hihat_closed"], raw[labels == "hihat_open"])


def _figures(
    device: _Device, polarity: openness.PolarityFigures, values: openness.Floats
) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "curve_id": None if device.curve is None else device.curve.id,
        "components": len(device.raw),
        "kept": device.kept,
        "polarity": asdict(polarity),
    }
    if device.curve is not None:
        labels = np.asarray(device.labels, dtype=object)
        counts, _ = np.histogram(values, HISTOGRAM_BINS, range=(0.0, 1.0))
        figures["openness_histogram"] = counts.tolist()
        figures["open_but_shut"] = int((values[labels == "hihat_open"] < _CONTRADICTION).sum())
        closed = values[labels == "hihat_closed"]
        figures["closed_but_wide"] = int((closed > 1.0 - _CONTRADICTION).sum())
    return figures


def _unknown(name: str, device: _Device, polarity: openness.PolarityFigures) -> str:
    hint = f"; its strokes say {polarity.polarity}" if polarity.polarity else ""
    return f"{name}: no curve, {len(device.raw):,} raw values left untouched{hint}"


def _fold(name: str | None) -> str:
    return (name or "").strip().casefold()
