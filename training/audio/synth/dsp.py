"""The few signal tools that every voice of the synthesiser is made of.

All times are in seconds, all frequencies in Hz, all signals float32 of shape ``(n,)``.
Nothing here loops over samples, and nothing calls BLAS: a matrix product whose rounding depends
on the number of threads would make the files of a dataset depend on the machine's cores.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Signal = NDArray[np.float32]
Vector = NDArray[np.float64]

SPEED_OF_SOUND_M_S: Final = 343.0
_LN_1000: Final = float(np.log(1000.0))
_BLOCK: Final = 256


def decay_rate(t60_s: float | Vector) -> Vector:
    """Rate r (1/s) for which exp(-r t) has fallen by 60 dB after `t60_s`."""
    return np.asarray(_LN_1000 / np.asarray(t60_s, dtype=np.float64))


def db(gain_db: float | Vector) -> Vector:
    """Amplitude factor of a gain in dB."""
    return np.asarray(10.0 ** (np.asarray(gain_db, dtype=np.float64) / 20.0))


def decay(n: int, t60_s: float, sample_rate: int) -> Signal:
    """Exponential envelope of `n` samples that starts at 1 and falls by 60 dB in `t60_s`."""
    t = np.arange(n, dtype=np.float32) / np.float32(sample_rate)
    return np.exp(-np.float32(decay_rate(t60_s)) * t).astype(np.float32)


def fade_tail(signal: Signal, n_fade: int) -> Signal:
    """Bring the last `n_fade` samples to zero with half a cosine, in place."""
    n_fade = min(n_fade, len(signal))
    if n_fade > 0:
        ramp = 0.5 * (1.0 + np.cos(np.pi * (np.arange(n_fade) + 1) / n_fade))
        signal[-n_fade:] *= ramp.astype(np.float32)
    return signal


def steady_modes(
    frequencies: Vector,
    t60_s: Vector,
    amplitudes: Vector,
    phases: Vector,
    n: int,
    sample_rate: int,
) -> Signal:
    """Sum of damped sinusoids ``a exp(-r t) cos(2 pi f t + phase)``, shape ``(n,)``.

    A damped phasor at sample ``k B + b`` is the product of its values at ``k B`` and at ``b``,
    so the whole sum is one contraction over modes of two small tables.  Modes above 0.47 of the
    sample rate are left out.  No modes, or ``n == 0``, yields zeros.
    """
    keep = frequencies < 0.47 * sample_rate
    if n <= 0 or not keep.any():
        return np.zeros(max(n, 0), np.float32)
    pole = (-decay_rate(t60_s[keep]) + 2j * np.pi * frequencies[keep]) / sample_rate
    n_blocks = -(-n // _BLOCK)
    inside = np.exp(pole[:, None] * np.arange(_BLOCK))
    starts = (amplitudes[keep] * np.exp(1j * phases[keep]))[:, None] * np.exp(
        pole[:, None] * (_BLOCK * np.arange(n_blocks))
    )
    real = np.einsum("mk,mb->kb", starts.real.astype(np.float32), inside.real.astype(np.float32))
    real -= np.einsum("mk,mb->kb", starts.imag.astype(np.float32), inside.imag.astype(np.float32))
    return np.asarray(real.reshape(-1)[:n], dtype=np.float32)


def gliding_modes(
    frequencies: Vector,
    t60_s: Vector,
    amplitudes: Vector,
    *,
    glide: float,
    glide_s: float,
    n: int,
    sample_rate: int,
) -> Signal:
    """Damped sines whose common pitch starts at ``1 + glide`` and settles with `glide_s`.

    This is what tension does to a membrane that was struck hard: every mode follows one warped
    time ``u(t) = t + glide glide_s (1 - exp(-t / glide_s))``.  Shape ``(n,)``; all modes start at
    a zero crossing, so the sound begins without a step.
    """
    out = np.zeros(n, np.float32)
    t = np.arange(n) / sample_rate
    warped = t + glide * glide_s * (1.0 - np.exp(-t / glide_s))
    for frequency, t60, amplitude in zip(frequencies, t60_s, amplitudes, strict=True):
        if frequency * (1.0 + glide) >= 0.47 * sample_rate:
            continue
        length = min(n, int(1.15 * t60 * sample_rate) + 1)
        cycles = frequency * warped[:length]
        cycles -= np.floor(cycles)
        wave = np.sin((2.0 * np.pi * cycles).astype(np.float32))
        out[:length] += np.float32(amplitude) * wave * decay(length, float(t60), sample_rate)
    return out


def band_noise(
    rng: np.random.Generator,
    n: int,
    sample_rate: int,
    low_hz: float,
    high_hz: float,
    tilt_db_per_octave: float = 0.0,
) -> Signal:
    """Stationary noise of unit RMS between two frequencies, with soft edges of a third octave."""
    size = scipy.fft.next_fast_len(max(n, 16), real=True)
    spectrum = scipy.fft.rfft(rng.standard_normal(size, dtype=np.float32))
    octave = np.log2(np.maximum(scipy.fft.rfftfreq(size, 1.0 / sample_rate), 1.0))
    edge = 1.0 / 3.0
    rise = np.clip((octave - np.log2(low_hz)) / edge + 0.5, 0.0, 1.0)
    fall = np.clip((np.log2(high_hz) - octave) / edge + 0.5, 0.0, 1.0)
    weight = np.sin(0.5 * np.pi * rise) ** 2 * np.sin(0.5 * np.pi * fall) ** 2
    weight *= db(tilt_db_per_octave * (octave - np.log2(low_hz)))
    noise = scipy.fft.irfft(spectrum * weight.astype(np.float32), size)[:n]
    rms = float(np.sqrt(np.mean(noise.astype(np.float64) ** 2)))
    return np.asarray(noise / np.float32(max(rms, 1e-9)), dtype=np.float32)


def fractional_taps(delay_samples: Vector, n_taps: int) -> tuple[NDArray[np.int64], Vector]:
    """Windowed-sinc taps that delay by any number of samples.

    `delay_samples` has shape ``(k,)``, each at least ``n_taps / 2``; `n_taps` is even.  Yields the
    index of each kernel's first tap, shape ``(k,)``, and the taps, shape ``(k, n_taps)``, scaled to
    unit gain at 0 Hz.
    """
    first = np.floor(delay_samples).astype(np.int64) - n_taps // 2 + 1
    offset = (first[:, None] + np.arange(n_taps)) - delay_samples[:, None]
    window = np.cos(np.pi * np.clip(offset / n_taps, -0.5, 0.5)) ** 2
    taps = np.sinc(offset) * window
    return first, taps / taps.sum(axis=1, keepdims=True)
