"""What the alignment measurement takes and gives: its settings, one jump, one pair of mics."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = [
    "AlignmentConfig",
    "BoolArray",
    "ComplexArray",
    "FloatArray",
    "IntArray",
    "Jump",
    "PairLag",
]

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
ComplexArray = npt.NDArray[np.complexfloating[Any, Any]]

_POSITIVE: Final = (
    "max_shift_ms",
    "window_ms",
    "low_hz",
    "high_hz",
    "path_search_ms",
    "fine_shift_ms",
    "min_jump_ms",
    "max_spread_ms",
    "min_height_sigmas",
    "min_evidence_sigmas",
    "min_onset_rise_db",
    "level_range_db",
    "dominance_range_db",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignmentConfig:
    """Settings of the measurement. Every default was chosen on recordings with a known lag.

    `max_shift_ms` is the search range either side of the expected delay. `window_ms` is how much
    of a hit is compared. `low_hz` and `high_hz` bound the band: below it mics differ in phase,
    above it cymbal bleed is louder than the drum. A hit is used when it rises `min_onset_rise_db`
    above what preceded it, lies within `level_range_db` of the loud ones, and its level in the
    anchor relative to the target lies within `dominance_range_db` of the most anchor-like hits.
    `path_search_ms` is how far from the path of the lag a single hit's peak may be, `fine_shift_ms`
    the range of the second, closer look there, and `min_height_sigmas` how far that peak must stand
    above what unrelated signals give; `min_evidence_sigmas` is the same for the mean of all hits.
    At least `min_support` hits must agree, to within a robust standard deviation of
    `max_spread_ms`. `min_jump_ms` is the smallest jump looked for. `max_windows` bounds the work:
    more hits are thinned evenly over the recording.
    """

    max_shift_ms: float = 20.0
    window_ms: float = 40.0
    low_hz: float = 150.0
    high_hz: float = 6000.0
    min_onset_rise_db: float = 10.0
    level_range_db: float = 20.0
    dominance_range_db: float = 10.0
    path_search_ms: float = 0.3
    fine_shift_ms: float = 4.0
    min_height_sigmas: float = 3.0
    min_evidence_sigmas: float = 10.0
    min_support: int = 8
    max_spread_ms: float = 0.05
    min_jump_ms: float = 0.1
    max_windows: int = 1000

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        for name in _POSITIVE:
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name} must be finite and > 0, got {value}")
        if self.low_hz >= self.high_hz:
            raise ValueError(f"low_hz must be below high_hz, got {self.low_hz} and {self.high_hz}")
        if self.min_support < 3 or self.max_windows < self.min_support:
            raise ValueError("3 <= min_support <= max_windows must hold")
        if self.path_search_ms >= self.fine_shift_ms:
            raise ValueError("path_search_ms must be below fine_shift_ms")


@dataclass(frozen=True, kw_only=True, slots=True)
class Jump:
    """A sudden change of the lag by `delay_ms` (+ is later).

    It lies between the hits at `earliest_s` and `latest_s` in the anchor; `time_s` is the middle.
    """

    time_s: float
    delay_ms: float
    earliest_s: float
    latest_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LostStretch:
    """Hits in a row, too many for chance, that do not support the lag found elsewhere.

    The first is at `start_s`, the last at `stop_s` in the anchor. `step_ms` is how much later than
    its neighbours' the lag is at which they fit together; None when they fit at none. `at_end`
    says that the stretch begins or ends the recording, so that nothing follows or precedes it.
    """

    start_s: float
    stop_s: float
    hits: int
    step_ms: float | None
    at_end: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class PairLag:
    """The lag of one mic behind another, over a whole recording.

    Lags are in ms, positive when the target is late. `reason` is empty when the lag was measured;
    otherwise it says why not, and every measured value is None.

    `median_delay_ms` has the 95 % interval `median_ci_ms` (order statistics); `spread_ms` is
    1.4826 × the median absolute deviation from the fitted line. `max_abs_delay_ms` is the largest
    |lag| among the supporting hits. `drift_samples_per_min` is at the anchor's sample rate, with
    the 95 % interval `drift_ci`. `support` of the `n_windows` hits compared agree. `evidence` is
    how many standard deviations the mean of all hits stands above chance. `confidence` (0: no
    better than chance, towards 1: a pure delay) is the median of `window_confidence`.
    `edge_rejected` hits peaked at the end of the search range. `lost` are the stretches in which
    hits support no lag, or another one.
    `times_s`, `delays_ms` and `window_confidence` have one entry a supporting hit, in time order.
    """

    sample_rate: int
    expected_delay_ms: float
    n_windows: int
    reason: str = ""
    support: int = 0
    evidence: float = 0.0
    confidence: float = 0.0
    edge_rejected: int = 0
    median_delay_ms: float | None = None
    median_ci_ms: tuple[float, float] | None = None
    max_abs_delay_ms: float | None = None
    spread_ms: float | None = None
    drift_samples_per_min: float | None = None
    drift_ci: tuple[float, float] | None = None
    polarity_inverted: bool | None = None
    jumps: tuple[Jump, ...] = ()
    lost: tuple[LostStretch, ...] = ()
    times_s: FloatArray
    delays_ms: FloatArray
    window_confidence: FloatArray

    @property
    def measured(self) -> bool:
        """True when enough hits agreed on a lag."""
        return self.median_delay_ms is not None

    @property
    def residual_ms(self) -> float | None:
        """Median lag minus the expected one; None when there is no lag."""
        if self.median_delay_ms is None:
            return None
        return self.median_delay_ms - self.expected_delay_ms

    @property
    def max_jump_ms(self) -> float | None:
        """Size of the largest jump, 0 when there is none; None when there is no lag."""
        if self.median_delay_ms is None:
            return None
        return max((abs(jump.delay_ms) for jump in self.jumps), default=0.0)
