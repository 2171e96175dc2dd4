"""Operating points: from which score on a label counts as predicted.

Task. One class; every clip has a score and either holds the class or does not. A clip is predicted
positive when its score is at least the threshold. Only as many thresholds differ as there are
distinct scores, plus one: each lies halfway between two neighbouring scores, below the lowest half
of it, above the highest halfway to 1. Where the highest score is 1 nothing lies above it.

Objectives (`Objective`):
    ``f1``: the largest F1, ``2tp / (2tp + fp + fn)``.
    ``cost``: the smallest ``fn + false_alarm_cost · fp``: a miss costs 1.
    ``recall_floor``: the fewest false alarms of all thresholds with recall >= `min_recall`; it is
        the highest such threshold.
    ``keep``: nothing is chosen; scaled scores are cut where 0.5 has come to lie, so that scaling
        changes no decision (see `training.metrics.calibration_fit`).
Of thresholds that are equally good the one nearest to 0.5 is taken, then the lower (for
``recall_floor`` there is but one).

Weights multiply what a clip contributes. Without positives there is no recall and no F1:
ValueError.

Reference: Lipton, Elkan & Naryanaswamy 2014, "Optimal thresholding of classifiers to maximize F1".
Checked against a search by brute force.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from training.metrics.classification import BoolArray, FloatArray

Objective = Literal["f1", "cost", "recall_floor", "keep"]
OBJECTIVES: Final[tuple[str, ...]] = get_args(Objective)
_EQUAL: Final = 1e-12


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a threshold is chosen for.

    Raises:
        ValueError: a cost is negative or not finite, or a recall lies outside (0, 1].
    """

    objective: Objective = "f1"
    false_alarm_cost: float = 1.0
    min_recall: float = 0.95

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            raise ValueError(f"the objective must be one of {', '.join(OBJECTIVES)}")
        if not 0 <= self.false_alarm_cost < np.inf:
            raise ValueError("the cost of a false alarm must be finite and not negative")
        if not 0 < self.min_recall <= 1:
            raise ValueError("the recall floor must lie above 0 and at most at 1")


def candidates(scores: FloatArray) -> FloatArray:
    """Return one threshold for every way in which scores can be cut in two, highest first.

    Args:
        scores: in [0, 1], at least one [shape=(n,)].
    """
    distinct = np.unique(scores)[::-1]
    between = (distinct[:-1] + distinct[1:]) / 2.0
    # Two neighbours may have no number between them.
    between = np.where(between > distinct[1:], between, distinct[:-1])
    above = [(1.0 + distinct[0]) / 2.0] if distinct[0] < 1.0 else []
    return np.concatenate([above, between, [distinct[-1] / 2.0]])


def choose_threshold(scores: FloatArray, truth: BoolArray, weight: FloatArray, goal: Goal) -> float:
    """Return the threshold that serves the goal best.

    Args:
        scores: in [0, 1] [shape=(n,)].
        truth: at least one is true [shape=(n,)].
        weight: > 0 [shape=(n,)].
        goal: what to optimise.

    Raises:
        ValueError: no clip holds the class, or the objective is `keep`.
    """
    if goal.objective == "keep":
        raise ValueError("the objective keep chooses no threshold")
    if not truth.any():
        raise ValueError("a threshold needs a clip that holds the class")
    cuts = candidates(scores)
    order = np.argsort(-scores, kind="stable")
    # How many clips lie at or above each cut.
    reached = np.searchsorted(-scores[order], -cuts, side="right")
    hits = np.concatenate([[0.0], np.cumsum((weight * truth)[order])])[reached]
    alarms = np.concatenate([[0.0], np.cumsum((weight * ~truth)[order])])[reached]
    positives = float((weight * truth).sum())
    if goal.objective == "recall_floor":
        met = hits >= goal.min_recall * positives - _EQUAL * positives
        return float(cuts[int(np.argmax(met))])
    if goal.objective == "cost":
        value = -((positives - hits) + goal.false_alarm_cost * alarms)
    else:
        value = 2.0 * hits / (hits + alarms + positives)
    best = np.flatnonzero(value >= value.max() - _EQUAL * max(1.0, float(np.abs(value).max())))
    return float(min(cuts[best].tolist(), key=lambda cut: (abs(cut - 0.5), cut)))
