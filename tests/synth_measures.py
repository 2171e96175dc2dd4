"""How the voices of the synthesiser are measured: their decay and how bright they are."""

from __future__ import annotations

import numpy as np
import scipy.fft
from numpy.typing import NDArray


def measured_t60(signal: NDArray[np.float32], sample_rate: int) -> float:
    """Decay time (s) from the Schroeder integral of one hit: twice the way from -5 to -35 dB.

    Reference: M. R. Schroeder, "New Method of Measuring Reverberation Time", JASA 37 (1965).
    NaN when the signal is silent.
    """
    energy = np.cumsum(signal[::-1].astype(np.float64) ** 2)[::-1]
    if energy[0] <= 0.0:
        return float("nan")
    level = 10.0 * np.log10(np.maximum(energy / energy[0], 1e-12))
    start, stop = np.argmax(level <= -5.0), np.argmax(level <= -35.0)
    return float(2.0 * (stop - start) / sample_rate)


def spectral_centroid(signal: NDArray[np.float32], sample_rate: int) -> float:
    """Centre of gravity (Hz) of the magnitude spectrum of a whole hit; NaN for silence."""
    magnitude = np.abs(scipy.fft.rfft(signal))
    total = float(magnitude.sum())
    if total <= 0.0:
        return float("nan")
    return float((magnitude * scipy.fft.rfftfreq(len(signal), 1.0 / sample_rate)).sum() / total)
