"""What validation scores are worth beside F1: average precision, top-k hits, calibration error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.metrics.calibration import Scored, measure

__all__ = ["TOP_K", "average_precisions", "calibration_error", "score_figures", "top_k_hits"]

TOP_K: Final = (1, 3)


def score_figures(
    logits: NDArray[Any],
    labels: NDArray[Any],
    annotated: NDArray[Any],
    names: Sequence[str],
    *,
    task: str = "multilabel",
) -> tuple[dict[str, float], dict[str, float]]:
    """Return figures by name, and the average precision of each class where it is defined.

    The figures are ``map`` (the mean over the classes), ``ece`` and ``top_1``, ``top_3``. All
    arrays have shape (n, n_classes). A figure that is not defined is left out; with logits that are
    not finite, all of them are.
    """
    z = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(z).all():
        return {}, {}
    truth, known = np.asarray(labels) > 0.5, np.asarray(annotated) > 0.5
    precisions = average_precisions(z, truth, known, names)
    figures: dict[str, float | None] = {
        "map": float(np.mean(list(precisions.values()))) if precisions else None,
        "ece": calibration_error(z, truth, known, names, task=task),
    }
    figures |= {f"top_{k}": top_k_hits(z, truth, known, k) for k in TOP_K if k < len(names)}
    return {name: value for name, value in figures.items() if value is not None}, precisions


def average_precisions(
    scores: NDArray[Any], truth: NDArray[Any], known: NDArray[Any], names: Sequence[str]
) -> dict[str, float]:
    """Return the step-wise average precision of each class, over the clips that annotate it.

    Classes without an event are left out, and so are those without a clip that lacks it, where any
    order of the clips would score 1.
    """
    from sklearn.metrics import average_precision_score

    found = {}
    for column, name in enumerate(names):
        rows = known[:, column]
        there = truth[rows, column]
        if there.any() and not there.all():
            found[name] = float(average_precision_score(there, scores[rows, column]))
    return found


def top_k_hits(
    scores: NDArray[Any], truth: NDArray[Any], known: NDArray[Any], k: int
) -> float | None:
    """Return the share of clips, of those with a label, of which one is among the k best scored.

    With one label a clip this is top-k accuracy. Classes that a clip does not annotate take no
    part; None without a clip that has a label.
    """
    there = truth & known
    some = there.any(axis=1)
    if not some.any():
        return None
    best = np.argsort(np.where(known, -scores, np.inf)[some], axis=1, kind="stable")[:, :k]
    return float(np.take_along_axis(there[some], best, axis=1).any(axis=1).mean())


def calibration_error(
    logits: NDArray[Any],
    truth: NDArray[Any],
    known: NDArray[Any],
    names: Sequence[str],
    *,
    task: str = "multilabel",
) -> float | None:
    """Return the expected calibration error of the probabilities; None without a known cell."""
    if task == "multiclass":
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability = shifted / shifted.sum(axis=1, keepdims=True)
    else:
        probability = 0.5 * (1.0 + np.tanh(0.5 * logits))
    return measure(
        Scored(
            labels=tuple(names),
            scores=probability,
            truth=truth,
            annotated=known,
            weight=np.ones(len(truth)),
        )
    ).ece
