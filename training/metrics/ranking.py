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
from scipy import sparse

from training.metrics.classification import BoolArray, FloatArray
from training.metrics.scores import Clips, Figures, IndexArray

_CELLS_PER_BLOCK: Final = 400_000


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ranking:
    """One class in descending order of score, cut after each tie group that holds a positive."""

    everything: Any
    """Weight of all clips per stretch, sparse [shape=(n_stretches, n_clusters)]."""
    positives: Any
    """Weight of the positives per stretch, sparse [shape=(n_stretches, n_clusters)]."""

    def average_precision(self, drawn: FloatArray) -> FloatArray:
        """Average precision in each resample [shape=(n_resamples,)]."""
        result = np.full(drawn.shape[0], np.nan)
        n_stretches = self.positives.shape[0]
        if n_stretches == 0:
            return result
        step = max(1, _CELLS_PER_BLOCK // n_stretches)
        for start in range(0, drawn.shape[0], step):
            chosen = np.ascontiguousarray(drawn[start : start + step].T)
            hits = self.positives @ chosen
            hits_above = np.cumsum(hits, axis=0)
            all_above = np.cumsum(self.everything @ chosen, axis=0)
            precision = np.divide(
                hits_above, all_above, out=np.zeros_like(hits_above), where=all_above > 0
            )
            total = hits_above[-1]
            np.divide(
                (hits * precision).sum(axis=0),
                total,
                out=result[start : start + step],
                where=total > 0,
            )
        return result


@dataclass(frozen=True, kw_only=True, slots=True)
class PrecisionScores:
    """Average precision per class, and its mean."""

    rankings: tuple[_Ranking, ...]
    clusters: BoolArray

    def values(self, drawn: FloatArray) -> Figures:
        """See `training.metrics.scores.ClusterScores.values`."""
        each = np.column_stack([ranking.average_precision(drawn) for ranking in self.rankings])
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

    def table(rows: BoolArray) -> Any:
        chosen = order[rows]
        entries = (clips.weight[chosen], (stretch[rows], cluster[chosen]))
        return sparse.coo_array(entries, shape=(n_stretches, n_clusters)).tocsr()

    return _Ranking(everything=table(counted), positives=table(truth))


@dataclass(frozen=True, kw_only=True, slots=True)
class SpearmanScores:
    """Spearman's rho between a reference value and its prediction."""

    name: str
    weight: FloatArray
    cluster: IndexArray
    sides: tuple[IndexArray, IndexArray]
    """The tie group of each clip, in ascending order of value, for reference and prediction."""
    clusters: BoolArray

    def values(self, drawn: FloatArray) -> Figures:
        """See `training.metrics.scores.ClusterScores.values`."""
        rho = np.full(drawn.shape[0], np.nan)
        n_clips = len(self.weight)
        step = max(1, _CELLS_PER_BLOCK // max(n_clips, 1))
        for start in range(0, drawn.shape[0] if n_clips else 0, step):
            weight = drawn[start : start + step][:, self.cluster] * self.weight
            x, y = (self._centred_ranks(weight, groups) for groups in self.sides)
            covariance = (weight * x * y).sum(axis=1)
            spread = np.sqrt((weight * x * x).sum(axis=1) * (weight * y * y).sum(axis=1))
            np.divide(covariance, spread, out=rho[start : start + step], where=spread > 0)
        return Figures(overall={f"{self.name}_spearman": np.clip(rho, -1.0, 1.0)})

    def _centred_ranks(self, weight: FloatArray, groups: IndexArray) -> FloatArray:
        n_groups = int(groups.max()) + 1
        rows = np.arange(weight.shape[0])[:, None] * n_groups
        sums = np.bincount(
            (rows + groups).ravel(), weights=weight.ravel(), minlength=weight.shape[0] * n_groups
        ).reshape(-1, n_groups)
        middle = np.cumsum(sums, axis=1) - sums / 2.0
        # The mean mid-rank is half the total weight, whatever the ties.
        centred: FloatArray = middle - sums.sum(axis=1, keepdims=True) / 2.0
        return centred[:, groups]


def velocity_spearman(clips: Clips, cluster: IndexArray, n_clusters: int) -> SpearmanScores:
    """Prepare Spearman's rho of velocity."""
    return _spearman("velocity", clips.velocity, clips.velocity_pred, clips, cluster, n_clusters)


def _spearman(
    name: str,
    truth: FloatArray,
    guess: FloatArray,
    clips: Clips,
    cluster: IndexArray,
    n_clusters: int,
) -> SpearmanScores:
    both = np.flatnonzero(np.isfinite(truth) & np.isfinite(guess) & (clips.weight > 0))
    sides = tuple(np.unique(values[both], return_inverse=True)[1] for values in (truth, guess))
    return SpearmanScores(
        name=name,
        weight=clips.weight[both],
        cluster=cluster[both],
        sides=(sides[0], sides[1]),
        clusters=np.bincount(cluster[both], minlength=n_clusters) > 0,
    )
