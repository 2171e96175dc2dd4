"""Sampling weights: how often a trainer draws each event.

Task:
    Some sessions hold thousands of events, others a few dozen; some classes are common, others
    rare. Three schemes say in proportion to what an event is drawn:

    inverse_count
        to the weight of its group, ``(count + smoothing) ** -exponent``, so that a group as a whole
        is drawn in proportion to about ``count ** (1 - exponent)``: exponent 0 leaves the data as
        they are, 1 gives every group the same share.
    repeat_factor
        to ``max(1, sqrt(t / f))`` of its rarest class, where f is the share of the events that hold
        the class and t the share below which a class is repeated (`repeat_threshold`).
    effective_number
        to ``(1 - beta) / (1 - beta ** n)`` of its rarest class, with n events that hold the class:
        for small n nearly ``1 / n``, and from about ``1 / (1 - beta)`` events on the same for all.

Conventions:
    Arrays are per group ``(n_groups,)`` or per class ``(n_classes,)``. The weight of an event is
    the weight of its group times the largest factor of its classes; by inverse_count every factor
    is 1, by the others every group weighs 1 before boosts. An event without a hit counts as a class
    of its own. The order of the steps by inverse_count: count (capped at `max_events_per_group`),
    power, technique boost, clamp to ``[min_weight, max_weight]``. A boost of b multiplies a group's
    weight by 1 + b times the share of its events that show the technique. By the other schemes the
    bounds clamp the factors of the classes, and group weights are boosted and not clamped. A group
    with fewer than `min_count` events gets weight 0 and is not clamped.

Empty input:
    ValueError: without events, or when every group is left out, there is nothing to draw.

Sources:
    Mikolov et al. (2013), "Distributed representations of words and phrases" (power-law
    subsampling); Gupta, Dollár & Girshick (2019), "LVIS: A Dataset for Large Vocabulary Instance
    Segmentation" (repeat factor sampling); Cui et al. (2019), "Class-Balanced Loss Based on
    Effective Number of Samples".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from training.metrics.classification import BoolArray, FloatArray

IntArray = NDArray[np.int64]
Scheme = Literal["inverse_count", "repeat_factor", "effective_number"]
SCHEMES: Final = ("inverse_count", "repeat_factor", "effective_number")


@dataclass(frozen=True, kw_only=True, slots=True)
class Weighting:
    """How counts become weights."""

    scheme: Scheme = "inverse_count"
    exponent: float = 0.5
    smoothing: float = 1.0
    min_weight: float | None = 0.05
    """None does not clamp."""
    max_weight: float | None = 0.5
    max_events_per_group: int = 512
    """A group counts as having at most this many events; all of them can still be drawn."""
    min_count: int = 1
    """Groups with fewer events are left out of the draw."""
    technique_boost: Mapping[str, float] = field(default_factory=dict)
    repeat_threshold: float = 0.05
    """Classes in a smaller share of the events than this are repeated."""
    beta: float = 0.9999

    def __post_init__(self) -> None:
        low, high = self.min_weight, self.max_weight
        problems = {
            f"scheme must be one of {', '.join(SCHEMES)}": self.scheme in SCHEMES,
            "exponent must be finite and >= 0": _at_least(self.exponent, 0.0),
            "smoothing must be finite and >= 0": _at_least(self.smoothing, 0.0),
            "min_weight must be finite and > 0": low is None or (_at_least(low, 0.0) and low > 0),
            "max_weight must be finite and >= min_weight": high is None
            or (_at_least(high, low or 0.0) and high > 0),
            "max_events_per_group must be >= 1": self.max_events_per_group >= 1,
            "min_count must be >= 1": self.min_count >= 1,
            "technique_boost must be finite and > -1": all(
                math.isfinite(boost) and boost > -1 for boost in self.technique_boost.values()
            ),
            "repeat_threshold must be > 0 and <= 1": 0 < self.repeat_threshold <= 1,
            "beta must be >= 0 and < 1": 0 <= self.beta < 1,
        }
        if wrong := [why for why, right in problems.items() if not right]:
            raise ValueError("; ".join(wrong))

    @property
    def by_class(self) -> bool:
        """Whether the scheme weighs classes, not groups."""
        return self.scheme != "inverse_count"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clamped:
    """Weights of groups or factors of classes, before and after clamping [shape=(n,)]."""

    weight: FloatArray
    """What an event is drawn in proportion to; 0 = left out."""
    unclamped: FloatArray
    """The same without clamping."""
    raised: BoolArray
    """Clamped up to `min_weight`."""
    lowered: BoolArray
    """Clamped down to `max_weight`."""


def drawable(count: IntArray, weighting: Weighting) -> BoolArray:
    """Return which groups have enough events to be drawn [shape=(n_groups,)].

    Raises:
        ValueError: no group at all, an empty group, or every group is left out.
    """
    if len(count) == 0 or not count.all():
        raise ValueError("every group needs at least one event")
    drawn: BoolArray = count >= weighting.min_count
    if not drawn.any():
        raise ValueError(f"no group has {weighting.min_count} events")
    return drawn


def group_weights(
    count: IntArray, *, techniques: Mapping[str, IntArray], weighting: Weighting
) -> Clamped:
    """Weigh groups by their counts.

    Args:
        count: events of each group, at least one [shape=(n_groups,)].
        techniques: technique -> events of each group that show it [shape=(n_groups,)], for those
            boosted; one that is absent boosts nothing.
        weighting: how.

    Raises:
        ValueError: see `drawable`; or boosts make a weight overflow.
    """
    drawn = drawable(count, weighting)
    if weighting.by_class:
        weight = np.ones(len(count))
    else:
        counted = np.minimum(count, weighting.max_events_per_group).astype(np.float64)
        # 0 ** -0.0 is 1; a count is at least 1, so nothing is divided by zero.
        weight = (counted + weighting.smoothing) ** -weighting.exponent
    for name, boost in weighting.technique_boost.items():
        if name in techniques:
            with np.errstate(over="ignore"):
                weight = weight * (1.0 + boost * techniques[name] / count)
    if not np.isfinite(weight).all():
        raise ValueError("technique_boost: the weights become too large")
    if weighting.by_class:
        found = _clamped(weight, None, None)
    else:
        found = _clamped(weight, weighting.min_weight, weighting.max_weight)
    return Clamped(
        weight=np.where(drawn, found.weight, 0.0),
        unclamped=np.where(drawn, found.unclamped, 0.0),
        raised=drawn & found.raised,
        lowered=drawn & found.lowered,
    )


def class_factors(count: IntArray, n_events: int, weighting: Weighting) -> Clamped:
    """Weigh classes by how many of the drawable events hold them.

    Args:
        count: events that hold each class, at least one [shape=(n_classes,)].
        n_events: drawable events; an event with two classes counts for both.
        weighting: how; by inverse_count every factor is 1.
    """
    events = count.astype(np.float64)
    if weighting.scheme == "repeat_factor":
        factor = np.maximum(1.0, np.sqrt(weighting.repeat_threshold * n_events / events))
    elif weighting.scheme == "effective_number":
        # expm1 and log keep 1 - beta ** n exact where beta ** n is nearly 1.
        log_beta = math.log(weighting.beta) if weighting.beta > 0 else -math.inf
        factor = (1.0 - weighting.beta) / -np.expm1(events * log_beta)
    else:
        return _clamped(np.ones(len(count)), None, None)
    return _clamped(factor, weighting.min_weight, weighting.max_weight)


def _clamped(weight: FloatArray, low: float | None, high: float | None) -> Clamped:
    least = -math.inf if low is None else low
    most = math.inf if high is None else high
    return Clamped(
        weight=np.clip(weight, least, most),
        unclamped=weight,
        raised=weight < least,
        lowered=weight > most,
    )


def _at_least(value: float, least: float) -> bool:
    return math.isfinite(value) and value >= least
