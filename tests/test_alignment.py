"""The lag between two mics, against lags, drifts and jumps that were put in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from alignment_signals import RATE, delayed, drifting, jumping, two_mics
from hypothesis import given, settings
from hypothesis import strategies as st

from training.metrics import alignment
from training.metrics.alignment import AlignmentConfig, PairLag, measure_pair, rough_lag_ms
from training.metrics.alignment_trend import Trend, fit_trend

LAG_MS = 0.02
DRIFT = 0.2


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    return two_mics()


@pytest.fixture(scope="module")
def clean(pair: tuple[np.ndarray, np.ndarray]) -> PairLag:
    return measure_pair(*pair, RATE)


def test_a_clean_pair(clean: PairLag) -> None:
    assert clean.measured
    assert clean.reason == ""
    assert clean.median_delay_ms == pytest.approx(4.0, abs=LAG_MS)
    assert clean.residual_ms == clean.median_delay_ms
    assert clean.drift_ci[0] < 1.0
    assert clean.drift_ci[0] <= clean.drift_samples_per_min <= clean.drift_ci[1]
    assert clean.median_ci_ms[0] <= clean.median_delay_ms <= clean.median_ci_ms[1]
    assert clean.jumps == ()
    assert clean.max_jump_ms == 0.0
    assert clean.polarity_inverted is False
    assert 0.3 < clean.confidence <= 1.0
    assert clean.support <= clean.n_windows
    assert len(clean.times_s) == len(clean.delays_ms) == clean.support
    assert np.all(np.diff(clean.times_s) > 0)
    # The snare comes 6 ms earlier relative to the kick: none of its hits may be among these.
    assert np.max(np.abs(clean.delays_ms - 4.0)) < 0.3


def test_hits_that_disagree_are_no_support(
    pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Enough hits are recognised, but the trend keeps fewer than `min_support` of them."""

    def stray(times: np.ndarray, lags: np.ndarray, config: AlignmentConfig) -> Trend:
        trend = fit_trend(times, lags, config)
        return dataclasses.replace(trend, keep=np.arange(len(lags)) < kept)

    monkeypatch.setattr(alignment, "fit_trend", stray)
    kept = 8
    assert measure_pair(*pair, RATE).support == 8
    kept = 7
    found = measure_pair(*pair, RATE)
    assert not found.measured
    assert found.reason.startswith("only 7 of ")
    assert "agree on a lag" in found.reason


def test_hits_come_from_the_whole_recording(clean: PairLag) -> None:
    assert clean.times_s[0] < 4.0
    assert clean.times_s[-1] > 20.0


@pytest.mark.parametrize("samples", [1, 10, -44, 0.25, 0.5, 7.37, -20.81, 132.25])
def test_an_injected_lag(
    pair: tuple[np.ndarray, np.ndarray], clean: PairLag, samples: float
) -> None:
    moved = measure_pair(pair[0], delayed(pair[1], samples), RATE)
    true_ms = samples * 1000 / RATE
    assert moved.median_delay_ms - clean.median_delay_ms == pytest.approx(true_ms, abs=LAG_MS / 4)
    assert moved.drift_samples_per_min == pytest.approx(clean.drift_samples_per_min, abs=DRIFT)
    assert moved.jumps == ()


@pytest.mark.parametrize("per_minute", [1.5, -5.0, 20.0, -100.0, 250.0])
def test_an_injected_drift(
    pair: tuple[np.ndarray, np.ndarray], clean: PairLag, per_minute: float
) -> None:
    moved = measure_pair(pair[0], drifting(pair[1], per_minute), RATE)
    change = moved.drift_samples_per_min - clean.drift_samples_per_min
    assert change == pytest.approx(per_minute, abs=DRIFT)
    assert moved.drift_ci[0] < moved.drift_samples_per_min < moved.drift_ci[1]
    assert moved.jumps == (), "slow drift is no jump"


@pytest.mark.parametrize("samples", [16, -16, 64, 132, -441])
@pytest.mark.parametrize("at_s", [5.1, 18.1])
def test_an_injected_jump(
    pair: tuple[np.ndarray, np.ndarray], clean: PairLag, samples: int, at_s: float
) -> None:
    moved = measure_pair(pair[0], jumping(pair[1], at_s, samples), RATE)
    assert len(moved.jumps) == 1
    (jump,) = moved.jumps
    assert jump.delay_ms == pytest.approx(samples * 1000 / RATE, abs=LAG_MS)
    assert jump.earliest_s < jump.time_s < jump.latest_s
    assert jump.earliest_s - 0.1 < at_s < jump.latest_s + 0.1
    assert moved.max_jump_ms == abs(jump.delay_ms)
    change = moved.drift_samples_per_min - clean.drift_samples_per_min
    assert abs(change) < 1.0, "a jump is no drift"


