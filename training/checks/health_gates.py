"""Judging the figures of a manifest: one function a gate, each fail-closed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from training.checks.health_counts import Counts, class_counts_by_split, single_counts
from training.errors import clip
from training.gates import Measurement, Threshold, Verdict, judge
from training.metrics.health import HealthFigures

ISOLATION = ("session", "drummer", "kit", "room", "performance")
"""What splits can be required not to share."""

NUMERIC_GATES = (
    "max_duplication_rate",
    "min_class_count",
    "min_split_class_count",
    "max_unknown_labels",
    "max_synthetic_fraction",
    "min_drummers",
    "min_sessions",
    "min_kits",
    "min_rooms",
    "min_duration_s",
    "min_negatives",
    "min_dynamic_count",
    "min_openness_hits",
    "min_annotated_share",
    "max_contradicted_hits",
    "max_unknown_techniques",
    "max_repeated_performances",
    "max_clipping_rate",
    "max_outlier_rate",
)
"""The gates whose flag gives their limit."""

DYNAMICS = ("ghost", "light", "medium", "accent")

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
        outlier_kinds: the kinds of outliers that must be measured and judged; none named means
            every kind that could be measured.
        counts: the smallest count of single names under other figures.
    """

    gates: frozenset[str]
    targets: Sequence[str]
    min_counts: Mapping[str, int]
    techniques: Sequence[str]
    labels: Sequence[str]
    isolation: Sequence[str]
    outlier_kinds: Sequence[str] = ()
    counts: Counts = field(default_factory=dict)


def judge_health(
    figures: HealthFigures,
    durations: Mapping[str, Any],
    thresholds: Mapping[str, Threshold],
    asked: Asked,
) -> list[Verdict]:
    """Judge the gates that were asked for, in a fixed order.

    `durations` are those of the report: `total_s`, or `not_measured` with the reason.
    """
    verdicts: list[Verdict] = []
    single: dict[str, Callable[[HealthFigures], Measurement]] = {
        "max_duplication_rate": _duplication,
        "max_unknown_labels": _unknown_labels,
        "max_synthetic_fraction": _synthetic,
        "min_drummers": partial(_entities, what="drummers", field="drummer_id"),
        "min_sessions": partial(_entities, what="sessions", field="session_id"),
        "min_kits": partial(_entities, what="kits", field="kit_id"),
        "min_rooms": partial(_entities, what="rooms", field="room_id"),
        "min_duration_s": partial(_duration, durations=durations),
        "min_negatives": _negatives,
        "min_openness_hits": _openness,
        "max_contradicted_hits": _contradicted,
        "max_unknown_techniques": _unknown_techniques,
        "max_repeated_performances": _repeated_performances,
        "max_clipping_rate": _clipping,
    }
    for gate, measure in single.items():
        if gate in asked.gates:
            verdicts.append(judge(measure(figures), thresholds[gate]))
    verdicts += _class_counts(figures, thresholds["min_class_count"], asked)
    several: dict[str, Callable[[HealthFigures, Asked], dict[str, Measurement]]] = {
        "min_split_class_count": lambda found, asked: class_counts_by_split(found, asked.targets),
        "min_dynamic_count": _dynamics,
        "min_annotated_share": _annotated,
        "max_outlier_rate": _outliers,
    }
    for gate, measure_each in several.items():
        if gate in asked.gates:
            verdicts += [
                judge(measured, thresholds[gate], subject=subject)
                for subject, measured in measure_each(figures, asked).items()
            ]
    if "require_labels" in asked.gates:
        counts = {name: row["total"] for name, row in figures.labels.per_class_counts.items()}
        verdicts += _required(counts, asked.labels, thresholds["require_labels"], "label")
    if "require_techniques" in asked.gates:
        counts = figures.techniques.technique_counts
        verdicts += _required(
            counts, asked.techniques, thresholds["require_techniques"], "technique"
        )
    if "require_counts" in asked.gates:
        verdicts += _counts(figures, asked.counts, thresholds["require_counts"])
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


def _entities(figures: HealthFigures, *, what: str, field: str) -> Measurement:
    total = figures.sources.events_total
    stated = total if field == "session_id" else figures.stated[field]
    if not stated:
        return Measurement(name=what, value=None, n=total, detail=f"no event states {field}")
    return Measurement(
        name=what,
        value=figures.entities[what],
        unit=what,
        n=total,
        detail=f"{stated} of {total} events state {field}",
    )


def _duration(figures: HealthFigures, *, durations: Mapping[str, Any]) -> Measurement:
    return Measurement(
        name="duration",
        value=durations["total_s"],
        unit="s",
        n=figures.sources.events_total,
        detail=durations["not_measured"] or "",
    )


