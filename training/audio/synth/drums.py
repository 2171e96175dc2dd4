"""Voices with a skin: kick, snare, toms, and the stick laid across the snare's rim.

A struck membrane is a sum of inharmonic modes.  Their ratios are the zeros of Bessel functions;
how strongly each one sounds follows from where the stick lands (the mode's shape at that radius)
and from how long the tip stays on the skin (a soft stroke is a long contact, so a dark one).
Tension makes the pitch fall after a hard stroke.  Reference: N. H. Fletcher and T. D. Rossing,
"The Physics of Musical Instruments", 2nd ed., chapters 3 and 18.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from scipy.special import jn_zeros, jv

from training.audio.synth.dsp import (
    Signal,
    Vector,
    band_noise,
    db,
    decay,
    fade_tail,
    gliding_modes,
    steady_modes,
)
from training.audio.synth.kits import Kit

# Modes (m nodal diameters, n-th circle) in order of pitch, as far as a drum needs them.
_ORDERS: Final = ((0, 1), (1, 1), (2, 1), (0, 2), (3, 1), (1, 2), (4, 1), (2, 2), (0, 3), (3, 2))
_ZEROS: Final = np.array([jn_zeros(m, n)[-1] for m, n in _ORDERS])
_RATIOS: Final = _ZEROS / _ZEROS[0]
_DIAMETERS: Final = np.array([m for m, _ in _ORDERS])
_LAYERS: Final = 8
_VARIANTS: Final = 2
_NOISE_S: Final = 3.0
_KICK_DB: Final = 4.0


def level(velocity: float) -> float:
    """Amplitude of a stroke: velocity 1 is 0 dB, 0.2 is about -22 dB."""
    return float(max(velocity, 1e-3) ** 1.6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Skin:
    """What a drum's two heads and shell amount to.

    Decay times are those of the lowest mode; `damping` says how much faster high modes die;
    `contact_hz` is how far up a full stroke excites the modes; `glide` is the pitch rise of a
    full stroke as a fraction; `radius` is where the stick lands (0 centre, 1 edge).
    """

    f0_hz: float
    t60_s: float
    damping: float
    contact_hz: float
    glide: float
    glide_s: float
    radius: float
    lower_head: float = 0.0


@dataclass(slots=True)
class Drum:
    """A drum of one kit; renders hits of shape ``(n,)`` at the level that it has at 1 m."""

    skin: Skin
    sample_rate: int
    seed: int
    _detune: Vector = field(init=False)
    _bodies: dict[tuple[int, int], Signal] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(self.seed)
        # Air load and uneven tuning move the modes off the ideal ratios.
        self._detune = 1.0 + 0.025 * rng.standard_normal(len(_RATIOS))
        self._detune[0] = 1.0

    def body(self, velocity: float, variant: int) -> Signal:
        """The skin's sound at unit level; velocities share eight layers of brightness."""
        layer = min(int(velocity * _LAYERS), _LAYERS - 1)
        key = (layer, variant % _VARIANTS)
        if key not in self._bodies:
            self._bodies[key] = self._render((layer + 0.5) / _LAYERS, key[1])
        return self._bodies[key]

    def _render(self, velocity: float, variant: int) -> Signal:
        skin = self.skin
        radius = min(skin.radius + 0.10 * variant, 0.9)
        frequencies = skin.f0_hz * _RATIOS * self._detune
        t60 = skin.t60_s / (1.0 + skin.damping * (_RATIOS - 1.0))
        contact = skin.contact_hz * (0.35 + 0.65 * velocity)
        amplitudes = np.abs(jv(_DIAMETERS, _ZEROS * radius)) * np.exp(
            -((frequencies / contact) ** 2)
        )
        if skin.lower_head > 0.0:
            # The lower head, tuned a little higher, takes up part of the fundamental: beats.
            frequencies = np.append(frequencies, skin.f0_hz * (1.06 + 0.03 * variant))
            t60 = np.append(t60, 0.8 * skin.t60_s)
            amplitudes = np.append(amplitudes, skin.lower_head * amplitudes[0])
        n = int(1.1 * skin.t60_s * self.sample_rate)
        signal = gliding_modes(
            frequencies,
            t60,
            amplitudes,
            glide=skin.glide * velocity**2,
            glide_s=skin.glide_s,
            n=n,
            sample_rate=self.sample_rate,
        )
        signal /= np.float32(max(float(np.abs(signal).max()), 1e-9))
        return fade_tail(signal, n // 20)


@dataclass(slots=True)
class Noise:
    """A stretch of noise from which every hit cuts a piece of its own."""

    samples: Signal

    def cut(self, rng: np.random.Generator, n: int) -> Signal:
        """Return a copy of `n` samples from a random place."""
        n = min(n, len(self.samples) - 1)
        start = int(rng.integers(len(self.samples) - n))
        return self.samples[start : start + n].copy()


def add(parts: list[Signal]) -> Signal:
    """Sum signals that start together and differ in length."""
    out = np.zeros(max(map(len, parts)), np.float32)
    for part in parts:
        out[: len(part)] += part
    return out


class DrumVoices:
    """The skin voices of one kit: `hit` renders one stroke."""

    def __init__(self, kit: Kit, sample_rate: int) -> None:
        self.kit = kit
        self.sample_rate = sample_rate
        rng = np.random.default_rng(np.random.SeedSequence([kit.seed, 1]))
        self._drums = {
            name: Drum(skin, sample_rate, int(rng.integers(2**31)))
            for name, skin in _skins(kit).items()
        }
        top = 0.45 * sample_rate
        size = int(_NOISE_S * sample_rate)

        def noise(low: float, high: float, tilt: float = 0.0) -> Noise:
            return Noise(band_noise(rng, size, sample_rate, low, min(high, top), tilt))

        click = kit["kick_click_hz"]
        self._beater = noise(0.55 * click, 1.6 * click)
        self._tip = noise(0.5 * kit["stick_tip_hz"], 2.2 * kit["stick_tip_hz"], -3.0)
        self._wires_dark = noise(900.0, 4500.0, kit["wire_tilt_db"])
        self._wires_bright = noise(3000.0, 14000.0, kit["wire_tilt_db"])
        self._air = noise(120.0, 700.0, -3.0)

    def hit(self, rng: np.random.Generator, label: str, velocity: float) -> Signal:
        """Render one stroke: `label` is kick, snare, side_stick, tom_high, tom_mid or tom_low."""
        if label == "side_stick":
            parts = self._side_stick(rng, velocity)
        elif label == "kick":
            # The biggest drum: at 1 m it outdoes the others by some dB.
            parts = [np.float32(db(_KICK_DB)) * part for part in self._kick(rng, velocity)]
        elif label == "snare":
            parts = self._snare(rng, velocity)
        else:
            parts = self._tom(rng, label, velocity)
        return np.float32(level(velocity)) * add(parts)

    def _body(self, rng: np.random.Generator, name: str, velocity: float) -> Signal:
        gain = db(0.6 * rng.standard_normal())
        body = self._drums[name].body(velocity, int(rng.integers(_VARIANTS)))
        return np.asarray(np.float32(gain) * body, dtype=np.float32)

    def _burst(
        self, rng: np.random.Generator, noise: Noise, t60_s: float, gain: float, rise_s: float = 0.0
    ) -> Signal:
        n = int(1.1 * t60_s * self.sample_rate)
        out = noise.cut(rng, n)
        out *= decay(len(out), t60_s, self.sample_rate)
        rise = min(int(rise_s * self.sample_rate), len(out))
        if rise > 0:
            out[:rise] *= np.linspace(0.0, 1.0, rise, endpoint=False, dtype=np.float32)
        out *= np.float32(gain * db(0.8 * rng.standard_normal()))
        return out

    def _kick(self, rng: np.random.Generator, velocity: float) -> list[Signal]:
        click = float(db(self.kit["kick_click_db"])) * (0.4 + 0.6 * velocity)
        return [
            self._body(rng, "kick", velocity),
            self._burst(rng, self._beater, 0.022, click),
            self._burst(rng, self._air, 0.09, 0.07, 0.002),
        ]

    def _snare(self, rng: np.random.Generator, velocity: float) -> list[Signal]:
        kit = self.kit
        wires = float(db(kit["wire_db"])) * 0.30
        # Soft strokes make the wires rattle more, relative to the head, and less brightly.
        t60 = kit["wire_t60_s"] * (0.75 + 0.35 * velocity)
        ring = kit["snare_ring_hz"] * np.array([1.0, 1.51, 2.08])
        return [
            self._body(rng, "snare", velocity),
            self._burst(rng, self._wires_dark, t60, wires * (1.25 - 0.45 * velocity), 0.0015),
            self._burst(
                rng, self._wires_bright, 0.8 * t60, wires * (0.25 + 0.75 * velocity), 0.001
            ),
            self._burst(rng, self._tip, 0.012, 0.16 * (0.3 + 0.7 * velocity)),
            steady_modes(
                ring,
                np.array([0.16, 0.12, 0.09]),
                db(kit["snare_ring_db"]) * np.array([1.0, 0.7, 0.5]) * (0.5 + rng.random(3)),
                np.full(3, -np.pi / 2),
                int(0.17 * self.sample_rate),
                self.sample_rate,
            ),
        ]

    def _side_stick(self, rng: np.random.Generator, velocity: float) -> list[Signal]:
        kit = self.kit
        f0 = kit["stick_f0_hz"] * (1.0 + 0.01 * rng.standard_normal())
        ratios = np.array([1.0, 1.93, 2.74, 4.05, 5.6])
        t60 = kit["stick_t60_s"] * np.array([1.2, 1.0, 0.8, 0.6, 0.45])
        tilt = np.array([0.55, 1.0, 0.8, 0.45, 0.3]) ** (1.35 - 0.35 * velocity)
        n = int(1.3 * kit["stick_t60_s"] * self.sample_rate)
        rim = steady_modes(
            f0 * ratios,
            t60,
            tilt * (0.7 + 0.6 * rng.random(5)),
            np.full(5, -np.pi / 2),
            n,
            self.sample_rate,
        )
        peak = float(np.abs(rim).max())
        head = self._drums["snare"].body(0.2, 0)[: int(0.08 * self.sample_rate)].copy()
        head *= np.float32(0.10) * decay(len(head), 0.07, self.sample_rate)
        return [
            fade_tail(rim / np.float32(max(peak, 1e-9)), n // 8),
            head,
            self._burst(rng, self._tip, 0.010, 0.14 * (0.4 + 0.6 * velocity)),
            self._burst(rng, self._wires_dark, 0.06, 0.02),
        ]

    def _tom(self, rng: np.random.Generator, label: str, velocity: float) -> list[Signal]:
        attack = float(db(self.kit["tom_attack_db"])) * (0.35 + 0.65 * velocity)
        return [
            self._body(rng, label, velocity),
            self._burst(rng, self._tip, 0.018, attack),
            self._burst(rng, self._air, 0.06, 0.06, 0.001),
        ]


def _skins(kit: Kit) -> dict[str, Skin]:
    skins = {
        "kick": Skin(
            f0_hz=kit["kick_f0_hz"],
            t60_s=kit["kick_t60_s"],
            damping=1.6,
            contact_hz=400.0,
            glide=kit["kick_glide"],
            glide_s=0.022,
            radius=0.15,
        ),
        "snare": Skin(
            f0_hz=kit["snare_f0_hz"],
            t60_s=kit["snare_t60_s"],
            damping=0.55,
            contact_hz=1500.0,
            glide=0.05,
            glide_s=0.02,
            radius=0.28,
            lower_head=0.25,
        ),
    }
    # Bigger drums ring longer.
    for name, longer in (("tom_high", 0.8), ("tom_mid", 0.95), ("tom_low", 1.2)):
        skins[name] = Skin(
            f0_hz=kit[f"{name}_f0_hz"],
            t60_s=kit["tom_t60_s"] * longer,
            damping=1.1,
            contact_hz=6.0 * kit[f"{name}_f0_hz"],
            glide=kit["tom_glide"],
            glide_s=0.06,
            radius=0.30,
            lower_head=0.35,
        )
    return skins
