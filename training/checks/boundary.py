"""The boundary check: how many events near window seams are still found, and is that enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from training.checks import boundary_parity
from training.checks.boundary_input import (
    BoundaryTruth,
    Joined,
    Rule,
    join,
    load_rule,
    session_numbers,
)
from training.checks.sureness import unsure_passes
from training.errors import DrumgateError
from training.gates import (
    GatesSource,
    Interval,
    Measurement,
    Report,
    judge,
    load_thresholds,
    nearest,
)
from training.gates.model import Threshold, Verdict
from training.manifest import Prediction, Records, read_records, reject_duplicates
from training.metrics import boundary
from training.metrics import classification as cl
from training.metrics.confusion import said_instead

LISTED = 1000
"""How many sample_ids a report lists; the totals are always whole."""
FEW_SESSIONS = 8
"""Below it the intervals are too narrow, in simulation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the boundary check reads, how it decides and how it judges."""

    ground_truth: Path
    predictions: Path
    reference_predictions: Path | None = None
    """The same model on the whole recordings, by `event_id`."""
    threshold: float = 0.5
    thresholds: Path | None = None
    """A JSON object of a threshold a label; `threshold` is left for the others."""
    calibration: Path | None = None
    top_k: int | None = None
    distance_bins_ms: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0)
    min_macro_recall: float | None = None
    gate_values: Mapping[str, float] = field(default_factory=dict)
    """Gate values by name, as given by `--gate`; `min_macro_recall` goes before them."""
    min_macro_precision: float | None = None
    min_classes: int = 2
    min_events: int = 20
    """With fewer events that hold a class no gate is measured."""
    iterations: int = 1000
    confidence: float = 0.95
    seed: int = 0
    gates: GatesSource | None = None


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
    rule = load_rule(
        threshold=options.threshold,
        top_k=options.top_k,
        thresholds=options.thresholds,
        calibration=options.calibration,
    )
    truth = read_records(options.ground_truth, BoundaryTruth)
    predictions = read_records(options.predictions, Prediction)
    whole = [
        read_records(path, Prediction)
        for path in (options.reference_predictions,)
        if path is not None
    ]
    reject_duplicates(truth)
    for records in (predictions, *whole):
        reject_duplicates(records)
    joined = join(truth, predictions, rule, *whole)
    figures = boundary.boundary_figures(
        joined.counts,
        joined.classes,
        edges=joined.edges,
        distances_ms=joined.distances_ms,
        bins_ms=bins,
    )
    interval = _interval(joined, options)
    parity = _parity(truth, joined, predictions, whole, rule, options)
    measured = {
        "min_macro_recall": _recall(figures, interval, joined, options),
        "min_macro_precision": _precision(figures, joined, options),
    }
    if parity is not None:
        measured[boundary_parity.GATE] = parity.measurement
    verdicts = _verdicts(thresholds, measured)
    return Report(
        tool="boundary-eval",
        inputs=[truth.source, predictions.source, *(each.source for each in whole), *rule.sources],
        parameters=asdict(options),
        metrics={
            **_metrics(figures, interval, joined),
            **({} if parity is None else {"parity": parity.metrics}),
        },
        verdicts=verdicts,
        warnings=[
            *_warnings(figures, interval, joined),
            *unsure_passes(verdicts),
            *rule.warnings(joined.classes),
            *([] if parity is None else parity.warnings),
        ],
        seed=options.seed,
    )


def _parity(
    truth: Records[BoundaryTruth],
    joined: Joined,
    predictions: Records[Prediction],
    whole: Sequence[Records[Prediction]],
    rule: Rule,
    options: Options,
) -> boundary_parity.Parity | None:
    if not whole:
        return None
    settings = boundary_parity.Settings(
        bins_ms=options.distance_bins_ms,
        min_classes=options.min_classes,
        iterations=options.iterations,
        confidence=options.confidence,
        seed=options.seed,
    )
    return boundary_parity.compare(truth, joined, predictions, whole[0], rule, settings)


def _thresholds(options: Options) -> dict[str, Threshold]:
    known = load_thresholds("boundary")
    for name in options.gate_values:
        if name not in known:
            raise DrumgateError(f"--gate {name}: is not a known gate{nearest(name, known)}")
    overrides: dict[str, float | None] = dict(options.gate_values)
    for name in ("min_macro_recall", "min_macro_precision"):
        if (value := getattr(options, name)) is not None:
            overrides[name] = value
    judged = load_thresholds("boundary", overlay=options.gates, overrides=overrides)
    name = boundary_parity.GATE
    if options.reference_predictions is None and judged[name] == known[name]:
        # nobody asked for parity; where somebody did, it is not measured and blocks
        del judged[name]
    return judged


def _interval(joined: Joined, options: Options) -> boundary.RecallInterval:
    index, n_sessions, reason = session_numbers(joined.rows)
    if index is None:
        return boundary.no_interval(
            reason,
            confidence=options.confidence,
            n_sessions=n_sessions,
            iterations=options.iterations,
        )
    return boundary.session_interval(
        joined.counts,
        index,
        iterations=options.iterations,
        confidence=options.confidence,
        seed=options.seed,
    )


def _recall(
    figures: boundary.BoundaryFigures,
    interval: boundary.RecallInterval,
    joined: Joined,
    options: Options,
) -> Measurement:
    summary = figures.summary
    missing = _unmeasurable(summary, joined, options)
    bounds = None
    if not missing and interval.lower is not None and interval.upper is not None:
        bounds = Interval(
            lower=interval.lower, upper=interval.upper, confidence=interval.confidence
        )
    return Measurement(
        name="min_macro_recall",
        value=None if missing else summary.macro.recall,
        n=summary.n_clips,
        ci=bounds,
        detail=missing or _weakest(summary),
    )


def _precision(figures: boundary.BoundaryFigures, joined: Joined, options: Options) -> Measurement:
    """The macro precision: a model that says everything misses nothing."""
    summary = figures.summary
    missing = _unmeasurable(summary, joined, options)
    if not missing and not _counted(joined, ~joined.reference).any():
        missing = "no row lacks a class that it annotates: a false alarm could not show"
    return Measurement(
        name="min_macro_precision",
        value=None if missing else summary.macro.precision,
        n=summary.n_clips,
        detail=missing,
    )


def _unmeasurable(summary: cl.Summary, joined: Joined, options: Options) -> str:
    """Say why the pack says too little for any gate; empty where it says enough."""
    present = len(summary.per_class) - len(summary.classes_without_reference)
    if summary.macro.recall is None:
        return "there is no reference event of any class"
    if present < options.min_classes:
        return (
            f"reference events of {present} class only; a macro recall needs "
            f"{options.min_classes} (--min-classes)"
        )
    holds: cl.BoolArray = np.any(_counted(joined, joined.reference), axis=1)
    n_events = len(
        {
            row.event_id or row.sample_id
            for row, kept in zip(joined.rows, holds, strict=True)
            if kept
        }
    )
    if n_events < options.min_events:
        return (
            f"{n_events} event{'' if n_events == 1 else 's'} that hold a class; a gate needs "
            f"{options.min_events} (--min-events)"
        )
    return ""


def _counted(joined: Joined, cells: cl.BoolArray) -> cl.BoolArray:
    """Those of some cells that count: annotated, and of a row with a weight."""
    return np.asarray(cells & joined.annotated & (joined.weights > 0)[:, None])


def _verdicts(
    thresholds: Mapping[str, Threshold], measured: Mapping[str, Measurement]
) -> list[Verdict]:
    unmeasured = {boundary_parity.GATE: "parity needs --reference-predictions"}
    return [
        judge(
            measured.get(name)
            or Measurement(
                name=name,
                value=None,
                detail=unmeasured.get(name, "boundary-eval has no figure of this name"),
            ),
            threshold,
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
    figures: boundary.BoundaryFigures, interval: boundary.RecallInterval, joined: Joined
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
        "said_instead": said_instead(
            joined.reference, joined.predicted, joined.annotated, joined.classes
        ).as_metrics(),
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
            "per_class": {entry.label: entry.as_metrics() for entry in each.summary.per_class},
        }
        for each in bins
    ]


def _warnings(
    figures: boundary.BoundaryFigures, interval: boundary.RecallInterval, joined: Joined
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
    alarms = _counted(joined, joined.predicted & ~joined.reference).sum(axis=0)
    unseen = [
        f"{label} ({alarms[column]})"
        for column, label in enumerate(joined.classes)
        if alarms[column] and label in figures.summary.classes_without_reference
    ]
    if unseen:
        warnings.append(
            "predicted without any reference event, which the macro figures leave out: "
            + ", ".join(unseen)
        )
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
    if interval.resamples_without_a_class and not interval.reason:
        warnings.append(
            f"{interval.resamples_without_a_class} of {interval.iterations} resamples miss a class"
        )
    return warnings
