"""Percussion that the default taxonomy does not name: cowbell, clap and shaker.

These are the unknown sounds of an open-set test: no training session holds one.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from training.audio.synth.drums import add, level
from training.audio.synth.dsp import Signal, band_noise, db, decay, fade_tail, steady_modes

VARIANTS: Final = ("cowbell", "clap", "shaker")
_SOURCE_DB: Final = {"cowbell": -6.0, "clap": -6.0, "shaker": -10.0}


class PercussionVoices:
    """A percussionist's bag, drawn from `seed`: `hit` renders one stroke at its level at 1 m."""

    def __init__(self, seed: int, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
        self._cowbell_hz = float(rng.uniform(480.0, 640.0))
        self._cowbell_t60_s = float(rng.uniform(0.14, 0.34))
        self._clap_hz = float(rng.uniform(900.0, 1500.0))
        self._clap_t60_s = float(rng.uniform(0.07, 0.16))
        self._shaker_hz = float(rng.uniform(3800.0, 6000.0))
        self._shaker_rise_s = float(rng.uniform(0.012, 0.028))

    def hit(self, rng: np.random.Generator, variant: str, velocity: float) -> Signal:
        """Render one stroke of a cowbell, a clap or a shaker."""
        make = {"cowbell": self._cowbell, "clap": self._clap, "shaker": self._shaker}[variant]
        return np.float32(float(db(_SOURCE_DB[variant])) * level(velocity)) * make(rng, velocity)

    def _cowbell(self, rng: np.random.Generator, velocity: float) -> Signal:
        # A folded steel box: few strong modes, the first two about a fifth apart.
        ratios = np.array([1.0, 1.49, 2.67, 3.52, 4.61, 6.3])
        n = int(1.2 * self._cowbell_t60_s * self.sample_rate)
        body = steady_modes(
            self._cowbell_hz * ratios * (1.0 + 0.003 * rng.standard_normal()),
            self._cowbell_t60_s * np.array([1.0, 0.95, 0.6, 0.5, 0.4, 0.3]),
            np.array([0.7, 0.6, 0.3, 0.25, 0.2, 0.12])
            * db(-10.0 * (1.0 - velocity) * np.linspace(0.0, 1.0, 6)),
            np.full(6, -np.pi / 2),
            n,
            self.sample_rate,
        )
        click = band_noise(rng, n // 4, self.sample_rate, 2500.0, 8000.0)
        click *= decay(len(click), 0.008, self.sample_rate) * np.float32(0.15)
        return add([fade_tail(body, n // 10), click])

    def _clap(self, rng: np.random.Generator, velocity: float) -> Signal:
        # Several hands that do not quite meet, then the palms' resonance dies away.
        rate = self.sample_rate
        parts = []
        for index in range(int(rng.integers(3, 6))):
            start = int(rate * max(0.0, 0.009 * index + 0.0015 * rng.standard_normal()))
            if index == 0:
                start = 0
            t60 = 0.02 if index < 2 else self._clap_t60_s * (0.6 + 0.4 * velocity)
            n = int(1.1 * t60 * rate)
            burst = band_noise(rng, n, rate, 0.7 * self._clap_hz, 3.2 * self._clap_hz, -3.0)
            burst *= decay(n, t60, rate) * np.float32(0.5 * (0.7 + 0.3 * rng.random()))
            parts.append(np.concatenate([np.zeros(start, np.float32), burst]))
        return add(parts)

    def _shaker(self, rng: np.random.Generator, velocity: float) -> Signal:
        # Many seeds: noise that swells before it falls.
        rate = self.sample_rate
        rise = int(self._shaker_rise_s * (1.3 - 0.5 * velocity) * rate)
        n = rise + int(0.10 * rate)
        top = min(14e3, 0.45 * rate)
        noise = band_noise(rng, n, rate, self._shaker_hz * (0.8 + 0.2 * velocity), top)
        noise[:rise] *= np.linspace(0.0, 1.0, rise, dtype=np.float32) ** 2
        noise[rise:] *= decay(n - rise, 0.08, rate)
        return fade_tail(np.asarray(0.6 * noise, dtype=np.float32), n // 20)
