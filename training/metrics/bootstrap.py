"""How sure a model's figures are: sessions resampled, and the paired difference of two models.

Task:
    Clips of one recording session are alike, so the session, not the clip, is what was sampled.
    The draws are a matrix ``drawn [shape=(n_resamples, n_clusters)]`` and the figures of all
    resamples come from ``drawn @ sums`` (`training.metrics.scores`), or from weighted rankings
    (`training.metrics.ranking`). `training.metrics.resampling` tells how the draws are made, what
    the intervals are and when there is none.

Conventions:
    The clusters of a figure are those that contribute to it: for a class, those that hold
    reference events of it. A difference is candidate - baseline on the same clips and the same
    draws. For rankings over more than 1,000 clusters, BCa's jackknife leaves out one of 1,000
    random groups of clusters at a time.

Empty input:
    ValueError: there is nothing to draw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.metrics import calibration_scores, onsets, ranking, scores
from training.metrics.classification import BoolArray, FloatArray
from training.metrics.resampling import (
    DRAWS_PER_BLOCK,
    Estimate,
    Resampling,
    draw_clusters,
    summarise,
)
from training.metrics.scores import (
    AdditiveScores,
    Clips,
    ClusterScores,
    DrawArray,
    Figures,
    IndexArray,
)

Builder = Callable[[Clips, IndexArray, int], ClusterScores]

FAMILIES: Final[Mapping[Builder, tuple[str, ...]]] = {
    scores.count_scores: (
        "macro_f1",
        "macro_precision",
        "macro_recall",
        "micro_f1",
        "micro_precision",
        "micro_recall",
        "hamming_loss",
    ),
    scores.clip_scores: ("example_f1", "subset_accuracy", "lrap", "coverage_error"),
    ranking.precision_scores: ("map",),
    calibration_scores.calibration_scores: ("ece", "ece_classwise", "brier"),
    calibration_scores.bucket_scores: calibration_scores.BUCKET_METRICS,
    onsets.onset_scores: onsets.NAMES,
    scores.openness_scores: ("openness_mae", "openness_r2"),
    scores.velocity_scores: ("velocity_mae", "velocity_r2"),
    ranking.velocity_spearman: ("velocity_spearman",),
}
METRICS: Final[tuple[str, ...]] = tuple(name for names in FAMILIES.values() for name in names)
"""Every figure by name, in the order of a report."""

_RANKING_JACKKNIFE: Final = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimates:
    """All figures of one set of clips, or all differences of two."""

    overall: Mapping[str, Estimate]
    per_class: Mapping[str, Mapping[str, Estimate]]
    """Class -> figure -> estimate."""
    n_clusters: int
    resamples_missing_a_class: int
    """Resamples without reference events of a class that has some: left out of that macro mean."""


def bootstrap(
    clips: Clips,
    cluster: IndexArray,
    *,
    settings: Resampling,
    metrics: Sequence[str] = METRICS,
    strata: IndexArray | None = None,
) -> Estimates:
    """Estimate figures with intervals.

    Args:
        clips: reference and predictions.
        cluster: the cluster of each clip, ``0 .. n_clusters - 1``, none empty [shape=(n_clips,)].
        settings: how to draw.
        metrics: names out of `METRICS`; per-class figures follow from them.
        strata: the stratum of each cluster [shape=(n_clusters,)]; as many clusters are drawn in
            each as it has. Default: one stratum.

    Raises:
        ValueError: no clips, an unknown metric, or cluster numbers with holes.
    """
    return _estimate((clips,), cluster, settings, metrics, strata)


def compare(
    candidate: Clips,
    baseline: Clips,
    cluster: IndexArray,
    *,
    settings: Resampling,
    metrics: Sequence[str] = METRICS,
    strata: IndexArray | None = None,
) -> Estimates:
    """Estimate candidate - baseline on the same clips and the same draws (a paired test).

    Arguments and errors are those of `bootstrap`; row i of both must be the same clip.
    """
    same = np.array_equal(candidate.truth, baseline.truth) and np.array_equal(
        candidate.annotated, baseline.annotated
    )
    if candidate.labels != baseline.labels or not same:
        raise ValueError("candidate and baseline must be judged on the same reference")
    return _estimate((candidate, baseline), cluster, settings, metrics, strata)


def _estimate(
    versions: tuple[Clips, ...],
    cluster: IndexArray,
    settings: Resampling,
    metrics: Sequence[str],
    strata: IndexArray | None,
) -> Estimates:
    """Figures of one version, or differences of the first less the second."""
    clips = versions[0]
    n_clusters = _check(clips, cluster, metrics, strata)
    wanted = [make for make, names in FAMILIES.items() if any(name in metrics for name in names)]
    families = [[make(version, cluster, n_clusters) for make in wanted] for version in versions]

    points = _subtract(
        [_values(family, np.ones((1, n_clusters), dtype=np.float32)) for family in families]
    )
    n_positive = _positives(clips, cluster, n_clusters)
    expected = n_positive.any(axis=0)
    holds_class = (n_positive[:, expected] > 0).astype(np.float32)
    blocks, missing_a_class = [], 0
    for drawn in draw_clusters(n_clusters, settings, strata):
        blocks.append(_subtract([_values(family, drawn) for family in families]))
        missing_a_class += int((drawn @ holds_class == 0).any(axis=1).sum())
    resamples = _stack(blocks)
    jackknife = None
    if settings.method == "bca":
        jackknife = _subtract([_leave_one_out(family, n_clusters, settings) for family in families])

    paired = len(versions) == 2
    heard = {
        name: family.clusters
        for make, family in zip(wanted, families[0], strict=True)
        for name in FAMILIES[make]
    }
    overall = {
        name: summarise(
            points.overall[name][0],
            resamples.overall[name],
            jackknife.overall[name] if jackknife else None,
            int(heard[name].sum()),
            settings,
            paired=paired,
            n_strata=_strata_of(heard[name], strata),
        )
        for name in METRICS
        if name in metrics
    }
    per_class = {
        label: {
            name: summarise(
                values[0, column],
                resamples.per_class[name][:, column],
                jackknife.per_class[name][:, column] if jackknife else None,
                int((n_positive[:, column] > 0).sum()),
                settings,
                paired=paired,
                n_strata=_strata_of(n_positive[:, column] > 0, strata),
            )
            for name, values in points.per_class.items()
        }
        for column, label in enumerate(clips.labels)
    }
    return Estimates(
        overall=overall,
        per_class=per_class,
        n_clusters=n_clusters,
        resamples_missing_a_class=missing_a_class,
    )


def _check(
    clips: Clips, cluster: IndexArray, metrics: Sequence[str], strata: IndexArray | None
) -> int:
    if len(clips) == 0:
        raise ValueError("there are no clips to resample")
    if unknown := sorted(set(metrics) - set(METRICS)):
        raise ValueError(f"unknown metrics: {', '.join(unknown)}")
    if cluster.shape != (len(clips),):
        raise ValueError(f"cluster {cluster.shape} must have shape ({len(clips)},)")
    if cluster.min() < 0 or (np.bincount(cluster) == 0).any():
        raise ValueError("clusters must be numbered 0 .. n_clusters - 1 without holes")
    n_clusters = int(cluster.max()) + 1
    if strata is not None and strata.shape != (n_clusters,):
        raise ValueError(f"strata {strata.shape} must have shape ({n_clusters},)")
    return n_clusters


def _strata_of(contributes: BoolArray, strata: IndexArray | None) -> int:
    """Count the strata that the contributing clusters [shape=(n_clusters,)] lie in."""
    return 1 if strata is None else len(np.unique(strata[contributes]))


def _values(families: Sequence[ClusterScores], drawn: DrawArray) -> Figures:
    return _merge([family.values(drawn) for family in families])


def _leave_one_out(
    families: Sequence[ClusterScores], n_clusters: int, settings: Resampling
) -> Figures:
    figures = []
    for family in families:
        if isinstance(family, AdditiveScores):
            step = 10_000
            parts = [
                family.without(slice(start, start + step)) for start in range(0, n_clusters, step)
            ]
            figures.append(_stack(parts))
            continue
        order = np.random.default_rng(settings.seed).permutation(n_clusters)
        groups = np.array_split(order, min(n_clusters, _RANKING_JACKKNIFE))
        parts = []
        step = max(1, DRAWS_PER_BLOCK // n_clusters)
        for start in range(0, len(groups), step):
            kept = np.ones((len(groups[start : start + step]), n_clusters), dtype=np.float32)
            for row, group in enumerate(groups[start : start + step]):
                kept[row, group] = 0.0
            parts.append(family.values(kept))
        figures.append(_stack(parts))
    return _merge(figures)


def _positives(clips: Clips, cluster: IndexArray, n_clusters: int) -> FloatArray:
    """Weight of the reference events of each class per cluster [shape=(n_clusters, n_classes)]."""
    weight = (clips.truth & clips.annotated) * clips.weight[:, None]
    return np.column_stack(
        [np.bincount(cluster, weights=column, minlength=n_clusters) for column in weight.T]
    )


def _merge(figures: Sequence[Figures]) -> Figures:
    return Figures(
        overall={name: values for each in figures for name, values in each.overall.items()},
        per_class={name: values for each in figures for name, values in each.per_class.items()},
    )


def _stack(figures: Sequence[Figures]) -> Figures:
    return Figures(
        overall={
            name: np.concatenate([each.overall[name] for each in figures])
            for name in figures[0].overall
        },
        per_class={
            name: np.concatenate([each.per_class[name] for each in figures])
            for name in figures[0].per_class
        },
    )


def _subtract(figures: Sequence[Figures]) -> Figures:
    if len(figures) == 1:
        return figures[0]
    ours, theirs = figures
    return Figures(
        overall={name: values - theirs.overall[name] for name, values in ours.overall.items()},
        per_class={
            name: values - theirs.per_class[name] for name, values in ours.per_class.items()
        },
    )
