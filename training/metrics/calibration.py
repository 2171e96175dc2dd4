"""Calibration: do the scores of a classifier mean what they say, and how to mend those that do not.

Task:
    A multi-label classifier gives every clip a score in [0, 1] for every class. It is calibrated
    when of all clips scored 0.8 for a class, 80 % hold that class.

Scaling. A calibrated score is ``sigmoid(slope · logit(score) + intercept)``. A temperature is
``slope = 1 / temperature`` with no intercept, one for all classes (Guo et al. 2017); Platt scaling
is a slope and an intercept a class (Platt 1999). The slope is positive, so that the ranking of the
clips within a class never changes; the identity is slope 1, intercept 0. Scores are kept
``SCORE_FLOOR`` away from 0 and 1, where the logit is infinite.

Platt's targets: with ``n1`` positives and ``n0`` negatives (weighted) the fit aims at
``(n1 + 1) / (n1 + 2)`` and ``1 / (n0 + 2)`` rather than at 1 and 0, which keeps it finite where the
classes can be separated.

Figures. ECE: see `training.metrics.scores`, whose 15 equal bins these are; overall it pools all
cells of all classes. Brier: the mean of ``(score - truth)²``. Skill: ``1 - Brier / Brier of the
share of positives of each class``; 0 is what one would say without listening. NLL: the mean of
``-log(probability of what is true)``, natural logarithm.

Conventions:
    Arrays are ``(n_clips, n_classes)``. A clip's weight multiplies all that it contributes. A cell
    that is not annotated counts nowhere.

Empty input:
    A figure over no cells is None. A class that cannot be fitted keeps the identity, with a reason.

References: Platt 1999, "Probabilistic outputs for support vector machines"; Lin, Lin & Weng 2007
(Newton's method for it); Guo et al. 2017, "On calibration of modern neural networks"; Naeini et al.
2015 (ECE); DeGroot & Fienberg 1983 (reliability diagrams); Brier 1950. Checked against
scikit-learn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.metrics.classification import BoolArray, FloatArray
from training.metrics.scores import CALIBRATION_BINS

SCORE_FLOOR: Final = 1e-7
TEMPERATURES: Final = (0.05, 20.0)
_STEPS: Final = 100
_GAIN: Final = 1e-15


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Scores beside the truth, clip by clip."""

    labels: tuple[str, ...]
    scores: FloatArray
    """In [0, 1] [shape=(n_clips, n_classes)]."""
    truth: BoolArray
    """[shape=(n_clips, n_classes)]"""
    annotated: BoolArray
    """False where the label is unknown for this clip [shape=(n_clips, n_classes)]."""
    weight: FloatArray
    """Finite, >= 0 [shape=(n_clips,)]."""

    def __post_init__(self) -> None:
        shape = (len(self.weight), len(self.labels))
        for name in ("scores", "truth", "annotated"):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} {getattr(self, name).shape} must have shape {shape}")
        if not np.all((self.scores >= 0) & (self.scores <= 1)):
            raise ValueError("scores must lie in [0, 1]")
        if not np.all(np.isfinite(self.weight) & (self.weight >= 0)):
            raise ValueError("weights must be finite and not negative")

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def cell_weight(self) -> FloatArray:
        """The weight of each cell, 0 where it is not annotated [shape=(n_clips, n_classes)]."""
        return np.where(self.annotated, self.weight[:, None], 0.0)

    def rows(self, which: NDArray[Any]) -> Scored:
        """Return some of the clips, by mask or by index."""
        return Scored(
            labels=self.labels,
            scores=self.scores[which],
            truth=self.truth[which],
            annotated=self.annotated[which],
            weight=self.weight[which],
        )

    def column(self, number: int) -> tuple[FloatArray, BoolArray, FloatArray]:
        """Return scores, truth and weights of the annotated clips of one class."""
        known = self.annotated[:, number] & (self.weight > 0)
        return self.scores[known, number], self.truth[known, number], self.weight[known]


