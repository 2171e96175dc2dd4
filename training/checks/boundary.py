"""The boundary check: how many events near window seams are still found, and is that enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta

from training.errors import DrumgateError
from training.gates import Interval, Measurement, Report, judge, load_thresholds, nearest
from training.gates.model import Threshold, Verdict
from training.manifest import GroundTruth, Prediction, Records, read_records, reject_duplicates
from training.metrics import boundary
from training.metrics import classification as cl
from training.taxonomy import load_components

LISTED = 20
"""How many sample_ids a report lists; the totals are always whole."""
FEW_SESSIONS = 10


class BoundaryTruth(GroundTruth, frozen=True, kw_only=True, omit_defaults=True):
    """A row of a boundary pack; any other truth record will do, without edges and distances."""

    event_id: str | None = None
    edge: Literal["start", "end"] | None = None
    distance_ms: Annotated[float, Meta(ge=0)] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the boundary check reads, how it decides and how it judges."""

    ground_truth: Path
    predictions: Path
    threshold: float = 0.5
    top_k: int | None = None
    distance_bins_ms: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0)
    min_macro_recall: float | None = None
    gate_values: Mapping[str, float] = field(default_factory=dict)
    """Gate values by name, as given by `--gate`; `min_macro_recall` goes before them."""
    min_classes: int = 2
    iterations: int = 1000
    confidence: float = 0.95
    seed: int = 0
    gates: Path | None = None


@dataclass(frozen=True, slots=True)
class _Joined:
    """Truth and predictions side by side, as matrices over the same rows and classes."""

    rows: list[BoundaryTruth]
    classes: tuple[str, ...]
    counts: cl.Counts
    missing: list[str]
    surplus: int
    background: dict[str, int]


def run(options: Options) -> Report:
    """Measure and judge the recall of events near window seams.

    A row without a prediction counts as a miss of every label it has. Labels that the taxonomy
    calls background are no class of any model: they are counted, named in a warning and left out.

    Raises:
        DrumgateError: an option makes no sense, or a gate has an unknown name.
        InputError: an input is missing or malformed, or a `sample_id` stands twice.
    """
    try:
        bins = boundary.check_bins(options.distance_bins_ms)
    except ValueError as error:
        raise DrumgateError(str(error)) from None
    thresholds = _thresholds(options)
    truth = read_records(options.ground_truth, BoundaryTruth)
    predictions = read_records(options.predictions, Prediction)
    reject_duplicates(truth)
    reject_duplicates(predictions)
    joined = _join(truth, predictions, options)
    figures = boundary.boundary_figures(
        joined.counts,
        joined.classes,
        edges=[row.edge for row in joined.rows],
        distances_ms=[
            np.nan if row.distance_ms is None else row.distance_ms for row in joined.rows
        ],
        bins_ms=bins,
    )
    interval = _interval(joined, options)
    return Report(
        tool="boundary-eval",
        inputs=[truth.source, predictions.source],
        parameters=asdict(options),
        metrics=_metrics(figures, interval, joined),
        verdicts=_verdicts(thresholds, figures, interval, options),
        warnings=_warnings(figures, interval, joined),
        seed=options.seed,
    )


def _thresholds(options: Options) -> dict[str, Threshold]:
    known = load_thresholds("boundary")
    for name in options.gate_values:
        if name not in known:
            raise DrumgateError(f"--gate {name}: is not a known gate{nearest(name, known)}")
    overrides: dict[str, float | None] = dict(options.gate_values)
    if options.min_macro_recall is not None:
        overrides["min_macro_recall"] = options.min_macro_recall
    return load_thresholds("boundary", overlay=options.gates, overrides=overrides)


def _join(
    truth: Records[BoundaryTruth], predictions: Records[Prediction], options: Options
) -> _Joined:
    taxonomy = load_components()
    background = taxonomy.known - set(taxonomy.targets)
    by_id = {row.sample_id: row.label_scores for row in predictions}
    rows = list(truth)
    labels = [row.label_set for row in rows]
    scores = [by_id.get(row.sample_id) for row in rows]
    named = {label for each in (*labels, *(s or {} for s in scores)) for label in each}
    classes = tuple(label for label in taxonomy.targets if label in named)
    classes += tuple(sorted(named - set(taxonomy.targets) - background))
    counts = cl.clip_counts(
        cl.label_matrix(labels, classes),
        cl.decide(
            cl.score_matrix(scores, classes), threshold=options.threshold, top_k=options.top_k
        ),
        weights=[row.weight for row in rows],
        annotated=cl.annotated_matrix([row.annotated_labels for row in rows], classes),
    )
    ids = {row.sample_id for row in rows}
    return _Joined(
        rows=rows,
        classes=classes,
        counts=counts,
        missing=[row.sample_id for row in rows if row.sample_id not in by_id],
        surplus=len(by_id.keys() - ids),
        background={
            label: count
            for label in sorted(background)
            if (count := sum(label in each for each in labels))
        },
    )


