"""How sure the figures of a model card are: the sessions of the validation set, drawn anew."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.dataset.store import StoreSplit
from training.metrics.bootstrap import bootstrap
from training.metrics.resampling import Resampling
from training.metrics.scores import Clips

__all__ = ["intervals"]

FIGURES: Final = ("macro_f1", "micro_f1")
PER_CLASS: Final = ("precision", "recall", "f1")


def intervals(
    split: StoreSplit,
    predicted: NDArray[np.bool_],
    scores: NDArray[Any],
    names: tuple[str, ...],
    *,
    seed: int,
    iterations: int = 1000,
) -> dict[str, Any]:
    """Return figures with their 95 % intervals over sessions, as plain values.

    Args:
        split: the clips that were judged; none of them gives an empty result.
        predicted: what the model says of them [shape=(n_clips, n_classes)].
        scores: how sure it is, in [0, 1] [shape=(n_clips, n_classes)].
        names: of the classes.
        seed: of the draws.
        iterations: draws.

    Each figure has ``point_estimate``, ``ci_lower``, ``ci_upper`` and ``n_clusters``; with fewer
    than five sessions there is no interval, and ``reason`` says so.
    """
    n = len(split.labels)
    if n == 0:
        return {}
    nothing = np.full(n, np.nan)
    clips = Clips(
        labels=names,
        truth=np.asarray(split.labels) > 0,
        scores=np.asarray(scores, dtype=np.float64),
        predicted=predicted,
        annotated=np.asarray(split.annotated) > 0,
        weight=np.ones(n),
        openness=nothing,
        openness_pred=nothing,
        velocity=nothing,
        velocity_pred=nothing,
    )
    _, cluster = np.unique(np.asarray(split.session_ids, dtype=np.str_), return_inverse=True)
    settings = Resampling(iterations=iterations, seed=seed)
    found = bootstrap(clips, cluster.astype(np.intp), settings=settings, metrics=FIGURES)
    return {
        "clusters": "sessions",
        "n_clusters": found.n_clusters,
        "iterations": iterations,
        "confidence": settings.confidence,
        "overall": {name: each.as_metrics() for name, each in found.overall.items()},
        "per_class": {
            label: {name: row[name].as_metrics() for name in PER_CLASS if name in row}
            for label, row in found.per_class.items()
        },
    }