def logit(scores: FloatArray) -> FloatArray:
    """Return ``log(p / (1 - p))``, with p kept `SCORE_FLOOR` away from 0 and 1."""
    p = np.clip(scores, SCORE_FLOOR, 1.0 - SCORE_FLOOR)
    found: FloatArray = np.log(p) - np.log1p(-p)
    return found


def scale(scores: FloatArray, slope: FloatArray, intercept: FloatArray) -> FloatArray:
    """Calibrate scores.

    Where a class has slope 1 and intercept 0 its scores are returned as they are, to the last bit.

    Args:
        scores: in [0, 1] [shape=(..., n_classes)].
        slope: > 0 [shape=(n_classes,)].
        intercept: [shape=(n_classes,)].
    """
    from scipy.special import expit

    scaled = expit(logit(scores) * slope + intercept)
    return np.where((slope == 1.0) & (intercept == 0.0), scores, scaled)


def fit_temperature(scored: Scored) -> float | None:
    """Return the temperature with the smallest NLL over all annotated cells, within `TEMPERATURES`.

    The NLL is convex in the inverse of the temperature, so there is one minimum. None without a
    cell.
    """
    from scipy.optimize import minimize_scalar

    weight = scored.cell_weight
    known = weight > 0
    if not known.any():
        return None
    # Positive where the score is on the right side.
    margin = np.where(scored.truth, 1.0, -1.0)[known] * logit(scored.scores)[known]
    weight = weight[known] / weight[known].sum()

    def cost(log_temperature: float) -> float:
        return float(weight @ np.logaddexp(0.0, -margin * np.exp(-log_temperature)))

    low, high = np.log(TEMPERATURES)
    found = minimize_scalar(cost, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return float(np.exp(found.x))


def fit_platt(scores: FloatArray, truth: BoolArray, weight: FloatArray) -> tuple[float, float]:
    """Fit slope and intercept of one class by logistic regression on Platt's targets.

    Newton's method with halved steps, on a loss that is strictly convex when the scores differ. The
    slope may come out negative: what to do then is the caller's business.

    Args:
        scores: in [0, 1], not all equal [shape=(n,)].
        truth: holds both values [shape=(n,)].
        weight: > 0 [shape=(n,)].

    Raises:
        ValueError: the scores are all equal, or the truth is.
    """
    from scipy.special import expit

    x = logit(scores)
    if not x.size or np.ptp(x) == 0 or truth.all() or not truth.any():
        raise ValueError("Platt scaling needs different scores and both kinds of clips")
    positives, negatives = float(weight[truth].sum()), float(weight[~truth].sum())
    target = np.where(truth, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))
    # Centred and of unit spread the two parameters hardly depend on one another.
    centre, spread = float(x.mean()), float(x.std())
    x = (x - centre) / spread
    weight = weight / weight.sum()
    at = np.array([0.0, np.log((positives + 1.0) / (negatives + 1.0))])

    def loss(point: FloatArray) -> float:
        z = point[0] * x + point[1]
        return float((weight * (np.logaddexp(0.0, z) - target * z)).sum())

    value = loss(at)
    for _ in range(_STEPS):
        p = expit(at[0] * x + at[1])
        off = weight * (p - target)
        gradient = np.array([(off * x).sum(), off.sum()])
        steep = weight * p * (1.0 - p)
        mixed = (steep * x).sum()
        curvature = np.array([[(steep * x * x).sum(), mixed], [mixed, steep.sum()]])
        step = np.linalg.solve(curvature + 1e-14 * np.eye(2), gradient)
        # What the step can still gain; below this the loss is rounding.
        if gradient @ step < _GAIN:
            break
        size = 1.0
        while loss(at - size * step) > value and size > 1e-10:
            size /= 2.0
        if size <= 1e-10:
            break
        at = at - size * step
        value = loss(at)
    slope = float(at[0] / spread)
    return slope, float(at[1] - slope * centre)


