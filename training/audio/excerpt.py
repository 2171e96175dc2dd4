"""A short stretch of a recording around an onset, to be heard and seen.

The sound is mono, resampled to the feature rate (44.1 kHz), as the trainer hears it; the picture is
the project's own log-mel of the same stretch (`training.audio.logmel`), read with real audio on
either side, so that its first and last frames show nothing that is not there. Where the recording
does not reach, there is silence.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from training.audio.reading import audio_info, read_audio
from training.errors import InputError

if TYPE_CHECKING:
    from training.audio.logmel import LogMel

__all__ = ["Excerpt", "band_position", "read_excerpt", "to_flac"]

FloatArray = npt.NDArray[np.floating[Any]]

LOUD_PEAK: Final = 0.5
"""A stretch whose peak is lower than this (-6 dBFS) is raised to it …"""
MOST_GAIN_DB: Final = 30.0
"""… but by no more than this: what is left is noise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """What is heard and seen of one onset.

    `sound` has shape (n,) and lies in [-1, 1]; `decibels` has shape (n_mels, frames), the lowest
    band first, and spans the same time. `gain_db` is how far the sound was raised to be heard.
    """

    sound: FloatArray
    decibels: FloatArray
    sample_rate: int
    before_s: float
    after_s: float
    gain_db: float


def read_excerpt(path: Path, onset_s: float, *, before_s: float, after_s: float) -> Excerpt:
    """Read about `before_s` seconds before an onset and `after_s` after it (whole mel frames).

    Raises InputError when the file cannot be read or ends before the onset; ValueError when a
    length is not positive.
    """
    if not (before_s > 0 and after_s > 0):
        raise ValueError(f"lengths must be positive, got {before_s} and {after_s} s")
    info = audio_info(path)
    if onset_s >= info.duration_s:
        why = f"ends at {info.duration_s:.3f} s, before the onset at {onset_s:.3f} s"
        raise InputError.at(path, why)
    hop, rate, n_fft = _geometry()
    before, after = (max(1, round(part * rate / hop)) * hop for part in (before_s, after_s))
    mel = _mel((before + after) // hop + 1)
    margin = n_fft // 2
    samples = _stretch(path, info.sample_rate, onset_s, (before + margin, after + margin), rate)

    import torch

    with torch.inference_mode():
        decibels = mel.decibels(torch.from_numpy(samples)[None])[0].numpy()
    sound = samples[margin:-margin]
    gain_db = _gain_db(sound)
    return Excerpt(
        sound=np.clip(sound * 10 ** (gain_db / 20), -1.0, 1.0),
        decibels=decibels,
        sample_rate=rate,
        before_s=before / rate,
        after_s=after / rate,
        gain_db=gain_db,
    )


def to_flac(sound: FloatArray, sample_rate: int) -> bytes:
    """Return mono sound [shape=(n,)] in [-1, 1] as a 16-bit FLAC file: every browser plays it."""
    import soundfile

    whole = np.rint(sound * 32767.0).clip(-32768, 32767).astype(np.int16)
    held = io.BytesIO()
    soundfile.write(held, whole, sample_rate, format="FLAC", subtype="PCM_16")
    return held.getvalue()


def band_position(frequency_hz: float) -> float:
    """Return where a frequency lies in the picture: 0 is its lower edge, 1 its upper."""
    import librosa

    from training.audio.logmel import FEATURE_PRESETS

    config = FEATURE_PRESETS["default"]
    low, at, high = librosa.hz_to_mel(np.array([config.fmin, frequency_hz, config.fmax]))
    # Band k is centred k + 1 of n_mels + 1 equal steps up the mel scale.
    centre = (at - low) / (high - low) * (config.n_mels + 1) - 1
    return float(np.clip((centre + 0.5) / config.n_mels, 0.0, 1.0))


def _geometry() -> tuple[int, int, int]:
    from training.audio.logmel import FEATURE_PRESETS

    config = FEATURE_PRESETS["default"]
    return config.hop, config.sample_rate, config.n_fft


@cache
def _mel(frames: int) -> LogMel:
    from training.audio.logmel import FEATURE_PRESETS, LogMel

    return LogMel(replace(FEATURE_PRESETS["default"], frames=frames, preroll_ms=0.0)).eval()


def _stretch(
    path: Path, file_rate: int, onset_s: float, around: tuple[int, int], rate: int
) -> FloatArray:
    """The samples before and after an onset, shape (sum(around),); silence beyond the recording."""
    start_s = onset_s - around[0] / rate
    # From a whole sample of the file on: reading would round to one, and half a sample of 8 kHz
    # is three of 44.1 kHz.
    first_s = max(math.floor(start_s * file_rate), 0) / file_rate
    read, _ = read_audio(
        path,
        sample_rate=rate,
        mono=True,
        start_s=first_s,
        duration_s=onset_s + around[1] / rate - first_s,
    )
    samples = np.zeros(sum(around), dtype=np.float32)
    at = round((first_s - start_s) * rate)
    read = read[max(-at, 0) :][: len(samples) - max(at, 0)]
    samples[max(at, 0) : max(at, 0) + len(read)] = read
    return samples


def _gain_db(sound: FloatArray) -> float:
    peak = float(np.max(np.abs(sound), initial=0.0))
    if peak <= 0.0:
        return 0.0
    return float(np.clip(20 * np.log10(LOUD_PEAK / peak), 0.0, MOST_GAIN_DB))
