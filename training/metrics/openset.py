"""Open-set recognition: does the unknown score set sounds of no known class apart from known ones?

Task. Every example is known (of a class that the model was trained on) or unknown, and carries an
unknown score, higher = more unknown. **Unknown is the positive class**; figures with known as the
positive class are named so (`aupr_in`).

Figures. AUROC: the chance that an unknown outranks a known example, ties counting half. AUPR-out
and AUPR-in: step-wise average precision with unknown and known as the positive class. FPR@95TPR:
the share of known examples rejected at the highest threshold that rejects at least 95 % of the
unknown ones, with no interpolation between operating points.

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
    threshold_at_95tpr: float | None
    n_known: int
    n_unknown: int
    reason: str = ""


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
        return OpenSetFigures(
            auroc=None,
            aupr_out=None,
            aupr_in=None,
            fpr_at_95tpr=None,
            threshold_at_95tpr=None,
            n_known=n_known,
            n_unknown=n_unknown,
            reason=reason,
        )
    curve = roc_curve(scores, is_unknown)
    point = int(np.argmax(curve.tpr >= tpr_floor))
    return OpenSetFigures(
        auroc=float(np.trapezoid(curve.tpr, curve.fpr)),
        aupr_out=average_precision(scores, is_unknown),
        aupr_in=average_precision(-scores, ~is_unknown),
        fpr_at_95tpr=float(curve.fpr[point]),
        threshold_at_95tpr=float(curve.threshold[point]),
        n_known=n_known,
        n_unknown=n_unknown,
    )


def roc_curve(scores: Floats, is_unknown: Bools) -> RocCurve:
    """Return the ROC curve; equal scores share one operating point.

    Raises:
        ValueError: one of the two classes is missing (the rates would be undefined).
    """
    threshold, true_positives, false_positives = _counts_by_threshold(scores, is_unknown)
    if not true_positives[-1] or not false_positives[-1]:
        raise ValueError("a ROC curve needs known and unknown examples")
    return RocCurve(
        fpr=np.concatenate([[0.0], false_positives / false_positives[-1]]),
        tpr=np.concatenate([[0.0], true_positives / true_positives[-1]]),
        threshold=np.concatenate([[np.inf], threshold]),
    )


def average_precision(scores: Floats, is_positive: Bools) -> float:
    """Return the step-wise average precision: precision weighted by the recall gained at each step.

    Raises:
        ValueError: there is no positive example.
    """
    _, true_positives, false_positives = _counts_by_threshold(scores, is_positive)
    if not true_positives[-1]:
        raise ValueError("average precision needs a positive example")
    precision = true_positives / (true_positives + false_positives)
    gained = np.diff(true_positives, prepend=0) / true_positives[-1]
    return float(precision @ gained)


def _counts_by_threshold(scores: Floats, is_positive: Bools) -> tuple[Floats, Floats, Floats]:
    """Count true and false positives at every distinct score, from the highest score down."""
    order = np.argsort(-scores, kind="stable")
    ranked, positive = scores[order], is_positive[order]
    last_of_tie = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
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
