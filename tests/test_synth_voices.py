"""The synthesiser's signal tools and its voices: do they follow the physics they claim?"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth_measures import measured_t60, spectral_centroid

from training.audio.synth import dsp, make_kits
from training.audio.synth.cymbals import CymbalVoices
from training.audio.synth.drums import DrumVoices
from training.audio.synth.kits import RANGES
from training.audio.synth.percussion import VARIANTS, PercussionVoices

RATE = 44_100
DRUMS = ("kick", "snare", "side_stick", "tom_high", "tom_mid", "tom_low")
CYMBALS = ("hihat_closed", "hihat_open", "hihat_pedal", "ride", "ride_bell", "crash")
KITS = make_kits(4, 7)
VOICES = [(DrumVoices(kit, RATE), CymbalVoices(kit, RATE)) for kit in KITS]


def hit(
    kit: int, label: str, velocity: float, *, openness: float = 0.0, seed: int = 0
) -> dsp.Signal:
    drums, cymbals = VOICES[kit]
    rng = np.random.default_rng(seed)
    if label in DRUMS:
        return drums.hit(rng, label, velocity)
    if label == "hihat_open" and openness == 0.0:
        openness = 0.8
    return cymbals.hit(rng, label, velocity, openness=openness)


def rms_db(signal: dsp.Signal) -> float:
    return 10.0 * np.log10(np.sum(signal.astype(np.float64) ** 2) / RATE)


def test_steady_modes_equal_the_formula() -> None:
    rng = np.random.default_rng(1)
    f, t60 = rng.uniform(50, 15_000, 9), rng.uniform(0.05, 2.0, 9)
    a, phase = rng.uniform(0.1, 1.0, 9), rng.uniform(0, 6.28, 9)
    t = np.arange(5_000) / RATE
    rate = np.log(1000.0) / t60
    direct = (
        a[:, None]
        * np.exp(-rate[:, None] * t)
        * np.cos(2 * np.pi * f[:, None] * t + phase[:, None])
    ).sum(axis=0)
    np.testing.assert_allclose(dsp.steady_modes(f, t60, a, phase, 5_000, RATE), direct, atol=2e-5)


def test_modes_that_cannot_sound_are_silent() -> None:
    one = np.ones(1)
    assert not dsp.steady_modes(25_000.0 * one, one, one, one, 100, RATE).any()
    assert dsp.steady_modes(one, one, one, one, 0, RATE).shape == (0,)


def test_gliding_modes_settle_on_their_pitch_from_above() -> None:
    f = np.array([200.0])
    wave = dsp.gliding_modes(
        f, np.array([3.0]), np.ones(1), glide=0.5, glide_s=0.02, n=RATE, sample_rate=RATE
    )
    rising = np.flatnonzero((wave[:-1] < 0) & (wave[1:] >= 0))
    pitch = RATE / np.diff(rising)
    assert pitch[0] > 230.0
    assert np.median(pitch[-40:]) == pytest.approx(200.0, rel=0.005)
    assert wave[0] == 0.0


@settings(max_examples=30, deadline=None)
@given(delay=st.floats(20.0, 60.0), frequency=st.floats(100.0, 12_000.0))
def test_fractional_delay_moves_a_tone_by_exactly_that_much(delay: float, frequency: float) -> None:
    first, taps = dsp.fractional_taps(np.array([delay]), 32)
    omega = 2 * np.pi * frequency / RATE
    response = np.sum(taps[0] * np.exp(-1j * omega * (first[0] + np.arange(32))))
    error = np.angle(response * np.exp(1j * omega * delay)) / omega
    assert abs(error) < 0.01  # samples
    assert abs(response) == pytest.approx(1.0, abs=0.02)


def test_measured_t60_of_a_known_decay() -> None:
    noise = np.random.default_rng(0).standard_normal(2 * RATE).astype(np.float32)
    assert measured_t60(noise * dsp.decay(2 * RATE, 0.8, RATE), RATE) == pytest.approx(
        0.8, rel=0.03
    )
    assert np.isnan(measured_t60(np.zeros(100, np.float32), RATE))
    assert np.isnan(spectral_centroid(np.zeros(100, np.float32), RATE))


def test_band_noise_stays_in_its_band() -> None:
    noise = dsp.band_noise(np.random.default_rng(0), RATE, RATE, 1000.0, 4000.0)
    power = np.abs(np.fft.rfft(noise)) ** 2
    f = np.fft.rfftfreq(RATE, 1 / RATE)
    assert power[(f > 850) & (f < 4700)].sum() / power.sum() > 0.999
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("label", DRUMS + CYMBALS)
def test_a_harder_stroke_is_louder_and_brighter(label: str) -> None:
    for kit in range(len(KITS)):
        soft = [hit(kit, label, 0.2, seed=s) for s in range(6)]
        hard = [hit(kit, label, 0.95, seed=s) for s in range(6)]
        assert np.mean([rms_db(x) for x in hard]) > np.mean([rms_db(x) for x in soft]) + 12.0
        centroids = [np.mean([spectral_centroid(x, RATE) for x in xs]) for xs in (soft, hard)]
        assert centroids[1] > 1.02 * centroids[0]


@pytest.mark.parametrize("label", DRUMS + CYMBALS)
def test_hits_are_finite_end_in_silence_and_differ(label: str) -> None:
    one, other = hit(0, label, 0.7, seed=1), hit(0, label, 0.7, seed=2)
    assert one.dtype == np.float32
    assert np.isfinite(one).all()
    assert np.abs(one[-8:]).max() < 0.02 * np.abs(one).max()
    n = min(len(one), len(other))
    assert not np.array_equal(one[:n], other[:n])
    np.testing.assert_array_equal(one, hit(0, label, 0.7, seed=1))


@pytest.mark.parametrize("label", ["kick", "tom_high", "tom_mid", "tom_low"])
def test_a_drum_rings_at_its_kits_tuning(label: str) -> None:
    for kit, parameters in enumerate(KITS):
        sound = hit(kit, label, 0.3)[int(0.06 * RATE) :]
        spectrum = np.abs(np.fft.rfft(sound, 1 << 17))
        f = np.fft.rfftfreq(1 << 17, 1 / RATE)
        peak = f[np.argmax(spectrum * (f < 400))]
        # The lower head may outdo the upper one, a few per cent higher.
        assert 0.97 < peak / parameters[f"{label}_f0_hz"] < 1.12


def test_no_tom_of_any_kit_has_the_pitch_of_another_label() -> None:
    kits = make_kits(40, 3)
    ranges = {
        label: [kit[f"{label}_f0_hz"] for kit in kits]
        for label in ("tom_low", "tom_mid", "tom_high")
    }
    assert max(ranges["tom_low"]) < min(ranges["tom_mid"])
    assert max(ranges["tom_mid"]) < min(ranges["tom_high"])


def test_openness_lengthens_the_hi_hat_without_steps() -> None:
    for kit in range(len(KITS)):
        t60 = [
            measured_t60(hit(kit, "hihat_open", 0.8, openness=o), RATE)
            for o in np.linspace(0.01, 1.0, 12)
        ]
        assert t60[-1] > 6.0 * t60[0]
        assert all(b > 0.9 * a for a, b in pairwise(t60))
        assert max(b / a for a, b in pairwise(t60)) < 2.2


def test_characters_of_the_voices() -> None:
    for kit in range(len(KITS)):
        t60 = {label: measured_t60(hit(kit, label, 0.8), RATE) for label in DRUMS + CYMBALS}
        centre = {label: spectral_centroid(hit(kit, label, 0.8), RATE) for label in t60}
        assert t60["side_stick"] < 0.09 < 0.8 < t60["crash"]
        assert t60["hihat_closed"] < t60["hihat_open"] < t60["ride"]
        assert centre["tom_low"] < centre["snare"] < centre["hihat_closed"]
        assert centre["hihat_pedal"] < centre["hihat_closed"]
        assert centre["ride_bell"] < centre["ride"]


def test_splash_is_shorter_than_china_and_china_than_crash() -> None:
    rng = np.random.default_rng(0)
    for kit, (_, cymbals) in zip(KITS, VOICES, strict=True):
        effect, crash = (
            measured_t60(cymbals.hit(rng, "crash", 0.9, variant=v), RATE)
            for v in (kit.effect, "crash_right")
        )
        assert effect < (0.45 if kit.effect == "splash" else 0.85) * crash


@pytest.mark.parametrize("variant", VARIANTS)
def test_unknown_percussion_sounds(variant: str) -> None:
    sound = PercussionVoices(5, RATE).hit(np.random.default_rng(0), variant, 0.8)
    assert np.isfinite(sound).all()
    assert 0.05 < np.abs(sound).max() < 1.0
    assert 0.03 < measured_t60(sound, RATE) < 0.5


def test_kits_differ_in_every_parameter() -> None:
    kits = make_kits(8, 0)
    for name in kits[0].parameters:
        values = sorted(kit[name] for kit in kits)
        assert len(set(values)) == 8
        low, high = RANGES[name]
        # One value in each eighth of the range.
        assert [int(8 * (v - low) / (high - low)) for v in values] == list(range(8))
    assert make_kits(8, 0) == kits
    assert make_kits(8, 1) != kits


@pytest.mark.parametrize("rate", [16_000, 22_050, 48_000])
def test_voices_work_at_other_sample_rates(rate: int) -> None:
    drums, cymbals = DrumVoices(KITS[0], rate), CymbalVoices(KITS[0], rate)
    rng = np.random.default_rng(0)
    for label in DRUMS:
        assert np.isfinite(drums.hit(rng, label, 0.9)).all()
    for label in CYMBALS:
        assert np.isfinite(cymbals.hit(rng, label, 0.9, openness=0.5)).all()
