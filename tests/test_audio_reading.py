"""training.audio.reading: shapes, rates, stretches, and what is said of a file that is no use."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from training.audio.reading import audio_info, read_audio, resample
from training.errors import InputError

RATE = 16_000


def _stereo(n: int = RATE) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-0.5, 0.5, size=(n, 2)).astype(np.float32)


@pytest.fixture
def stereo_wav(tmp_path: Path) -> Path:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, _stereo(), RATE, subtype="FLOAT")
    return path


def test_info_reads_the_header(stereo_wav: Path) -> None:
    info = audio_info(stereo_wav)
    assert (info.sample_rate, info.channels, info.frames) == (RATE, 2, RATE)
    assert info.duration_s == 1.0
    assert info.subtype == "FLOAT"


def test_channels_come_first_and_values_are_exact(stereo_wav: Path) -> None:
    samples, rate = read_audio(stereo_wav)
    assert rate == RATE
    assert samples.shape == (2, RATE)
    assert samples.dtype == np.float32
    assert samples.flags["C_CONTIGUOUS"]
    np.testing.assert_array_equal(samples, _stereo().T)


def test_mono_is_the_mean_of_the_channels(stereo_wav: Path) -> None:
    samples, _ = read_audio(stereo_wav, mono=True, dtype=np.float64)
    assert samples.shape == (RATE,)
    assert samples.dtype == np.float64
    np.testing.assert_allclose(samples, _stereo().astype(np.float64).mean(axis=1), atol=1e-12)


def test_a_stretch_equals_the_slice(stereo_wav: Path) -> None:
    whole, _ = read_audio(stereo_wav)
    part, _ = read_audio(stereo_wav, start_s=0.25, duration_s=0.5)
    np.testing.assert_array_equal(part, whole[:, 4000:12000])
    tail, _ = read_audio(stereo_wav, start_s=0.9, duration_s=10.0)
    np.testing.assert_array_equal(tail, whole[:, 14400:])


@pytest.mark.parametrize("suffix", ["flac", "ogg", "aiff", "mp3"])
def test_other_formats_are_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"tone.{suffix}"
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
    soundfile.write(path, tone, RATE)
    samples, rate = read_audio(path, mono=True)
    assert rate == RATE
    assert audio_info(path).frames == len(samples)
    assert np.sqrt(np.mean(samples**2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


def test_resampling_keeps_a_tone_in_place(tmp_path: Path) -> None:
    path = tmp_path / "tone.wav"
    time = np.arange(RATE) / RATE
    soundfile.write(path, np.sin(2 * np.pi * 440 * time), RATE, subtype="FLOAT")
    samples, rate = read_audio(path, sample_rate=48_000, mono=True)
    assert rate == 48_000
    assert len(samples) == 48_000
    expected = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000)
    np.testing.assert_allclose(samples[2400:-2400], expected[2400:-2400], atol=1e-3)


def test_resampling_keeps_channels_apart() -> None:
    two = np.zeros((2, 4800))
    two[1] = 0.25
    out = resample(two, 48_000, 44_100)
    assert out.shape == (2, 4410)
    assert np.max(np.abs(out[0])) == 0.0
    assert out[1, 2000] == pytest.approx(0.25, abs=1e-6)
    assert resample(two, 8000, 8000) is two


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (audio_info, read_audio):
        with pytest.raises(InputError, match=r"gone\.wav: no such file"):
            read(tmp_path / "gone.wav")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a file"):
        read_audio(tmp_path)


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "empty.wav"
    path.touch()
    with pytest.raises(InputError, match=r"empty\.wav: is empty"):
        read_audio(path)


@pytest.mark.parametrize("name", ["text.wav", "text.flac", "text.raw", "text.unknown"])
def test_text_is_not_audio(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("this is not audio\n" * 100)
    with pytest.raises(InputError, match="not readable audio"):
        audio_info(path)


def test_zero_frames_hold_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros(0), RATE)
    with pytest.raises(InputError, match="no audio"):
        read_audio(path)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    soundfile.write(path, _stereo(), RATE)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"truncated|decoded|not readable"):
        read_audio(path)


def test_a_header_of_unknown_length_is_accepted(tmp_path: Path) -> None:
    """A WAV written to a pipe has 0xFFFFFFFF for its sizes and is whole all the same."""
    path = tmp_path / "piped.wav"
    soundfile.write(path, _stereo(1000), RATE, subtype="PCM_16")
    data = bytearray(path.read_bytes())
    at = data.index(b"data")
    data[4:8] = data[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    samples, _ = read_audio(path)
    assert samples.shape == (2, 1000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_samples_that_are_not_finite_are_located(tmp_path: Path, bad: float) -> None:
    path = tmp_path / "bad.wav"
    samples = _stereo()
    samples[8000, 1] = bad
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    for mono in (True, False):
        with pytest.raises(InputError, match=r"not finite \(-?(nan|inf) at 0\.500000 s\)"):
            read_audio(path, mono=mono)


def test_opposite_infinities_are_still_seen(tmp_path: Path) -> None:
    path = tmp_path / "both.wav"
    samples = _stereo()
    samples[10, 0], samples[20, 0] = np.inf, -np.inf
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    with pytest.raises(InputError, match="not finite"):
        read_audio(path)


def test_a_start_past_the_end_is_refused(stereo_wav: Path) -> None:
    with pytest.raises(InputError, match=r"ends at 1\.000 s"):
        read_audio(stereo_wav, start_s=1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"dtype": np.int16},
        {"sample_rate": 0},
        {"start_s": -1.0},
        {"start_s": float("nan")},
        {"duration_s": 0.0},
        {"duration_s": float("inf")},
    ],
)
def test_senseless_arguments_are_the_callers_mistake(stereo_wav: Path, wrong: dict) -> None:
    with pytest.raises(ValueError, match="must be"):
        read_audio(stereo_wav, **wrong)
