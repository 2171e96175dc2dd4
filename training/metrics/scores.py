"""The figures a model is judged by, as sums over sessions, ready to be resampled.

Task:
    A multi-label classifier scores every clip for every class; some clips also carry an openness
    and a velocity. Each figure here can be computed for any number of resamples at once from one
    row of sums per cluster (the sessions, usually): ``drawn @ sums``, where ``drawn`` says how
    often each cluster was drawn. `training.metrics.bootstrap` does the drawing.

Conventions:
    Arrays are ``(n_clips, n_classes)``. A clip's weight multiplies all it contributes. A cell
    whose label is not annotated in the clip's source is unknown and counts nowhere; a clip with
    no annotated label counts nowhere. Scores lie in [0, 1]. Undefined figures are NaN.

    - macro, micro, per class: see `training.metrics.classification`.
    - ``example_f1``: mean over clips of 2tp/(2tp+fp+fn); 1 where nothing is there and nothing was
      predicted (scikit-learn's ``average="samples", zero_division=1``).
    - ``subset_accuracy``: share of clips with every annotated label right.
    - ``hamming_loss``: share of annotated cells that are wrong.
    - ``lrap``: label ranking average precision; 1 for a clip where no label or every label is true.
    - ``coverage_error``: how far down the ranking one must go to cover all true labels; 0 for a
      clip without a true label. Tied labels take the worst rank, in both.
    - ``openness_mae``, ``openness_r2`` (1 - SSE/SST), ``velocity_mae``: over the clips that have
      both the reference and the prediction.

Empty input:
    Sums over no clips are zero, and every figure of them is NaN.

Sources:
    Tsoumakas, Katakis, Vlahavas (2010), "Mining multi-label data" (example F1, LRAP, coverage);
    Checked against scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.metrics.classification import (
    BoolArray,
    Counts,
    FloatArray,
    clip_counts,
    macro,
    micro,
    rates,
)

IndexArray = NDArray[np.intp]
DrawArray = NDArray[np.float32]
"""How often each cluster was drawn, whole numbers."""
CALIBRATION_BINS: Final = 15
BUCKETS: Final = ("ghost", "light", "medium", "accent")
"""Dynamic buckets, from soft to loud."""
N_ONSET_COUNTS: Final = 4
_CLIPS_PER_BLOCK: Final = 16_384
_EXACT_IN_FLOAT32: Final = 2**24


@dataclass(frozen=True, kw_only=True, slots=True)
class Clips:
    """Reference and predictions of a set of clips, row by row.

    `openness` and `velocity` and their predictions are NaN where a clip has none. `bucket` and
    `onsets` may be left away: no clip has any then.
    """

    labels: tuple[str, ...]
    """Class names, one a column."""
    truth: BoolArray
    """What is there [shape=(n_clips, n_classes)]."""
    scores: FloatArray
    """Scores in [0, 1] [shape=(n_clips, n_classes)]."""
    predicted: BoolArray
    """The decisions made from the scores [shape=(n_clips, n_classes)]."""
    annotated: BoolArray
    """False where the label is unknown for this clip [shape=(n_clips, n_classes)]."""
    weight: FloatArray
    """Finite, >= 0 [shape=(n_clips,)]."""
    openness: FloatArray
    openness_pred: FloatArray
    velocity: FloatArray
    velocity_pred: FloatArray
    bucket: IndexArray = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    """Index into `BUCKETS`, -1 where a clip has none [shape=(n_clips,)]."""
    onsets: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    """What `training.metrics.onsets.onset_counts` gives [shape=(n_clips, n_classes, 4)]."""

    def __post_init__(self) -> None:
        shape = self.truth.shape
        if not self.bucket.size:
            object.__setattr__(self, "bucket", np.full(shape[:1], -1, dtype=np.intp))
        if not self.onsets.size:
            nothing = np.broadcast_to(np.int32(0), (*shape, N_ONSET_COUNTS))
            object.__setattr__(self, "onsets", nothing)
        if len(shape) != 2 or shape[1] != len(self.labels):
            raise ValueError(f"truth {shape} must be (n_clips, {len(self.labels)})")
        for name in ("scores", "predicted", "annotated"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} {getattr(self, name).shape} must have shape {shape}")
        if self.onsets.shape != (*shape, N_ONSET_COUNTS):
            raise ValueError(f"onsets {self.onsets.shape} must have shape {(*shape, 4)}")
        columns = ("weight", "openness", "openness_pred", "velocity", "velocity_pred", "bucket")
        for name in columns:
            if getattr(self, name).shape != shape[:1]:
                raise ValueError(f"{name} {getattr(self, name).shape} must have shape {shape[:1]}")
        if not np.all(np.isfinite(self.scores)):
            raise ValueError("scores must be finite")

    def __len__(self) -> int:
        return len(self.weight)

    def rows(self, which: slice) -> Clips:
        """Return some of the clips."""
        arrays = {
            name: getattr(self, name)[which]
            for name in self.__dataclass_fields__
            if name != "labels"
        }
        return Clips(labels=self.labels, **arrays)


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """The values of some figures in each resample."""

    overall: Mapping[str, FloatArray]
    """Name -> values [shape=(n_resamples,)]."""
    per_class: Mapping[str, FloatArray] = field(default_factory=dict)
    """Name -> values [shape=(n_resamples, n_classes)]."""


class ClusterScores(Protocol):
    """A family of figures that knows its value for any resample of the clusters."""

    @property
    def clusters(self) -> BoolArray:
        """The clusters that contribute anything [shape=(n_clusters,)]."""
        ...

    def values(self, drawn: DrawArray) -> Figures:
        """Figures of resamples; `drawn` counts the draws [shape=(n_resamples, n_clusters)]."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class AdditiveScores:
    """Figures that are functions of sums over clusters."""

    sums: FloatArray | DrawArray | sparse.csr_array
    """One row of sums a cluster [shape=(n_clusters, n_sums)], as `compact` gives it."""
    finish: Callable[[FloatArray], Figures]
    """Turns summed rows [shape=(n_resamples, n_sums)] into figures."""
    clusters: BoolArray

    def values(self, drawn: DrawArray) -> Figures:
        """See `ClusterScores.values`."""
        if isinstance(self.sums, np.ndarray):
            return self.finish((drawn @ self.sums).astype(np.float64, copy=False))
        # Cluster by cluster: a row of draws is read once and added where it belongs.
        draws = np.ascontiguousarray(drawn.T, dtype=np.float64)
        return self.finish(np.ascontiguousarray((self.sums.T @ draws).T))

    def without(self, left_out: slice) -> Figures:
        """Figures with one cluster left out at a time, for each cluster of the slice."""
        total = self.sums.sum(axis=0, dtype=np.float64)
        rows = self.sums[left_out]
        rest = total - (rows if isinstance(rows, np.ndarray) else rows.toarray())
        # What should cancel to zero must not leave a denominator of 1e-17.
        return self.finish(np.where(np.abs(rest) <= 1e-12 * np.abs(total), 0.0, rest))


