"""Where instruments and microphones stand, and what the room does to the sound in between.

Coordinates are metres; x to the drummer's right, y away from the drummer, z up.  The origin lies on
the floor below the point where the beater meets the kick's head.  Every instrument reaches every
microphone on a path of its own: the direct sound after distance / 343 m/s, falling as 1 / distance;
the six first reflections of a shoebox room by image sources (Allen and Berkley, JASA 65, 1979); and
a diffuse tail whose energy follows from the room's volume and decay time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy.fft
import scipy.signal
from numpy.typing import NDArray

from training.audio.synth.dsp import SPEED_OF_SOUND_M_S, Vector, decay_rate, fractional_taps
from training.audio.synth.kits import Kit

MICS: Final = ("kick_in", "snare_top", "overhead_l", "overhead_r", "room")
ANCHOR: Final = "kick_in"

_INSTRUMENTS: Final[dict[str, tuple[float, float, float]]] = {
    "kick": (0.0, 0.0, 0.30),
    "snare": (-0.24, -0.42, 0.64),
    "hihat": (-0.60, -0.36, 0.90),
    "tom_high": (-0.17, 0.06, 0.84),
    "tom_mid": (0.20, 0.08, 0.82),
    "tom_low": (0.52, -0.36, 0.62),
    "ride": (0.62, 0.12, 1.02),
    "crash_left": (-0.52, 0.24, 1.18),
    "crash_right": (0.48, 0.46, 1.22),
    "effect": (0.02, 0.48, 1.16),
    "percussion": (0.30, 0.75, 1.05),
}
# Position, then the point that the microphone looks at.
_MICS: Final[dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]]] = {
    "kick_in": ((0.03, 0.14, 0.31), (0.0, 0.0, 0.30)),
    "snare_top": ((-0.20, -0.31, 0.72), (-0.24, -0.42, 0.64)),
    "overhead_l": ((-0.58, -0.10, 1.78), (-0.35, -0.15, 0.80)),
    "overhead_r": ((0.62, -0.08, 1.78), (0.35, -0.10, 0.80)),
    "room": ((0.35, 2.00, 1.10), (0.0, 0.0, 0.70)),
}
# A drum is no point: closer than this its level does not rise any more.
_NEAREST_M: Final = 0.12
# The kick's shell and front head, seen from inside by everything else and the other way round.
_SHELL_GAIN: Final = 0.30
_SHELL_HZ: Final = 2500.0
_LOWEST_HZ: Final = 22.0
_TAPS: Final = 32
_LEAD: Final = _TAPS // 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Room:
    """A shoebox room with a drum kit in it.

    `size_m` is width (x), depth (y) and height (z); the kit's origin lies at `kit_m` from the left
    and the near wall; `reflection` is the share of amplitude that a wall gives back, `t60_s` the
    decay time at low frequencies, `bright` the ratio of the decay time at 8 kHz to it.
    """

    room_id: str
    seed: int
    size_m: tuple[float, float, float]
    kit_m: tuple[float, float]
    reflection: float
    t60_s: float
    bright: float


def make_rooms(count: int, seed: int) -> tuple[Room, ...]:
    """Draw `count` rooms, from a dry booth to a lively studio."""
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0x726F]))
    strata = (rng.permutation(count) + rng.random(count)) / count
    rooms = []
    for index, u in enumerate(strata):
        width, depth = 3.6 + 3.0 * rng.random(), 4.6 + 2.4 * rng.random()
        rooms.append(
            Room(
                room_id=f"room_{index + 1:02d}",
                seed=int(rng.integers(1, 2**31)),
                size_m=(width, depth, 2.4 + 0.8 * rng.random()),
                kit_m=(width * (0.42 + 0.16 * rng.random()), 1.3 + 0.3 * rng.random()),
                reflection=0.25 + 0.35 * float(u),
                t60_s=0.18 + 0.32 * float(u),
                bright=0.45 + 0.25 * rng.random(),
            )
        )
    return tuple(rooms)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """Where everything stands in one session: name to position, shape ``(3,)``, in metres."""

    instruments: dict[str, Vector]
    mics: dict[str, Vector]
    aims: dict[str, Vector]

    def distance_m(self, instrument: str, mic: str) -> float:
        """Distance of the direct path."""
        return float(np.linalg.norm(self.instruments[instrument] - self.mics[mic]))

    def delay_s(self, instrument: str, mic: str) -> float:
        """Travel time of the direct sound."""
        return self.distance_m(instrument, mic) / SPEED_OF_SOUND_M_S


def set_stage(kit: Kit, rng: np.random.Generator) -> Stage:
    """Set up a kit (its own habits of placing) and its microphones (anew in every session)."""
    habits = np.random.default_rng(np.random.SeedSequence([kit.seed, 4]))
    instruments = {
        name: np.array(place) + (0.0 if name == "kick" else 1.0) * habits.uniform(-0.04, 0.04, 3)
        for name, place in _INSTRUMENTS.items()
    }
    mics, aims = {}, {}
    for name, (place, aim) in _MICS.items():
        spread = 0.012 if name in ("kick_in", "snare_top") else 0.08
        mics[name] = np.array(place) + rng.uniform(-spread, spread, 3)
        aims[name] = np.array(aim)
    return Stage(instruments=instruments, mics=mics, aims=aims)


def paths(
    stage: Stage,
    room: Room,
    instruments: tuple[str, ...],
    sample_rate: int,
) -> NDArray[np.float32]:
    """Impulse responses from every instrument to every microphone.

    The shape is ``(n_instruments, n_mics, n_taps)``, microphones in the order of
    `MICS`.  Tap `_LEAD` (see `lead_samples`) is time zero, which leaves room for the
    fractional-delay kernels.
    """
    n = int((0.9 * room.t60_s + 0.03) * sample_rate)
    rng = np.random.default_rng(np.random.SeedSequence([room.seed, 5]))
    out = np.zeros((len(instruments), len(MICS), n), np.float32)
    tails = _tails(rng, room, len(instruments) * len(MICS), n, sample_rate)
    for i, instrument in enumerate(instruments):
        for m, mic in enumerate(MICS):
            out[i, m] = _path(stage, room, instrument, mic, n, sample_rate)
            out[i, m] += _tail_gain(room, instrument, mic) * tails[i * len(MICS) + m]
    # No microphone passes what is below hearing; the same filter for all keeps their lags.
    sections = scipy.signal.butter(2, _LOWEST_HZ, "highpass", fs=sample_rate, output="sos")
    return np.asarray(scipy.signal.sosfilt(sections, out, axis=2), dtype=np.float32)


def lead_samples() -> int:
    """Number of taps before time zero in the responses that `paths` returns."""
    return _LEAD


def _path(
    stage: Stage, room: Room, instrument: str, mic: str, n: int, sample_rate: int
) -> NDArray[np.float32]:
    source, ear = stage.instruments[instrument], stage.mics[mic]
    images, walls = _images(source, room)
    away = images - ear
    distance = np.linalg.norm(away, axis=1)
    gain = room.reflection**walls / np.maximum(distance, _NEAREST_M)
    aim = stage.aims[mic] - ear
    cosine = (away @ aim) / (np.maximum(distance, 1e-6) * np.linalg.norm(aim))
    gain = gain * (0.5 + 0.5 * cosine)  # every microphone is a cardioid
    through_shell = (instrument == "kick") != (mic == "kick_in")
    if through_shell and mic == "kick_in":
        gain = gain * _SHELL_GAIN
    first, taps = fractional_taps(distance / SPEED_OF_SOUND_M_S * sample_rate + _LEAD, _TAPS)
    response = np.zeros(n + _TAPS)
    for start, kernel, factor in zip(first, taps, gain, strict=True):
        if start < n:
            response[start : start + _TAPS] += factor * kernel
    response = response[:n]
    if through_shell and mic == "kick_in":
        response = _soften(response, _SHELL_HZ, sample_rate)
    return response.astype(np.float32)


def _images(source: Vector, room: Room) -> tuple[Vector, NDArray[np.int64]]:
    """The source and its six first images; how many walls each has met."""
    low = np.array([-room.kit_m[0], -room.kit_m[1], 0.0])
    high = low + np.array(room.size_m)
    images = np.repeat(source[None, :], 7, axis=0)
    for axis in range(3):
        images[1 + axis, axis] = 2.0 * low[axis] - source[axis]
        images[4 + axis, axis] = 2.0 * high[axis] - source[axis]
    return images, np.array([0, 1, 1, 1, 1, 1, 1])


def _soften(response: Vector, cutoff_hz: float, sample_rate: int) -> Vector:
    """First-order low-pass (causal, so it moves the sound by a few hundredths of a ms only)."""
    pole = np.exp(-2.0 * np.pi * cutoff_hz / sample_rate)
    size = scipy.fft.next_fast_len(2 * len(response), real=True)
    angle = 2.0j * np.pi * np.arange(size // 2 + 1) / size
    spectrum = scipy.fft.rfft(response, size) * (1.0 - pole) / (1.0 - pole * np.exp(-angle))
    return np.asarray(scipy.fft.irfft(spectrum, size)[: len(response)])


def _tails(
    rng: np.random.Generator, room: Room, count: int, n: int, sample_rate: int
) -> NDArray[np.float32]:
    """Diffuse tails of unit energy: noise in two bands, the upper one dying sooner."""
    noise = rng.standard_normal((count, n), dtype=np.float32)
    spectrum = scipy.fft.rfft(noise, axis=1)
    frequency = scipy.fft.rfftfreq(n, 1.0 / sample_rate)
    low = (1.0 / (1.0 + (frequency / 1800.0) ** 2)).astype(np.float32)
    time = np.arange(n) / sample_rate
    # The tail fades in once reflections have become dense.
    onset = np.clip((time - 0.006) / 0.012, 0.0, 1.0)
    slow = onset * np.exp(-decay_rate(room.t60_s) * time)
    fast = onset * np.exp(-decay_rate(room.t60_s * room.bright) * time)
    tails = scipy.fft.irfft(spectrum * low, n, axis=1) * slow.astype(np.float32)
    tails += scipy.fft.irfft(spectrum * (0.8 * (1.0 - low)), n, axis=1) * fast.astype(np.float32)
    tails /= np.sqrt((tails.astype(np.float64) ** 2).sum(axis=1, keepdims=True)).astype(np.float32)
    return np.asarray(tails, dtype=np.float32)


def _tail_gain(room: Room, instrument: str, mic: str) -> np.float32:
    """Amplitude of the diffuse field of a source that has amplitude 1 at 1 m.

    Direct and diffuse energy are equal at the critical distance 0.057 sqrt(V / T60).
    """
    critical_m = 0.057 * np.sqrt(float(np.prod(room.size_m)) / room.t60_s)
    gain = 1.0 / (critical_m * np.sqrt(3.0))  # a cardioid hears a third of the diffuse energy
    if mic == "kick_in" and instrument != "kick":
        gain *= 0.5 * _SHELL_GAIN
    return np.float32(gain)
