"""Two microphones whose true lag, drift and jumps are known: made with numpy alone."""

from __future__ import annotations

import numpy as np
import scipy.fft

RATE = 44_100


def delayed(audio: np.ndarray, samples: float) -> np.ndarray:
    """Delay by any number of samples, exactly, with a linear phase in the frequency domain."""
    n = scipy.fft.next_fast_len(len(audio) + 4096, real=True)
    spectrum = scipy.fft.rfft(audio.astype(np.float64), n)
    shift = np.exp(-2j * np.pi * np.arange(len(spectrum)) * samples / n)
    if n % 2 == 0:
        shift[-1] = shift[-1].real
    return scipy.fft.irfft(spectrum * shift, n)[: len(audio)].astype(np.float32)


def drifting(audio: np.ndarray, samples_per_minute: float, rate: int = RATE) -> np.ndarray:
    """Play on a clock that is off, so that the lag grows by so many samples a minute."""
    factor = 1.0 + samples_per_minute / (60.0 * rate)
    at = np.arange(len(audio)) / factor
    whole = np.floor(at).astype(int)
    part = at - whole
    out = np.zeros(len(audio))
    # A windowed sinc, 32 taps: the interpolation error is far below a thousandth of a sample.
    for tap in range(-15, 17):
        kernel = np.sinc(part - tap) * np.cos(np.pi * (part - tap) / 34.0) ** 2
        out += audio[np.clip(whole + tap, 0, len(audio) - 1)] * kernel
    return out.astype(np.float32)


def jumping(audio: np.ndarray, at_s: float, samples: int, rate: int = RATE) -> np.ndarray:
    """Repeat (samples > 0: later) or drop (< 0: earlier) a buffer at a time."""
    cut = round(at_s * rate)
    if samples >= 0:
        out = np.concatenate((audio[:cut], audio[cut - samples : cut], audio[cut:]))
    else:
        out = np.concatenate((audio[:cut], audio[cut - samples :]))
    return np.resize(np.pad(out, (0, max(0, len(audio) - len(out)))), len(audio))


def kick(rng: np.random.Generator, rate: int) -> np.ndarray:
    time = np.arange(int(0.25 * rate)) / rate
    body = np.sin(2 * np.pi * (55 * time - 1.2 * np.exp(-time / 0.02))) * np.exp(-time / 0.07)
    click = rng.standard_normal(len(time)) * np.exp(-time / 0.003)
    return (body + 0.5 * click).astype(np.float32)


def snare(rng: np.random.Generator, rate: int) -> np.ndarray:
    time = np.arange(int(0.2 * rate)) / rate
    return (rng.standard_normal(len(time)) * np.exp(-time / 0.04)).astype(np.float32)


def two_mics(
    *,
    seconds: float = 24.0,
    rate: int = RATE,
    seed: int = 0,
    lag_ms: float = 4.0,
    bleed_lag_ms: float = -2.0,
    bleed: float = 0.15,
    noise: float = 3e-4,
) -> tuple[np.ndarray, np.ndarray]:
    """A kick mic and an overhead that hears the kick `lag_ms` later.

    Between the kicks comes a snare, loud in the overhead and weak in the kick mic, with another
    lag; both mics have noise of their own.
    """
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    kicks, snares = np.zeros(n, np.float32), np.zeros(n, np.float32)
    for beat in np.arange(0.3, seconds - 0.5, 0.5):
        at = int((beat + rng.normal(0.0, 0.01)) * rate)
        bus, hit = (kicks, kick(rng, rate)) if rng.random() < 0.6 else (snares, snare(rng, rate))
        part = hit[: n - at] * rng.uniform(0.5, 1.0)
        bus[at : at + len(part)] += part
    anchor = kicks + bleed * snares
    target = 0.4 * delayed(kicks, lag_ms * rate / 1000) + delayed(
        snares, bleed_lag_ms * rate / 1000
    )
    echo = delayed(target, 0.0073 * rate)
    noisy = [
        (audio + noise * rng.standard_normal(n)).astype(np.float32)
        for audio in (anchor, target + 0.3 * echo)
    ]
    return noisy[0], noisy[1]
