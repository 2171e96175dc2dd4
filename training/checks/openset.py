"""The open-set check: join truth and predictions, measure the separation, judge it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import InputError, Problem
from training.gates import Measurement, Report, judge, load_thresholds
from training.manifest import GroundTruth, Prediction, Records, read_records, reject_duplicates
from training.metrics import openset

CURVE_POINTS = 200
HISTOGRAM_BINS = 40


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the open-set check reads and how it judges."""

    ground_truth: Path
    predictions: Path
    min_auroc: float | None = None
    max_fpr_at_95tpr: float | None = None
    gates: Path | None = None


@dataclass(frozen=True, slots=True)
class _Joined:
    scores: openset.Floats
    is_unknown: openset.Bools
    groups: list[str]
    missing: list[str]


def run(options: Options) -> Report:
    """Measure and judge how well `unknown_score` tells unknown sounds from known ones.

    An example without a prediction cannot be ranked: the gates are then not measured, since a model
    may not choose which examples it is judged on.

    Raises:
        InputError: an input is missing or malformed, `is_known` is absent from a truth record,
            `unknown_score` from a prediction, or a `sample_id` stands twice.
    """
    truth = read_records(options.ground_truth, GroundTruth)
    predictions = read_records(options.predictions, Prediction)
    reject_duplicates(truth)
    reject_duplicates(predictions)
    _require(truth, "is_known", "true or false, in the ground truth of an open-set pack")
    _require(predictions, "unknown_score", "higher = more unknown, as predict.py writes it")
    joined = _join(truth, predictions)
    figures = openset.measure(joined.scores, joined.is_unknown)
    thresholds = load_thresholds(
        "openset",
        overlay=options.gates,
        overrides={
            "min_auroc": options.min_auroc,
            "max_fpr_at_95tpr": options.max_fpr_at_95tpr,
        },
    )
    missing = len(joined.missing)
    reason = f"{missing} examples have no prediction" if missing else figures.reason
    measured = {
        "min_auroc": figures.auroc,
        "max_fpr_at_95tpr": figures.fpr_at_95tpr,
    }
    verdicts = [
        judge(
            Measurement(
                name=gate,
                value=None if missing else value,
                n=figures.n_known + figures.n_unknown,
                detail=reason,
            ),
            thresholds[gate],
        )
        for gate, value in measured.items()
    ]
    return Report(
        tool="openset-eval",
        inputs=[truth.source, predictions.source],
        parameters=asdict(options),
        metrics=_metrics(figures, joined),
        verdicts=verdicts,
        warnings=_warnings(truth, predictions, joined),
    )


def _require(records: Records[Any], field: str, hint: str) -> None:
    problems = [
        Problem(records.source.path, f"is required ({hint})", line, field)
        for line, row in zip(records.lines, records.rows, strict=True)
        if getattr(row, field) is None
    ]
    if problems:
        raise InputError(problems)


def _join(truth: Records[GroundTruth], predictions: Records[Prediction]) -> _Joined:
    by_id = {row.sample_id: row.unknown_score for row in predictions}
    ranked = [row for row in truth if row.sample_id in by_id]
    return _Joined(
        scores=np.array([by_id[row.sample_id] for row in ranked], dtype=np.float64),
        is_unknown=np.array([not row.is_known for row in ranked], dtype=bool),
        groups=[row.unknown_group or "ungrouped" for row in ranked],
        missing=[row.sample_id for row in truth if row.sample_id not in by_id],
    )


def _metrics(figures: openset.OpenSetFigures, joined: _Joined) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "positive_class": "unknown",
        **{name: value for name, value in asdict(figures).items() if name != "reason"},
        "per_unknown_group": _per_group(joined),
        "missing_predictions": joined.missing[:20],
        "missing_predictions_total": len(joined.missing),
    }
    if figures.auroc is not None:
        metrics["roc"] = _curve(openset.roc_curve(joined.scores, joined.is_unknown))
        metrics["score_histogram"] = _histogram(joined)
    return metrics


def _per_group(joined: _Joined) -> dict[str, dict[str, Any]]:
    """Each group of unknown sounds against all known ones."""
    groups = np.array(joined.groups, dtype=object)
    names = Counter(groups[joined.is_unknown])
    table = {}
    for name in sorted(names):
        rows = ~joined.is_unknown | (groups == name)
        figures = openset.measure(joined.scores[rows], joined.is_unknown[rows])
        table[name] = {
            "n": names[name],
            "auroc": figures.auroc,
            "fpr_at_95tpr": figures.fpr_at_95tpr,
        }
    return table


def _curve(curve: openset.RocCurve) -> dict[str, list[float]]:
    """The curve, thinned evenly to what a page can show."""
    count = min(CURVE_POINTS, curve.fpr.size)
    keep = np.unique(np.linspace(0, curve.fpr.size - 1, count).round().astype(int))
    return {"fpr": curve.fpr[keep].tolist(), "tpr": curve.tpr[keep].tolist()}


def _histogram(joined: _Joined) -> dict[str, list[float]]:
    edges = np.histogram_bin_edges(joined.scores, bins=HISTOGRAM_BINS)
    known, _ = np.histogram(joined.scores[~joined.is_unknown], edges)
    unknown, _ = np.histogram(joined.scores[joined.is_unknown], edges)
    return {"edges": edges.tolist(), "known": known.tolist(), "unknown": unknown.tolist()}


def _warnings(
    truth: Records[GroundTruth], predictions: Records[Prediction], joined: _Joined
) -> list[str]:
    warnings = []
    if joined.missing:
        warnings.append(f"{len(joined.missing)} of {len(truth)} examples have no prediction")
    surplus = len({row.sample_id for row in predictions} - {row.sample_id for row in truth})
    if surplus:
        warnings.append(f"{surplus} predictions are of no example in the ground truth; left out")
    return warnings
