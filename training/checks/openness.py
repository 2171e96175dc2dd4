"""Normalising the hi-hat openness of a manifest: choose each device's curve, apply it, count.

The manifest is read twice. The first pass counts each device's raw values (which also tells which
way its pedal runs), the second writes; what is held in between does not grow with the manifest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from training.checks.openness_curves import (
    DEFAULT_CURVES,
    CurveSet,
    DeviceKey,
    key_of,
    load_curves,
    name_of,
)
from training.errors import InputError, Problem
from training.gates import Report
from training.manifest import Component, Event, InputFile, atomic_write, describe_file
from training.manifest.lines import BOM
from training.manifest.rewrite import RawManifest, Track, open_raw, quiet, with_fields
from training.metrics import openness

__all__ = ["DEFAULT_CURVES", "CurveSet", "Options", "load_curves", "run"]

HISTOGRAM_BINS = 10
# An open stroke below this openness, or a closed one above its mirror, contradicts its label.
_CONTRADICTION = 0.1
_DECIMALS = 4
_KINDS = ("hihat_closed", "hihat_open", "other")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is normalised, with which curves, and where it goes.

    `default_curve` names the curve for devices that no curve names; without it they are left as
    they are. With `overwrite` an openness that came from elsewhere is replaced too. Without
    `output`, or in a dry run, nothing is written.
    """

    events: Path
    curves: Path = DEFAULT_CURVES
    default_curve: str | None = None
    overwrite: bool = False
    output: Path | None = None
    dry_run: bool = False


@dataclass(slots=True)
class _Device:
    """What was met of one device: its raw values by label, and what becomes of them."""

    name: str
    curve: openness.Curve | None
    raw: dict[str, openness.RawCounts] = field(
        default_factory=lambda: {kind: openness.RawCounts() for kind in _KINDS}
    )
    kept: int = 0

    @property
    def components(self) -> int:
        return sum(counts.total for counts in self.raw.values())


def run(options: Options, *, track: Track = quiet) -> Report:
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

    def curve_of(key: DeviceKey) -> openness.Curve | None:
        return curves.by_device.get(key, default)

    with open_raw(options.events, track=track) as manifest:
        total, devices = _count(manifest, curve_of, overwrite=options.overwrite)
        report = _report(options, manifest.describe(total), devices, curves)
        if options.output is not None and not options.dry_run:
            with atomic_write(options.output, binary=True) as file:
                file.writelines(_rewritten(manifest, curve_of, overwrite=options.overwrite))
    return report


def _count(
    manifest: RawManifest,
    curve_of: Callable[[DeviceKey], openness.Curve | None],
    *,
    overwrite: bool,
) -> tuple[int, list[_Device]]:
    """Return how many events there are, and the devices that sent raw values, by name."""
    devices: dict[DeviceKey, _Device] = {}
    total = 0
    for _, _, event in manifest.events("reading"):
        total += 1
        for component in event.components:
            if component.openness_raw is None:
                continue
            key, name = key_of(event), name_of(event)
            device = devices.get(key)
            if device is None:
                device = devices[key] = _Device(name, curve_of(key))
            device.name = min(device.name, name)  # of several spellings always the same one
            if _measured_elsewhere(component) and not overwrite:
                device.kept += 1
            else:
                kind = component.label if component.label in _KINDS else "other"
                device.raw[kind].add(component.openness_raw)
    taken: set[str] = set()
    for key, device in sorted(devices.items()):
        while device.name in taken:  # "A B" of C and "A" of "B C"
            device.name = f"{device.name} ({' / '.join(key)})"
        taken.add(device.name)
    return total, sorted(devices.values(), key=lambda device: device.name)


def _measured_elsewhere(component: Component) -> bool:
    """Whether an openness stands there that no curve of ours has made."""
    return component.openness is not None and component.openness_curve_id is None


class _Components(msgspec.Struct):
    components: list[dict[str, msgspec.Raw]]


