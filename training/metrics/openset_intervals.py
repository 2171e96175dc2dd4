"""How sure the open-set figures are: sessions resampled, the figures computed anew each time.

Task:
    Clips of one session are alike, so sessions are drawn, not clips
    (`training.metrics.resampling` tells how). AUROC, AUPR and FPR@TPR are not sums over clips:
    they follow from the counts of known and unknown clips at each distinct score, and those counts
    are a sparse matrix times the draws. So clips are sorted once, whatever the number of resamples.

Strata:
    A session holds known clips, unknown clips or both. Sessions of each kind are drawn among
    themselves, as many as there are, so that the balance of known and unknown does not drift; with
    one clip a session this is the bootstrap stratified by known and unknown. A kind with fewer
    sessions than `Resampling.min_clusters` is drawn together with those that hold both.

Conventions:
    As in `training.metrics.openset`, ties included: a resample's figures are exactly those of
    `openset.measure` on its clips written out. The clusters behind a figure are the fewer of those
    with known and of those with unknown clips.

Empty input:
    One class only: the figures are undefined and have no interval.

Sources:
    Davison and Hinkley (1997), ch. 3.8. The standard error of AUROC is checked against DeLong et
    al. (1988).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.metrics.openset import Bools, Floats
from training.metrics.resampling import Estimate, Resampling, draw_clusters, summarise

FIGURES: Final = (
    "auroc",
    "aupr_out",
    "aupr_in",
    "fpr_at_95tpr",
    "tnr_at_95tpr",
    "fpr_at_95tpr_known_positive",
    "tnr_at_95tpr_known_positive",
)
_CELLS_PER_BLOCK: Final = 400_000
Indices = NDArray[np.intp]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Ranked:
    """Counts at each distinct score, highest first; sparse [shape=(n_scores, n_clusters)]."""

    unknown: Any
    known: Any

    def values(self, drawn: Floats, *, tpr_floor: float) -> dict[str, Floats]:
        """Return each figure of each resample, NaN where undefined [shape=(n_resamples,)]."""
        step = max(1, _CELLS_PER_BLOCK // max(1, self.unknown.shape[0]))
        blocks = [
            _figures(self.unknown @ chosen, self.known @ chosen, tpr_floor)
            for start in range(0, len(drawn), step)
            for chosen in [np.ascontiguousarray(drawn[start : start + step].T)]
        ]
        return {name: np.concatenate([block[name] for block in blocks]) for name in FIGURES}


def estimate(
    scores: Floats,
    is_unknown: Bools,
    cluster: Indices,
    *,
    settings: Resampling,
    tpr_floor: float = 0.95,
) -> dict[str, Estimate]:
    """Estimate the figures of `FIGURES` with their intervals.

    Args:
        scores: unknown scores, finite, shape (n,).
        is_unknown: the truth, shape (n,).
        cluster: the session of each clip, any whole numbers, shape (n,).
        settings: how to draw; ``bca`` is not offered.
        tpr_floor: as in `openset.measure`.

    Raises:
        ValueError: there is no clip, or the method is ``bca``.
    """
    if not len(scores):
        raise ValueError("there are no clips to resample")
    index, holds, strata = _clusters(is_unknown, cluster, settings)
    n_clusters = len(holds)
    _, place = np.unique(-scores, return_inverse=True)
    ranked = _Ranked(
        unknown=_table(place[is_unknown], index[is_unknown], place.max() + 1, n_clusters),
        known=_table(place[~is_unknown], index[~is_unknown], place.max() + 1, n_clusters),
    )
    points = ranked.values(np.ones((1, n_clusters)), tpr_floor=tpr_floor)
    blocks = [
        ranked.values(drawn.astype(np.float64), tpr_floor=tpr_floor)
        for drawn in draw_clusters(n_clusters, settings, strata)
    ]
    return {
        name: summarise(
            float(points[name][0]),
            np.concatenate([block[name] for block in blocks]),
            None,
            int(holds.sum(axis=0).min()),
            settings,
            paired=False,
        )
        for name in FIGURES
    }


def estimate_rates(
    rejected: Bools, parts: Mapping[str, Bools], cluster: Indices, *, settings: Resampling
) -> dict[str, Estimate]:
    """Estimate which share of each part is rejected, such as of the unknown clips.

    Args:
        rejected: whether each clip is, shape (n,).
        parts: name → which clips belong to it, shape (n,); each is drawn by its own sessions.
        cluster: as in `estimate`.
        settings: how to draw.
    """
    return {
        name: _rate(rejected[chosen], cluster[chosen], settings) for name, chosen in parts.items()
    }


def _rate(rejected: Bools, cluster: Indices, settings: Resampling) -> Estimate:
    if not len(rejected):
        return summarise(np.nan, np.full(1, np.nan), None, 0, settings, paired=False)
    _, index = np.unique(cluster, return_inverse=True)
    hits = np.bincount(index, weights=rejected)
    totals = np.bincount(index).astype(np.float64)
    resamples = [
        (drawn @ hits) / (drawn @ totals) for drawn in draw_clusters(len(totals), settings)
    ]
    point = float(hits.sum() / totals.sum())
    return summarise(point, np.concatenate(resamples), None, len(totals), settings, paired=False)


def _clusters(
    is_unknown: Bools, cluster: Indices, settings: Resampling
) -> tuple[Indices, Bools, Indices]:
    """Number the clusters 0, 1, …; say what each holds (known, unknown), and its stratum."""
    _, index = np.unique(cluster, return_inverse=True)
    n_clusters = int(index.max()) + 1
    holds = np.column_stack(
        [
            np.bincount(index[~is_unknown], minlength=n_clusters) > 0,
            np.bincount(index[is_unknown], minlength=n_clusters) > 0,
        ]
    )
    mixed = 3
    kinds = holds @ np.array([1, 2])
    present = set(kinds.tolist())
    if mixed in present:
        for kind in (1, 2):
            if 0 < (kinds == kind).sum() < settings.min_clusters:
                kinds[kinds == kind] = mixed
        # A few mixed sessions beside many of one kind would hardly vary either.
        if (kinds == mixed).sum() < settings.min_clusters:
            kinds[:] = mixed
    return index, holds, kinds


def _table(place: Indices, index: Indices, n_scores: int, n_clusters: int) -> Any:
    entries = (np.ones(len(place)), (place, index))
    return sparse.coo_array(entries, shape=(n_scores, n_clusters)).tocsr()


def _figures(unknown: Floats, known: Floats, tpr_floor: float) -> dict[str, Floats]:
    """Figures from counts at each distinct score [shape=(n_scores, n_resamples)]."""
    above, above_known = np.cumsum(unknown, axis=0), np.cumsum(known, axis=0)
    n_unknown, n_known = above[-1], above_known[-1]
    below, below_known = n_unknown - above + unknown, n_known - above_known + known
    columns = np.arange(unknown.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):
        tpr, fpr = above / n_unknown, above_known / n_known
        at = np.argmax(tpr >= tpr_floor, axis=0)
        kept, passed = below_known / n_known, below / n_unknown
        at_known = len(kept) - 1 - np.argmax((kept >= tpr_floor)[::-1], axis=0)
        precision = np.where(above > 0, above / (above + above_known), 0.0)
        precision_known = np.where(below_known > 0, below_known / (below_known + below), 0.0)
        figures = {
            "auroc": ((above - unknown / 2.0) * known).sum(axis=0) / (n_unknown * n_known),
            "aupr_out": (precision * unknown).sum(axis=0) / n_unknown,
            "aupr_in": (precision_known * known).sum(axis=0) / n_known,
            "fpr_at_95tpr": fpr[at, columns],
            "fpr_at_95tpr_known_positive": passed[at_known, columns],
        }
    undefined = (n_unknown == 0) | (n_known == 0)
    for values in figures.values():
        values[undefined] = np.nan
    figures["tnr_at_95tpr"] = 1.0 - figures["fpr_at_95tpr"]
    figures["tnr_at_95tpr_known_positive"] = 1.0 - figures["fpr_at_95tpr_known_positive"]
    return figures
