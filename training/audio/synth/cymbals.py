"""Voices of metal plates: hi-hat, ride and its bell, crashes, splash and china.

A cymbal has so many modes that above some kHz they overlap and are indistinguishable from noise;
below, they are heard as inharmonic partials.  Every cymbal is therefore kept as six frequency
bands, each a sum of modes (whose density per Hz is constant, as for a flat plate) and of noise,
each with its own decay.  A stroke sums the bands with gains that follow its velocity: hard strokes
push energy upwards, and in a crash the upper bands bloom some milliseconds late, as energy reaches
them through the plate's non-linearity.  Reference: N. H. Fletcher and T. D. Rossing, "The Physics
of Musical Instruments", 2nd ed., chapter 20.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.audio.synth.drums import Noise, add, level
from training.audio.synth.dsp import (
    Signal,
    Vector,
    band_noise,
    db,
    decay,
    decay_rate,
    fade_tail,
    steady_modes,
)
from training.audio.synth.kits import Kit

N_BANDS: Final = 6
_VARIANTS: Final = 2
_LONGEST_S: Final = 3.2
_RAMP: Final = np.linspace(0.0, 1.0, N_BANDS)


def _row(*values: float) -> Vector:
    return np.array(values, dtype=np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metal:
    """What a cymbal is made of, band by band (low to high).

    `edges_hz` has seven values; `t60_s`, `base_db` (spectrum of a full stroke), `noise` (share of
    noise power, 0..1) and `rise_s` (bloom) have six.  `soft_db` is what the top band loses against
    the bottom one in the softest stroke.
    """

    edges_hz: Vector
    t60_s: Vector
    base_db: Vector
    noise: Vector
    rise_s: Vector
    soft_db: float
    modes: int = 14


class Plate:
    """One cymbal, its bands rendered once; unit RMS in a band's first 50 ms."""

    def __init__(self, metal: Metal, sample_rate: int, rng: np.random.Generator) -> None:
        self.metal = metal
        self.sample_rate = sample_rate
        self.bands = [
            [self._band(rng, band, frequencies) for band in range(N_BANDS)]
            for frequencies in [self._frequencies(rng)] * _VARIANTS
        ]

    def _frequencies(self, rng: np.random.Generator) -> list[Vector]:
        edges = self.metal.edges_hz
        return [rng.uniform(edges[b], edges[b + 1], self.metal.modes) for b in range(N_BANDS)]

    def _band(self, rng: np.random.Generator, band: int, frequencies: list[Vector]) -> Signal:
        metal, rate = self.metal, self.sample_rate
        t60 = float(metal.t60_s[band])
        n = int(min(1.1 * t60, _LONGEST_S) * rate)
        top = min(float(metal.edges_hz[band + 1]), 0.46 * rate)
        if top <= metal.edges_hz[band] * 1.1:
            return np.zeros(1, np.float32)
        count = metal.modes
        tones = steady_modes(
            frequencies[band],
            t60 * np.exp(0.25 * rng.standard_normal(count)),
            rng.rayleigh(1.0, count) / np.sqrt(count),
            rng.uniform(0.0, 2.0 * np.pi, count),
            n,
            rate,
        )
        wash = band_noise(rng, n, rate, float(metal.edges_hz[band]), top) * decay(n, t60, rate)
        share = float(metal.noise[band])
        signal = np.float32(np.sqrt(1.0 - share)) * tones + np.float32(np.sqrt(share)) * wash
        head = signal[: int(0.05 * rate)].astype(np.float64)
        signal /= np.float32(max(float(np.sqrt(np.mean(head**2))), 1e-9))
        rise = int((metal.rise_s[band] + 0.0003) * 3.0 * rate) + 1
        signal[:rise] *= (1.0 - np.cos(np.pi * np.arange(rise) / rise)).astype(np.float32)[
            : len(signal)
        ] * np.float32(0.5)
        return fade_tail(signal.astype(np.float32), n // 10)

    def strike(
        self,
        rng: np.random.Generator,
        velocity: float,
        *,
        offset_db: Vector | float = 0.0,
        t60_s: Vector | None = None,
    ) -> Signal:
        """One stroke at unit source level; `t60_s` damps the bands below their own decay."""
        metal = self.metal
        gains = db(
            metal.base_db
            - metal.soft_db * (1.0 - velocity) * _RAMP
            + offset_db
            + 1.0 * rng.standard_normal(N_BANDS)
        )
        # Where exactly the stick lands changes the signs of the modes.
        gains *= rng.choice([-1.0, 1.0], N_BANDS)
        bands = self.bands[int(rng.integers(_VARIANTS))]
        parts: list[Signal] = []
        for band, (signal, gain) in enumerate(zip(bands, gains, strict=True)):
            if t60_s is None or t60_s[band] >= metal.t60_s[band]:
                parts.append(np.float32(gain) * signal)
                continue
            n = min(int(1.1 * t60_s[band] * self.sample_rate) + 1, len(signal))
            extra = float(decay_rate(float(t60_s[band])) - decay_rate(float(metal.t60_s[band])))
            time = np.arange(n, dtype=np.float32) / np.float32(self.sample_rate)
            parts.append(np.float32(gain) * signal[:n] * np.exp(np.float32(-extra) * time))
        return fade_tail(add(parts), 64)


class CymbalVoices:
    """The cymbals of one kit: `hit` renders one stroke at the level that it has at 1 m."""

    def __init__(self, kit: Kit, sample_rate: int) -> None:
        self.kit = kit
        self.sample_rate = sample_rate
        rng = np.random.default_rng(np.random.SeedSequence([kit.seed, 2]))
        self._plates = {
            name: Plate(metal, sample_rate, rng) for name, metal in _metals(kit).items()
        }
        size = int(1.5 * sample_rate)
        tip = kit["stick_tip_hz"]
        top = 0.45 * sample_rate
        self._tip = Noise(band_noise(rng, size, sample_rate, 0.7 * tip, min(2.2 * tip, top), -2.0))
        self._sizzle = Noise(band_noise(rng, 2 * size, sample_rate, 2500.0, min(12e3, top), -1.0))
        self._ping_hz = tip * np.sort(rng.uniform(0.55, 1.3, 7))
        self._bell_hz = kit["bell_f0_hz"] * _row(1.0, 1.51, 2.29, 2.92, 4.05, 5.3, 6.9)
        self._bell_hz *= 1.0 + 0.02 * rng.standard_normal(7)

    def hit(
        self,
        rng: np.random.Generator,
        label: str,
        velocity: float,
        *,
        openness: float = 0.0,
        variant: str = "crash_left",
    ) -> Signal:
        """Render one stroke.

        `label` is hihat_closed, hihat_open, hihat_pedal, ride, ride_bell or crash; `openness`
        matters to the hi-hat, `variant` (crash_left, crash_right, splash, china) to a crash.
        """
        if label in ("hihat_closed", "hihat_open"):
            signal, source_db = self._hat(rng, velocity, openness), -18.0
        elif label == "hihat_pedal":
            signal, source_db = self._pedal(rng, velocity), -11.0
        elif label == "ride":
            signal, source_db = self._ride(rng, velocity), -15.0
        elif label == "ride_bell":
            signal, source_db = self._bell(rng, velocity), -12.0
        else:
            signal, source_db = self._plates[variant].strike(rng, velocity), -11.0
        # Cymbals span a smaller range of level than drums for the same range of stroke.
        return np.float32(db(source_db) * level(velocity) ** 0.85) * signal

    def _click(
        self, rng: np.random.Generator, velocity: float, gain: float, t60_s: float = 0.008
    ) -> Signal:
        n = int(1.2 * t60_s * self.sample_rate)
        out = self._tip.cut(rng, n)
        out *= decay(len(out), t60_s, self.sample_rate)
        out *= np.float32(gain * (0.4 + 0.6 * velocity) * db(0.8 * rng.standard_normal()))
        return out

    def hat_t60(self, openness: float) -> Vector:
        """Decay times of the bands: geometric between a shut and a wide open hi-hat."""
        kit, weight = self.kit, float(np.clip(openness, 0.0, 1.0)) ** 0.75
        shut = kit["hat_closed_t60_s"] * _row(0.6, 0.8, 1.0, 1.0, 0.95, 0.85)
        wide = self._plates["hat"].metal.t60_s
        return np.asarray(shut ** (1.0 - weight) * wide**weight)

    def _hat(self, rng: np.random.Generator, velocity: float, openness: float) -> Signal:
        t60 = self.hat_t60(openness)
        # An open pair is louder, and freer to move in its low modes.
        offset = 3.0 * openness + 6.0 * openness * (1.0 - _RAMP)
        parts = [
            self._plates["hat"].strike(rng, velocity, offset_db=offset, t60_s=t60),
            self._click(rng, velocity, 0.9),
        ]
        # Half open, the two cymbals rattle against each other.
        rattle = 4.0 * openness * (1.0 - openness)
        if rattle > 0.2:
            n = int(1.1 * float(t60[3]) * self.sample_rate)
            noise = self._sizzle.cut(rng, n)
            noise *= decay(len(noise), 0.8 * float(t60[3]), self.sample_rate)
            parts.append(np.float32(0.7 * rattle) * noise)
        return add(parts)

    def _pedal(self, rng: np.random.Generator, velocity: float) -> Signal:
        # No stick: two cymbals clap together, less brightly and not in an instant.
        chick = self._plates["hat"].strike(
            rng,
            velocity,
            offset_db=_row(9.0, 10.0, 9.0, 2.0, -4.0, -9.0),
            t60_s=self.hat_t60(0.0) * _row(1.5, 1.4, 1.2, 1.0, 0.9, 0.8),
        )
        rise = int(0.004 * self.sample_rate)
        chick[:rise] *= np.linspace(0.0, 1.0, rise, dtype=np.float32) ** 2
        return chick

    def _ride(self, rng: np.random.Generator, velocity: float) -> Signal:
        n = int(0.6 * self.sample_rate)
        ping = steady_modes(
            self._ping_hz * (1.0 + 0.002 * rng.standard_normal()),
            np.linspace(0.55, 0.22, 7),
            0.32 * rng.rayleigh(0.8, 7) * db(-6.0 * (1.0 - velocity) * np.linspace(0, 1, 7)),
            rng.uniform(0.0, 2.0 * np.pi, 7),
            n,
            self.sample_rate,
        )
        return add(
            [
                self._plates["ride"].strike(rng, velocity, offset_db=self.kit["ride_wash_db"]),
                fade_tail(ping, n // 10),
                self._click(rng, velocity, 1.1, 0.030),
            ]
        )

    def _bell(self, rng: np.random.Generator, velocity: float) -> Signal:
        n = int(1.7 * self.sample_rate)
        bell = steady_modes(
            self._bell_hz,
            _row(1.7, 1.5, 1.2, 0.9, 0.6, 0.45, 0.3),
            _row(0.8, 1.0, 0.85, 0.7, 0.5, 0.35, 0.25)
            * (0.75 + 0.5 * rng.random(7))
            * db(-8.0 * (1.0 - velocity) * np.linspace(0.0, 1.0, 7)),
            rng.uniform(0.0, 2.0 * np.pi, 7),
            n,
            self.sample_rate,
        )
        return add(
            [
                fade_tail(bell, n // 10),
                self._plates["ride"].strike(
                    rng, velocity, offset_db=self.kit["ride_wash_db"] - 4.0
                ),
                self._click(rng, velocity, 0.9, 0.015),
            ]
        )


def _metals(kit: Kit) -> dict[str, Metal]:
    flat = _row(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    bloom = _row(0.0005, 0.001, 0.002, 0.004, 0.007, 0.010)
    slope = _row(1.5, 1.3, 1.1, 0.9, 0.65, 0.45)
    metals = {
        "hat": Metal(
            edges_hz=_row(300, 750, 1600, 3300, 6200, 9800, 16500) / kit["hat_size"],
            t60_s=kit["hat_open_t60_s"] * _row(1.1, 1.2, 1.15, 1.0, 0.8, 0.6),
            base_db=_row(-24, -19, -13, -4, -2, -6) + kit["hat_bright_db"] * (_RAMP - 0.5),
            noise=_row(0.2, 0.3, 0.45, 0.65, 0.85, 0.95),
            rise_s=flat,
            soft_db=9.0,
        ),
        "ride": Metal(
            edges_hz=_row(250, 600, 1300, 2800, 5500, 9000, 16000) / kit["ride_size"],
            t60_s=kit["ride_t60_s"] * _row(1.2, 1.1, 1.0, 0.75, 0.55, 0.4),
            base_db=_row(-5, -4, -3, -2, -4, -9) + kit["ride_bright_db"] * (_RAMP - 0.5),
            noise=_row(0.05, 0.1, 0.2, 0.35, 0.6, 0.8),
            rise_s=0.5 * bloom,
            soft_db=12.0,
            modes=18,
        ),
    }
    bright = kit["crash_bright_db"] * (_RAMP - 0.5)
    crash = _row(190, 460, 1000, 2200, 4500, 8500, 16500)
    for name, size, longer in (("crash_left", 0.93, 0.92), ("crash_right", 1.08, 1.1)):
        metals[name] = Metal(
            edges_hz=crash / (kit["crash_size"] * size),
            t60_s=kit["crash_t60_s"] * longer * slope,
            base_db=_row(-9, -7, -4, -2, -3, -7) + bright,
            noise=_row(0.1, 0.2, 0.4, 0.6, 0.8, 0.9),
            rise_s=bloom,
            soft_db=16.0,
        )
    if kit.effect == "splash":
        metals["splash"] = Metal(
            edges_hz=crash / (0.62 * kit["crash_size"]),
            t60_s=0.28 * kit["crash_t60_s"] * slope,
            base_db=_row(-12, -8, -4, -2, -3, -7) + bright,
            noise=_row(0.1, 0.2, 0.4, 0.6, 0.8, 0.9),
            rise_s=0.4 * bloom,
            soft_db=14.0,
        )
    else:
        metals["china"] = Metal(
            edges_hz=crash / kit["crash_size"],
            t60_s=0.5 * kit["crash_t60_s"] * slope,
            base_db=_row(-8, -3, -1, -2, -5, -10) + bright,
            noise=_row(0.3, 0.4, 0.6, 0.7, 0.85, 0.9),
            rise_s=0.7 * bloom,
            soft_db=13.0,
        )
    return metals
