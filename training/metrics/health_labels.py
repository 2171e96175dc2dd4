"""What was struck: counts of labels, dynamics, variants and techniques, and of who annotated what.

A *hit* is one component of one event: an event with kick and crash is two hits. Counts of a label
are counts of hits. A hit is real unless its event states `is_synthetic: true`; how many events do
not state it is part of `sources`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from training.metrics.health_frames import (
    UNSTATED,
    Frame,
    LabelNames,
    collect_one,
    named,
    sorted_counts,
    tally,
)

CRASH = "crash"
"""The label whose variants (china, splash) are counted by themselves."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFigures:
    """Counts of hits.

    Attributes:
        hits_total: all hits, unknown labels included.
        per_class_counts: {label: {"total", "real", "synthetic"}}; every known label of the taxonomy
            has an entry, aliases are counted under the label they stand for.
        per_class_by_split: {split: {label: hits}}.
        per_class_by_source: {source: {label: hits}}.
        per_class_by_split_and_source: {split: {source: {label: hits}}}.
        unknown_labels: {name: hits} of the names that the taxonomy does not know.
        aliased_labels: {alias: {"label", "hits"}} for names that were counted under another.
        dynamics: {bucket: hits}.
        dynamics_by_class: {label: {bucket: hits}}.
        instrument_variants: {label: {variant: hits}}, only stated variants.
        crash_variants: {variant: hits} of the label `CRASH`: the stated variant, or else the alias
            under which the hit was written, or else `UNSTATED`.
        hits_outside_annotated: {label: hits} where a hit carries a label that its own event
            declares as not annotated: the event contradicts itself.
    """

    hits_total: int
    per_class_counts: dict[str, dict[str, int]]
    per_class_by_split: dict[str, dict[str, int]]
    per_class_by_source: dict[str, dict[str, int]]
    per_class_by_split_and_source: dict[str, dict[str, dict[str, int]]]
    unknown_labels: dict[str, int]
    aliased_labels: dict[str, dict[str, Any]]
    dynamics: dict[str, int]
    dynamics_by_class: dict[str, dict[str, int]]
    instrument_variants: dict[str, dict[str, int]]
    crash_variants: dict[str, int]
    hits_outside_annotated: dict[str, int]


