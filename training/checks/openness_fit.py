"""Fitting a calibration curve for each device of a manifest, into a file of curves."""

from __future__ import annotations

import re
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from training.checks.openness_curves import (
    DeviceKey,
    Entry,
    FitEntry,
    file_of,
    key_of,
    name_of,
)
from training.errors import InputError, Problem
from training.gates import Report
from training.manifest import Event, write_json
from training.manifest.rewrite import RawManifest, Track, open_raw, quiet
from training.metrics.openness_fit import (
    GROUPS,
    MIN_PAIRS,
    RAW_VALUES,
    Fit,
    Method,
    NoFitError,
    fit_curve,
)

__all__ = ["FitFrom", "Options", "run"]

FitFrom = Literal["auto", "measured", "labels"]
_KIND = {"hihat_closed": 0, "hihat_open": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is fitted, to what, and where the curves go.

    `fit_from` says what the curves are fitted to; `auto` takes measured openness where a device has
    enough of it, and the labels otherwise.
    """

    events: Path
    fit: Path
    fit_from: FitFrom = "auto"
    dry_run: bool = False


@dataclass(slots=True)
class _Device:
    """The strokes of a device, counted by group of sessions and raw value."""

    name: str
    vendor: str
    model: str
    measured: npt.NDArray[np.float64] = field(
        default_factory=lambda: np.zeros((GROUPS, RAW_VALUES, 3))
    )
    labels: npt.NDArray[np.float64] = field(
        default_factory=lambda: np.zeros((GROUPS, RAW_VALUES, 3))
    )


def run(options: Options, *, track: Track = quiet) -> Report:
    """Fit a curve for each device that has the data for it, and write them as a file of curves.

    Devices without the data are named in the report and in warnings, with what they lack.

    Raises:
        InputError: the manifest is missing or malformed, or no device can be fitted; nothing is
            written then.
    """
    with open_raw(options.events, track=track) as manifest:
        total, devices = _count(manifest)
        source = manifest.describe(total)
    entries: list[Entry] = []
    refused: dict[str, str] = {}
    for key in sorted(devices):
        device = devices[key]
        try:
            entries.append(_entry(device, options, {entry.id for entry in entries}))
        except NoFitError as error:
            refused[device.name] = str(error)
    if not entries:
        why = [f"{name}: {text}" for name, text in refused.items()]
        why = why or ["no component has a raw pedal value that a curve could be fitted to"]
        raise InputError([Problem(str(options.events), text) for text in why])
    if not options.dry_run:
        write_json(options.fit, file_of(entries))
    return Report(
        tool="normalize-openness",
        inputs=[source],
        parameters=asdict(options),
        metrics={
            "events_total": total,
            "fitted": {entry.id: _figures(entry) for entry in entries},
            "refused": refused,
        },
        warnings=[f"{name}: no curve fitted: {why}" for name, why in refused.items()],
    )


def _count(manifest: RawManifest) -> tuple[int, dict[DeviceKey, _Device]]:
    devices: dict[DeviceKey, _Device] = {}
    total = 0
    for _, _, event in manifest.events("reading"):
        total += 1
        for component in event.components:
            if component.openness_raw is None:
                continue
            # Measured independently: not by a curve, which would only be found again.
            measured = component.openness is not None and component.openness_curve_id is None
            kind = _KIND.get(component.label)
            if not measured and kind is None:
                continue
            device = _device(devices, event)
            group = zlib.crc32(event.session_id.encode()) % GROUPS
            raw = int(component.openness_raw + 0.5)
            if measured and component.openness is not None:
                device.measured[group, raw] += (1, component.openness, component.openness**2)
            if kind is not None:
                device.labels[group, raw, kind] += 1
    return total, devices


def _device(devices: dict[DeviceKey, _Device], event: Event) -> _Device:
    key, name = key_of(event), name_of(event)
    spelt = (event.device_vendor or "").strip(), (event.device_model or "").strip()
    device = devices.get(key)
    if device is None:
        device = devices[key] = _Device(name, *spelt)
    device.name = min(device.name, name)  # of several spellings always the same one
    device.vendor, device.model = min(device.vendor, spelt[0]), min(device.model, spelt[1])
    return device


def _entry(device: _Device, options: Options, taken: set[str]) -> Entry:
    pairs = int(device.measured[..., 0].sum())
    method: Method
    if options.fit_from == "auto":
        method = "measured" if pairs >= MIN_PAIRS else "labels"
    else:
        method = options.fit_from
    counts = device.measured if method == "measured" else device.labels
    slug = re.sub(r"\W+", "_", device.name.casefold()).strip("_") or "device"
    curve_id, number = f"{slug}_{method}", 2
    while curve_id in taken:
        curve_id, number = f"{slug}_{method}_{number}", number + 1
    fit = fit_curve(counts, curve_id, method)
    named = bool(device.vendor or device.model)
    return Entry(
        id=curve_id,
        polarity=fit.curve.polarity,
        points=fit.curve.points,
        vendor=device.vendor if named else None,
        models=(device.model,) if named else (),
        source=_source(fit, options.events),
        fit=FitEntry(
            method=fit.method,
            n=fit.n,
            raw_values=fit.raw_values,
            residual=fit.residual,
            groups=fit.groups,
            uncertainty=fit.uncertainty,
            standard_errors=fit.standard_errors,
        ),
    )


def _source(fit: Fit, events: Path) -> str:
    what = {
        "measured": "strokes with an openness measured otherwise",
        "labels": "strokes labelled closed or open: the balanced share of open ones, not a gap",
    }
    return f"Isotonic regression on {fit.n:,} {what[fit.method]}; from {events.name}."


def _figures(entry: Entry) -> dict[str, object]:
    fit = entry.fit
    if fit is None:
        raise AssertionError("a fitted curve says how it was fitted")
    return {
        "device": " ".join(filter(None, (entry.vendor, *entry.models))) or "no device named",
        "polarity": entry.polarity,
        "points": [list(point) for point in entry.points],
        "method": fit.method,
        "n": fit.n,
        "raw_values": fit.raw_values,
        "groups": fit.groups,
        "residual": fit.residual,
        "uncertainty": fit.uncertainty,
        "standard_errors": None if fit.standard_errors is None else list(fit.standard_errors),
    }