def test_a_jump_and_a_drift_are_told_apart(pair: tuple[np.ndarray, np.ndarray]) -> None:
    moved = measure_pair(pair[0], jumping(drifting(pair[1], 30.0), 12.1, 60), RATE)
    assert len(moved.jumps) == 1
    assert moved.jumps[0].delay_ms == pytest.approx(60 * 1000 / RATE, abs=2 * LAG_MS)
    assert moved.drift_samples_per_min == pytest.approx(30.0, abs=1.0)


def test_two_jumps(pair: tuple[np.ndarray, np.ndarray]) -> None:
    moved = measure_pair(pair[0], jumping(jumping(pair[1], 16.1, -60), 8.1, 100), RATE)
    assert [round(jump.delay_ms * RATE / 1000) for jump in moved.jumps] == [100, -60]


def test_inverted_polarity(pair: tuple[np.ndarray, np.ndarray], clean: PairLag) -> None:
    flipped = measure_pair(pair[0], -pair[1], RATE)
    assert flipped.polarity_inverted is True
    assert flipped.median_delay_ms == pytest.approx(clean.median_delay_ms, abs=1e-6)
    both = measure_pair(-pair[0], -pair[1], RATE)
    assert both.polarity_inverted is False


def test_the_other_way_round(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """From the overhead's side the snare is the loudest drum; it is early there by 2 ms."""
    back = measure_pair(pair[1], pair[0], RATE)
    assert back.measured
    assert back.median_delay_ms == pytest.approx(2.0, abs=LAG_MS) or (
        back.median_delay_ms == pytest.approx(-4.0, abs=LAG_MS)
    )


def test_expected_delay_moves_the_search_not_the_lag(
    pair: tuple[np.ndarray, np.ndarray], clean: PairLag
) -> None:
    config = AlignmentConfig(max_shift_ms=3.0)
    assert not measure_pair(*pair, RATE, config=config).measured
    found = measure_pair(*pair, RATE, expected_delay_ms=3.5, config=config)
    assert found.median_delay_ms == pytest.approx(clean.median_delay_ms, abs=0.005)
    assert found.residual_ms == pytest.approx(0.5, abs=LAG_MS)


def test_level_and_offset_do_not_matter(
    pair: tuple[np.ndarray, np.ndarray], clean: PairLag
) -> None:
    for gain, dc in ((1e-3, 0.0), (30.0, 0.0), (0.5, 0.2)):
        again = measure_pair(pair[0] * gain + dc, pair[1] * gain - dc, RATE)
        assert again.median_delay_ms == pytest.approx(clean.median_delay_ms, abs=0.005)


def test_a_clipped_target(pair: tuple[np.ndarray, np.ndarray]) -> None:
    found = measure_pair(pair[0], np.clip(pair[1] * 8, -1, 1), RATE)
    assert found.median_delay_ms == pytest.approx(4.0, abs=LAG_MS)


def test_lengths_may_differ(pair: tuple[np.ndarray, np.ndarray], clean: PairLag) -> None:
    shorter = measure_pair(pair[0], pair[1][: 15 * RATE], RATE)
    assert shorter.median_delay_ms == pytest.approx(clean.median_delay_ms, abs=0.005)
    assert shorter.times_s[-1] < 15.0
    longer = measure_pair(pair[0], np.pad(pair[1], (0, RATE)), RATE)
    assert longer.median_delay_ms == pytest.approx(clean.median_delay_ms, abs=0.005)


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000, 96_000])
def test_other_rates(rate: int) -> None:
    found = measure_pair(*two_mics(rate=rate, seconds=20.0), rate)
    assert found.sample_rate == rate
    assert found.median_delay_ms == pytest.approx(4.0, abs=LAG_MS)


@pytest.mark.parametrize("seed", range(6))
def test_clean_pairs_are_never_failed(seed: int) -> None:
    """Noise, bleed and echo alone give no lag, no drift beyond the interval, and no jump."""
    lag = 1.0 + seed
    found = measure_pair(
        *two_mics(seed=seed, seconds=20.0, lag_ms=lag, bleed=0.3, noise=0.003), RATE
    )
    assert found.median_delay_ms == pytest.approx(lag, abs=LAG_MS)
    assert found.jumps == ()
    assert found.drift_ci[0] < 1.0
    assert found.drift_ci[1] > -1.0
    assert found.polarity_inverted is False


