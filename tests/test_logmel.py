"""Log-mel on the device against librosa, and the arithmetic of frames."""

from __future__ import annotations

from dataclasses import replace

import librosa
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.audio.logmel import FEATURE_PRESETS, FeatureConfig, LogMel, mel_filters

DEFAULT = FEATURE_PRESETS["default"]


def drum_like(config: FeatureConfig, n: int, seed: int = 0) -> np.ndarray:
    """Clips with a tonal decay, a noise burst and a noise floor, as int16."""
    rng = np.random.default_rng(seed)
    t = np.arange(config.read_samples) / config.sample_rate
    clips = []
    for index in range(n):
        after = np.maximum(t - 0.05, 0.0)
        clip = 0.6 * np.exp(-after * 20) * np.sin(2 * np.pi * (50 + 60 * index) * after)
        clip += 0.3 * (after > 0) * np.exp(-after * 60) * rng.standard_normal(len(t))
        clip += 10.0 ** (-rng.uniform(2, 4)) * rng.standard_normal(len(t))
        clips.append(clip / np.abs(clip).max() * 0.9)
    return np.rint(np.stack(clips) * 32767).astype(np.int16)


def by_librosa(config: FeatureConfig, clip: np.ndarray, *, center: bool) -> np.ndarray:
    mel = librosa.feature.melspectrogram(
        y=clip.astype(np.float32) / 32768.0,
        sr=config.sample_rate,
        n_fft=config.n_fft,
        hop_length=config.hop,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
        center=center,
    )
    return librosa.power_to_db(mel, top_db=config.top_db)


def test_the_default_is_128_real_frames_of_25400_samples() -> None:
    assert DEFAULT.window_samples == 25_400
    assert DEFAULT.window_ms == pytest.approx(576, abs=0.05)
    assert 1 + DEFAULT.window_samples // DEFAULT.hop == DEFAULT.frames == 128
    # With n_fft / 2 on either side, frames that never leave the audio are just as many.
    assert 1 + (DEFAULT.read_samples - DEFAULT.n_fft) // DEFAULT.hop == 128
    assert DEFAULT.read_before == round(0.050 * 44_100) + 1024


@pytest.mark.parametrize("name", FEATURE_PRESETS)
def test_equals_librosa_with_context_and_without(name: str) -> None:
    config = FEATURE_PRESETS[name]
    clips = drum_like(config, 4)
    ours = LogMel(config).decibels(torch.from_numpy(clips)).numpy()
    assert ours.shape == (4, config.n_mels, config.frames)
    for clip, spectrogram in zip(clips, ours, strict=True):
        np.testing.assert_allclose(spectrogram, by_librosa(config, clip, center=False), atol=0.01)

    half = config.n_fft // 2
    windows = np.ascontiguousarray(clips[:, half : half + config.window_samples])
    ours = LogMel(config).decibels(torch.from_numpy(windows)).numpy()
    for clip, spectrogram in zip(windows, ours, strict=True):
        np.testing.assert_allclose(spectrogram, by_librosa(config, clip, center=True), atol=0.01)


def test_without_top_db_equals_librosa() -> None:
    config = replace(DEFAULT, top_db=None)
    clips = drum_like(config, 2)
    ours = LogMel(config).decibels(torch.from_numpy(clips)).numpy()
    for clip, spectrogram in zip(clips, ours, strict=True):
        np.testing.assert_allclose(spectrogram, by_librosa(config, clip, center=False), atol=0.01)


def test_a_tone_lights_its_own_band() -> None:
    config = DEFAULT
    centres = librosa.mel_frequencies(config.n_mels + 2, fmin=config.fmin, fmax=config.fmax)[1:-1]
    t = torch.arange(config.read_samples) / config.sample_rate
    for band in (10, 64, 120):
        tone = 0.5 * torch.sin(2 * torch.pi * float(centres[band]) * t)[None]
        energies = LogMel(config).decibels(tone).mean(dim=2)[0]
        assert abs(int(energies.argmax()) - band) <= 1