def compact(sums: FloatArray) -> FloatArray | DrawArray:
    """Sums as float32 where that adds them up without rounding, however clusters are drawn."""
    most = float(sums.max(initial=0.0)) * len(sums)
    exact = most < _EXACT_IN_FLOAT32 and sums.min(initial=0.0) >= 0 and whole(sums)
    return sums.astype(np.float32) if exact else sums


def whole(values: FloatArray) -> bool:
    """Say whether all of these are whole numbers."""
    return bool((values == np.trunc(values)).all())


def count_scores(clips: Clips, cluster: IndexArray, n_clusters: int) -> AdditiveScores:
    """Macro, micro and per-class precision, recall and F1, and the Hamming loss.

    A class without reference events in a resample is left out of that resample's macro mean.

    Args:
        clips: the clips.
        cluster: the cluster of each clip, ``0 .. n_clusters - 1`` [shape=(n_clips,)].
        n_clusters: number of clusters.
    """
    n_classes = len(clips.labels)
    counts = clip_counts(
        clips.truth, clips.predicted, weights=clips.weight, annotated=clips.annotated
    ).by_group(cluster, n_clusters)
    cells = (clips.annotated.sum(axis=1) * clips.weight)[:, None]
    sums = np.hstack([counts.tp, counts.fp, counts.fn, sum_clusters(cells, cluster, n_clusters)])

    def finish(totals: FloatArray) -> Figures:
        tp, fp, fn, n_cells = np.split(totals, [n_classes, 2 * n_classes, 3 * n_classes], axis=1)
        pooled = Counts(tp=tp, fp=fp, fn=fn)
        figures, macros, micros = rates(pooled), macro(pooled), micro(pooled)
        return Figures(
            overall={
                "macro_f1": macros.f1,
                "macro_precision": macros.precision,
                "macro_recall": macros.recall,
                "micro_f1": micros.f1,
                "micro_precision": micros.precision,
                "micro_recall": micros.recall,
                "hamming_loss": ratio((fp + fn).sum(axis=1), n_cells[:, 0]),
            },
            per_class={
                "f1": figures.f1,
                "precision": figures.precision,
                "recall": figures.recall,
            },
        )

    return AdditiveScores(sums=compact(sums), finish=finish, clusters=sums[:, -1] > 0)


