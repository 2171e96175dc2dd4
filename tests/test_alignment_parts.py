"""The parts of the alignment measurement: trend, paths, peaks, hits and the state of a channel."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from training.metrics.alignment import AlignmentConfig
from training.metrics.alignment_channel import inspect_channel
from training.metrics.alignment_gcc import best_path_through, chance_sigma, highest_peak
from training.metrics.alignment_lost import EXPECTED, long_runs
from training.metrics.alignment_trend import fit_trend, median_interval, segment_slope
from training.metrics.alignment_windows import Grid, find_onsets, thin

CONFIG = AlignmentConfig()


@pytest.mark.parametrize("seed", range(5))
def test_the_slope_is_that_of_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 60, 40))
    values = 0.03 * times + rng.standard_normal(40)
    slope, (low, high) = segment_slope(times, values, np.zeros(40, dtype=np.int64))
    oracle = scipy.stats.theilslopes(values, times, 0.95)
    assert slope == pytest.approx(oracle.slope, rel=1e-12)
    # Ours is Sen's interval, or wider by as much as neighbouring residuals resemble each other.
    assert low <= oracle.low_slope + 1e-12
    assert high >= oracle.high_slope - 1e-12


def test_the_interval_is_that_of_scipy_without_serial_correlation() -> None:
    times = np.arange(41.0)
    values = 0.1 * times + np.where(np.arange(41) % 2, 1.0, -1.0) * np.linspace(1, 2, 41)
    slope, (low, high) = segment_slope(times, values, np.zeros(41, dtype=np.int64))
    oracle = scipy.stats.theilslopes(values, times, 0.95)
    assert (slope, low, high) == pytest.approx(
        (oracle.slope, oracle.low_slope, oracle.high_slope), rel=1e-12
    )


def test_the_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    times = np.arange(60.0)
    covered = 0
    for _ in range(200):
        lags = 0.002 * times + 0.01 * rng.standard_t(3, 60)
        low, high = fit_trend(times, lags, CONFIG).interval
        covered += low <= 0.002 <= high
    assert covered >= 0.92 * 200


def test_slopes_do_not_reach_across_a_jump() -> None:
    times = np.arange(20.0)
    lags = 0.01 * times + np.where(times >= 10, 3.0, 0.0)
    trend = fit_trend(times, lags, CONFIG)
    assert trend.slope_ms_per_s == pytest.approx(0.01)
    (jump,) = trend.jumps
    assert (jump.earliest_s, jump.time_s, jump.latest_s) == (9.0, 9.5, 10.0)
    assert jump.delay_ms == pytest.approx(3.0, abs=1e-9)
    assert trend.keep.all()


@pytest.mark.parametrize("slope", [0.0, 0.01, -0.05])
@pytest.mark.parametrize("seed", range(4))
def test_drift_and_noise_make_no_jump(seed: int, slope: float) -> None:
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 300, 400))
    lags = slope * times + 0.02 * rng.standard_t(3, 400)
    assert fit_trend(times, lags, CONFIG).jumps == ()


def test_a_jump_in_a_short_recording_is_one_jump() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.5, 1.1, 16))
    lags = 0.001 * rng.standard_normal(16) + np.where(np.arange(16) >= 8, 3.0, 0.0)
    trend = fit_trend(times, lags, CONFIG)
    assert len(trend.jumps) == 1
    assert abs(trend.slope_ms_per_s) < 0.002


def test_stray_lags_move_nothing() -> None:
    times = np.arange(50.0)
    lags = 0.001 * times
    lags[[3, 17, 18, 40]] += [9.0, -5.0, 4.0, 12.0]
    trend = fit_trend(times, lags, CONFIG)
    assert trend.slope_ms_per_s == pytest.approx(0.001)
    assert list(np.flatnonzero(~trend.keep)) == [3, 17, 18, 40]
    assert trend.jumps == ()


def test_a_trend_needs_three_points() -> None:
    with pytest.raises(ValueError, match="three points"):
        fit_trend(np.arange(2.0), np.zeros(2), CONFIG)


@given(arrays(np.float64, st.integers(1, 60), elements=st.floats(-50, 50)))
def test_the_median_lies_in_its_interval(values: np.ndarray) -> None:
    low, high = median_interval(values)
    assert values.min() <= low <= np.median(values) <= high <= values.max()


def test_the_interval_of_the_median_covers_it() -> None:
    rng = np.random.default_rng(1)
    bounds = [median_interval(rng.exponential(1.0, 31)) for _ in range(400)]
    covered = np.mean([low <= np.log(2) <= high for low, high in bounds])
    assert 0.94 <= covered <= 0.99


def brute_force_path(heights: np.ndarray) -> float:
    """Try every path: the costs are those written in alignment_gcc."""
    typical = np.median(heights.max(axis=1))
    best = {bin_: heights[0, bin_] for bin_ in range(heights.shape[1])}
    for row in heights[1:]:
        best = {
            to: row[to]
            + max(
                score - typical * (0.5 * abs(to - at) if abs(to - at) <= 2 else 5.0)
                for at, score in best.items()
            )
            for to in range(len(row))
        }
    return max(best.values())


@given(arrays(np.float64, (6, 9), elements=st.floats(0, 1)))
def test_the_best_path_is_the_best(heights: np.ndarray) -> None:
    score, path = best_path_through(heights)
    assert score == pytest.approx(brute_force_path(heights))
    assert path.shape == (6,)


def test_a_path_leaps_only_for_good() -> None:
    heights = np.full((40, 50), 0.05)
    heights[:, 10] = 0.5
    heights[15:20, 10], heights[15:20, 40] = 0.05, 0.6  # a fill of five hits
    assert set(best_path_through(heights)[1]) == {10}
    heights[20:, 10], heights[20:, 40] = 0.05, 0.5  # and now it stays
    path = best_path_through(heights)[1]
    assert set(path[:15]) == {10}
    assert set(path[15:]) == {40}


@given(st.floats(3.0, 17.0))
def test_a_peak_is_found_between_points(at: float) -> None:
    rows = np.cos((np.arange(21) - at) * 2 * np.pi / 24)[None, :].astype(np.float32)
    position, height = highest_peak(rows)
    assert position[0] == pytest.approx(at, abs=0.01)
    assert height[0] > 0.98


def test_the_ends_are_no_peak() -> None:
    rows = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.5]])
    assert list(highest_peak(rows)[1]) == [0.0, 0.0, 0.0, 1.0]


def test_chance_is_what_unrelated_signals_give() -> None:
    grid = Grid.make(44_100, 4.0, CONFIG)
    rng = np.random.default_rng(0)
    phases = np.exp(2j * np.pi * rng.random((300, len(grid.band)))) * grid.band
    found = np.fft.irfft(phases, grid.n_fft, axis=1) * grid.n_fft / (2 * grid.band.sum())
    assert found.std() == pytest.approx(chance_sigma(grid.band), rel=0.02)


def test_the_band_is_whole_inside_and_nothing_outside() -> None:
    grid = Grid.make(48_000, 20.0, CONFIG)
    frequency = np.fft.rfftfreq(grid.n_fft, 1 / 48_000)
    assert np.all(grid.band[(frequency > 200) & (frequency < 5000)] == 1.0)
    assert np.all(grid.band[(frequency < 100) | (frequency > 7500)] == 0.0)
    assert Grid.make(8_000, 20.0, CONFIG).lag_rate >= 8 * 3600


def test_hits_are_found_where_they_are() -> None:
    rate = 44_100
    rng = np.random.default_rng(0)
    audio = 1e-4 * rng.standard_normal(10 * rate)
    true = np.arange(0.5, 9.5, 0.37)
    for at in true:
        start = int(at * rate)
        audio[start : start + 4000] += rng.standard_normal(4000) * np.exp(-np.arange(4000) / 800)
    found = find_onsets(audio, rate, CONFIG) / rate
    assert len(found) == len(true)
    np.testing.assert_allclose(found, true, atol=0.004)
    assert len(find_onsets(audio[:100], rate, CONFIG)) == 0
    np.testing.assert_array_equal(find_onsets(0.1 * audio + 0.3, rate, CONFIG) / rate, found)


def test_thinning_is_even_and_keeps_the_ends() -> None:
    onsets = np.arange(1000)
    kept = thin(onsets, 100)
    assert (len(kept), kept[0], kept[-1]) == (100, 0, 999)
    assert np.ptp(np.diff(kept)) <= 1
    assert thin(onsets, 2000) is onsets


def test_the_state_of_a_channel() -> None:
    time = np.arange(44_100) / 44_100
    tone = 0.5 * np.sin(2 * np.pi * 220 * time)
    clean = inspect_channel(tone)
    assert clean.peak_dbfs == pytest.approx(-6.02, abs=0.01)
    assert (clean.silent, clean.clipped, clean.offset) == (False, False, False)
    clipped = inspect_channel(np.clip(4 * tone, -0.7, 0.7))  # clipped, then turned down
    assert clipped.clipped
    assert clipped.clips == 440
    assert inspect_channel(tone + 0.05).offset
    assert inspect_channel(tone + 0.05).peak_dbfs == pytest.approx(-6.02, abs=0.1)
    assert inspect_channel(np.zeros((2, 100))).silent
    assert inspect_channel(np.full(100, 0.25)).silent
    assert inspect_channel(1e-5 * tone).silent
    assert inspect_channel(np.empty(0)).silent
    stereo = np.stack([tone, np.clip(4 * tone, -0.5, 0.5)])
    assert inspect_channel(stereo).clipped


def test_a_loud_low_note_is_not_clipped() -> None:
    """At 16 bits the top of a 30 Hz tone has equal neighbours; only its few highest count."""
    time = np.arange(10 * 44_100) / 44_100
    tone = np.round(32000 * np.exp(-time / 3) * np.sin(2 * np.pi * 30 * time)) / 32768
    assert not inspect_channel(tone).clipped


@pytest.mark.parametrize("seed", range(6))
def test_noise_larger_than_the_smallest_jump_is_no_jump(seed: int) -> None:
    lags = 0.15 * np.random.default_rng(seed).standard_normal(200)
    assert fit_trend(np.arange(200.0), lags, CONFIG).jumps == ()


def test_runs_too_long_for_chance_by_hand() -> None:
    """Of 20 hits, a run of r is expected 20 q^r times, q = (lost elsewhere + 1) / (20 - r + 2)."""
    clean = np.ones(20, dtype=bool)
    assert long_runs(clean) == []
    assert long_runs(~clean) == [], "there is no lag to lose"
    assert long_runs(np.zeros(0, dtype=bool)) == []
    for length, found in ((1, False), (2, False), (3, True)):  # 20/20², 20/19³ = 0.003
        lost = clean.copy()
        lost[-length:] = False
        assert long_runs(lost) == ([(20 - length, 20)] if found else [])
    # Three other losses: q = 4/19 for a run of 3, 20 q³ = 0.19; 4/16 for one of 6, 20 q⁶ = 0.005.
    for length, found in ((3, False), (6, True)):
        lost = clean.copy()
        lost[[0, 4, 8]] = False
        lost[20 - length :] = False
        assert long_runs(lost) == ([(20 - length, 20)] if found else [])


def test_chance_makes_few_long_runs() -> None:
    rng = np.random.default_rng(0)
    for share in (0.02, 0.1, 0.5):
        alarms = sum(len(long_runs(rng.random(100) >= share)) for _ in range(2000))
        assert alarms <= 2000 / EXPECTED * 1.5


@given(st.lists(st.booleans(), max_size=60))
def test_long_runs_are_lost_and_as_long_as_they_can_be(supported: list[bool]) -> None:
    hits = np.array(supported, dtype=bool)
    found = long_runs(hits)
    for start, stop in found:
        assert not hits[start:stop].any()
        assert start == 0 or hits[start - 1]
        assert stop == len(hits) or hits[stop]
    mirrored = [(len(hits) - stop, len(hits) - start) for start, stop in reversed(found)]
    assert long_runs(hits[::-1]) == mirrored
