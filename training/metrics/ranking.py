"""Figures of a whole ranking: average precision and Spearman's rho, for many resamples at once.

Task:
    Average precision and rank correlation are not sums over clips: a clip's contribution depends
    on which others were drawn. They are recomputed for each resample with the draws as weights,
    from an order that is sorted once. The sums over stretches of that order are one sparse matrix
    product a block of resamples, which costs n_cells multiplications a resample and bounded memory.

Conventions:
    Average precision is step-wise, sum over score thresholds of (R_k - R_(k-1)) P_k, ties taken
    together, as scikit-learn's ``average_precision_score``. ``map`` is its unweighted mean over
    the classes that have reference events in the resample. Spearman's rho is Pearson's
    correlation of mid-ranks, where a clip drawn twice counts as two tied clips.

Empty input:
    NaN: no positive, or (Spearman) fewer than two distinct values on either side.

Sources:
    Buckley and Voorhees (2000) for average precision; checked against scikit-learn and scipy on
    the resamples written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.metrics.classification import BoolArray, FloatArray
from training.metrics.resampling import DRAWS_PER_BLOCK
from training.metrics.scores import Clips, DrawArray, Figures, IndexArray, whole

_RESAMPLES_PER_BLOCK: Final = 256
# What is added up at a time should stay in the processor's cache.
_CELLS_PER_TILE: Final = 131_072
_CLIPS_PER_BLOCK: Final = 100_000
_STRIDE: Final = 32
_EXACT_IN_FLOAT32: Final = 2**24


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ranking:
    """One class in descending order of score, cut after each tie group that holds a positive.

    The stretches come in tiles: for each, the weight of all clips and that of the
    positives per stretch, both sparse [shape=(n_stretches, n_clusters)].
    """

    tiles: tuple[tuple[Any, Any], ...]

    def average_precision(self, chosen: DrawArray) -> FloatArray:
        """Average precision in each resample [shape=(n_resamples,)].

        Args:
            chosen: how often each cluster was drawn [shape=(n_clusters, n_resamples)].
        """
        n_resamples = chosen.shape[1]
        result = np.full(n_resamples, np.nan)
        area = np.zeros(n_resamples)
        hits_above: Any = np.zeros(n_resamples)
        all_above: Any = np.zeros(n_resamples)
        for everything, positives in self.tiles:
            hits = positives @ chosen
            found, said = running_sum(hits.copy()), running_sum(everything @ chosen)
            found += hits_above.astype(found.dtype)
            said += all_above.astype(said.dtype)
            hits_above, all_above = found[-1].copy(), said[-1].copy()
            # Where nothing was drawn yet there are no hits either.
            np.maximum(said, np.finfo(np.float32).tiny, out=said)
            precision = found.astype(np.float64)
            precision /= said
            precision *= hits
            area += precision.sum(axis=0)
        np.divide(area, hits_above, out=result, where=hits_above > 0)
        return result


def running_sum(values: NDArray[Any]) -> NDArray[Any]:
    """Sum down the first axis, in place; rows are added to rows, which is quicker than cumsum."""
    whole_runs = len(values) // _STRIDE * _STRIDE
    runs = values[:whole_runs].reshape(-1, _STRIDE, *values.shape[1:])
    for row in range(1, _STRIDE):
        runs[:, row] += runs[:, row - 1]
    for run in range(1, len(runs)):
        runs[run] += runs[run - 1, -1]
    for row in range(max(whole_runs, 1), len(values)):
        values[row] += values[row - 1]
    return values


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionScores:
    """Average precision per class, and its mean."""

    rankings: tuple[_Ranking, ...]
    clusters: BoolArray

    def values(self, drawn: DrawArray) -> Figures:
        """See `training.metrics.scores.ClusterScores.values`."""
        blocks = []
        for start in range(0, len(drawn), _RESAMPLES_PER_BLOCK):
            chosen = np.ascontiguousarray(drawn[start : start + _RESAMPLES_PER_BLOCK].T)
            blocks.append(
                np.column_stack([ranking.average_precision(chosen) for ranking in self.rankings])
            )
        each = np.concatenate(blocks)
        present = np.isfinite(each)
        n_present = present.sum(axis=1)
        mean = np.full(each.shape[0], np.nan)
        np.divide(
            np.where(present, each, 0.0).sum(axis=1), n_present, out=mean, where=n_present > 0
        )
        return Figures(overall={"map": mean}, per_class={"average_precision": each})


def precision_scores(clips: Clips, cluster: IndexArray, n_clusters: int) -> PrecisionScores:
    """Prepare average precision; see `training.metrics.scores.count_scores` for the arguments."""
    rankings = tuple(
        _ranking(clips, column, cluster, n_clusters) for column in range(len(clips.labels))
    )
    heard = np.bincount(cluster, weights=clips.annotated.any(axis=1), minlength=n_clusters) > 0
    return PrecisionScores(rankings=rankings, clusters=heard)


def _ranking(clips: Clips, column: int, cluster: IndexArray, n_clusters: int) -> _Ranking:
    known = np.flatnonzero(clips.annotated[:, column] & (clips.weight > 0))
    order = known[np.argsort(-clips.scores[known, column], kind="stable")]
    scores, truth = clips.scores[order, column], clips.truth[order, column]
    tie_group = np.cumsum(np.r_[False, scores[1:] != scores[:-1]]) if len(order) else order
    group_has_positive = np.zeros(tie_group[-1] + 1 if len(order) else 0, dtype=np.bool_)
    group_has_positive[tie_group[truth]] = True
    # The stretch of a group = how many groups with a positive end before it.
    stretch = (np.cumsum(group_has_positive) - group_has_positive)[tie_group]
    n_stretches = int(group_has_positive.sum())
    counted = stretch < n_stretches

    weight = _compact(clips.weight, cluster, order, n_clusters)

    def table(rows: BoolArray) -> Any:
        chosen = order[rows]
        entries = (weight[chosen], (stretch[rows], cluster[chosen]))
        return sparse.coo_array(entries, shape=(n_stretches, n_clusters)).tocsr()

    everything, positives = table(counted), table(truth)
    at_once = min(_RESAMPLES_PER_BLOCK, max(1, DRAWS_PER_BLOCK // n_clusters))
    rows = _CELLS_PER_TILE // at_once
    tiles = [slice(start, start + rows) for start in range(0, n_stretches, rows)]
    return _Ranking(tiles=tuple((everything[tile], positives[tile]) for tile in tiles))


def _compact(
    weight: FloatArray, cluster: IndexArray, which: IndexArray, n_clusters: int
) -> FloatArray | DrawArray:
    """Weights as float32 where that adds them up without rounding, however clusters are drawn."""
    heaviest = np.bincount(cluster[which], weights=weight[which], minlength=1).max()
    exact = heaviest * n_clusters < _EXACT_IN_FLOAT32 and whole(weight[which])
    return weight.astype(np.float32) if exact else weight


@dataclass(frozen=True, kw_only=True, slots=True)
class _Side:
    """One of the two values that are ranked; clips stand from the lowest value to the highest."""

    cluster: IndexArray
    weight: FloatArray | None
    """None = all 1."""
    starts: IndexArray | None
    """Where each group of tied clips starts; None = no ties."""

    def weights(self, drawn: DrawArray) -> FloatArray:
        """Weights of the clips in each resample [shape=(n_resamples, n_clips)]."""
        found = drawn.take(self.cluster, axis=1, mode="clip").astype(np.float64)
        if self.weight is not None:
            found *= self.weight
        return found

    def sums(self, ascending: FloatArray) -> FloatArray:
        """Add up each tie group, ``(n_resamples, n_clips) -> (n_resamples, n_groups)``."""
        if self.starts is None:
            return ascending
        return np.asarray(np.add.reduceat(ascending, self.starts, axis=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class SpearmanScores:
    """Spearman's rho between a reference value x and its prediction y.

    With clips of weight w, tie groups of weight W, their sum N, and mid-ranks r less N/2:
    sum(w r²) = (N³ - sum(W³)) / 12 on each side, and as sum(w r) = 0, sum(w r_x r_y) is
    sum(w r_y (C_x - W_x/2)) with C_x the running sum of W_x.
    """

    name: str
    sides: tuple[_Side, _Side]
    across: IndexArray
    """The tie group in y of each clip, in the order of x."""
    clusters: BoolArray

    def values(self, drawn: DrawArray) -> Figures:
        """See `training.metrics.scores.ClusterScores.values`."""
        rho = np.full(len(drawn), np.nan)
        step = max(1, _CLIPS_PER_BLOCK // max(len(self.across), 1))
        for start in range(0, len(drawn) if len(self.across) else 0, step):
            rho[start : start + step] = self._rho(drawn[start : start + step])
        return Figures(overall={f"{self.name}_spearman": np.clip(rho, -1.0, 1.0)})

    def _rho(self, drawn: DrawArray) -> FloatArray:
        x, y = self.sides
        clips = x.weights(drawn)
        of_x, of_y = x.sums(clips), y.sums(y.weights(drawn))
        ranks = np.cumsum(of_y, axis=1)
        total = ranks[:, -1].copy()
        ranks -= 0.5 * of_y
        ranks -= 0.5 * total[:, None]
        weighted = ranks.take(self.across, axis=1, mode="clip")
        weighted *= clips
        weighted = x.sums(weighted)
        covariance = _dot(weighted, np.cumsum(of_x, axis=1)) - 0.5 * _dot(weighted, of_x)
        spreads = [total**3 - _dot(each, each * each) for each in (of_x, of_y)]
        # A constant side leaves rounding dust here, not a spread.
        defined = np.minimum(*spreads) > 1e-13 * total**3
        scale = np.sqrt(np.abs(spreads[0])) * np.sqrt(np.abs(spreads[1]))
        rho = np.full(len(drawn), np.nan)
        np.divide(12.0 * covariance, scale, out=rho, where=defined)
        return rho


def _dot(left: FloatArray, right: FloatArray) -> FloatArray:
    return np.asarray(np.einsum("ij,ij->i", left, right))


def velocity_spearman(clips: Clips, cluster: IndexArray, n_clusters: int) -> SpearmanScores:
    """Prepare Spearman's rho of velocity."""
    truth, guess = clips.velocity, clips.velocity_pred
    both = np.flatnonzero(np.isfinite(truth) & np.isfinite(guess) & (clips.weight > 0))
    weight = None if (clips.weight[both] == 1.0).all() else clips.weight[both]
    orders: list[IndexArray] = []
    groups: list[IndexArray] = []
    sides: list[_Side] = []
    for values in (truth[both], guess[both]):
        order = np.argsort(values, kind="stable")
        fresh = np.r_[True, np.diff(values[order]) > 0][: len(order)]
        group = np.empty(len(order), dtype=np.intp)
        group[order] = np.cumsum(fresh) - 1
        side = _Side(
            cluster=cluster[both][order],
            weight=None if weight is None else weight[order],
            starts=None if fresh.all() else np.flatnonzero(fresh),
        )
        orders.append(order)
        groups.append(group)
        sides.append(side)
    return SpearmanScores(
        name="velocity",
        sides=(sides[0], sides[1]),
        across=groups[1][orders[0]],
        clusters=np.bincount(cluster[both], minlength=n_clusters) > 0,
    )