def test_gain_moves_decibels() -> None:
    clips = torch.from_numpy(drum_like(DEFAULT, 2)).float() / 32768.0
    logmel = LogMel(replace(DEFAULT, top_db=None))
    difference = logmel.decibels(clips) - logmel.decibels(clips * 0.5)
    torch.testing.assert_close(
        difference, torch.full_like(difference, 20 * np.log10(2.0)), atol=1e-3, rtol=0
    )


def test_int16_and_float_agree_and_silence_is_finite() -> None:
    clips = torch.from_numpy(drum_like(DEFAULT, 2))
    logmel = LogMel(DEFAULT)
    torch.testing.assert_close(logmel(clips), logmel(clips.float() / 32768.0))
    silence = logmel.decibels(torch.zeros(1, DEFAULT.read_samples, dtype=torch.int16))
    assert torch.all(silence == silence[0, 0, 0])
    assert float(silence[0, 0, 0]) == pytest.approx(-100.0, abs=1e-3)


def test_an_empty_batch_gives_an_empty_result() -> None:
    empty = LogMel(DEFAULT)(torch.zeros(0, DEFAULT.read_samples))
    assert empty.shape == (0, 128, 128)


def test_clips_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="clips must be"):
        LogMel(DEFAULT)(torch.zeros(1, DEFAULT.read_samples - 1))


def test_statistics_standardise_and_travel_in_the_state() -> None:
    config = FEATURE_PRESETS["fast"]
    clips = torch.from_numpy(drum_like(config, 8))
    logmel = LogMel(config)
    decibels = logmel.decibels(clips)
    logmel.set_statistics(decibels.mean(dim=(0, 2)), decibels.std(dim=(0, 2)))
    out = logmel(clips)
    assert float(out.mean().abs()) < 1e-3
    assert float(out.std()) == pytest.approx(1.0, abs=0.01)
    assert set(logmel.state_dict()) == {"mean", "std"}
    other = LogMel(config)
    other.load_state_dict(logmel.state_dict())
    torch.testing.assert_close(other(clips), out)
    with pytest.raises(ValueError, match="finite"):
        logmel.set_statistics(torch.full((64,), torch.nan), torch.ones(64))


def test_only_bins_that_a_filter_uses_are_kept() -> None:
    filters, first = mel_filters(DEFAULT)
    whole = librosa.filters.mel(sr=44_100, n_fft=2048, n_mels=128, fmin=20.0, fmax=16_000.0)
    assert filters.shape[1] < whole.shape[1]
    assert filters.sum() == pytest.approx(whole.sum())
    np.testing.assert_array_equal(whole[:, first : first + filters.shape[1]], filters)


def test_bands_without_a_bin_are_refused() -> None:
    with pytest.raises(ValueError, match="hold no STFT bin"), pytest.warns(match="Empty filters"):
        mel_filters(FeatureConfig(n_fft=256, n_mels=128))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sample_rate", 0),
        ("n_fft", 2047),
        ("hop", -1),
        ("n_mels", 4),
        ("frames", 4),
        ("preroll_ms", -1.0),
        ("preroll_ms", 600.0),
        ("preroll_ms", float("nan")),
        ("fmin", 17_000.0),
        ("fmax", 30_000.0),
        ("top_db", 0.0),
        ("frames", 1.5),
        ("hop", True),
    ],
)
def test_senseless_features_are_refused(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=field.split("_")[0]):
        replace(DEFAULT, **{field: value})


@given(
    hop=st.integers(20, 400), frames=st.integers(8, 140), n_fft=st.sampled_from([512, 1024, 2048])
)
@settings(max_examples=25, deadline=None)
def test_frames_always_come_out_as_configured(hop: int, frames: int, n_fft: int) -> None:
    config = FeatureConfig(hop=hop, frames=frames, n_fft=n_fft, n_mels=32, preroll_ms=0.0)
    logmel = LogMel(config)
    assert logmel(torch.zeros(1, config.read_samples)).shape == (1, 32, frames)
    assert logmel(torch.zeros(1, config.window_samples)).shape == (1, 32, frames)
    assert FeatureConfig.from_dict(config.as_dict()) == config
