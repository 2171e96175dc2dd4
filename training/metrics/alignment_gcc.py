"""The lag of each hit: band-limited GCC-PHAT with sub-sample peaks, followed from hit to hit.

For a hit, the spectrum of the anchor's window and of a longer stretch of the target are scaled
to magnitude 1, multiplied (conjugate × plain), weighted by the band and transformed back: the
generalised cross-correlation with phase transform (Knapp and Carter, 1976). It is 1 at the lag
of a pure delay, -1 where the polarity is inverted, and about 0 for unrelated signals.

One hit alone may peak on a reflection, and a hit of another drum has another lag. So the lag is
followed through the recording: of all paths through the correlations of successive hits, the one
with the greatest sum is kept, where small steps cost little (drift) and a leap costs as much as
several hits bring (a jump is lasting, a drum fill is not). This is the Viterbi algorithm. Polarity
belongs to the wiring, so one sign is chosen for the whole recording: that of the better path.

Each hit is then looked at again with a stretch centred on the path, and its own peak is taken near
the path, or the hit is left out. So the same audio gives the same figures however late it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.fft

from training.metrics.alignment_types import (
    AlignmentConfig,
    BoolArray,
    ComplexArray,
    FloatArray,
    IntArray,
)
from training.metrics.alignment_windows import CHUNK, AnchorWindows, Grid, band_level_db, thin, unit

__all__ = ["WindowLags", "fit_together", "window_lags"]

EDGE_FADE_S: Final = 0.001
BIN_S: Final = 0.00008
LARGEST_STEP: Final = 2  # bins that the path may move from hit to hit
STEP_COST: Final = 0.5  # for one bin; both costs in hits, of typical height
JUMP_COST: Final = 5.0
SILENCE_DB: Final = -290.0
DEAD_DB: Final = 50.0  # below the loud hits of the target: a mic that hears nothing there
OUTSIDE_MS: Final = 40.0  # how far beyond the search range a better lag is looked for
OUTSIDE_HITS: Final = 64
OUTRANKED: Final = 1.1


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowLags:
    """The lag of every usable hit, in time order.

    `times_s`, `lags_ms` and `confidence` have shape (usable,). `hits` (h,) number the onsets that
    were compared or met silence, `usable` (h,) says which of them the others are of.
    `n_windows` hits were compared, of which `edge_rejected` peaked at the end of the search range;
    `inverted` is None when no hit was usable. `evidence` is how many standard deviations the peak
    of the mean over all hits stands above what unrelated signals give (0 without hits); those reach
    6.5 since the path picks their highest peaks. `better_lag_ms` is a lag outside the search range
    at which the hits fit better still, when there is one.
    """

    times_s: FloatArray
    lags_ms: FloatArray
    confidence: FloatArray
    hits: IntArray
    usable: BoolArray
    n_windows: int
    edge_rejected: int
    evidence: float
    inverted: bool | None
    better_lag_ms: float | None = None


def window_lags(
    windows: AnchorWindows, target: FloatArray, expected_delay_ms: float, config: AlignmentConfig
) -> WindowLags:
    """Measure the lag of `target` (m,) behind the anchor at each of its hits.

    The search is centred on `expected_delay_ms`. Hits whose stretch would leave the target are
    not compared. A silent or too short target yields empty arrays.
    """
    rate = windows.sample_rate
    centre = round(expected_delay_ms * rate / 1000)
    hits, silent, correlation = _search(windows, target, centre, config)
    if len(hits) == 0:
        empty = np.empty(0)
        return WindowLags(
            times_s=empty,
            lags_ms=empty,
            confidence=empty,
            hits=silent,
            usable=np.zeros(len(silent), dtype=np.bool_),
            n_windows=0,
            edge_rejected=0,
            evidence=0.0,
            inverted=None,
        )
    sign, path, at_edge = _follow(correlation, windows.coarse)
    del correlation
    around = centre + np.rint((path / windows.coarse.lag_rate) * rate).astype(np.int64)
    again = _look_again(windows, target, hits, around, sign, config)
    sigma = chance_sigma(windows.fine.band)
    height = again.height
    clear = height >= config.min_height_sigmas * sigma
    usable = clear & ~at_edge
    # The highest of k chance values is about sigma × sqrt(2 ln k): confidence starts there.
    n_independent = max(2.0, 4.0 * config.max_shift_ms / 1000.0 * config.high_hz)
    chance = sigma * np.sqrt(2.0 * np.log(n_independent))
    everything = np.sort(np.concatenate([hits, silent]))
    return WindowLags(
        times_s=windows.onsets[hits][usable] / rate,
        lags_ms=(around / rate + again.distance_s)[usable] * 1000.0,
        confidence=np.clip(1.0 - chance / np.maximum(height[usable], 1e-9), 0.0, 1.0),
        hits=everything,
        usable=np.isin(everything, hits[usable]),
        n_windows=len(hits),
        edge_rejected=int((clear & at_edge).sum()),
        evidence=again.mean_height / sigma * float(np.sqrt(again.n_seen)),
        inverted=sign < 0 if usable.any() else None,
        better_lag_ms=_better_lag_ms(windows, target, hits, around, centre, config),
    )


def chance_sigma(band: FloatArray) -> float:
    """Standard deviation of the correlation of two unrelated signals (random phases)."""
    weight = band.astype(np.float64)
    return float(np.sqrt(0.5 * np.sum(weight**2)) / np.sum(weight))


def _search(
    windows: AnchorWindows, target: FloatArray, centre: int, config: AlignmentConfig
) -> tuple[IntArray, IntArray, FloatArray]:
    """Correlate over the whole range the hits in which the anchor dominates.

    Returns these hits (h,), those where the target is as good as silent, and correlations
    (h, lags).
    """
    grid = windows.coarse
    starts = windows.onsets - grid.pre + centre - grid.shift
    hits = np.flatnonzero((starts >= 0) & (starts + grid.stretch <= len(target)))
    if len(hits) == 0:
        return hits, hits, np.zeros((0, 1), dtype=np.float32)
    correlation, levels = correlate(windows.coarse_phases, hits, target, starts[hits], grid)
    # A mic that went dead would else make all of its other hits look like another drum's.
    heard = levels > max(SILENCE_DB, float(np.percentile(levels, 90)) - DEAD_DB)
    silent = hits[~heard]
    dominance = windows.levels_db[hits] - levels
    if heard.any():
        heard &= dominance >= np.percentile(dominance[heard], 90) - config.dominance_range_db
    return hits[heard], silent, correlation[heard]


def correlate(
    phases: ComplexArray, hits: IntArray, target: FloatArray, starts: IntArray, grid: Grid
) -> tuple[FloatArray, FloatArray]:
    """Hold windows `hits` of the anchor against the stretches of `target` from `starts` (h,).

    Returns correlations (h, lags) over ±``grid.shift`` samples in steps of 1 / ``grid.lag_rate``
    seconds, and the in-band level of each stretch in dB.
    """
    n_lags = 2 * grid.shift * grid.upsampling + 1
    correlation = np.empty((len(hits), n_lags), dtype=np.float32)
    levels = np.empty(len(hits))
    band = grid.band > 0.0
    weight = grid.band[band]
    mean = np.float32(np.mean(target, dtype=np.float64))
    fade = max(1, round(EDGE_FADE_S * grid.sample_rate))
    ramp = np.linspace(0.0, 1.0, fade + 2, dtype=np.float32)[1:-1]
    scale = np.float32(grid.n_fft * grid.upsampling / (2.0 * weight.sum()))
    within = np.arange(grid.stretch)
    for at in range(0, len(hits), CHUNK):
        rows = slice(at, at + CHUNK)
        stretch = target[starts[rows][:, None] + within] - mean
        stretch[:, :fade] *= ramp
        stretch[:, -fade:] *= ramp[::-1]
        spectra = scipy.fft.rfft(stretch, grid.n_fft, axis=1)
        levels[rows] = band_level_db(spectra[:, band], weight)
        cross = np.zeros_like(spectra)
        cross[:, band] = phases[hits[rows]] * unit(spectra[:, band]) * weight
        full = scipy.fft.irfft(cross, grid.n_fft * grid.upsampling, axis=1, overwrite_x=True)
        correlation[rows] = full[:, :n_lags] * scale
    return correlation, levels


def _follow(correlation: FloatArray, grid: Grid) -> tuple[int, IntArray, BoolArray]:
    """Follow the lag through all hits.

    Returns the sign, the lag of each hit in steps from the centre, and which are at the very end of
    the range.
    """
    width = max(1, round(BIN_S * grid.lag_rate))
    edges = np.arange(0, correlation.shape[1], width)
    best_score, best_sign, best_path = -np.inf, 1, np.zeros(len(correlation), dtype=np.int64)
    for sign, reduce in ((1, np.maximum), (-1, np.minimum)):
        binned = np.asarray(reduce.reduceat(correlation, edges, axis=1), dtype=np.float64) * sign
        score, path = best_path_through(binned)
        if score > best_score:
            best_score, best_sign, best_path = score, sign, path
    at_edge = (best_path == 0) | (best_path == len(edges) - 1)
    return best_sign, best_path * width + width // 2 - grid.shift * grid.upsampling, at_edge


def best_path_through(heights: FloatArray) -> tuple[float, IntArray]:
    """Find the path (hits,) through `heights` (hits, bins) with the greatest sum less its costs."""
    n, n_bins = heights.shape
    typical = float(np.median(heights.max(axis=1)))
    bins = np.arange(n_bins)
    came_from = np.zeros((n, n_bins), dtype=np.int32)
    score = heights[0].copy()
    for row in range(1, n):
        leap = int(np.argmax(score))
        best = np.full(n_bins, score[leap] - JUMP_COST * typical)
        origin = np.full(n_bins, leap)
        for step in range(-LARGEST_STEP, LARGEST_STEP + 1):
            to = slice(max(0, step), min(n_bins, n_bins + step))
            moved = score[bins[to] - step] - STEP_COST * typical * abs(step)
            higher = moved > best[to]
            best[to] = np.where(higher, moved, best[to])
            origin[to] = np.where(higher, bins[to] - step, origin[to])
        came_from[row] = origin
        score = best + heights[row]
    path = np.empty(n, dtype=np.int64)
    path[-1] = np.argmax(score)
    for row in range(n - 1, 0, -1):
        path[row - 1] = came_from[row, path[row]]
    return float(score.max()), path


@dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """What the second look sees: each hit's peak, and that of the mean over `n_seen` hits."""

    distance_s: FloatArray
    height: FloatArray
    mean_height: float
    n_seen: int


