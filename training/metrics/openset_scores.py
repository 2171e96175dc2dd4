"""Unknown scores from what a classifier says of a clip: its logits or its probabilities.

Task:
    Turn the outputs for one clip into one number, higher = more unknown. Nothing is fitted and no
    training data is needed. `training.metrics.openset_features` looks at features instead.

Conventions:
    Logits and probabilities have shape (n_clips, n_classes). ``multilabel``: each class has its own
    sigmoid, several may be present. ``multiclass``: one softmax. With p the probabilities, z the
    logits over the temperature T:

    ==================  =====================================  ====================================
    score               multilabel                             multiclass
    ==================  =====================================  ====================================
    max_probability     1 - max p                              the same
    max_logit           - max z                                the same
    energy              - T sum log(1 + exp z)  (joint)        - T log sum exp z
    entropy             sum of the binary entropies (nats)     - sum p log p (nats)
    gen                 sum over the top M of (p (1 - p))^g    the same
    ==================  =====================================  ====================================

    Where only probabilities are known, z = log p - log(1 - p), p kept `CLIP` away from 0 and 1.
    A softmax cannot be undone (a constant is lost), so multiclass ``max_logit`` and ``energy`` need
    logits.

Empty input:
    No clips give no scores; no classes are an error. Values that are not finite stay so.

Sources:
    Hendrycks and Gimpel (2017) for max_probability; Hendrycks et al. (2022) for max_logit; Liu et
    al. (2020) and, for several labels, Wang et al. (2021) for energy; Liu, Lochman and Zach (2023)
    for GEN (g = 0.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy.special import entr, expit, logsumexp, softmax

from training.metrics.classification import FloatArray

Task = Literal["multilabel", "multiclass"]
OUTPUT_SCORES: Final = ("max_probability", "max_logit", "energy", "entropy", "gen")
CLIP: Final = 1e-6
"""`predict` rounds its scores to six digits, so nothing nearer to 0 or 1 can be told apart."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outputs:
    """What the scores are computed from; logits are those over the temperature.

    `logits` is None where they cannot be had: a softmax without its logits.
    """

    probabilities: FloatArray
    complements: FloatArray
    """1 - p without the rounding of it: a sure classifier would else tie all that it is sure of."""
    logits: FloatArray | None
    task: Task
    temperature: float = 1.0


def from_logits(logits: FloatArray, *, task: Task, temperature: float = 1.0) -> Outputs:
    """Prepare logits.

    Raises:
        ValueError: no classes, or the temperature is not above 0.
    """
    if logits.ndim != 2 or not logits.shape[1]:
        raise ValueError(f"outputs {logits.shape} must have shape (n_clips, n_classes)")
    if not temperature > 0.0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    scaled = logits / temperature
    if task == "multilabel":
        probabilities, complements = expit(scaled), expit(-scaled)
    else:
        probabilities = softmax(scaled, axis=1)
        complements = 1.0 - probabilities
        rows, largest = np.arange(len(scaled)), scaled.argmax(axis=1)
        others = probabilities.copy()
        others[rows, largest] = 0.0
        complements[rows, largest] = others.sum(axis=1)
    return Outputs(
        probabilities=probabilities,
        complements=complements,
        logits=scaled,
        task=task,
        temperature=temperature,
    )


def from_probabilities(probabilities: FloatArray, *, task: Task) -> Outputs:
    """Prepare probabilities in [0, 1]; logits come from them where that can be.

    Raises:
        ValueError: no classes.
    """
    if probabilities.ndim != 2 or not probabilities.shape[1]:
        raise ValueError(f"outputs {probabilities.shape} must have shape (n_clips, n_classes)")
    if task == "multiclass":
        return Outputs(
            probabilities=probabilities, complements=1.0 - probabilities, logits=None, task=task
        )
    kept = np.clip(probabilities, CLIP, 1.0 - CLIP)
    logits = np.log(kept) - np.log1p(-kept)
    return Outputs(
        probabilities=probabilities, complements=1.0 - probabilities, logits=logits, task=task
    )


def unknown_scores(
    name: str, outputs: Outputs, *, gamma: float = 0.1, top: int | None = None
) -> FloatArray:
    """Return the unknown score of each clip, shape (n_clips,).

    Args:
        name: one of `OUTPUT_SCORES`.
        outputs: of the classifier.
        gamma: the exponent of ``gen``, in (0, 1).
        top: M of ``gen``: how many of the largest probabilities it looks at; None for all.

    Raises:
        ValueError: an unknown name, or a score that needs logits where there are none.
    """
    p, rest, z = outputs.probabilities, outputs.complements, outputs.logits
    if name == "max_probability":
        return np.asarray(rest.min(axis=1))
    if name == "entropy":
        both = entr(p) + entr(rest) if outputs.task == "multilabel" else entr(p)
        return np.asarray(both.sum(axis=1))
    if name == "gen":
        order = np.argsort(rest, axis=1)[:, :top]
        spread = np.take_along_axis(p * rest, order, axis=1)
        return np.asarray((spread**gamma).sum(axis=1))
    if name not in OUTPUT_SCORES:
        raise ValueError(f"unknown score {name!r}; there are {', '.join(OUTPUT_SCORES)}")
    if z is None:
        raise ValueError(f"{name} of a softmax needs logits")
    if name == "max_logit":
        return np.asarray(-z.max(axis=1))
    return -outputs.temperature * free_energy(z, task=outputs.task)


def free_energy(logits: FloatArray, *, task: Task) -> FloatArray:
    """Return what rises with how much a classifier recognises, shape (n_clips,): see the table."""
    if task == "multilabel":
        return np.asarray(np.logaddexp(0.0, logits).sum(axis=1))
    return np.asarray(logsumexp(logits, axis=1))