def _negatives(figures: HealthFigures) -> Measurement:
    counts = figures.negatives
    return Measurement(
        name="negatives",
        value=counts["marked"] + counts["unmarked_empty"],
        unit="events",
        n=figures.sources.events_total,
        detail=f"{counts['marked']} marked, {counts['unmarked_empty']} empty and not marked",
    )


def _openness(figures: HealthFigures) -> Measurement:
    openness = figures.openness
    return Measurement(
        name="openness_hits",
        value=openness["stated"],
        unit="hits",
        n=figures.labels.hits_total,
        detail=f"{openness['raw_only']} more state openness_raw only",
    )


def _contradicted(figures: HealthFigures) -> Measurement:
    outside = figures.labels.hits_outside_annotated
    return Measurement(
        name="contradicted_hits",
        value=sum(outside.values()),
        unit="hits",
        n=figures.labels.hits_total,
        detail=_listed(f"{name} ({hits})" for name, hits in _most_first(outside)),
    )


def _unknown_techniques(figures: HealthFigures) -> Measurement:
    unknown = figures.techniques.unknown_techniques
    return Measurement(
        name="unknown_techniques",
        value=len(unknown),
        unit="techniques",
        n=figures.techniques.events_with_technique,
        detail=_listed(f"{name} ({events})" for name, events in _most_first(unknown)),
    )


def _repeated_performances(figures: HealthFigures) -> Measurement:
    found = figures.performances
    return Measurement(
        name="repeated_performances",
        value=found.repeated_takes if found.takes else None,
        unit="takes",
        n=found.takes,
        detail=_listed(" = ".join(family["sessions"][:SHOWN]) for family in found.examples)
        if found.takes
        else "no take is long enough to compare",
    )


def _clipping(figures: HealthFigures) -> Measurement:
    clipping, n = figures.loudness.clipping, figures.loudness.peak_dbfs.n
    return Measurement(
        name="clipping_rate",
        value=clipping / n if n else None,
        n=n,
        detail=f"{clipping} of {n} events clip" if n else "no event states loudness.peak_dbfs",
    )


def _dynamics(figures: HealthFigures, asked: Asked) -> dict[str, Measurement]:
    counts = figures.labels.dynamics
    return {
        bucket: Measurement(
            name="dynamic_count",
            value=counts.get(bucket, 0),
            unit="hits",
            n=figures.labels.hits_total,
        )
        for bucket in DYNAMICS
    }


def _annotated(figures: HealthFigures, asked: Asked) -> dict[str, Measurement]:
    total = figures.sources.events_total
    annotated = figures.annotation["per_class"]
    return {
        label: Measurement(
            name="annotated_share",
            value=annotated[label] / total if total else None,
            n=total,
            detail=f"annotated in {annotated[label]} of {total} events",
        )
        for label in asked.targets
    }


def _outliers(figures: HealthFigures, asked: Asked) -> dict[str, Measurement]:
    measured = [kind for kind, found in figures.outliers.items() if found.share is not None]
    kinds = asked.outlier_kinds or measured
    if not kinds:
        why = "no event states anything that outliers can be looked for in"
        return {"any": Measurement(name="outlier_rate", value=None, n=0, detail=why)}
    measurements = {}
    for kind in kinds:
        found = figures.outliers[kind]
        detail = found.not_measured or "no event states what is looked at"
        if found.share is not None:
            first = f"; first: {_plain(found.examples[0])}" if found.examples else ""
            detail = f"{found.count} of {found.of}{first}"
        measurements[kind] = Measurement(
            name="outlier_rate", value=found.share, n=found.of, detail=detail
        )
    return measurements


def _plain(example: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in example.items() if value is not None)


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


def _counts(figures: HealthFigures, asked: Counts, threshold: Threshold) -> list[Verdict]:
    if not asked:
        return _required({}, (), threshold, "count")
    reason = "set on the command line"
    return [
        judge(
            measured,
            replace(threshold, value=asked[figure, name], reason=reason),
            subject=f"{figure}:{name}",
        )
        for (figure, name), measured in single_counts(figures, asked).items()
    ]


def _isolation(figures: HealthFigures, name: str) -> Measurement:
    if not figures.stated["split"]:
        return Measurement(name="split_isolation", value=None, detail="no event states a split")
    if name == "performance":
        performances = figures.performances
        if not performances.takes:
            why = "no take is long enough to compare"
            return Measurement(name="split_isolation", value=None, n=0, detail=why)
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
    names = [clip(item) for item in items]
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