def _look_again(
    windows: AnchorWindows,
    target: FloatArray,
    hits: IntArray,
    around: IntArray,
    sign: int,
    config: AlignmentConfig,
) -> _Look:
    """Take each hit's own peak near `around` (h,), its lag in samples.

    A hit without a peak, or whose stretch leaves the target, has height 0.
    """
    grid = windows.fine
    starts = windows.onsets[hits] - grid.pre + around - grid.shift
    seen = (starts >= 0) & (starts + grid.stretch <= len(target))
    distance, height, mean_height = np.zeros(len(hits)), np.zeros(len(hits)), 0.0
    if seen.any():
        correlation, _ = correlate(windows.fine_phases, hits[seen], target, starts[seen], grid)
        reach = max(2, round(config.path_search_ms * grid.lag_rate / 1000))
        middle = grid.shift * grid.upsampling
        near = correlation[:, middle - reach - 1 : middle + reach + 2] * np.float32(sign)
        position, height[seen] = highest_peak(near)
        distance[seen] = (position - reach - 1) / grid.lag_rate
        mean_height = max(0.0, float(near.mean(axis=0, dtype=np.float64).max()))
    return _Look(
        distance_s=distance, height=height, mean_height=mean_height, n_seen=int(seen.sum())
    )


def _better_lag_ms(
    windows: AnchorWindows,
    target: FloatArray,
    hits: IntArray,
    around: IntArray,
    centre: int,
    config: AlignmentConfig,
) -> float | None:
    """Find a lag outside the search range at which some hits, averaged, fit clearly better.

    When the true lag lies outside, an echo of it inside may look like a lag.
    """
    grid, some, correlation = _together(windows, target, hits, around, config)
    if len(some) == 0:
        return None
    mean = np.abs(correlation)
    lag = np.arange(len(mean)) - grid.shift * grid.upsampling
    near = np.abs(lag) <= config.path_search_ms * grid.lag_rate / 1000
    best = int(np.argmax(mean))
    lag_ms = float(np.median(around[some])) * 1000.0 / windows.sample_rate
    lag_ms += float(lag[best]) * 1000.0 / grid.lag_rate
    outside = abs(lag_ms - centre * 1000.0 / windows.sample_rate) > config.max_shift_ms
    return lag_ms if outside and mean[best] > OUTRANKED * mean[near].max() else None


