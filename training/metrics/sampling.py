"""Sampling weights: how often a trainer draws the events of each group, and what that will draw.

Task:
    Some sessions hold thousands of events, others a few dozen. An event is drawn with probability
    proportional to the weight of its group, ``(count + smoothing) ** -exponent``, so that a group
    as a whole is drawn in proportion to about ``count ** (1 - exponent)``: exponent 0 leaves the
    data as they are, 1 gives every group the same share.

Conventions:
    Arrays are per event ``(n_events,)`` or per group ``(n_groups,)``. The order of the steps:
    count (capped at `max_events_per_group`), power, technique boost, clamp to
    ``[min_weight, max_weight]``. A boost of b multiplies a group's weight by 1 + b times the share
    of its events that show the technique. A group with fewer than `min_count` events gets weight 0
    and is not clamped. Expected draws are of one epoch of n_draws independent draws.

Empty input:
    ValueError: without events, or when every group is left out, there is nothing to draw.

Sources:
    Mikolov et al. (2013), "Distributed representations of words and phrases" (power-law
    subsampling); Kish (1965), "Survey Sampling", for the effective sample size (sum w)²/sum w².
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from training.metrics.classification import BoolArray, FloatArray

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighting:
    """How counts become weights."""

    exponent: float = 0.5
    smoothing: float = 1.0
    min_weight: float = 0.05
    max_weight: float = 0.5
    max_events_per_group: int = 512
    """A group counts as having at most this many events; all of them can still be drawn."""
    min_count: int = 1
    """Groups with fewer events are left out of the draw."""
    technique_boost: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = {
            "exponent must be finite and >= 0": _at_least(self.exponent, 0.0),
            "smoothing must be finite and >= 0": _at_least(self.smoothing, 0.0),
            "min_weight must be finite and > 0": _at_least(self.min_weight, 0.0)
            and self.min_weight > 0,
            "max_weight must be finite and >= min_weight": _at_least(
                self.max_weight, self.min_weight
            ),
            "max_events_per_group must be >= 1": self.max_events_per_group >= 1,
            "min_count must be >= 1": self.min_count >= 1,
            "technique_boost must be finite and > -1": all(
                math.isfinite(boost) and boost > -1 for boost in self.technique_boost.values()
            ),
        }
        if wrong := [why for why, right in problems.items() if not right]:
            raise ValueError("; ".join(wrong))


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupWeights:
    """The weight of each group [shape=(n_groups,)]."""

    count: IntArray
    """Events of the group, not capped."""
    weight: FloatArray
    """What an event of the group is drawn in proportion to; 0 = left out."""
    unclamped: FloatArray
    """The same without clamping."""
    raised: BoolArray
    """Clamped up to `min_weight`."""
    lowered: BoolArray
    """Clamped down to `max_weight`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """What drawing with some weights gives."""

    probability: FloatArray
    """Of each event to be the next one drawn [shape=(n_events,)]."""
    effective_sample_size: float
    """(sum w)²/sum w²: as many equally weighted events would vary as much."""
    group_entropy_bits: float
    """Entropy of which group is drawn; log2(n_groups) is the most."""
    most_repeated: int
    """The event that is drawn most often (the first of several)."""


def group_weights(
    group: IntArray,
    n_groups: int,
    *,
    techniques: Mapping[str, BoolArray],
    weighting: Weighting,
) -> GroupWeights:
    """Weigh groups by their counts.

    Args:
        group: the group of each event, ``0 .. n_groups - 1`` [shape=(n_events,)].
        n_groups: number of groups; each has at least one event.
        techniques: technique -> which events show it [shape=(n_events,)], for those boosted.
        weighting: how.

    Raises:
        ValueError: no events, an empty group, or every group is left out.
    """
    count = np.bincount(group, minlength=n_groups).astype(np.int64)
    if n_groups == 0 or not count.all():
        raise ValueError("every group needs at least one event")
    counted = np.minimum(count, weighting.max_events_per_group).astype(np.float64)
    weight = (counted + weighting.smoothing) ** -weighting.exponent
    for name, boost in weighting.technique_boost.items():
        if name in techniques:
            shown = np.bincount(group, weights=techniques[name], minlength=n_groups)
            weight = weight * (1.0 + boost * shown / count)
    drawn = count >= weighting.min_count
    if not drawn.any():
        raise ValueError(f"no group has {weighting.min_count} events")
    unclamped = np.where(drawn, weight, 0.0)
    clamped = np.clip(unclamped, weighting.min_weight, weighting.max_weight)
    return GroupWeights(
        count=count,
        weight=np.where(drawn, clamped, 0.0),
        unclamped=unclamped,
        raised=drawn & (unclamped < weighting.min_weight),
        lowered=drawn & (unclamped > weighting.max_weight),
    )


def draw(group: IntArray, weight: FloatArray) -> Draw:
    """Say what drawing events in proportion to the weight of their group gives.

    Args:
        group: the group of each event [shape=(n_events,)].
        weight: the weight of each group, not all 0 [shape=(n_groups,)].
    """
    each = weight[group]
    total = each.sum()
    probability = each / total
    share: FloatArray = np.bincount(group, weights=probability).astype(np.float64)
    return Draw(
        probability=probability,
        effective_sample_size=float(total**2 / (each**2).sum()),
        group_entropy_bits=entropy_bits(share),
        most_repeated=int(probability.argmax()),
    )


def entropy_bits(share: FloatArray) -> float:
    """Entropy of a distribution in bits; shares of 0 add nothing."""
    positive = share[share > 0]
    # Adding 0.0 turns the -0.0 of a sure thing into 0.0.
    return float(-(positive * np.log2(positive)).sum()) + 0.0


def total_variation(first: FloatArray, second: FloatArray) -> float:
    """Share of the draws that two distributions place differently, 0..1."""
    return float(np.abs(first - second).sum() / 2.0)


def _at_least(value: float, least: float) -> bool:
    return math.isfinite(value) and value >= least