@dataclass(frozen=True, kw_only=True, slots=True)
class Reliability:
    """What a reliability diagram draws: sums over the cells of each bin, each (n_classes, bins)."""

    labels: tuple[str, ...]
    cells: FloatArray
    """Weight of the cells."""
    scores: FloatArray
    """Weighted sum of the scores."""
    positives: FloatArray
    """Weight of the cells whose label is there."""

    def ece(self) -> float | None:
        """Return the expected calibration error over all cells of all classes, pooled."""
        gap = np.abs((self.scores - self.positives).sum(axis=0)).sum()
        return _quotient(gap, self.cells.sum())

    def class_ece(self) -> list[float | None]:
        """Return the expected calibration error of each class."""
        gaps = np.abs(self.scores - self.positives).sum(axis=1)
        return [_quotient(gap, n) for gap, n in zip(gaps, self.cells.sum(axis=1), strict=True)]

    def points(self, label: str | None = None) -> list[dict[str, float]]:
        """Return the bins that are not empty, of one class or of all pooled, lowest scores first.

        Each has `cells` (weight), `mean_score` and `share_true`.
        """
        which: slice | list[int] = slice(None) if label is None else [self.labels.index(label)]
        sums = zip(
            *(part[which].sum(axis=0) for part in (self.cells, self.scores, self.positives)),
            strict=True,
        )
        return [
            {"cells": float(n), "mean_score": float(s / n), "share_true": float(p / n)}
            for n, s, p in sums
            if n > 0
        ]


def reliability(scored: Scored, *, bins: int = CALIBRATION_BINS) -> Reliability:
    """Sort the cells of each class into equal bins of their score; a score of 1 is in the last."""
    n_classes = len(scored.labels)
    weight = scored.cell_weight
    place = np.minimum((scored.scores * bins).astype(np.intp), bins - 1)
    place += np.arange(n_classes) * bins

    def total(values: FloatArray) -> FloatArray:
        found: FloatArray = np.bincount(
            place.ravel(), weights=values.ravel(), minlength=n_classes * bins
        ).astype(np.float64)
        return found.reshape(n_classes, bins)

    return Reliability(
        labels=scored.labels,
        cells=total(weight),
        scores=total(weight * scored.scores),
        positives=total(weight * scored.truth),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationFigures:
    """How far scores are from what they say; None where there is no cell."""

    ece: float | None
    brier: float | None
    brier_skill: float | None
    """None also where no class has both kinds of cells."""
    nll: float | None
    class_ece: tuple[float | None, ...]
    class_brier: tuple[float | None, ...]


def measure(scored: Scored) -> CalibrationFigures:
    """Measure ECE, Brier score and NLL, overall and per class (see the module)."""
    found = reliability(scored)
    weight = scored.cell_weight
    squared = (weight * (scored.scores - scored.truth) ** 2).sum(axis=0)
    cells = weight.sum(axis=0)
    positives = (weight * scored.truth).sum(axis=0)
    share = np.divide(positives, cells, out=np.zeros_like(cells), where=cells > 0)
    mute = float((cells * share * (1.0 - share)).sum())
    z = logit(scored.scores)
    nll = (weight * np.logaddexp(0.0, np.where(scored.truth, -z, z))).sum()
    return CalibrationFigures(
        ece=found.ece(),
        brier=_quotient(squared.sum(), cells.sum()),
        brier_skill=1.0 - float(squared.sum()) / mute if mute > 0 else None,
        nll=_quotient(nll, cells.sum()),
        class_ece=tuple(found.class_ece()),
        class_brier=tuple(_quotient(a, n) for a, n in zip(squared, cells, strict=True)),
    )


def _quotient(numerator: float, denominator: float) -> float | None:
    return float(numerator / denominator) if denominator > 0 else None
