"""Which moments of a recording are compared: the hits that rise clearly in the anchor mic.

The lag between two mics depends on which drum sounds: sound from the kick reaches the snare mic
late, sound from the snare reaches it early. So the anchor decides. Hits are found in the anchor
alone, and only its own drum's hits are wanted: see `AlignmentConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.fft
import scipy.signal

from training.metrics.alignment_types import (
    AlignmentConfig,
    ComplexArray,
    FloatArray,
    IntArray,
)

__all__ = ["AnchorWindows", "Grid", "find_onsets", "prepare_anchor"]

FRAME_S: Final = 0.001
ATTACK_FRAMES: Final = 5
BEFORE_FRAMES: Final = 40
GAP_FRAMES: Final = 3
MIN_SPACING_S: Final = 0.06
PRE_S: Final = 0.004
FADE_IN_S: Final = 0.001
CHUNK: Final = 256
# The correlation is sampled at least this often in a period of the highest frequency, so that a
# parabola through three points finds its peak to about 0.01 of a sample.
POINTS_PER_PERIOD: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The sizes shared by every window of a recording, in samples.

    `pre` before the onset, `length` of the anchor window, `shift` the search range either side,
    `n_fft` the transform, `upsampling` of the correlation, `band` the weight of each of the
    ``n_fft // 2 + 1`` frequencies (raised-cosine edges half an octave wide; 0 outside).
    """

    sample_rate: int
    pre: int
    length: int
    shift: int
    n_fft: int
    upsampling: int
    band: FloatArray

    @property
    def lag_rate(self) -> int:
        """Lags a second in a correlation."""
        return self.sample_rate * self.upsampling

    @property
    def stretch(self) -> int:
        """Samples of the target that an anchor window is held against."""
        return self.length + 2 * self.shift

    @classmethod
    def make(cls, sample_rate: int, shift_ms: float, config: AlignmentConfig) -> Grid:
        """Work the sizes out; raises ValueError when the rate is too low for the band."""
        high = min(config.high_hz, 0.45 * sample_rate)
        if high <= 2.0 * config.low_hz:
            raise ValueError(
                f"a sample rate of {sample_rate} Hz is too low for a band from {config.low_hz} Hz"
            )
        length = round(config.window_ms * sample_rate / 1000)
        shift = max(1, round(shift_ms * sample_rate / 1000))
        n_fft = scipy.fft.next_fast_len(length + 2 * shift, real=True)
        frequencies = np.fft.rfftfreq(n_fft, 1.0 / sample_rate)
        with np.errstate(divide="ignore"):
            above = np.log2(frequencies / config.low_hz) * 2.0 + 0.5
            below = np.log2(high / frequencies) * 2.0 + 0.5
        band = _smooth_step(above) * _smooth_step(below)
        upsampling = 1
        while upsampling * sample_rate < POINTS_PER_PERIOD * high:
            upsampling *= 2
        return cls(
            sample_rate=sample_rate,
            pre=round(PRE_S * sample_rate),
            length=length,
            shift=shift,
            n_fft=n_fft,
            upsampling=upsampling,
            band=band.astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class AnchorWindows:
    """The anchor's hits and their spectra, made once and compared with every other mic.

    `onsets` has shape (w,), in samples; `levels_db` (w,) is the in-band energy. `coarse` is the
    grid of the search over the whole range, `fine` that of the second look near the lag found;
    `coarse_phases` and `fine_phases`, of shape (w, frequencies in band), are the complex conjugate
    of each window's spectrum scaled to magnitude 1 (0 where there is nothing); `samples`
    (w, length) are the windows themselves, faded in and out.
    """

    sample_rate: int
    n_samples: int
    onsets: IntArray
    levels_db: FloatArray
    coarse: Grid
    fine: Grid
    coarse_phases: ComplexArray
    fine_phases: ComplexArray
    samples: FloatArray


def _smooth_step(position: FloatArray) -> FloatArray:
    step: FloatArray = 0.5 - 0.5 * np.cos(np.pi * np.clip(position, 0.0, 1.0))
    return step


def loudness_rise(audio: FloatArray, sample_rate: int) -> tuple[int, FloatArray]:
    """Say how much louder, in dB, the next 5 ms are than the 40 ms before, once a ms.

    Returns the samples in a frame of 1 ms and the rise at the start of each frame from the 40th on.
    Audio (n,) that is too short or constant yields an empty array.
    """
    hop = max(1, round(FRAME_S * sample_rate))
    n_frames = len(audio) // hop
    if n_frames <= BEFORE_FRAMES + ATTACK_FRAMES:
        return hop, np.empty(0)
    frames = audio[: n_frames * hop].reshape(n_frames, hop)
    mean = float(np.mean(audio, dtype=np.float64))
    power = np.einsum("ij,ij->i", frames, frames).astype(np.float64) / hop
    power = np.maximum(power - 2.0 * mean * frames.mean(axis=1) + mean * mean, 0.0)
    total = np.concatenate(([0.0], np.cumsum(power)))
    first = np.arange(BEFORE_FRAMES, n_frames - ATTACK_FRAMES)
    after = (total[first + ATTACK_FRAMES] - total[first]) / ATTACK_FRAMES
    n_before = BEFORE_FRAMES - GAP_FRAMES
    before = (total[first - GAP_FRAMES] - total[first - BEFORE_FRAMES]) / n_before
    loudest = float(after.max())
    if loudest <= 0.0:
        return hop, np.empty(0)
    # What lies 80 dB below the loudest hit counts as silence, so that a rise out of digital
    # silence is large and finite, and a rise within the silence is none.
    floor = max(loudest * 1e-8, 1e-18)
    rise: FloatArray = 10.0 * np.log10((after + floor) / (np.maximum(before, 0.0) + floor))
    return hop, rise


def find_onsets(anchor: FloatArray, sample_rate: int, config: AlignmentConfig) -> IntArray:
    """Find the samples at which the energy of `anchor` (n,) rises suddenly.

    Peaks of `loudness_rise` that are at least 60 ms apart and `min_onset_rise_db` high are onsets.
    Accurate to a few ms, which is all that a window needs. Audio too short or silent yields an
    empty array.
    """
    hop, rise = loudness_rise(anchor, sample_rate)
    if len(rise) == 0:
        return np.empty(0, dtype=np.int64)
    spacing = max(1, round(MIN_SPACING_S / FRAME_S))
    peaks, _ = scipy.signal.find_peaks(rise, height=config.min_onset_rise_db, distance=spacing)
    onsets: IntArray = ((peaks + BEFORE_FRAMES) * hop).astype(np.int64)
    return onsets


def thin(onsets: IntArray, limit: int) -> IntArray:
    """Keep at most `limit` onsets, spread evenly."""
    if len(onsets) <= limit:
        return onsets
    return onsets[np.linspace(0, len(onsets) - 1, limit).round().astype(np.int64)]


def prepare_anchor(
    anchor: FloatArray, sample_rate: int, config: AlignmentConfig | None = None
) -> AnchorWindows:
    """Find the hits of `anchor` (n,) and transform a window around each.

    No hits yields empty arrays. Raises ValueError when `anchor` is not one-dimensional or the
    sample rate too low for the band.
    """
    config = config or AlignmentConfig()
    if anchor.ndim != 1:
        raise ValueError(f"anchor must have one dimension, got shape {anchor.shape}")
    coarse = Grid.make(sample_rate, config.max_shift_ms, config)
    fine = Grid.make(sample_rate, config.fine_shift_ms, config)
    onsets = find_onsets(anchor, sample_rate, config)
    starts = onsets - coarse.pre
    onsets = thin(
        onsets[(starts >= 0) & (starts + coarse.length <= len(anchor))], config.max_windows
    )
    phases = [
        np.zeros((len(onsets), int((grid.band > 0.0).sum())), dtype=np.complex64)
        for grid in (coarse, fine)
    ]
    levels = np.full(len(onsets), -300.0)
    samples = np.zeros((len(onsets), coarse.length), dtype=np.float32)
    taper = _taper(coarse)
    mean = np.float32(np.mean(anchor, dtype=np.float64)) if len(anchor) else np.float32(0.0)
    within = np.arange(coarse.length)
    for at in range(0, len(onsets), CHUNK):
        rows = slice(at, at + CHUNK)
        samples[rows] = (anchor[(onsets[rows] - coarse.pre)[:, None] + within] - mean) * taper
        for grid, kept in zip((coarse, fine), phases, strict=True):
            spectra = scipy.fft.rfft(samples[rows], grid.n_fft, axis=1)[:, grid.band > 0.0]
            kept[rows] = unit(spectra).conj()
        levels[rows] = band_level_db(spectra, fine.band[fine.band > 0.0])
    keep = np.ones(len(onsets), dtype=bool)
    if len(onsets):
        keep = levels >= np.percentile(levels, 90) - config.level_range_db
    return AnchorWindows(
        sample_rate=sample_rate,
        n_samples=len(anchor),
        onsets=onsets[keep],
        levels_db=levels[keep],
        coarse=coarse,
        fine=fine,
        coarse_phases=phases[0][keep],
        fine_phases=phases[1][keep],
        samples=samples[keep],
    )


def _taper(grid: Grid) -> FloatArray:
    """Fade a window in over 1 ms and out over its last third."""
    taper = np.ones(grid.length, dtype=np.float32)
    fade_in = max(1, min(round(FADE_IN_S * grid.sample_rate), grid.length // 3))
    fade_out = max(1, grid.length // 3)
    taper[:fade_in] = _smooth_step((np.arange(fade_in) + 0.5) / fade_in)
    taper[-fade_out:] = _smooth_step((np.arange(fade_out) + 0.5) / fade_out)[::-1]
    return taper


def unit(spectra: ComplexArray) -> ComplexArray:
    """Scale each complex value to magnitude 1; what is 0 stays 0."""
    magnitude = np.abs(spectra)
    scaled: ComplexArray = spectra / np.maximum(magnitude, np.finfo(np.float32).tiny)
    return scaled


def band_level_db(spectra: ComplexArray, weight: FloatArray) -> FloatArray:
    """Energy in the band of each row, in dB (-300 for none)."""
    energy = np.einsum("ij,j->i", np.abs(spectra) ** 2, weight)
    level: FloatArray = 10.0 * np.log10(np.maximum(energy.astype(np.float64), 1e-30))
    return level