def _nested(counts: dict[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: sorted_counts(counts[name]) for name in sorted(counts)}


def _of_labels(counts: dict[str, Counter[str]], order: list[str]) -> dict[str, dict[str, int]]:
    """Give counts by label in the order of the taxonomy, as people know it from the charts."""
    return {
        name: {label: counts[name][label] for label in order if counts[name][label]}
        for name in sorted(counts)
    }


def _known_first(names: LabelNames) -> list[str]:
    return [*names.targets, *sorted(names.known - set(names.targets))]


def label_figures(cells: Frame, names: LabelNames, *, separator: str) -> LabelFigures:
    """Count hits by label, dynamics, split, source and variant.

    `cells` are those of `hit_cells`; `separator` is what joins the labels of `annotated_set`. An
    empty frame gives zero counts for every known label.
    """
    order = _known_first(names)
    classes = {label: {"total": 0, "real": 0, "synthetic": 0} for label in order}
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    by_source: dict[str, Counter[str]] = defaultdict(Counter)
    by_both: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    crashes: Counter[str] = Counter()
    by_class: dict[str, Counter[str]] = defaultdict(Counter)
    variants: dict[str, Counter[str]] = defaultdict(Counter)
    dynamics: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    aliased: Counter[str] = Counter()
    outside: Counter[str] = Counter()
    total = 0
    counted = tally(
        cells,
        "label",
        "is_synthetic",
        "dynamic_bucket",
        "split",
        "source_set",
        "annotated_set",
        "instrument_variant",
        weight="hits",
    )
    for (name, synthetic, bucket, split, source, annotated, variant), hits in counted:
        total += hits
        dynamics[named(bucket)] += hits
        label = names.canonical(name)
        if label is None:
            unknown[name] += hits
            continue
        if label != name:
            aliased[name] += hits
        entry = classes[label]
        entry["total"] += hits
        entry["synthetic" if synthetic else "real"] += hits
        by_split[named(split)][label] += hits
        by_source[named(source)][label] += hits
        by_both[named(split)][named(source)][label] += hits
        by_class[label][named(bucket)] += hits
        if variant is not None:
            variants[label][variant] += hits
        if label == CRASH:
            # china and splash are written as an alias of crash as often as as a variant of it
            crashes[variant or (name if name != label else UNSTATED)] += hits
        if annotated is not None:
            declared = {names.canonical(item) or item for item in annotated.split(separator)}
            if label not in declared:
                outside[label] += hits
    return LabelFigures(
        hits_total=total,
        per_class_counts=classes,
        per_class_by_split=_of_labels(by_split, order),
        per_class_by_source=_of_labels(by_source, order),
        per_class_by_split_and_source={
            split: _of_labels(by_both[split], order) for split in sorted(by_both)
        },
        unknown_labels=sorted_counts(unknown),
        aliased_labels={
            alias: {"label": names.canonical(alias), "hits": aliased[alias]}
            for alias in sorted(aliased)
        },
        dynamics=sorted_counts(dynamics),
        dynamics_by_class={
            label: sorted_counts(by_class[label]) for label in order if label in by_class
        },
        instrument_variants=_nested(variants),
        crash_variants=sorted_counts(crashes),
        hits_outside_annotated=sorted_counts(outside),
    )


def label_codes(cells: Frame) -> dict[int, str]:
    """Give the label that each `label_code` stands for; `cells` are those of `hit_cells`."""
    return {int(code): label for (code, label), _ in tally(cells, "label_code", "label")}


def dual_labels(hits: Frame, labels: Mapping[int, str], names: LabelNames) -> dict[str, int]:
    """Count the events that carry one label more than once, such as two crashes struck together.

    `labels` are those of `label_codes`. Returns {label: events}; names that the taxonomy does not
    know are left out.
    """
    # An event with one component cannot repeat a label; leaving those out first makes the
    # grouping by event small.
    repeated = (
        hits.filter(nw.col("hits") > 1)
        .group_by("row", "label_code")
        .agg(nw.len().alias("times"))
        .filter(nw.col("times") > 1)
    )
    counts: Counter[str] = Counter()
    for (code,), events in tally(repeated, "label_code"):
        label = names.canonical(labels[code])
        if label is not None:
            counts[label] += events
    return sorted_counts(counts)


@dataclass(frozen=True, kw_only=True, slots=True)
class TechniqueFigures:
    """Counts of events that state a technique.

    Attributes:
        technique_counts: {technique: events}; aliases are counted under the name that they stand
            for, unknown names under their own.
        real_technique_counts: the same over events that are not synthetic.
        technique_by_split: {split: {technique: events}}.
        unknown_techniques: {name: events} of the names that the catalogue does not know.
        events_with_technique: events that state at least one.
    """

    technique_counts: dict[str, int]
    real_technique_counts: dict[str, int]
    technique_by_split: dict[str, dict[str, int]]
    unknown_techniques: dict[str, int]
    events_with_technique: int


def technique_figures(
    techniques: Frame, canonical: Callable[[str], str | None]
) -> TechniqueFigures:
    """Count events by technique; an event that writes a technique twice counts once."""
    counts: Counter[str] = Counter()
    real: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    by_split: dict[str, Counter[str]] = defaultdict(Counter)
    cells = tally(techniques, "technique", "is_synthetic", "split")
    for (written, synthetic, split), events in cells:
        known = canonical(written)
        if known is None:
            unknown[written] += events
        name = known or written
        counts[name] += events
        by_split[named(split)][name] += events
        if not synthetic:
            real[name] += events
    distinct = collect_one(techniques.select(nw.col("row").n_unique().alias("events")))
    return TechniqueFigures(
        technique_counts=sorted_counts(counts),
        real_technique_counts=sorted_counts(real),
        technique_by_split=_nested(by_split),
        unknown_techniques=sorted_counts(unknown),
        events_with_technique=int(distinct["events"] or 0),
    )


def annotation_coverage(cells: Frame, names: LabelNames, *, separator: str) -> dict[str, Any]:
    """Tell for how many events each label is annotated at all.

    `cells` are those of `event_cells`. A label outside an event's
    `annotated_labels` is unknown there, not absent; an event without the field annotates every
    label. Returns `events_stating` (events with the field), `per_class`
    {label: events in which it is annotated} and `by_source` {source: {"events", "stating",
    "labels"}}, where `labels` are those annotated in every event of the source that states the
    field, or None when none does.
    """
    per_class: Counter[str] = Counter()
    stating = 0
    sources: dict[str, dict[str, Any]] = {}
    for (source, annotated), count in tally(cells, "source_set", "annotated_set", weight="events"):
        entry = sources.setdefault(named(source), {"events": 0, "stating": 0, "labels": None})
        entry["events"] += count
        if annotated is None:
            per_class.update(dict.fromkeys(names.known, count))
            continue
        stating += count
        entry["stating"] += count
        labels = {names.canonical(item) or item for item in annotated.split(separator) if item}
        entry["labels"] = labels if entry["labels"] is None else entry["labels"] & labels
        per_class.update(dict.fromkeys(labels, count))
    for entry in sources.values():
        if entry["labels"] is not None:
            entry["labels"] = sorted(entry["labels"])
    return {
        "events_stating": stating,
        "per_class": {label: per_class[label] for label in _known_first(names)},
        "by_source": {name: sources[name] for name in sorted(sources)},
    }