def fit_together(
    windows: AnchorWindows,
    target: FloatArray,
    hits: IntArray,
    about_ms: float,
    *,
    inverted: bool,
    config: AlignmentConfig,
) -> float | None:
    """Find the lag in ms at which `hits` (h,), averaged, fit `target` (m,) best.

    It is looked for up to 40 ms beyond the search range either side of `about_ms`. None when the
    mean does not stand `min_evidence_sigmas` above chance anywhere.
    """
    rate = windows.sample_rate
    around = np.full(len(hits), round(about_ms * rate / 1000), dtype=np.int64)
    grid, some, mean = _together(windows, target, hits, around, config)
    if len(some) == 0:
        return None
    position, height = highest_peak((-mean if inverted else mean)[None, :])
    if height[0] * np.sqrt(len(some)) < config.min_evidence_sigmas * chance_sigma(grid.band):
        return None
    beside = float(position[0]) - grid.shift * grid.upsampling
    return float(around[0]) * 1000.0 / rate + beside * 1000.0 / grid.lag_rate


def _together(
    windows: AnchorWindows,
    target: FloatArray,
    hits: IntArray,
    around: IntArray,
    config: AlignmentConfig,
) -> tuple[Grid, IntArray, FloatArray]:
    """Average the correlations of some hits over more than the search range about `around` (h,).

    Returns the grid, which of the hits were averaged (those within the target, thinned), and the
    mean correlation (lags,).
    """
    grid = Grid.make(windows.sample_rate, config.max_shift_ms + OUTSIDE_MS, config)
    starts = windows.onsets[hits] - grid.pre + around - grid.shift
    some = thin(
        np.flatnonzero((starts >= 0) & (starts + grid.stretch <= len(target))), OUTSIDE_HITS
    )
    if len(some) == 0:
        return grid, some, np.empty(0)
    spectra = scipy.fft.rfft(windows.samples[hits[some]], grid.n_fft, axis=1)
    phases = unit(spectra[:, grid.band > 0.0]).conj()
    correlation, _ = correlate(phases, np.arange(len(some)), target, starts[some], grid)
    return grid, some, correlation.mean(axis=0, dtype=np.float64)


def highest_peak(rows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Find the highest local maximum of each row (n, k ≥ 3): position and height.

    The position is that of the parabola through the three points about it. The first and last
    point are never a peak; a row without one has height 0.
    """
    inner = rows[:, 1:-1]
    is_peak = (inner >= rows[:, :-2]) & (inner > rows[:, 2:])
    choice = np.argmax(np.where(is_peak, inner, -np.inf), axis=1) + 1
    row = np.arange(len(rows))
    left, middle, right = (rows[row, choice + d].astype(np.float64) for d in (-1, 0, 1))
    bend = left - 2.0 * middle + right
    curved = bend < 0.0
    shift = np.where(curved, 0.5 * (left - right) / np.where(curved, bend, 1.0), 0.0)
    return choice + shift, np.where(is_peak.any(axis=1), middle, 0.0)
