"""Where something is struck in a recording: spectral flux on a mel scale, and its peaks.

The flux is the rise of the log-mel spectrum against 10 ms before, of which vibrato takes no part:
each band is compared with the loudest of itself and its two neighbours (SuperFlux; Böck and Widmer,
"Maximum filter vibrato suppression for onset detection", DAFx 2013). A peak counts where it stands
out from the median of the 400 ms around it. On clicks, tones and
bursts of noise the peak lies within 3 ms of the onset, so the time that is given is the peak's.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT_SENSITIVITY", "detect_onsets", "onset_strength"]

FloatArray = NDArray[np.floating[Any]]

HOP_S: Final = 0.005
WINDOW_S: Final = 0.0232
"""1,024 samples at 44.1 kHz."""
LAG: Final = 2
"""Frames between the spectra that are compared: 10 ms."""
BANDS: Final = 64
GAIN: Final = 100.0
"""What is 40 dB below the recording's peak and louder counts fully; what is quieter, less."""
AROUND_S: Final = 0.4
APART_S: Final = 0.03
"""Two onsets are at least this far apart."""
DEFAULT_SENSITIVITY: Final = 0.45
BLOCK: Final = 4096
"""Frames at once: 20 s."""


def onset_strength(samples: FloatArray, sample_rate: int) -> FloatArray:
    """Return the flux of mono audio [shape=(n,)] every 5 ms [shape=(frames,)].

    Frame k is centred on second ``0.005 k``. Audio is scaled to its peak first; silence has no
    flux. Empty audio gives an empty result.
    """
    from scipy.fft import rfft
    from scipy.ndimage import maximum_filter1d

    n = len(samples)
    if n == 0:
        return np.zeros(0)
    audio = np.asarray(samples, dtype=np.float32)
    peak = float(np.abs(audio).max())
    frames = 1 + int(n / (HOP_S * sample_rate))
    if peak == 0.0:
        return np.zeros(frames)
    size = 2 * round(WINDOW_S * sample_rate / 2)
    padded = np.pad(audio / peak, (size // 2, size))
    window = np.hanning(size + 1)[:-1].astype(np.float32)
    window /= window.sum() / 2
    filters = _filters(sample_rate, size)
    starts = np.round(np.arange(frames) * HOP_S * sample_rate).astype(np.int64)
    flux = np.zeros(frames)
    before = np.zeros((LAG, BANDS), dtype=np.float32)
    for first in range(0, frames, BLOCK):
        at = starts[first : first + BLOCK]
        cut = np.lib.stride_tricks.sliding_window_view(padded, size)[at]
        mel = np.log1p(GAIN * (np.abs(rfft(cut * window, axis=1)) @ filters))
        known = np.concatenate([before, mel.astype(np.float32)])
        rise = known[LAG:] - maximum_filter1d(known[:-LAG], 3, axis=1)
        flux[first : first + BLOCK] = np.maximum(rise, 0.0).mean(axis=1)
        before = known[-LAG:]
    return flux


def detect_onsets(
    samples: FloatArray, sample_rate: int, *, sensitivity: float = DEFAULT_SENSITIVITY
) -> FloatArray:
    """Return the onsets of mono audio [shape=(n,)] in seconds, ascending [shape=(n_onsets,)].

    Args:
        samples: the audio, at any level.
        sample_rate: in Hz, at least 8,000.
        sensitivity: in (0, 1): higher finds more, and more that is none.

    Raises:
        ValueError: a parameter is out of range.
    """
    from scipy.ndimage import median_filter
    from scipy.signal import find_peaks

    if not 0.0 < sensitivity < 1.0:
        raise ValueError(f"sensitivity must lie in (0, 1), got {sensitivity}")
    if sample_rate < 8000:
        raise ValueError(f"sample_rate must be at least 8000 Hz, got {sample_rate}")
    flux = onset_strength(samples, sample_rate)
    if len(flux) < 3:
        return np.zeros(0)
    around = 2 * round(AROUND_S / HOP_S / 2) + 1
    above = flux - median_filter(flux, around, mode="nearest")
    least = 0.4 * 10.0 ** (-2.0 * sensitivity)
    # A recording may begin or end with a stroke: a peak needs a lower neighbour on either side.
    peaks, _ = find_peaks(
        np.pad(above, 1, constant_values=-1.0), height=least, distance=round(APART_S / HOP_S)
    )
    seconds = (peaks - 1) * HOP_S
    found: FloatArray = np.clip(seconds, 0.0, max(0.0, (len(samples) - 1) / sample_rate))
    return found


def _filters(sample_rate: int, size: int) -> FloatArray:
    """Triangles on the mel scale with a sum of one each [shape=(bins, BANDS)]."""
    import librosa

    top = min(16_000.0, sample_rate / 2)
    weights = librosa.filters.mel(
        sr=sample_rate, n_fft=size, n_mels=BANDS, fmin=30.0, fmax=top, norm=1
    )
    filters: FloatArray = weights.T.astype(np.float32)
    return filters