def clip_scores(clips: Clips, cluster: IndexArray, n_clusters: int) -> AdditiveScores:
    """Means over clips: example F1, subset accuracy, LRAP and coverage error."""
    names = ("example_f1", "subset_accuracy", "lrap", "coverage_error")
    sums = np.zeros((n_clusters, len(names) + 1))
    for start in range(0, len(clips), _CLIPS_PER_BLOCK):
        rows = slice(start, start + _CLIPS_PER_BLOCK)
        block = clips.rows(rows)
        heard = np.where(block.annotated.any(axis=1), block.weight, 0.0)
        columns = np.column_stack([*_clip_figures(block), np.ones(len(block))]) * heard[:, None]
        sums += sum_clusters(columns, cluster[rows], n_clusters)

    def finish(totals: FloatArray) -> Figures:
        return Figures(
            overall={
                name: ratio(totals[:, column], totals[:, -1]) for column, name in enumerate(names)
            }
        )

    return AdditiveScores(sums=sums, finish=finish, clusters=sums[:, -1] > 0)


def openness_scores(clips: Clips, cluster: IndexArray, n_clusters: int) -> AdditiveScores:
    """Mean absolute error and R² of openness."""
    pair = (clips.openness, clips.openness_pred)
    return _value_scores("openness", pair, clips, cluster, n_clusters)


def velocity_scores(clips: Clips, cluster: IndexArray, n_clusters: int) -> AdditiveScores:
    """Mean absolute error and R² of velocity."""
    pair = (clips.velocity, clips.velocity_pred)
    return _value_scores("velocity", pair, clips, cluster, n_clusters)


def _value_scores(
    name: str,
    pair: tuple[FloatArray, FloatArray],
    clips: Clips,
    cluster: IndexArray,
    n_clusters: int,
) -> AdditiveScores:
    truth, guess = pair
    both = np.isfinite(truth) & np.isfinite(guess)
    weight = np.where(both, clips.weight, 0.0)
    value, error = np.where(both, truth, 0.0), np.where(both, guess - truth, 0.0)
    # R² does not change when truth is shifted; centring keeps sum(y²) - sum(y)²/n exact.
    value = np.where(both, value - (value[both].mean() if both.any() else 0.0), 0.0)
    columns = np.column_stack([np.ones_like(value), np.abs(error), error**2, value, value**2])
    sums = sum_clusters(columns * weight[:, None], cluster, n_clusters)

    def finish(totals: FloatArray) -> Figures:
        n, absolute, squared, total, total_squared = totals.T
        spread = total_squared - ratio(total**2, n)
        # A constant reference leaves rounding dust here, not a spread.
        spread = np.where(spread > 1e-12 * np.maximum(n, 1e-300), spread, 0.0)
        return Figures(
            overall={
                f"{name}_mae": ratio(absolute, n),
                f"{name}_r2": 1.0 - ratio(squared, spread),
            }
        )

    return AdditiveScores(sums=sums, finish=finish, clusters=sums[:, 0] > 0)


def _clip_figures(clips: Clips) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Give example F1, all-right, LRAP and coverage of each clip [shape=(n_clips,)]."""
    truth = clips.truth & clips.annotated
    counts = clip_counts(clips.truth, clips.predicted, annotated=clips.annotated)
    tp, wrong = counts.tp.sum(axis=1), (counts.fp + counts.fn).sum(axis=1)
    example_f1 = np.where(2 * tp + wrong > 0, ratio(2 * tp, 2 * tp + wrong), 1.0)

    n_true, n_known = truth.sum(axis=1), clips.annotated.sum(axis=1)
    precision = np.zeros(len(clips))
    coverage = np.zeros(len(clips))
    for column in range(len(clips.labels)):
        # Labels scored at least as high as this one; unknown labels are not in the ranking.
        above = clips.annotated & (clips.scores >= clips.scores[:, column, None])
        rank = above.sum(axis=1)
        hits = (above & truth).sum(axis=1)
        precision += np.where(truth[:, column], hits / np.maximum(rank, 1), 0.0)
        coverage = np.maximum(coverage, np.where(truth[:, column], rank, 0))
    trivial = (n_true == 0) | (n_true == n_known)
    lrap = np.where(trivial, 1.0, precision / np.maximum(n_true, 1))
    return example_f1, (wrong == 0).astype(np.float64), lrap, coverage


def sum_clusters(columns: NDArray[Any], cluster: IndexArray, n_clusters: int) -> FloatArray:
    """Add up the rows of each cluster, ``(n_clips, n_columns) -> (n_clusters, n_columns)``."""
    return np.column_stack(
        [np.bincount(cluster, weights=column, minlength=n_clusters) for column in columns.T]
    )


def mean_where(values: FloatArray, present: BoolArray) -> FloatArray:
    """Mean over the last axis of what is present; NaN where nothing is."""
    return ratio(np.where(present, values, 0.0).sum(axis=-1), present.sum(axis=-1).astype(float))


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Quotient, NaN where the denominator is zero."""
    result = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator != 0)
    return result
