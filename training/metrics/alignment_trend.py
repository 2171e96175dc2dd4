"""Slow drift told from sudden jumps, in a noisy series of lags.

The series is modelled as ``level of the segment + slope × time``: one slope (two clocks run at a
constant ratio) and a new level after each jump (a dropped or repeated buffer). Medians throughout,
so that stray lags do not matter. The slope is the Theil-Sen estimate, the median over all pairs
of points (Theil, 1950; Sen, 1968), restricted to pairs with no jump between them; its interval is
Sen's, widened for serial correlation. `scipy.stats.theilslopes` gives the same without jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom

from training.metrics.alignment_types import (
    AlignmentConfig,
    BoolArray,
    FloatArray,
    IntArray,
    Jump,
)

__all__ = ["Trend", "fit_trend", "median_interval"]

REACH: Final = 12  # hits either side that a jump is measured on
SMALLEST_SIDE: Final = 4
ROUNDS: Final = 4
JUMP_SIGMAS: Final = 6.0
STRAY_SIGMAS: Final = 5.0
STRAY_MS: Final = 0.3
SIGMA_FLOOR_MS: Final = 0.002
MAD_TO_SIGMA: Final = 1.4826


@dataclass(frozen=True, kw_only=True, slots=True)
class Trend:
    """Slope (ms of lag a second) with its interval, jumps, and which points are not stray.

    `keep` has shape (n,); `residual_sigma_ms` is 1.4826 × MAD about the fit of the points kept.
    """

    slope_ms_per_s: float
    interval: tuple[float, float]
    jumps: tuple[Jump, ...]
    keep: BoolArray
    residual_sigma_ms: float


def fit_trend(times_s: FloatArray, lags_ms: FloatArray, config: AlignmentConfig) -> Trend:
    """Fit slope and jumps to lags (n,) at rising times (n,); raises ValueError below 3 points."""
    if len(times_s) < 3 or len(times_s) != len(lags_ms):
        raise ValueError("a trend needs at least three points, with one time each")
    keep = ~_stray(lags_ms)
    if keep.sum() < 3:
        keep = np.ones(len(lags_ms), dtype=bool)
    times, lags = times_s[keep], lags_ms[keep]
    slope, interval, cuts = _settle(times, lags, config.min_jump_ms)
    segment = _segments(cuts, len(lags))
    level = lags - slope * times
    centres = np.array([np.median(level[segment == s]) for s in range(len(cuts) + 1)])
    residual = level - centres[segment]
    jumps = tuple(
        Jump(
            time_s=float(0.5 * (times[cut - 1] + times[cut])),
            delay_ms=_step(level, cut, cuts),
            earliest_s=float(times[cut - 1]),
            latest_s=float(times[cut]),
        )
        for cut in cuts
    )
    return Trend(
        slope_ms_per_s=slope,
        interval=interval,
        jumps=jumps,
        keep=keep,
        residual_sigma_ms=_sigma(residual),
    )


def _settle(
    times: FloatArray, lags: FloatArray, min_jump_ms: float
) -> tuple[float, tuple[float, float], list[int]]:
    """Find slope, its interval and cuts that agree: jumps are sought with the slope taken out.

    The slope is that between the jumps, so the two are found in turn, starting from the slope
    between near neighbours; a round or two settles both.
    """
    slope = _local_slope(times, lags)
    cuts: list[int] = []
    interval = (-np.inf, np.inf)
    for number in range(ROUNDS):
        found = _find_cuts(lags - slope * times, min_jump_ms)
        if number and found == cuts:
            break
        cuts = found
        slope, interval = segment_slope(times, lags, _segments(cuts, len(lags)))
    return slope, interval, cuts


def _segments(cuts: list[int], n: int) -> IntArray:
    """Number each of `n` points by how many cuts lie before it."""
    return np.searchsorted(np.asarray(cuts, dtype=np.int64), np.arange(n), side="right")


def median_interval(values: FloatArray, confidence: float = 0.95) -> tuple[float, float]:
    """Distribution-free interval of the median of `values` (n ≥ 1), from order statistics."""
    ordered = np.sort(values)
    n = len(ordered)
    low = max(0, int(binom.ppf((1.0 - confidence) / 2.0, n, 0.5)) - 1)
    return float(ordered[low]), float(ordered[n - 1 - low])


def segment_slope(
    times: FloatArray, values: FloatArray, segment: IntArray, confidence: float = 0.95
) -> tuple[float, tuple[float, float]]:
    """Theil-Sen slope over pairs within one segment, and its interval.

    Fewer than two points in every segment yields a slope of 0 with an unbounded interval.
    """
    i, j = np.triu_indices(len(times), k=1)
    gap = times[j] - times[i]
    use = (segment[i] == segment[j]) & (gap > 0.0)
    slopes = np.sort((values[j] - values[i])[use] / gap[use])
    if len(slopes) == 0:
        return 0.0, (-np.inf, np.inf)
    slope = float(np.median(slopes))
    level = values - slope * times
    _, inverse = np.unique(segment, return_inverse=True)
    centres = np.array([np.median(level[inverse == s]) for s in range(inverse.max() + 1)])
    sizes = np.bincount(inverse).astype(np.float64)
    variance = float(np.sum(sizes * (sizes - 1.0) * (2.0 * sizes + 5.0))) / 18.0
    sigma = np.sqrt(variance) * _serial_factor(level - centres[inverse])
    z = float(ndtri((1.0 + confidence) / 2.0))
    n = len(slopes)
    low, high = round((n - z * sigma) / 2.0) - 1, round((n + z * sigma) / 2.0)
    lower = float(slopes[low]) if low >= 0 else -np.inf
    upper = float(slopes[high]) if high < n else np.inf
    return slope, (lower, upper)


def _serial_factor(residual: FloatArray) -> float:
    """How much wider an interval must be because neighbouring residuals resemble each other."""
    n = len(residual)
    bound = 3.0 * _sigma(residual)
    clipped = np.clip(residual, -bound, bound)
    power = float(np.dot(clipped, clipped))
    if n < 8 or power <= 0.0:
        return 1.0
    lag_one = min(max(float(np.dot(clipped[:-1], clipped[1:])) / power, 0.0), 0.9)
    return float(np.sqrt((1.0 + lag_one) / (1.0 - lag_one)))


def _sigma(residual: FloatArray) -> float:
    return MAD_TO_SIGMA * float(np.median(np.abs(residual - np.median(residual))))


def _stray(lags: FloatArray) -> BoolArray:
    """Points far from the running median of their neighbourhood."""
    n, side = len(lags), SMALLEST_SIDE
    middle = np.array([np.median(lags[max(0, k - side) : k + side + 1]) for k in range(n)])
    distance = np.abs(lags - middle)
    stray: BoolArray = distance > max(STRAY_MS, STRAY_SIGMAS * _sigma(lags - middle))
    return stray


def _local_slope(times: FloatArray, lags: FloatArray) -> float:
    """Median slope over pairs of near neighbours: few of them have a jump between."""
    slopes = []
    for apart in range(2, min(REACH, max(2, len(times) // 4)) + 1):
        gap = times[apart:] - times[:-apart]
        rise = lags[apart:] - lags[:-apart]
        slopes.append(rise[gap > 0.0] / gap[gap > 0.0])
    return float(np.median(np.concatenate(slopes))) if slopes else 0.0


def _find_cuts(level: FloatArray, min_jump_ms: float) -> list[int]:
    """First index of every new level, ascending: the clearest jump first, then either side."""
    n = len(level)
    neighbour = np.diff(level)
    sigma = max(SIGMA_FLOOR_MS, _sigma(neighbour) / np.sqrt(2.0))
    cuts: list[int] = []
    open_ranges = [(0, n)]
    while open_ranges:
        start, stop = open_ranges.pop()
        cut = _clearest_cut(level, start, stop, sigma, min_jump_ms)
        if cut is not None:
            cuts.append(cut)
            open_ranges += [(start, cut), (cut, stop)]
    return sorted(cuts)


def _clearest_cut(
    level: FloatArray, start: int, stop: int, sigma: float, min_jump_ms: float
) -> int | None:
    best, best_cut = 0.0, None
    for cut in range(start + SMALLEST_SIDE, stop - SMALLEST_SIDE + 1):
        left, right = level[max(start, cut - REACH) : cut], level[cut : min(stop, cut + REACH)]
        step = abs(float(np.median(right) - np.median(left)))
        # The standard error of a median is about 1.25 sigma / sqrt(n).
        error = 1.25 * sigma * np.sqrt(1.0 / len(left) + 1.0 / len(right))
        if step >= max(min_jump_ms, JUMP_SIGMAS * error) and step > best:
            best, best_cut = step, cut
    if best_cut is None:
        return None
    return _sharpen(level, best_cut, start, stop)


def _sharpen(level: FloatArray, cut: int, start: int, stop: int) -> int:
    """Move a cut, found from medians, to where the two levels fit best (least absolute error)."""
    low, high = max(start, cut - REACH), min(stop, cut + REACH)
    left, right = np.median(level[low:cut]), np.median(level[cut:high])
    cost = np.abs(level[low:high] - left) - np.abs(level[low:high] - right)
    total = np.concatenate(([0.0], np.cumsum(cost)))
    inner = np.arange(SMALLEST_SIDE, high - low - SMALLEST_SIDE + 1)
    return int(low + inner[np.argmin(total[inner])])


def _step(level: FloatArray, cut: int, cuts: list[int]) -> float:
    at = cuts.index(cut)
    start = cuts[at - 1] if at else 0
    stop = cuts[at + 1] if at + 1 < len(cuts) else len(level)
    left, right = level[max(start, cut - REACH) : cut], level[cut : min(stop, cut + REACH)]
    return float(np.median(right) - np.median(left))
