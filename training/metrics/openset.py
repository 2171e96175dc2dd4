"""Open-set recognition: does the unknown score set sounds of no known class apart from known ones?

Task. Every example is known (of a class that the model was trained on) or unknown, and carries an
unknown score, higher = more unknown. **Unknown is the positive class**; figures with known as the
positive class are named so (`aupr_in`).

Figures. AUROC: the chance that an unknown outranks a known example, ties counting half; the same
whichever class is positive. AUPR-out and AUPR-in: step-wise average precision with unknown and
known as the positive class. FPR@95TPR: the share of known examples rejected at the highest
threshold that rejects at least 95 % of the unknown ones, with no interpolation between operating
points; TNR is 1 - FPR. With known as the positive class, which much of the literature takes, it is
the share of unknown examples let through at the lowest threshold that lets through at least 95 %
of the known ones; that figure is named `..._known_positive`.

Empty or one-sided input has no such figures: `measure` then returns None for them and says why.

References: Hendrycks & Gimpel 2017 (AUROC, AUPR, the baseline score); Fawcett 2006 (ROC with ties).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class RocCurve:
    """Operating points from the strictest threshold (reject nothing) to the loosest (reject all).

    `fpr` and `tpr` have one point per distinct score and one before them, shape (n_points,);
    an example is rejected when its score is at least `threshold`. The first threshold is infinite.
    """

    fpr: Floats
    tpr: Floats
    threshold: Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSetFigures:
    """The figures of one set of examples; None where one cannot be measured (see `reason`)."""

    auroc: float | None
    aupr_out: float | None
    aupr_in: float | None
    fpr_at_95tpr: float | None
    tnr_at_95tpr: float | None
    threshold_at_95tpr: float | None
    """Reject where the score is at least this."""
    fpr_at_95tpr_known_positive: float | None
    tnr_at_95tpr_known_positive: float | None
    threshold_at_95tpr_known_positive: float | None
    """Let through where the score is at most this."""
    n_known: int
    n_unknown: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionRecall:
    """Precision and recall at each distinct score, from the likeliest positive on, shape (n,)."""

    recall: Floats
    precision: Floats


def not_measured(n_known: int, n_unknown: int, reason: str) -> OpenSetFigures:
    """Return figures that could not be had, and why."""
    return OpenSetFigures(
        auroc=None,
        aupr_out=None,
        aupr_in=None,
        fpr_at_95tpr=None,
        tnr_at_95tpr=None,
        threshold_at_95tpr=None,
        fpr_at_95tpr_known_positive=None,
        tnr_at_95tpr_known_positive=None,
        threshold_at_95tpr_known_positive=None,
        n_known=n_known,
        n_unknown=n_unknown,
        reason=reason,
    )


def measure(scores: Floats, is_unknown: Bools, *, tpr_floor: float = 0.95) -> OpenSetFigures:
    """Measure how well a score separates unknown from known examples.

    Args:
        scores: unknown scores, higher = more unknown, shape (n,).
        is_unknown: the truth, shape (n,).
        tpr_floor: the share of unknown examples to reject for FPR@TPR.

    Raises:
        ValueError: the shapes differ, or a score is not finite.
    """
    scores, is_unknown = _checked(scores, is_unknown)
    n_unknown = int(is_unknown.sum())
    n_known = is_unknown.size - n_unknown
    if not n_unknown or not n_known:
        missing = "unknown" if not n_unknown else "known"
        reason = "there is no example" if not is_unknown.size else f"there is no {missing} example"
        return not_measured(n_known, n_unknown, reason)
    curve = roc_curve(scores, is_unknown)
    threshold, fpr = _at_tpr(curve, tpr_floor)
    mirrored, fpr_known = _at_tpr(roc_curve(-scores, ~is_unknown), tpr_floor)
    return OpenSetFigures(
        auroc=_auroc(scores, is_unknown),
        aupr_out=average_precision(scores, is_unknown),
        aupr_in=average_precision(-scores, ~is_unknown),
        fpr_at_95tpr=fpr,
        tnr_at_95tpr=1.0 - fpr,
        threshold_at_95tpr=threshold,
        fpr_at_95tpr_known_positive=fpr_known,
        tnr_at_95tpr_known_positive=1.0 - fpr_known,
        threshold_at_95tpr_known_positive=0.0 - mirrored,
        n_known=n_known,
        n_unknown=n_unknown,
    )


def threshold_at(scores: Floats, is_unknown: Bools, tpr: float) -> float:
    """Return the highest threshold that rejects at least the share `tpr` of the unknown examples.

    An example is rejected where its score is at least the threshold.

    Raises:
        ValueError: there is no unknown example, or `tpr` is not in (0, 1].
    """
    if not 0.0 < tpr <= 1.0:
        raise ValueError(f"tpr must lie in (0, 1], got {tpr}")
    unknown = np.sort(scores[is_unknown])[::-1]
    if not unknown.size:
        raise ValueError("a threshold needs unknown examples")
    rejected = np.arange(1, unknown.size + 1) / unknown.size
    return float(unknown[np.argmax(rejected >= tpr)])


def roc_curve(scores: Floats, is_unknown: Bools) -> RocCurve:
    """Return the ROC curve; equal scores share one operating point.

    Raises:
        ValueError: one of the two classes is missing (the rates would be undefined).
    """
    if is_unknown.all() or not is_unknown.any():
        raise ValueError("a ROC curve needs known and unknown examples")
    threshold, true_positives, false_positives = _counts_by_threshold(scores, is_unknown)
    return RocCurve(
        fpr=np.concatenate([[0.0], false_positives / false_positives[-1]]),
        tpr=np.concatenate([[0.0], true_positives / true_positives[-1]]),
        threshold=np.concatenate([[np.inf], threshold]),
    )


def precision_recall_curve(scores: Floats, is_positive: Bools) -> PrecisionRecall:
    """Return the steps of which `average_precision` is the area.

    Raises:
        ValueError: there is no positive example.
    """
    if not is_positive.any():
        raise ValueError("average precision needs a positive example")
    _, true_positives, false_positives = _counts_by_threshold(scores, is_positive)
    return PrecisionRecall(
        recall=true_positives / true_positives[-1],
        precision=true_positives / (true_positives + false_positives),
    )


def average_precision(scores: Floats, is_positive: Bools) -> float:
    """Return the step-wise average precision: precision weighted by the recall gained at each step.

    Raises:
        ValueError: there is no positive example.
    """
    curve = precision_recall_curve(scores, is_positive)
    return float(curve.precision @ np.diff(curve.recall, prepend=0.0))


def _auroc(scores: Floats, is_unknown: Bools) -> float:
    """The area under the ROC curve from whole counts, so that a perfect one is exactly 1."""
    _, true_positives, false_positives = _counts_by_threshold(scores, is_unknown)
    before = np.concatenate([[0.0], true_positives[:-1]])
    pairs = (np.diff(false_positives, prepend=0.0) * (true_positives + before)).sum() / 2.0
    return float(pairs / (true_positives[-1] * false_positives[-1]))


def _at_tpr(curve: RocCurve, floor: float) -> tuple[float, float]:
    """Return threshold and FPR of the first operating point whose TPR reaches the floor."""
    point = int(np.argmax(curve.tpr >= floor))
    return float(curve.threshold[point]), float(curve.fpr[point])


def _counts_by_threshold(scores: Floats, is_positive: Bools) -> tuple[Floats, Floats, Floats]:
    """Count true and false positives at every distinct score, from the highest score down."""
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], is_positive[order]
    last_of_tie = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), ranked.size - 1)
    true_positives = np.cumsum(positive, dtype=np.float64)[last_of_tie]
    false_positives = last_of_tie + 1.0 - true_positives
    return ranked[last_of_tie], true_positives, false_positives


def _checked(scores: Floats, is_unknown: Bools) -> tuple[Floats, Bools]:
    scores = np.asarray(scores, dtype=np.float64)
    is_unknown = np.asarray(is_unknown, dtype=bool)
    if scores.shape != is_unknown.shape or scores.ndim != 1:
        raise ValueError(f"scores {scores.shape} and truth {is_unknown.shape} must be equal, 1-D")
    if not np.isfinite(scores).all():
        raise ValueError("every score must be finite")
    return scores, is_unknown
