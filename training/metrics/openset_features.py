"""Unknown scores from a model's features: how far a clip lies from what training sounded like.

Task:
    Turn the feature vector of a clip into one number, higher = more unknown, with statistics of
    the training clips.

Scores, with x a feature vector:
    mahalanobis: the smallest squared Mahalanobis distance to a label set's mean, with one
        covariance shared by all label sets.
    relative_mahalanobis: the same, less the squared distance to the mean of all training clips
        under the covariance of all of them.
    knn: the Euclidean distance to the k-th nearest training clip, all vectors scaled to length 1.
    vim: alpha * ||the part of (x - o) outside the principal space|| - free energy of the logits.
        o = -pinv(W) b is where the class layer ``W x + b`` says nothing; the principal space is
        that of the `n_principal` largest eigenvalues of the second moment of (training - o); alpha
        makes the residuals of training as large, on average, as their largest logits.

Conventions:
    Features have shape (n_clips, n_features); finite. `targets` are 0/1 label matrices, shape
    (n_clips, n_classes); clips with the same labels form one label set, clips without any
    (background) none.

Empty input:
    No clips to score give no scores; no training clips are an error.

Sources:
    Lee et al. (2018), Mahalanobis; Ren et al. (2021), relative Mahalanobis; Sun et al. (2022),
    deep nearest neighbours; Wang et al. (2022), virtual-logit matching. Checked against
    scikit-learn's ``EmpiricalCovariance`` and ``NearestNeighbors`` and against the authors' ViM
    formulas written out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.linalg import pinvh

from training.metrics.classification import BoolArray, FloatArray
from training.metrics.openset_scores import Task, free_energy

FEATURE_SCORES: Final = ("mahalanobis", "relative_mahalanobis", "knn", "vim")
_CELLS_PER_BLOCK: Final = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Gaussian:
    """Means of the label sets, their shared precision, and mean and precision of all clips."""

    means: FloatArray
    """[shape=(n_sets, n_features)]"""
    precision: FloatArray
    """Within label sets [shape=(n_features, n_features)]."""
    centre: FloatArray
    """[shape=(n_features,)]"""
    background: FloatArray
    """Precision over all clips [shape=(n_features, n_features)]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VirtualLogit:
    """What ViM knows of training."""

    origin: FloatArray
    """[shape=(n_features,)]"""
    residual: FloatArray
    """An orthonormal basis outside the principal space [shape=(n_features, n_residual)]."""
    alpha: float
    weight: FloatArray
    """Of the class layer [shape=(n_classes, n_features)]."""
    bias: FloatArray
    """[shape=(n_classes,)]"""
    task: Task


def fit_gaussian(features: FloatArray, targets: BoolArray) -> Gaussian:
    """Fit means and covariances (maximum likelihood, pseudo-inverted) on training clips.

    Raises:
        ValueError: the shapes differ, or no clip has a label.
    """
    targets = np.asarray(targets, dtype=bool)
    if targets.ndim != 2 or len(targets) != len(features):
        raise ValueError(f"targets {targets.shape} must have one row a feature vector")
    labelled = targets.any(axis=1)
    if not labelled.any():
        raise ValueError("no training clip has a label")
    x = features[labelled]
    sets, which = np.unique(targets[labelled], axis=0, return_inverse=True)
    which = which.reshape(-1)
    means = np.stack([x[which == number].mean(axis=0) for number in range(len(sets))])
    centre = x.mean(axis=0)
    within, around = x - means[which], x - centre
    return Gaussian(
        means=means,
        precision=pinvh(within.T @ within / len(x)),
        centre=centre,
        background=pinvh(around.T @ around / len(x)),
    )


def mahalanobis(features: FloatArray, fitted: Gaussian) -> FloatArray:
    """Return the squared distance to the nearest label set, shape (n_clips,)."""
    nearest = np.full(len(features), np.inf)
    for mean in fitted.means:
        away = features - mean
        # `minimum` and not `fmin`: a feature that is not a number must not look near.
        nearest = np.minimum(nearest, ((away @ fitted.precision) * away).sum(axis=1))
    return nearest


def relative_mahalanobis(features: FloatArray, fitted: Gaussian) -> FloatArray:
    """Return `mahalanobis` less the squared distance to all of training, shape (n_clips,)."""
    off = features - fitted.centre
    return np.asarray(mahalanobis(features, fitted) - ((off @ fitted.background) * off).sum(axis=1))


def nearest_neighbour(features: FloatArray, training: FloatArray, neighbours: int) -> FloatArray:
    """Return the distance to the k-th nearest training clip on the unit sphere, shape (n_clips,).

    Raises:
        ValueError: `neighbours` is below 1 or above the number of training clips.
    """
    if not 1 <= neighbours <= len(training):
        raise ValueError(f"neighbours must lie in 1 to {len(training)}, got {neighbours}")
    bank, asked = _to_unit(training), _to_unit(features)
    step = max(1, _CELLS_PER_BLOCK // len(bank))
    found = [np.empty(0)]
    for start in range(0, len(asked), step):
        likeness = asked[start : start + step] @ bank.T
        kth = np.partition(likeness, len(bank) - neighbours, axis=1)[:, len(bank) - neighbours]
        # |a - b|² = 2 - 2 a·b on the unit sphere; rounding may take it just below 0.
        found.append(np.sqrt(np.maximum(2.0 - 2.0 * kth, 0.0)))
    return np.concatenate(found)


def fit_vim(
    training: FloatArray,
    weight: FloatArray,
    bias: FloatArray,
    *,
    task: Task,
    n_principal: int | None = None,
) -> VirtualLogit:
    """Fit ViM on training features and the class layer.

    `n_principal` defaults to the paper's: 1000 of 2048 features or more, 512 of 768 or more, else
    half of them.

    Raises:
        ValueError: the shapes do not fit, training leaves nothing outside the principal space, or
            its largest logits are not above 0 on average (alpha would turn the score round).
    """
    n_features = training.shape[1]
    if weight.ndim != 2 or weight.shape[1] != n_features or bias.shape != weight.shape[:1]:
        raise ValueError(f"weight {weight.shape} and bias {bias.shape} do not fit {n_features}")
    if n_principal is None:
        n_principal = 1000 if n_features >= 2048 else 512 if n_features >= 768 else n_features // 2
    if not 0 <= n_principal < n_features:
        raise ValueError(f"n_principal must lie in 0 to {n_features - 1}, got {n_principal}")
    origin = -np.linalg.pinv(weight) @ bias
    centred = training - origin
    _, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    residual = vectors[:, : n_features - n_principal]  # eigenvalues ascend
    outside = float(np.linalg.norm(centred @ residual, axis=1).mean())
    scale = float(np.linalg.norm(centred, axis=1).mean())
    if not outside > 1e-9 * scale:
        raise ValueError("training features lie wholly in the principal space")
    largest = float((training @ weight.T + bias).max(axis=1).mean())
    if not largest > 0.0:
        raise ValueError("the largest logits of training are not above 0 on average")
    return VirtualLogit(
        origin=origin,
        residual=residual,
        alpha=largest / outside,
        weight=weight,
        bias=bias,
        task=task,
    )


def vim(features: FloatArray, fitted: VirtualLogit) -> FloatArray:
    """Return the virtual logit less the free energy, shape (n_clips,)."""
    outside = np.linalg.norm((features - fitted.origin) @ fitted.residual, axis=1)
    logits = features @ fitted.weight.T + fitted.bias
    return np.asarray(fitted.alpha * outside - free_energy(logits, task=fitted.task))


def _to_unit(rows: FloatArray) -> FloatArray:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(length, 1e-12))
