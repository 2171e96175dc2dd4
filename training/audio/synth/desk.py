"""A mixing desk: five microphones become the mix that an engineer might have made of them.

What differs from one record to the next is drawn: how loud each drum is, how much of each
microphone is heard, equalisation, compression, saturation and level.  None of it moves an onset by
as much as a millisecond: filters are of zero phase with smooth curves, and gains act in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from training.audio.synth.dsp import Signal, Vector, db
from training.audio.synth.room import MICS
from training.audio.synth.session import BALANCE_DB

EQ_HZ: Final = (30.0, 90.0, 250.0, 700.0, 2000.0, 5500.0, 16_000.0)
_HOP: Final = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """One engineer's choices.

    `mic_db` are the faders of the microphones over the usual balance; `eq_db` the gains at `EQ_HZ`,
    linear in octaves between them; the compressor acts on the level over `attack_s`, above
    `threshold_db` over the mix's RMS, by `ratio`; `drive` is how far peaks go into a tanh; the mix
    peaks at `peak_db` (dBFS).
    """

    mic_db: tuple[float, ...]
    eq_db: tuple[float, ...]
    ratio: float
    threshold_db: float
    attack_s: float
    drive: float
    peak_db: float


def draw_desk(rng: np.random.Generator) -> Desk:
    """Draw a desk; its ranges are those of drum mixes from a bare pair of overheads to pop."""
    return Desk(
        mic_db=tuple(rng.uniform(-10.0, 6.0, len(MICS)).tolist()),
        eq_db=tuple(rng.uniform(-5.0, 5.0, len(EQ_HZ)).tolist()),
        ratio=float(rng.uniform(1.0, 4.0)),
        threshold_db=float(rng.uniform(-3.0, 9.0)),
        attack_s=float(np.exp(rng.uniform(np.log(0.003), np.log(0.05)))),
        drive=float(rng.uniform(0.05, 1.5)),
        peak_db=float(rng.uniform(-14.0, -0.5)),
    )


def faders_db(rng: np.random.Generator, instruments: tuple[str, ...]) -> dict[str, float]:
    """Draw how much louder or softer each instrument of a kit is than usual (dB)."""
    return {name: float(np.clip(2.5 * rng.standard_normal(), -6.0, 6.0)) for name in instruments}


def mix(desk: Desk, mics: dict[str, Signal], sample_rate: int) -> Signal:
    """Mix microphones of shape ``(n,)`` each; silence stays silence."""
    first = next(iter(mics.values()))
    total = np.zeros(len(first), np.float32)
    for name, fader in zip(MICS, desk.mic_db, strict=True):
        total += np.float32(db(BALANCE_DB[name] + fader)) * mics[name]
    peak = float(np.abs(total).max())
    if peak <= 0.0:
        return total
    signal = equalise(total / np.float32(peak), desk.eq_db, sample_rate)
    signal = compress(
        signal,
        sample_rate,
        ratio=desk.ratio,
        threshold_db=desk.threshold_db,
        attack_s=desk.attack_s,
    )
    signal = signal / np.float32(np.abs(signal).max())
    signal = np.tanh(np.float32(desk.drive) * signal) / np.float32(np.tanh(desk.drive))
    return np.asarray(signal * np.float32(db(desk.peak_db)), dtype=np.float32)


def equalise(signal: Signal, gains_db: tuple[float, ...], sample_rate: int) -> Signal:
    """Filter with gains at `EQ_HZ`, linear in octaves between them and flat beyond."""
    # Zeros at the end take up what the filter would otherwise wrap around to the start.
    size = scipy.fft.next_fast_len(len(signal) + sample_rate // 4, real=True)
    octave = np.log2(np.maximum(scipy.fft.rfftfreq(size, 1.0 / sample_rate), 1.0))
    curve: Vector = np.interp(octave, np.log2(EQ_HZ), gains_db)
    spectrum = scipy.fft.rfft(signal, size) * db(curve).astype(np.float32)
    return np.asarray(scipy.fft.irfft(spectrum, size)[: len(signal)], dtype=np.float32)


def compress(
    signal: Signal, sample_rate: int, *, ratio: float, threshold_db: float, attack_s: float
) -> Signal:
    """Turn loud stretches down: each dB above the threshold becomes ``1 / ratio`` dB.

    The level is the mean square over about `attack_s`, looked at every 32 samples;
    `threshold_db` counts from the signal's own RMS.
    """
    n_blocks = -(-len(signal) // _HOP)
    power = np.zeros(n_blocks * _HOP)
    power[: len(signal)] = signal.astype(np.float64) ** 2
    power = power.reshape(n_blocks, _HOP).mean(axis=1)
    rms_db = 10.0 * np.log10(max(float(power.mean()), 1e-12))
    keep = float(np.exp(-_HOP / (attack_s * sample_rate)))
    smooth = scipy.signal.lfilter([1.0 - keep], [1.0, -keep], power)
    level_db = 10.0 * np.log10(np.maximum(smooth, 1e-12))
    over: NDArray[np.float64] = np.maximum(level_db - rms_db - threshold_db, 0.0)
    gain = db(-(1.0 - 1.0 / ratio) * over)
    at = np.arange(len(signal))
    return np.asarray(
        signal * np.interp(at, _HOP * np.arange(n_blocks), gain).astype(np.float32),
        dtype=np.float32,
    )
