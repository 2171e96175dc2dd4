"""Fitting a calibration, and finding out on other sessions what it is worth.

Task. From scores beside the truth (`Scored`) choose the scaling and the threshold of each class
(`fit`). What such a fit does to the clips that it was fitted on flatters it; `cross_fit` fits on
all folds but one and applies that to the fold left out, for each fold in turn, so that every clip
is judged by a calibration that has not heard its session.

A class keeps the identity and the threshold of 0.5, with a reason, where it has fewer than
`min_examples` clips with it or without it, where all its scores are equal, and where its scores
fall as it becomes more likely: no positive slope mends those.

Empty input: every class of a fit on no clips has a reason. Fewer than two folds: ValueError.

References: see `training.metrics.calibration`; Varma & Simon 2006 for what fitting and judging on
the same data does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

import numpy as np

from training.metrics import calibration as cal
from training.metrics.calibration import Scored
from training.metrics.classification import BoolArray, FloatArray
from training.metrics.operating_points import Goal, choose_threshold
from training.metrics.scores import IndexArray

Method = Literal["none", "temperature", "platt"]
METHODS: Final[tuple[str, ...]] = get_args(Method)
PLAIN_THRESHOLD: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How to fit.

    Raises:
        ValueError: the method is unknown, or `min_examples` is below 1.
    """

    method: Method = "platt"
    goal: Goal = field(default_factory=Goal)
    min_examples: int = 10
    """A class with fewer clips with it, or without it, is left as it is."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"the method must be one of {', '.join(METHODS)}")
        if self.min_examples < 1:
            raise ValueError("at least one example of each kind is needed")


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """Scaling and threshold of each class, arrays of shape (n_classes,)."""

    slope: FloatArray
    intercept: FloatArray
    threshold: FloatArray
    """On the scale of the calibrated scores."""
    temperature: float | None
    """Of the method `temperature`; None where nothing could be fitted."""
    reasons: tuple[str, ...]
    """Why a class was left as it is; empty where it was fitted."""

    @property
    def fitted(self) -> BoolArray:
        """Which classes were fitted [shape=(n_classes,)]."""
        return np.array([not reason for reason in self.reasons], dtype=np.bool_)


def fit(scored: Scored, recipe: Recipe) -> Fit:
    """Choose the scaling of each class, then its threshold on the scaled scores."""
    n_classes = len(scored.labels)
    reasons = [_unfit(scored, column, recipe) for column in range(n_classes)]
    slope, intercept = np.ones(n_classes), np.zeros(n_classes)
    temperature = None
    if recipe.method == "platt":
        for column in np.flatnonzero([not reason for reason in reasons]).tolist():
            a, b = cal.fit_platt(*scored.column(column))
            if a <= 0:
                reasons[column] = f"its scores fall as it becomes more likely (slope {a:.3g})"
            else:
                slope[column], intercept[column] = a, b
    elif recipe.method == "temperature":
        usable = np.array([not reason for reason in reasons], dtype=np.bool_)
        temperature = cal.fit_temperature(_masked(scored, usable))
        if temperature is not None:
            slope[usable] = 1.0 / temperature
    threshold = np.full(n_classes, PLAIN_THRESHOLD)
    if recipe.goal.objective == "keep":
        return Fit(
            slope=slope,
            intercept=intercept,
            threshold=cal.scale(threshold, slope, intercept),
            temperature=temperature,
            reasons=tuple(reasons),
        )
    calibrated = apply(scored, slope, intercept)
    for column in np.flatnonzero([not reason for reason in reasons]).tolist():
        threshold[column] = choose_threshold(*calibrated.column(column), recipe.goal)
    return Fit(
        slope=slope,
        intercept=intercept,
        threshold=threshold,
        temperature=temperature,
        reasons=tuple(reasons),
    )


def apply(scored: Scored, slope: FloatArray, intercept: FloatArray) -> Scored:
    """Return the clips with calibrated scores."""
    return Scored(
        labels=scored.labels,
        scores=cal.scale(scored.scores, slope, intercept),
        truth=scored.truth,
        annotated=scored.annotated,
        weight=scored.weight,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CrossFit:
    """Every clip as a calibration sees it that was fitted without its fold."""

    scored: Scored
    predicted: BoolArray
    """Scores at or above the threshold of their own fold's fit [shape=(n_clips, n_classes)]."""
    folds_fitted: IndexArray
    """In how many folds each class could be fitted [shape=(n_classes,)]."""
    n_folds: int


def folds(cluster: IndexArray, n_clusters: int, n_folds: int, seed: int) -> IndexArray:
    """Divide clusters into folds, whole and at random, the numbers of clusters as equal as can be.

    Args:
        cluster: the cluster of each clip, ``0 .. n_clusters - 1`` [shape=(n_clips,)].
        n_clusters: number of clusters.
        n_folds: number of folds; no more than there are clusters are used.
        seed: of the draw.

    Returns:
        The fold of each clip [shape=(n_clips,)].

    Raises:
        ValueError: fewer than two clusters or two folds: nothing could be left out.
    """
    used = min(n_folds, n_clusters)
    if used < 2:
        raise ValueError("cross-fitting needs two clusters and two folds")
    fold_of = np.empty(n_clusters, dtype=np.intp)
    fold_of[np.random.default_rng(seed).permutation(n_clusters)] = np.arange(n_clusters) % used
    return fold_of[cluster]


def cross_fit(scored: Scored, fold: IndexArray, recipe: Recipe) -> CrossFit:
    """Judge a recipe on clips that it was not fitted on (see the module).

    A class that cannot be fitted without some fold is left as it is in that fold.

    Args:
        scored: the clips.
        fold: the fold of each clip [shape=(n_clips,)].
        recipe: how to fit.

    Raises:
        ValueError: there are fewer than two folds.
    """
    present = np.unique(fold)
    if present.size < 2:
        raise ValueError("cross-fitting needs two folds")
    scores = scored.scores.copy()
    predicted = np.zeros_like(scored.truth)
    fitted = np.zeros(len(scored.labels), dtype=np.intp)
    for number in present:
        held_out = fold == number
        found = fit(scored.rows(~held_out), recipe)
        scores[held_out] = cal.scale(scored.scores[held_out], found.slope, found.intercept)
        predicted[held_out] = scores[held_out] >= found.threshold
        fitted += found.fitted
    judged = Scored(
        labels=scored.labels,
        scores=scores,
        truth=scored.truth,
        annotated=scored.annotated,
        weight=scored.weight,
    )
    return CrossFit(
        scored=judged, predicted=predicted, folds_fitted=fitted, n_folds=int(present.size)
    )


def _unfit(scored: Scored, column: int, recipe: Recipe) -> str:
    """Say why a class cannot be fitted; nothing where it can."""
    scores, truth, _ = scored.column(column)
    for count, what in ((int(truth.sum()), "with"), (int((~truth).sum()), "without")):
        if count < recipe.min_examples:
            return f"{count} clips {what} it; fitting needs {recipe.min_examples}"
    if np.ptp(cal.logit(scores)) == 0:
        return "all its scores are equal"
    return ""


def _masked(scored: Scored, columns: BoolArray) -> Scored:
    """Take the cells of some classes for unannotated."""
    return Scored(
        labels=scored.labels,
        scores=scored.scores,
        truth=scored.truth,
        annotated=scored.annotated & columns,
        weight=scored.weight,
    )