def _rewritten(
    manifest: RawManifest,
    curve_of: Callable[[DeviceKey], openness.Curve | None],
    *,
    overwrite: bool,
) -> Iterator[bytes]:
    """Yield the lines of a manifest with their openness; lines that need none as they stand."""
    event_of = msgspec.json.Decoder(Event).decode
    parts_of = msgspec.json.Decoder(_Components).decode

    @lru_cache(maxsize=openness.EXACT_VALUES)
    def openness_of(raw: float, curve: openness.Curve) -> float:
        return float(np.round(openness.openness_of(np.asarray([raw]), curve), _DECIMALS)[0])

    for raw, is_record in manifest.records("writing"):
        # A key may also be written with escapes.
        if not is_record or (b"openness_raw" not in raw and b"\\" not in raw):
            yield raw
            continue
        body = raw.removeprefix(BOM)
        event = event_of(body)
        curve = curve_of(key_of(event))
        changes: dict[int, dict[str, msgspec.Raw]] = {}
        for place, component in enumerate(event.components):
            if curve is None or component.openness_raw is None:
                continue
            if _measured_elsewhere(component) and not overwrite:
                continue
            value = openness_of(component.openness_raw, curve)
            if (component.openness, component.openness_curve_id) != (value, curve.id):
                changes[place] = {
                    "openness": msgspec.Raw(msgspec.json.encode(value)),
                    "openness_curve_id": msgspec.Raw(msgspec.json.encode(curve.id)),
                }
        if not changes:
            yield raw
            continue
        parts = parts_of(body).components
        made = [{**part, **changes.get(place, {})} for place, part in enumerate(parts)]
        yield with_fields(raw, {"components": made})


def _report(
    options: Options, source: InputFile, devices: list[_Device], curves: CurveSet
) -> Report:
    """Put the figures together.

    Raises:
        InputError: strokes contradict the polarity of their device's curve.
    """
    figures: dict[str, Any] = {}
    problems = []
    warnings = []
    for device in devices:
        polarity = _polarity(device)
        figures[device.name] = _figures(device, polarity)
        if device.curve is None:
            if device.components:
                warnings.append(_unknown(device, polarity))
        elif polarity.polarity not in (None, device.curve.polarity):
            why = (
                f"{device.name}: curve {device.curve.id} says {device.curve.polarity}, but the "
                f"closed and open strokes say {polarity.polarity} "
                f"(separation {polarity.separation:.2f})"
            )
            problems.append(Problem(str(options.events), why))
    if problems:
        raise InputError(problems)
    metrics = {
        "events_total": source.records,
        "normalized": sum(d.components for d in devices if d.curve is not None),
        "left_untouched": sum(d.components for d in devices if d.curve is None),
        "kept": sum(device.kept for device in devices),
        "unknown_devices": sorted(d.name for d in devices if d.curve is None and d.components),
        "devices": figures,
        "curves": _curve_figures(devices, curves),
    }
    return Report(
        tool="normalize-openness",
        inputs=[source, describe_file(options.curves)],
        parameters=asdict(options),
        metrics=metrics,
        warnings=warnings,
    )


def _polarity(device: _Device) -> openness.PolarityFigures:
    closed, n_closed = device.raw["hihat_closed"].arrays()
    opened, n_open = device.raw["hihat_open"].arrays()
    return openness.detect_polarity(closed, opened, closed_counts=n_closed, opened_counts=n_open)


def _figures(device: _Device, polarity: openness.PolarityFigures) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "curve_id": None if device.curve is None else device.curve.id,
        "components": device.components,
        "kept": device.kept,
        "polarity": asdict(polarity),
    }
    if device.curve is None:
        return figures
    histogram = np.zeros(HISTOGRAM_BINS)
    contradictions = {"hihat_open": 0, "hihat_closed": 0}
    for kind, counts in device.raw.items():
        raw, n = counts.arrays()
        values = np.round(openness.openness_of(raw, device.curve), _DECIMALS)
        histogram += np.histogram(values, HISTOGRAM_BINS, range=(0.0, 1.0), weights=n)[0]
        if kind == "hihat_open":
            contradictions[kind] = int(n[values < _CONTRADICTION].sum())
        elif kind == "hihat_closed":
            contradictions[kind] = int(n[values > 1.0 - _CONTRADICTION].sum())
    figures["openness_histogram"] = histogram.astype(int).tolist()
    figures["open_but_shut"] = contradictions["hihat_open"]
    figures["closed_but_wide"] = contradictions["hihat_closed"]
    return figures


def _curve_figures(devices: list[_Device], curves: CurveSet) -> dict[str, Any]:
    """Say of each curve that was applied how much it was, and how far it can be trusted."""
    applied: dict[str, Any] = {}
    for name, entry in sorted(curves.entries.items()):
        mine = [d for d in devices if d.curve is not None and d.curve.id == name and d.components]
        if mine:
            fit = entry.fit
            applied[name] = {
                "components": sum(device.components for device in mine),
                "devices": [device.name for device in mine],
                "fitted_to": None if fit is None else fit.method,
                "n": None if fit is None else fit.n,
                "residual": None if fit is None else fit.residual,
                "uncertainty": None if fit is None else fit.uncertainty,
                "source": entry.source,
            }
    return applied


def _unknown(device: _Device, polarity: openness.PolarityFigures) -> str:
    hint = f"; its strokes say {polarity.polarity}" if polarity.polarity else ""
    return f"{device.name}: no curve, {device.components:,} raw values left untouched{hint}"