def nothing_measured(lag: PairLag) -> None:
    assert not lag.measured
    assert lag.reason
    assert lag.residual_ms is None
    assert lag.max_jump_ms is None
    assert lag.median_delay_ms is None
    assert lag.drift_samples_per_min is None
    assert lag.polarity_inverted is None
    assert len(lag.times_s) == 0


@pytest.mark.parametrize("n", [0, 1, 100, RATE])
def test_silence_and_nothing(n: int, pair: tuple[np.ndarray, np.ndarray]) -> None:
    silence = np.zeros(n, np.float32)
    nothing_measured(measure_pair(silence, silence, RATE))
    nothing_measured(measure_pair(pair[0], silence, RATE))
    nothing_measured(measure_pair(silence, pair[1], RATE))
    nothing_measured(measure_pair(np.full(n, 0.3, np.float32), pair[1], RATE))


@pytest.mark.parametrize("seed", range(5))
def test_unrelated_recordings_are_not_measured(seed: int) -> None:
    ours, _ = two_mics(seed=seed, seconds=20.0)
    _, theirs = two_mics(seed=seed + 100, seconds=20.0)
    nothing_measured(measure_pair(ours, theirs, RATE))


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_not_measured(seed: int, pair: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(seed)
    noise = (0.1 * rng.standard_normal(len(pair[0]))).astype(np.float32)
    nothing_measured(measure_pair(pair[0], noise, RATE))
    nothing_measured(measure_pair(noise, pair[1], RATE))


def test_too_few_hits() -> None:
    short = measure_pair(*two_mics(seconds=4.0), RATE)
    nothing_measured(short)
    assert "8 are needed" in short.reason


@pytest.mark.parametrize("beyond_ms", [-0.05, 0.0, 0.05, 0.3, 5.0])
def test_a_lag_at_or_past_the_end_of_the_search_is_not_reported_wrong(
    pair: tuple[np.ndarray, np.ndarray], beyond_ms: float
) -> None:
    late = delayed(pair[1], (6.0 + beyond_ms) * RATE / 1000)
    found = measure_pair(pair[0], late, RATE, config=AlignmentConfig(max_shift_ms=10.0))
    if found.measured:
        assert found.median_delay_ms == pytest.approx(10.0 + beyond_ms, abs=LAG_MS)
        assert beyond_ms < 0.0
    else:
        nothing_measured(found)


def test_a_rough_offset_helps_where_the_search_ends(pair: tuple[np.ndarray, np.ndarray]) -> None:
    late = np.pad(pair[1], (RATE // 2, 0))
    nothing_measured(measure_pair(pair[0], late, RATE))
    assert rough_lag_ms(pair[0], late, RATE) == pytest.approx(504, abs=10)
    silence = np.zeros(RATE, np.float32)
    assert rough_lag_ms(silence, silence, RATE) is None
    noise = np.random.default_rng(0).standard_normal(RATE)
    assert rough_lag_ms(pair[0], noise, RATE) is None


def test_thinning_bounds_the_work(pair: tuple[np.ndarray, np.ndarray], clean: PairLag) -> None:
    few = measure_pair(*pair, RATE, config=AlignmentConfig(max_windows=20))
    assert few.n_windows <= 20
    assert few.median_delay_ms == pytest.approx(clean.median_delay_ms, abs=LAG_MS)
    assert few.times_s[-1] > 18.0


def test_the_same_twice(pair: tuple[np.ndarray, np.ndarray], clean: PairLag) -> None:
    again = measure_pair(*pair, RATE)
    assert dataclasses.asdict(again).keys() == dataclasses.asdict(clean).keys()
    np.testing.assert_array_equal(again.delays_ms, clean.delays_ms)


@settings(max_examples=12, deadline=None)
@given(samples=st.floats(-200.0, 200.0), gain=st.floats(0.01, 10.0))
def test_any_shift_is_found(samples: float, gain: float) -> None:
    anchor, target = two_mics(seconds=12.0, lag_ms=0.0, bleed=0.05)
    found = measure_pair(anchor, gain * delayed(target, samples), RATE)
    assert found.median_delay_ms == pytest.approx(samples * 1000 / RATE, abs=LAG_MS)


def test_wrong_arguments_are_the_callers_mistake(pair: tuple[np.ndarray, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="one dimension"):
        measure_pair(np.zeros((2, 100)), pair[1], RATE)
    with pytest.raises(ValueError, match="one dimension"):
        measure_pair(pair[0], np.zeros((2, 100)), RATE)
    with pytest.raises(ValueError, match="too low"):
        measure_pair(*pair, 500)
    with pytest.raises(ValueError, match="expected_delay_ms"):
        measure_pair(*pair, RATE, expected_delay_ms=float("nan"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_shift_ms": 0.0},
        {"max_shift_ms": float("nan")},
        {"low_hz": 7000.0},
        {"min_support": 2},
        {"max_windows": 4},
        {"path_search_ms": 5.0},
    ],
)
def test_senseless_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|below"):
        AlignmentConfig(**wrong)


@pytest.mark.parametrize(
    ("strict", "said"),
    [
        ({"min_evidence_sigmas": 1e6}, "are not found in the target"),
        ({"max_spread_ms": 1e-6}, "scatter by"),
        ({"min_support": 900}, "900 are needed"),
    ],
)
def test_what_is_too_weak_is_not_measured(
    pair: tuple[np.ndarray, np.ndarray], strict: dict[str, float], said: str
) -> None:
    found = measure_pair(*pair, RATE, config=AlignmentConfig(**strict))
    nothing_measured(found)
    assert said in found.reason


@pytest.fixture(scope="module")
def minute() -> tuple[np.ndarray, np.ndarray]:
    return two_mics(seconds=60.0)


# What is done to the target, and what is then found lost: when, and by how much it moved there.
LOST = {
    "a jump beyond the search range": (lambda x: jumping(x, 54.0, -1323), 54.0, -30.0),
    "most of it lies after the jump": (lambda x: jumping(x, 12.0, -1323), 12.0, -30.0),
    "a jump too large to be found": (lambda x: jumping(x, 54.0, 4410), 54.0, None),
    "a jump just before the end": (lambda x: jumping(x, 57.0, 88), 57.0, 88 / 44.1),
    "a cable pulled": (lambda x: np.where(np.arange(len(x)) < 45 * RATE, x, 0.0), 45.0, None),
    "inverted besides": (lambda x: -jumping(x, 54.0, -1323), 54.0, -30.0),
    "drifting besides": (lambda x: jumping(drifting(x, 20.0), 54.0, -1323), 54.0, -30.0),
}


@pytest.mark.parametrize("name", LOST)
def test_hits_that_support_nothing_are_found(
    minute: tuple[np.ndarray, np.ndarray], name: str
) -> None:
    change, at_s, step_ms = LOST[name]
    changed = change(minute[1]).astype(np.float32)
    found = measure_pair(minute[0], changed, RATE, expected_delay_ms=4.0)
    assert found.measured
    (stretch,) = found.lost
    assert stretch.start_s == pytest.approx(at_s, abs=1.2)
    assert stretch.stop_s > 58.0
    assert stretch.at_end
    if step_ms is None:
        assert stretch.step_ms is None
    else:
        assert stretch.step_ms == pytest.approx(step_ms, abs=5 * LAG_MS)


def test_a_stretch_in_the_middle_is_no_end(minute: tuple[np.ndarray, np.ndarray]) -> None:
    anchor, target = minute
    there_and_back = measure_pair(anchor, jumping(jumping(target, 20.0, 88), 24.0, -88), RATE)
    (stretch,) = there_and_back.lost
    assert not stretch.at_end
    assert stretch.step_ms == pytest.approx(88 / 44.1, abs=LAG_MS)
    assert 19.0 < stretch.start_s < stretch.stop_s < 25.0
    silent = target.copy()
    silent[20 * RATE : 40 * RATE] = 0.0
    (stretch,) = measure_pair(anchor, silent, RATE).lost
    assert (stretch.step_ms, stretch.at_end) == (None, False)
    assert (stretch.start_s, stretch.stop_s) == pytest.approx((20.0, 40.0), abs=1.2)
    # What is lost once cannot hide what is lost again.
    silent[54 * RATE :] = 0.0
    assert [each.at_end for each in measure_pair(anchor, silent, RATE).lost] == [False, True]


def test_nothing_is_lost_of_a_clean_recording(minute: tuple[np.ndarray, np.ndarray]) -> None:
    for seed in range(3):
        found = measure_pair(*two_mics(seconds=30.0, seed=seed, bleed=0.25, noise=3e-3), RATE)
        assert found.lost == (), seed
    assert measure_pair(minute[0], drifting(minute[1], 100.0), RATE).lost == ()
    assert measure_pair(minute[0], jumping(minute[1], 30.0, 132), RATE).lost == ()
