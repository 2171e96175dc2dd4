"""Calibration error and Brier score as sums over sessions, overall, per class, per dynamic bucket.

Task:
    Is a score of 0.8 right eight times in ten? One row of sums per cluster serves any number of
    resamples, as in `training.metrics.scores`.

Conventions:
    - ``ece``: expected calibration error over all annotated cells pooled,
      sum over 15 equal bins of |sum(score - truth)| / n. ``ece_classwise``: the mean of the
      per-class values over the classes with reference events.
    - ``brier``: mean of (score - truth)² over annotated cells. ``ece_ghost``, ``brier_ghost`` and
      so on: the same over the clips of one dynamic bucket.

Empty input:
    NaN, also for a dynamic bucket without clips.

Sources:
    Naeini, Cooper, Hauskrecht (2015), "Obtaining well calibrated probabilities using Bayesian
    binning" (ECE); Brier (1950). Checked against scikit-learn and a plain loop.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.metrics.classification import FloatArray
from training.metrics.scores import (
    BUCKETS,
    CALIBRATION_BINS,
    AdditiveScores,
    Clips,
    Figures,
    IndexArray,
    mean_where,
    ratio,
)

BUCKET_METRICS: Final = tuple(f"{name}_{bucket}" for name in ("ece", "brier") for bucket in BUCKETS)
_DENSE_CELLS: Final = 2_000_000


def calibration_scores(clips: Clips, cluster: IndexArray, n_clusters: int) -> AdditiveScores:
    """Prepare the expected calibration error and the Brier score, overall and per class."""
    n_classes, bins = len(clips.labels), CALIBRATION_BINS
    width = n_classes * (bins + 3)
    weight = np.where(clips.annotated, clips.weight[:, None], 0.0)
    gap = clips.scores - clips.truth
    column = np.arange(n_classes)
    parts = (
        (column * bins + np.minimum((clips.scores * bins).astype(np.intp), bins - 1), weight * gap),
        (n_classes * bins + column, weight * gap**2),
        (n_classes * (bins + 1) + column, weight),
        (n_classes * (bins + 2) + column, weight * clips.truth),
    )
    table = _table(parts, cluster, n_clusters, width)

    def finish(totals: FloatArray) -> Figures:
        gaps, errors, cells, n_ref = np.split(
            totals, [n_classes * bins, n_classes * (bins + 1), n_classes * (bins + 2)], axis=1
        )
        gaps = gaps.reshape(-1, n_classes, bins)
        n_cells = cells.sum(axis=1)
        ece = ratio(np.abs(gaps).sum(axis=2), cells)
        return Figures(
            overall={
                "ece": ratio(np.abs(gaps.sum(axis=1)).sum(axis=1), n_cells),
                "ece_classwise": mean_where(ece, n_ref > 0),
                "brier": ratio(errors.sum(axis=1), n_cells),
            },
            per_class={"ece": ece, "brier": ratio(errors, cells)},
        )

    heard = np.bincount(cluster, weights=weight.sum(axis=1), minlength=n_clusters) > 0
    return AdditiveScores(sums=table, finish=finish, clusters=heard)


def bucket_scores(clips: Clips, cluster: IndexArray, n_clusters: int) -> AdditiveScores:
    """Prepare the expected calibration error and the Brier score of each dynamic bucket."""
    bins, n_buckets = CALIBRATION_BINS, len(BUCKETS)
    width = bins + 2
    some = np.flatnonzero(clips.bucket >= 0)
    scores = clips.scores[some]
    weight = np.where(clips.annotated[some], clips.weight[some, None], 0.0)
    gap = scores - clips.truth[some]
    base = clips.bucket[some, None] * width
    cell = np.minimum((scores * bins).astype(np.intp), bins - 1)
    one = np.zeros_like(cell)
    parts = (
        (base + cell, weight * gap),
        (base + one + bins, weight * gap**2),
        (base + one + bins + 1, weight),
    )
    table = _table(parts, cluster[some], n_clusters, n_buckets * width)

    def finish(totals: FloatArray) -> Figures:
        each = totals.reshape(-1, n_buckets, width)
        ece = ratio(np.abs(each[:, :, :bins]).sum(axis=2), each[:, :, bins + 1])
        brier = ratio(each[:, :, bins], each[:, :, bins + 1])
        columns = dict(zip(BUCKET_METRICS, (*ece.T, *brier.T), strict=True))
        return Figures(overall=columns)

    heard = np.bincount(cluster[some], weights=weight.sum(axis=1), minlength=n_clusters) > 0
    return AdditiveScores(sums=table, finish=finish, clusters=heard)


def _table(
    parts: Iterable[tuple[NDArray[np.intp], FloatArray]],
    cluster: IndexArray,
    n_clusters: int,
    width: int,
) -> FloatArray | sparse.csr_array:
    """Add values up by cluster and place, in a sparse table where a full one would be large.

    Each part has the place of every value, ``0 .. width - 1``, and the values
    [shape=(n_clips, n_columns)]; places may be one row for all clips.
    """
    if n_clusters * width <= _DENSE_CELLS:
        sums = np.zeros(n_clusters * width)
        for place, value in parts:
            cells = (cluster[:, None] * width + place).ravel()
            sums += np.bincount(cells, weights=value.ravel(), minlength=len(sums))
        return sums.reshape(n_clusters, width)
    rows, columns, values = [], [], []
    for place, value in parts:
        rows.append(np.broadcast_to(cluster[:, None], value.shape).ravel())
        columns.append(np.broadcast_to(place, value.shape).ravel())
        values.append(value.ravel())
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.coo_array(entries, shape=(n_clusters, width)).tocsr()
