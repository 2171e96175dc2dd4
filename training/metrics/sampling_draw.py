"""What drawing events by their weights gives: computed from counts, without an event in sight.

Conventions:
    Events that are drawn alike form a stratum: n events that weigh the same. All arrays are per
    stratum ``(n_strata,)``. Expected draws are of one epoch of `n_draws` independent draws with
    replacement. Sums run in the order given, so the same strata in the same order give the same
    bits.

Empty input:
    ValueError: no stratum, or none that weighs more than 0.

Sources:
    Kish (1965), "Survey Sampling", for the effective sample size (sum w)²/sum w².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.metrics.classification import FloatArray
from training.metrics.sampling import IntArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """What drawing with some weights gives."""

    probability: FloatArray
    """Of each single event of a stratum to be the next one drawn [shape=(n_strata,)]."""
    effective_sample_size: float
    """(sum w)²/sum w²: as many equally weighted events would vary as much."""
    expected_distinct: float
    """Different events among the draws."""
    most_repeated: int
    """The stratum whose events are drawn most often; of several, that with the first event."""


def draw(count: IntArray, weight: FloatArray, first: IntArray, n_draws: int) -> Draw:
    """Say what drawing events in proportion to their weights gives.

    Args:
        count: events of each stratum [shape=(n_strata,)].
        weight: what each of them weighs, not all 0 [shape=(n_strata,)].
        first: position of the first event of each stratum [shape=(n_strata,)].
        n_draws: draws of the epoch.

    Raises:
        ValueError: nothing can be drawn.
    """
    if len(weight) == 0 or not weight.max() > 0:
        raise ValueError("nothing can be drawn: every event weighs 0")
    # Only ratios matter; without this the squares of very small weights would vanish.
    scaled = weight / weight.max()
    total = float((count * scaled).sum())
    probability: FloatArray = scaled / total
    top = np.flatnonzero(probability == probability.max())
    return Draw(
        probability=probability,
        effective_sample_size=float(total**2 / (count * scaled**2).sum()),
        expected_distinct=float((count * _ever(probability, n_draws)).sum()),
        most_repeated=int(top[np.argmin(first[top])]),
    )


def entropy_bits(share: FloatArray) -> float:
    """Entropy of a distribution in bits; shares of 0 add nothing."""
    positive = share[share > 0]
    # Adding 0.0 turns the -0.0 of a sure thing into 0.0.
    return float(-(positive * np.log2(positive)).sum()) + 0.0


def total_variation(count: IntArray, first: FloatArray, second: FloatArray) -> float:
    """Share of the draws that two draws from the same strata place differently, 0..1."""
    return float((count * np.abs(first - second)).sum() / 2.0)


def _ever(probability: FloatArray, n_draws: int) -> FloatArray:
    """Probability of being drawn at least once; exact also where it is tiny."""
    with np.errstate(divide="ignore"):
        ever: FloatArray = -np.expm1(n_draws * np.log1p(-probability))
    return ever
