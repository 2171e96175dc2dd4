"""Judging the figures of a manifest: one function a gate, each fail-closed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from training.gates import Measurement, Threshold, Verdict, judge
from training.metrics.health import HealthFigures

ISOLATION = ("session", "drummer", "kit", "room", "performance")
"""What splits can be required not to share."""

SHOWN = 5
"""How many offenders the detail of a verdict names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """Which gates are asked for, and what they ask about.

    Attributes:
        gates: names of the gates in the table [health.*].
        targets: the labels that `min_class_count` looks at.
        min_counts: a smallest number of hits for single labels, in place of the general one.
        techniques, labels: names that must occur.
        isolation: what splits must not share.
    """

    gates: frozenset[str]
    targets: Sequence[str]
    min_counts: Mapping[str, int]
    techniques: Sequence[str]
    labels: Sequence[str]
    isolation: Sequence[str]


def judge_health(
    figures: HealthFigures, thresholds: Mapping[str, Threshold], asked: Asked
) -> list[Verdict]:
    """Judge the gates that were asked for, in a fixed order."""
    verdicts: list[Verdict] = []
    single = {
        "max_duplication_rate": _duplication,
        "max_unknown_labels": _unknown_labels,
        "max_synthetic_fraction": _synthetic,
        "min_drummers": _drummers,
    }
    for gate, measure in single.items():
        if gate in asked.gates:
            verdicts.append(judge(measure(figures), thresholds[gate]))
    verdicts += _class_counts(figures, thresholds["min_class_count"], asked)
    if "require_labels" in asked.gates:
        counts = {name: row["total"] for name, row in figures.labels.per_class_counts.items()}
        verdicts += _required(counts, asked.labels, thresholds["require_labels"], "label")
    if "require_techniques" in asked.gates:
        counts = figures.techniques.technique_counts
        verdicts += _required(
            counts, asked.techniques, thresholds["require_techniques"], "technique"
        )
    if "split_isolation" in asked.gates:
        verdicts += [
            judge(_isolation(figures, name), thresholds["split_isolation"], subject=name)
            for name in asked.isolation
        ]
    return verdicts


def _duplication(figures: HealthFigures) -> Measurement:
    ids, places = figures.repeated_ids, figures.repeated_places
    detail = (
        f"{ids.surplus} events repeat a sample_id, "
        f"{places.surplus} a place in an audio file ({places.compared} events name one)"
    )
    return Measurement(
        name="duplication_rate",
        value=figures.duplication_rate,
        n=figures.sources.events_total,
        detail=detail,
    )


def _unknown_labels(figures: HealthFigures) -> Measurement:
    unknown = figures.labels.unknown_labels
    return Measurement(
        name="unknown_labels",
        value=sum(unknown.values()),
        unit="hits",
        n=figures.labels.hits_total,
        detail=_listed(f"{name} ({hits})" for name, hits in _most_first(unknown)),
    )


def _synthetic(figures: HealthFigures) -> Measurement:
    counts = figures.sources.synthetic
    total = figures.sources.events_total
    if counts["unstated"]:
        # Counting them as real would let a dataset pass by saying nothing.
        detail = f"{counts['unstated']} of {total} events do not state is_synthetic"
        return Measurement(name="synthetic_fraction", value=None, n=total, detail=detail)
    return Measurement(
        name="synthetic_fraction",
        value=counts["synthetic"] / total if total else None,
        n=total,
        detail=f"{counts['synthetic']} of {total} events are synthetic",
    )


def _drummers(figures: HealthFigures) -> Measurement:
    total, stated = figures.sources.events_total, figures.stated["drummer_id"]
    if not stated:
        return Measurement(
            name="drummers", value=None, n=total, detail="no event states drummer_id"
        )
    return Measurement(
        name="drummers",
        value=figures.entities["drummers"],
        unit="drummers",
        n=total,
        detail=f"{stated} of {total} events state drummer_id",
    )


def _class_counts(figures: HealthFigures, threshold: Threshold, asked: Asked) -> list[Verdict]:
    limits = {label: threshold for label in asked.targets if "min_class_count" in asked.gates}
    for label, count in asked.min_counts.items():
        limits[label] = replace(
            threshold, value=count, reason="set for this label in the file of smallest counts"
        )
    verdicts = []
    for label, limit in limits.items():
        row = figures.labels.per_class_counts[label]
        measured = Measurement(
            name="class_count",
            value=row["total"],
            unit="hits",
            n=row["total"],
            detail=f"{row['real']} real, {row['synthetic']} synthetic",
        )
        verdicts.append(judge(measured, limit, subject=label))
    return verdicts


def _required(
    counts: Mapping[str, int], names: Sequence[str], threshold: Threshold, what: str
) -> list[Verdict]:
    if not names:
        # A gates file switched the gate on, and nothing says what it is to require.
        nothing = Measurement(
            name=what, value=None, detail=f"no {what} is named; name some by flag"
        )
        return [judge(nothing, threshold)]
    return [
        judge(Measurement(name=what, value=counts.get(name, 0)), threshold, subject=name)
        for name in names
    ]


def _isolation(figures: HealthFigures, name: str) -> Measurement:
    if not figures.stated["split"]:
        return Measurement(name="split_isolation", value=None, detail="no event states a split")
    if name == "performance":
        performances = figures.performances
        return Measurement(
            name="split_isolation",
            value=performances.crossing_splits,
            n=performances.takes,
            detail=_listed(
                " = ".join(family["sessions"][:SHOWN])
                for family in performances.examples[: performances.crossing_splits]
            )
            or f"{performances.families} performances stand in more than one session",
        )
    found = figures.isolation[name]
    offenders = _listed(
        f"{offender['value']} ({', '.join(offender['splits'])})" for offender in found.offenders
    )
    if found.unstated and not found.shared:
        detail = f"{found.unstated} events with a split do not state {name}_id"
        return Measurement(name="split_isolation", value=None, n=found.values, detail=detail)
    return Measurement(name="split_isolation", value=found.shared, n=found.values, detail=offenders)


def _most_first(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _listed(items: Iterable[str]) -> str:
    names = list(items)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
