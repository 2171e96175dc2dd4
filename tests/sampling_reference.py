"""The sampling artefact computed the plain way, one Python object an event: an oracle."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np

from training.checks.sampling_profiles import Profile
from training.manifest import Event
from training.taxonomy import load_components

NO_HIT = "(no hit)"
UNKNOWN = "unknown"


def entropy(share: np.ndarray) -> float:
    positive = share[share > 0]
    return float(-(positive * np.log2(positive)).sum()) + 0.0


def chosen_events(objects: list[dict[str, Any]], chosen: Profile) -> tuple[list[Event], list[int]]:
    """The events that are drawn, and where they stand in the manifest."""
    rows = msgspec.convert(objects, list[Event])
    wanted, unwanted = set(chosen.include_technique), set(chosen.exclude_technique)
    kept: dict[tuple[Any, ...], int] = {}
    for at, row in enumerate(rows):
        shown = set(row.techniques)
        if (wanted and not shown & wanted) or shown & unwanted:
            continue
        values = tuple(
            tuple(sorted(row.labels)) if name == "components" else getattr(row, name)
            for name in chosen.dedupe_key
        )
        kept.setdefault(values or (at,), at)
    places = list(kept.values())
    return [rows[at] for at in places], places


def classes_of(row: Event) -> set[str]:
    canonical = load_components().canonical
    return {canonical(name) or name for name in row.labels or (NO_HIT,)}


def group_weight(rows: list[Event], chosen: Profile) -> tuple[float, float]:
    """The weight of a group, clamped and not."""
    if len(rows) < chosen.min_count:
        return 0.0, 0.0
    weight = 1.0
    if chosen.scheme == "inverse_count":
        counted = min(len(rows), chosen.max_events_per_group)
        weight = (counted + chosen.smoothing) ** -chosen.exponent
    for name, boost in chosen.technique_boost.items():
        shown = sum(name in row.techniques for row in rows)
        weight *= 1.0 + boost * shown / len(rows)
    clamped = weight if chosen.scheme != "inverse_count" else clamp(weight, chosen)
    return clamped, weight


def clamp(weight: float, chosen: Profile) -> float:
    low = -math.inf if chosen.min_weight is None else float(chosen.min_weight)
    high = math.inf if chosen.max_weight is None else float(chosen.max_weight)
    return min(max(weight, low), high)


def class_factor(count: int, events: int, chosen: Profile) -> float:
    if chosen.scheme == "repeat_factor":
        return max(1.0, math.sqrt(chosen.repeat_threshold / (count / events)))
    if chosen.scheme == "effective_number" and chosen.beta > 0:
        return (1 - chosen.beta) / (1 - chosen.beta**count)
    return 1.0


def event_weights(
    rows: list[Event], chosen: Profile
) -> tuple[np.ndarray, np.ndarray, dict[str, float], dict[str, float]]:
    """The weight of each event, clamped and not; the weight of each group; the class factors."""
    members: dict[str, list[Event]] = {}
    for row in rows:
        members.setdefault(getattr(row, chosen.group_field), []).append(row)
    groups = {name: group_weight(inside, chosen) for name, inside in members.items()}
    alive = [row for row in rows if groups[getattr(row, chosen.group_field)][0] > 0]
    counts = Counter(label for row in alive for label in classes_of(row))
    plain = {label: class_factor(n, len(alive), chosen) for label, n in counts.items()}
    factors = {
        label: clamp(value, chosen) if chosen.scheme != "inverse_count" else value
        for label, value in plain.items()
    }
    weight, unclamped = [], []
    for row in rows:
        group = groups[getattr(row, chosen.group_field)]
        classes = classes_of(row)
        weight.append(group[0] * max(factors.get(label, 0.0) for label in classes))
        unclamped.append(group[1] * max(plain.get(label, 0.0) for label in classes))
    names = {name: value for name, (value, _) in sorted(groups.items())}
    return np.array(weight), np.array(unclamped), names, factors


def artefact(objects: list[dict[str, Any]], chosen: Profile, n_draws: int | None) -> dict[str, Any]:
    """Everything of the artefact that is measured, `class_source_dynamics` as a dict."""
    rows, _ = chosen_events(objects, chosen)
    n_draws = n_draws or len(rows)
    weight, unclamped, groups, factors = event_weights(rows, chosen)
    probability, plain = weight / weight.sum(), unclamped / unclamped.sum()
    names = [getattr(row, chosen.group_field) for row in rows]
    share = Counter[str]()
    for name, value in zip(names, probability, strict=True):
        share[name] += value
    counts = Counter(names)
    techniques = sorted({name for row in rows for name in row.techniques})
    shown = {name: np.array([name in row.techniques for row in rows]) for name in techniques}
    per_class, table = per_class_and_cell(rows, probability, n_draws)
    class_draws = np.array([row["expected_draws"] for row in per_class.values()])
    top = int(probability.argmax())
    return {
        "events_total": len(rows),
        "technique_totals": {name: int(which.sum()) for name, which in shown.items()},
        "weights": {
            name: {"count": counts[name], "weight": value} for name, value in groups.items()
        },
        "factors": factors,
        "preview": {
            "draws": n_draws,
            "effective_sample_size": weight.sum() ** 2 / (weight**2).sum(),
            "group_entropy_bits": entropy(np.array(list(share.values()))),
            "group_entropy_bits_at_most": math.log2(len(groups)),
            "class_entropy_bits": entropy(class_draws / class_draws.sum()),
            "expected_distinct_events": (1.0 - (1.0 - probability) ** n_draws).sum(),
            "most_repeated": {
                "expected_draws": probability[top] * n_draws,
                "sample_id": rows[top].sample_id,
                "group": names[top],
            },
            "groups_total": len(groups),
            "groups_left_out": sum(value == 0 for value in groups.values()),
            "draws_moved_share": np.abs(probability - plain).sum() / 2,
            "effective_sample_size_without": unclamped.sum() ** 2 / (unclamped**2).sum(),
            "per_class": per_class,
            "per_technique": {
                name: probability[which].sum() * n_draws for name, which in shown.items()
            },
            "class_source_dynamics": table,
        },
    }


def per_class_and_cell(
    rows: list[Event], probability: np.ndarray, n_draws: int
) -> tuple[dict[str, Any], dict[tuple[str, str, str], list[float]]]:
    canonical = load_components().canonical
    per_class: dict[str, dict[str, float]] = {}
    table: dict[tuple[str, str, str], list[float]] = {}
    for row, chance in zip(rows, probability.tolist(), strict=True):
        for label in classes_of(row):
            entry = per_class.setdefault(
                label, {"events": 0, "expected_draws": 0.0, "expected_draws_unweighted": 0.0}
            )
            entry["events"] += 1
            entry["expected_draws"] += chance * n_draws
            entry["expected_draws_unweighted"] += n_draws / len(rows)
        source = row.source_set or ("synthetic" if row.is_synthetic else UNKNOWN)
        hits = {
            (canonical(part.label) or part.label, part.dynamic_bucket or UNKNOWN)
            for part in row.components
        }
        for label, dynamics in hits or {(NO_HIT, UNKNOWN)}:
            cell = table.setdefault((label, source, dynamics), [0.0, 0.0])
            cell[0] += 1
            cell[1] += chance * n_draws
    return dict(sorted(per_class.items())), table