def _interval(joined: _Joined, options: Options) -> boundary.RecallInterval:
    sessions = [row.session_id for row in joined.rows]
    without = sum(session is None for session in sessions)
    if without:
        return boundary.RecallInterval(
            lower=None,
            upper=None,
            confidence=options.confidence,
            n_sessions=len(set(sessions) - {None}),
            iterations=options.iterations,
            reason=f"{without} rows have no session_id",
        )
    # sorted names: the draw then does not depend on the order of the file
    _, index = np.unique(np.array(sessions, dtype=str), return_inverse=True)
    return boundary.session_interval(
        joined.counts,
        index,
        iterations=options.iterations,
        confidence=options.confidence,
        seed=options.seed,
    )


def _verdicts(
    thresholds: Mapping[str, Threshold],
    figures: boundary.BoundaryFigures,
    interval: boundary.RecallInterval,
    options: Options,
) -> list[Verdict]:
    summary = figures.summary
    value = summary.macro.recall
    present = len(summary.per_class) - len(summary.classes_without_reference)
    detail = _weakest(summary)
    if value is None:
        detail = "there is no reference event of any class"
    elif present < options.min_classes:
        value = None
        detail = (
            f"reference events of {present} class only; a macro recall needs "
            f"{options.min_classes} (--min-classes)"
        )
    bounds = None
    if interval.lower is not None and interval.upper is not None:
        bounds = Interval(
            lower=interval.lower, upper=interval.upper, confidence=interval.confidence
        )
    measured = {
        "min_macro_recall": Measurement(
            name="min_macro_recall", value=value, n=summary.n_clips, ci=bounds, detail=detail
        )
    }
    unmeasured = "boundary-eval has no figure of this name"
    return [
        judge(
            measured.get(name) or Measurement(name=name, value=None, detail=unmeasured), threshold
        )
        for name, threshold in thresholds.items()
    ]


def _weakest(summary: cl.Summary) -> str:
    """Name the classes that pull the macro recall down."""
    found = [c for c in summary.per_class if c.recall is not None and c.recall < 1]
    found.sort(key=lambda c: (c.recall or 0.0, c.label))
    named = [f"{c.label} {c.recall:.3f} ({c.tp:g} of {c.n_ref:g})" for c in found[:3]]
    return f"lowest recall: {', '.join(named)}" if named else ""


def _metrics(
    figures: boundary.BoundaryFigures, interval: boundary.RecallInterval, joined: _Joined
) -> dict[str, Any]:
    events = {row.event_id for row in joined.rows if row.event_id is not None}
    return {
        **figures.summary.as_metrics(),
        "n_events": len(events) if events else None,
        "macro_recall_interval": asdict(interval),
        "per_edge": {
            part.edge: {
                **part.summary.as_metrics(),
                "by_distance": _distances(part.by_distance),
            }
            for part in figures.per_edge
        },
        "by_distance": _distances(figures.by_distance),
        "missing_predictions": joined.missing[:LISTED],
        "missing_predictions_total": len(joined.missing),
        "surplus_predictions_total": joined.surplus,
        "background_labels_left_out": joined.background,
    }


def _distances(bins: Sequence[boundary.DistanceFigures]) -> list[dict[str, Any]]:
    return [
        {
            "lower_ms": each.lower_ms,
            "upper_ms": each.upper_ms,
            "n_clips": each.summary.n_clips,
            "macro": each.summary.macro.as_metrics(),
            "micro": each.summary.micro.as_metrics(),
        }
        for each in bins
    ]


def _warnings(
    figures: boundary.BoundaryFigures, interval: boundary.RecallInterval, joined: _Joined
) -> list[str]:
    warnings = []
    total = len(joined.rows)
    if joined.missing:
        shown = ", ".join(joined.missing[:3]) + (" …" if len(joined.missing) > 3 else "")
        warnings.append(
            f"{len(joined.missing)} of {total} rows have no prediction and count as misses: {shown}"
        )
    if joined.surplus:
        warnings.append(f"{joined.surplus} predictions are of no row of the pack; left out")
    for label, count in joined.background.items():
        warnings.append(f"{label} ({count} rows) is no class of a model; left out of the figures")
    if absent := figures.summary.classes_without_reference:
        warnings.append(f"no reference event, not in the macro average: {', '.join(absent)}")
    without_edge = sum(row.edge is None for row in joined.rows)
    if without_edge:
        warnings.append(
            f"{without_edge} of {total} rows name no edge and are in no per-edge figure"
        )
    if interval.reason:
        warnings.append(f"no interval for the macro recall: {interval.reason}")
    elif interval.n_sessions < FEW_SESSIONS:
        warnings.append(
            f"the interval rests on {interval.n_sessions} sessions; it is too narrow below "
            f"{FEW_SESSIONS}"
        )
    if interval.resamples_without_a_class:
        warnings.append(
            f"{interval.resamples_without_a_class} of {interval.iterations} resamples miss a class"
        )
    return warnings
