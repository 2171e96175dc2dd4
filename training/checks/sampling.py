"""Sampling weights of a manifest: read, weigh, and preview what the draw will give."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta

from training import __version__
from training.errors import DrumgateError, InputError, Problem, printable
from training.gates.config import nearest
from training.manifest import Event, InputFile, Records, read_json, read_records
from training.metrics.classification import BoolArray, FloatArray
from training.metrics.sampling import (
    GroupWeights,
    IntArray,
    Weighting,
    draw,
    entropy_bits,
    group_weights,
    total_variation,
)
from training.resources import config_path
from training.taxonomy import load_components

GroupField = Literal["session_id", "audio_path", "drummer_id", "kit_id", "source_set"]
GROUP_FIELDS: Final = ("session_id", "audio_path", "drummer_id", "kit_id", "source_set")
NO_HIT: Final = "(no hit)"
UNKNOWN: Final = "unknown"


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named set of parameters in `configs/sampling_profiles.json`."""

    description: str
    group_field: GroupField = "session_id"
    dedupe_key: tuple[str, ...] = ("session_id", "onset_time", "components")
    exponent: Annotated[float, Meta(ge=0)] = 0.5
    smoothing: Annotated[float, Meta(ge=0)] = 1.0
    min_weight: Annotated[float, Meta(gt=0)] = 0.05
    max_weight: Annotated[float, Meta(gt=0)] = 0.5
    max_events_per_group: Annotated[int, Meta(ge=1)] = 512
    min_count: Annotated[int, Meta(ge=1)] = 1
    technique_boost: dict[str, float] = {}


class _Profiles(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: Literal[1]
    profiles: dict[str, Profile]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to weigh and how; None leaves what the profile says, or the default."""

    manifest: Path
    profile: str | None = None
    profiles_path: Path | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    """Parameters given one by one, named as in `Profile`; they go before the profile's."""
    draws: int | None = None
    """Draws to preview; default: as many as there are events."""


@dataclass(frozen=True, slots=True)
class _Events:
    rows: list[Event]
    lines: list[int]
    duplicates: int
    source: InputFile


def run(options: Options) -> dict[str, Any]:
    """Return the artefact: `weights {group: {count, weight}}`, parameters, totals and preview.

    Raises:
        DrumgateError: a parameter makes no sense, or the profile does not exist.
        InputError: the manifest or the profiles file is missing or malformed, or an event lacks
            the field to group by.
    """
    chosen = _parameters(options)
    weighting = _weighting(chosen)
    events = _deduplicated(read_records(options.manifest, Event), chosen.dedupe_key)
    names, group = _groups(events, chosen.group_field)
    counts = Counter(name for row in events.rows for name in set(row.techniques))
    shown = {name: _shows(events.rows, name) for name in counts}
    try:
        weights = group_weights(group, len(names), techniques=shown, weighting=weighting)
    except ValueError as error:
        raise DrumgateError(f"{options.manifest}: {error}") from None
    n_draws = options.draws or len(events.rows)
    return {
        "schema_version": 1,
        "tool": "derive-sampling-weights",
        "version": __version__,
        "parameters": {
            "profile": options.profile,
            "draws": n_draws,
            **{
                key: value
                for key, value in msgspec.structs.asdict(chosen).items()
                if key != "description"
            },
        },
        "inputs": [events.source],
        "events_total": len(events.rows),
        "duplicates_left_out": events.duplicates,
        "technique_totals": dict(sorted(counts.items())),
        "techniques_boosted_but_absent": sorted(set(chosen.technique_boost) - set(counts)),
        "weights": {
            name: {"count": int(count), "weight": float(weight)}
            for name, count, weight in zip(names, weights.count, weights.weight, strict=True)
        },
        "preview": _preview(events.rows, names, group, weights, shown, n_draws),
    }


def load_profiles(path: Path | None = None) -> dict[str, Profile]:
    """Read sampling profiles; by default the shipped `configs/sampling_profiles.json`.

    Raises:
        InputError: the file is not such a collection.
    """
    return read_json(path or config_path("sampling_profiles.json"), _Profiles).profiles


def _parameters(options: Options) -> Profile:
    base = Profile(description="")
    if options.profile is not None:
        profiles = load_profiles(options.profiles_path)
        if options.profile not in profiles:
            hint = nearest(options.profile, profiles)
            raise DrumgateError(
                f"--profile {options.profile}: there is no such profile{hint} "
                f"(there are: {', '.join(profiles)})"
            )
        base = profiles[options.profile]
    given = {name: value for name, value in options.given.items() if value not in (None, {})}
    chosen = msgspec.structs.replace(base, **given)
    known = Event.__struct_fields__
    for name in chosen.dedupe_key:
        if name not in known:
            raise DrumgateError(
                f"--dedupe-key {name}: is no field of an event{nearest(name, known)}"
            )
    return chosen


def _weighting(chosen: Profile) -> Weighting:
    try:
        return Weighting(
            exponent=chosen.exponent,
            smoothing=chosen.smoothing,
            min_weight=chosen.min_weight,
            max_weight=chosen.max_weight,
            max_events_per_group=chosen.max_events_per_group,
            min_count=chosen.min_count,
            technique_boost=chosen.technique_boost,
        )
    except ValueError as error:
        raise DrumgateError(str(error)) from None


def _deduplicated(records: Records[Event], key: tuple[str, ...]) -> _Events:
    """Keep the first event of each key; `components` compares labels, whatever their order."""
    if not key:
        return _Events(records.rows, records.lines, 0, records.source)
    kept: dict[tuple[Any, ...], tuple[Event, int]] = {}
    for row, line in zip(records.rows, records.lines, strict=True):
        values = (
            tuple(sorted(row.labels)) if name == "components" else getattr(row, name)
            for name in key
        )
        kept.setdefault(tuple(values), (row, line))
    rows = [row for row, _ in kept.values()]
    lines = [line for _, line in kept.values()]
    return _Events(rows, lines, len(records) - len(kept), records.source)


def _groups(events: _Events, name: str) -> tuple[list[str], IntArray]:
    values = [getattr(row, name) for row in events.rows]
    problems = [
        Problem(events.source.path, "is required to group by", line, name)
        for value, line in zip(values, events.lines, strict=True)
        if value is None
    ]
    if problems:
        raise InputError(problems)
    distinct, group = np.unique(np.array(values, dtype=object), return_inverse=True)
    return [str(value) for value in distinct], group.astype(np.int64)


def _shows(rows: list[Event], technique: str) -> BoolArray:
    return np.array([technique in row.techniques for row in rows], dtype=np.bool_)


def _preview(
    rows: list[Event],
    names: list[str],
    group: IntArray,
    weights: GroupWeights,
    shown: Mapping[str, BoolArray],
    n_draws: int,
) -> dict[str, Any]:
    found = draw(group, weights.weight)
    plain = draw(group, weights.unclamped)
    even = np.full(len(rows), 1.0 / len(rows))
    table = _table(rows, found.probability * n_draws)
    per_class = _per_class(rows, found.probability * n_draws, even * n_draws)
    per_class_draws = np.array([row["expected_draws"] for row in per_class.values()])
    top = rows[found.most_repeated]
    return {
        "draws": n_draws,
        "effective_sample_size": found.effective_sample_size,
        "group_entropy_bits": found.group_entropy_bits,
        "group_entropy_bits_at_most": math.log2(len(names)),
        "class_entropy_bits": entropy_bits(per_class_draws / per_class_draws.sum()),
        "expected_distinct_events": float((1.0 - (1.0 - found.probability) ** n_draws).sum()),
        "most_repeated": {
            "sample_id": top.sample_id,
            "group": names[int(group[found.most_repeated])],
            "expected_draws": float(found.probability[found.most_repeated] * n_draws),
        },
        "groups_total": len(names),
        "groups_left_out": int((weights.weight == 0).sum()),
        "clamping": {
            "groups_raised_to_min": int(weights.raised.sum()),
            "groups_lowered_to_max": int(weights.lowered.sum()),
            "draws_moved_share": total_variation(found.probability, plain.probability),
            "effective_sample_size_without": plain.effective_sample_size,
        },
        "per_class": per_class,
        "per_technique": {
            name: float(found.probability[which].sum() * n_draws)
            for name, which in sorted(shown.items())
        },
        "class_source_dynamics": table,
    }


def _per_class(
    rows: list[Event], expected: FloatArray, unweighted: FloatArray
) -> dict[str, dict[str, float | int]]:
    """Events and expected draws of each class; an event with two labels counts for both."""
    canonical = load_components().canonical
    found: dict[str, dict[str, float | int]] = {}
    for row, draws, plain in zip(rows, expected.tolist(), unweighted.tolist(), strict=True):
        for label in dict.fromkeys(canonical(name) or name for name in row.labels or (NO_HIT,)):
            entry = found.setdefault(
                label, {"events": 0, "expected_draws": 0.0, "expected_draws_unweighted": 0.0}
            )
            entry["events"] += 1
            entry["expected_draws"] += draws
            entry["expected_draws_unweighted"] += plain
    return dict(sorted(found.items()))


def _table(rows: list[Event], expected: FloatArray) -> list[dict[str, Any]]:
    """Expected draws of each class x source x dynamics, most first."""
    canonical = load_components().canonical
    cells: dict[tuple[str, str, str], list[float]] = {}
    for row, draws in zip(rows, expected.tolist(), strict=True):
        source = row.source_set or ("synthetic" if row.is_synthetic else UNKNOWN)
        hits = {
            (canonical(part.label) or part.label, part.dynamic_bucket or UNKNOWN)
            for part in row.components
        }
        for label, dynamics in hits or {(NO_HIT, UNKNOWN)}:
            cell = cells.setdefault((label, source, dynamics), [0.0, 0.0])
            cell[0] += 1
            cell[1] += draws
    ordered = sorted(cells.items(), key=lambda item: (-item[1][1], item[0]))
    return [
        {
            "class": label,
            "source": source,
            "dynamics": dynamics,
            "events": int(cell[0]),
            "expected_draws": cell[1],
        }
        for (label, source, dynamics), cell in ordered
    ]


def summary(artefact: Mapping[str, Any]) -> str:
    """Say in a few lines what the draw will give."""
    preview, clamping = artefact["preview"], artefact["preview"]["clamping"]
    top = preview["most_repeated"]
    lines = [
        f"{artefact['events_total']} events in {preview['groups_total']} groups by "
        f"{artefact['parameters']['group_field']}"
        f" ({artefact['duplicates_left_out']} duplicates and {preview['groups_left_out']} groups"
        " left out)",
        f"{preview['draws']} draws: {preview['expected_distinct_events']:.0f} distinct events, "
        f"effective sample size {preview['effective_sample_size']:.0f}, most repeated "
        f"{top['sample_id']} ({top['expected_draws']:.2f} times)",
        f"clamped: {clamping['groups_raised_to_min']} groups up, "
        f"{clamping['groups_lowered_to_max']} down; that moves "
        f"{clamping['draws_moved_share']:.1%} of the draws",
        f"{'class':<20}{'events':>10}{'draws':>12}{'unweighted':>12}",
    ]
    lines += [
        f"{printable(label):<20}{row['events']:>10}{row['expected_draws']:>12.1f}"
        f"{row['expected_draws_unweighted']:>12.1f}"
        for label, row in preview["per_class"].items()
    ]
    absent = artefact["techniques_boosted_but_absent"]
    if absent:
        lines.append(f"boosted, but in no event: {', '.join(absent)}")
    return "\n".join(lines)
