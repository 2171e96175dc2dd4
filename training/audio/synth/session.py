"""Render one session: a performance on a kit in a room, through five microphones and a mix.

Every stroke is rendered once, dry and mono, onto the bus of its instrument.  Each bus then goes to
each microphone through one impulse response (see `room`) by overlap-add in the frequency domain.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from training.audio.synth.cymbals import CymbalVoices
from training.audio.synth.drummers import Drummer, make_drummers
from training.audio.synth.drums import DrumVoices, add
from training.audio.synth.dsp import Signal, db, decay_rate
from training.audio.synth.kits import Kit, make_kits
from training.audio.synth.percussion import PercussionVoices
from training.audio.synth.performance import (
    Note,
    Performance,
    bucket,
    perform,
    perform_unknown,
)
from training.audio.synth.room import (
    ANCHOR,
    MICS,
    Room,
    Stage,
    lead_samples,
    make_rooms,
    paths,
    set_stage,
)

_BLOCK: Final = 1 << 16
# How an engineer would balance the microphones, each at the same peak level, in dB.
BALANCE_DB: Final = {
    "kick_in": -4.0,
    "snare_top": -6.0,
    "overhead_l": -1.5,
    "overhead_r": -1.5,
    "room": -9.0,
}
# Self-noise relative to the microphone's peak, in dB: distant microphones need more gain.
_NOISE_DB: Final = {
    "kick_in": -84.0,
    "snare_top": -80.0,
    "overhead_l": -72.0,
    "overhead_r": -72.0,
    "room": -68.0,
}
# Power in a close microphone that is not its own drum, as dB of the whole: low, med, else high.
BLEED_DB: Final = ((-14.0, "low"), (-8.0, "med"))
_CHOKE_T60_S: Final = {"hihat": 0.06, "crash": 0.16}
# How much of the rim a rim shot has, as amplitude of a side stick of the same strength.
_RIM: Final = 0.7


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionSpec:
    """Everything that decides how a session sounds; equal specs give equal samples."""

    session_id: str
    seed: int
    kit: Kit
    drummer: Drummer
    room: Room
    duration_s: float = 30.0
    sample_rate: int = 44_100
    unknown: bool = False
    metric_modulation: bool = True
    variable_meter: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthComponent:
    """One thing struck in an event; `strike_s` is when, before the sound has travelled."""

    label: str
    strike_s: float
    velocity: float
    dynamic_bucket: str
    openness: float | None
    variant: str | None
    choke: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SynthEvent:
    """What is struck together.

    `onset_s` is when the event's first main stroke (not a grace note) is first heard in the mix:
    its strike plus the travel time to the nearest microphone.  A negative example has no
    components: nothing is struck within 0.25 s before and 0.6 s after.
    """

    onset_s: float
    components: tuple[SynthComponent, ...]
    techniques: tuple[str, ...] = ()
    tempo_bpm: float | None = None
    meter: str | None = None
    bar_index: int | None = None
    beat_index: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionAudio:
    """One rendered session.

    `mics` maps each name of `MICS` to float32 samples of shape ``(n,)`` that peak between -3 and
    -1 dBFS; `mix` is their weighted sum (`mix_gains`).  `kick_delay_ms` says how much later than
    the anchor (kick_in) each microphone hears the kick, and `distance_m` how far it stands from
    it.
    """

    sample_rate: int
    mics: dict[str, Signal]
    mix: Signal
    mix_gains: dict[str, float]
    events: tuple[SynthEvent, ...]
    kick_delay_ms: dict[str, float]
    distance_m: dict[str, float]
    bleed_level: str


def session_spec(
    *,
    seed: int = 0,
    duration_s: float = 10.0,
    sample_rate: int = 44_100,
    unknown: bool = False,
    session_id: str = "session_001",
) -> SessionSpec:
    """A spec with a kit, a drummer and a room of its own, for tests and for trying things out."""
    return SessionSpec(
        session_id=session_id,
        seed=seed,
        kit=make_kits(1, seed)[0],
        drummer=make_drummers(1, seed)[0],
        room=make_rooms(1, seed)[0],
        duration_s=duration_s,
        sample_rate=sample_rate,
        unknown=unknown,
    )


def render_session(spec: SessionSpec) -> SessionAudio:
    """Synthesise one session; the same spec always gives the same samples."""
    seeds = np.random.SeedSequence([spec.seed, 0x5E55]).spawn(4)
    playing, striking, placing, noise = (np.random.default_rng(s) for s in seeds)
    if spec.unknown:
        performance = perform_unknown(playing, spec.drummer, duration_s=spec.duration_s)
    else:
        performance = perform(
            playing,
            spec.drummer,
            duration_s=spec.duration_s,
            effect=spec.kit.effect,
            metric_modulation=spec.metric_modulation,
            variable_meter=spec.variable_meter,
        )
    stage = set_stage(spec.kit, placing)
    n = round(spec.duration_s * spec.sample_rate)
    notes = [note for event in performance.events for note in event]
    bag = PercussionVoices(spec.seed, spec.sample_rate) if spec.unknown else None
    buses = buses_of(spec.kit, notes, striking, n, spec.sample_rate, bag=bag)
    raw, bleed = capture(stage, spec.room, buses, n, spec.sample_rate)
    mics = preamps(noise, raw)
    gains = {name: float(db(BALANCE_DB[name] + placing.uniform(-1.5, 1.5))) for name in MICS}
    mix = np.zeros(n, np.float32)
    for name in MICS:
        mix += np.float32(gains[name]) * mics[name]
    scale = float(db(placing.uniform(-2.5, -1.2))) / max(float(np.abs(mix).max()), 1e-9)
    near = stage.delay_s("kick", ANCHOR)
    return SessionAudio(
        sample_rate=spec.sample_rate,
        mics=mics,
        mix=mix * np.float32(scale),
        mix_gains={name: gain * scale for name, gain in gains.items()},
        events=_events(performance, stage),
        kick_delay_ms={name: 1e3 * (stage.delay_s("kick", name) - near) for name in MICS},
        distance_m={name: stage.distance_m("kick", name) for name in MICS},
        bleed_level=bleed,
    )


@lru_cache(maxsize=4)
def _voices(kit: Kit, sample_rate: int) -> tuple[DrumVoices, CymbalVoices]:
    return DrumVoices(kit, sample_rate), CymbalVoices(kit, sample_rate)


def buses_of(
    kit: Kit,
    notes: Iterable[Note],
    rng: np.random.Generator,
    n: int,
    sample_rate: int,
    *,
    bag: PercussionVoices | None = None,
) -> dict[str, Signal]:
    """Dry mono tracks, one an instrument, each of shape ``(n,)``; `bag` plays what no kit has."""
    voices = _voices(kit, sample_rate)
    buses: dict[str, Signal] = {}
    for note in notes:
        bus = buses.setdefault(note.instrument, np.zeros(n, np.float32))
        for time, velocity in (*note.graces, (note.strike_s, note.velocity)):
            signal = _struck(voices, bag, rng, note, velocity)
            start = round(time * sample_rate)
            if note.stop_s is not None:
                stop = round(note.stop_s * sample_rate) - start
                kind = "hihat" if note.instrument == "hihat" else "crash"
                signal = _damped(signal, stop, _CHOKE_T60_S[kind], sample_rate)
            signal = signal[: n - start]
            bus[start : start + len(signal)] += signal
    return buses


def _struck(
    voices: tuple[DrumVoices, CymbalVoices],
    bag: PercussionVoices | None,
    rng: np.random.Generator,
    note: Note,
    velocity: float,
) -> Signal:
    drums, cymbals = voices
    if note.instrument in ("hihat", "ride", "crash_left", "crash_right", "effect"):
        return cymbals.hit(
            rng,
            note.label,
            velocity,
            openness=note.openness or 0.0,
            variant=note.variant or "crash_left",
        )
    if bag is not None:
        return bag.hit(rng, note.variant or "cowbell", velocity)
    signal = drums.hit(rng, note.label, velocity)
    if note.label == "snare" and "rimshot" in note.techniques:
        # Head and rim are struck at once.
        signal = add([signal, np.float32(_RIM) * drums.hit(rng, "side_stick", velocity)])
    return signal


def _damped(signal: Signal, stop: int, t60_s: float, sample_rate: int) -> Signal:
    """Let a sound die quickly from sample `stop` on."""
    if stop >= len(signal):
        return signal
    end = min(len(signal), stop + int(1.1 * t60_s * sample_rate))
    out = signal[:end].copy()
    time = np.arange(end - stop, dtype=np.float32) / np.float32(sample_rate)
    out[stop:] *= np.exp(-np.float32(decay_rate(t60_s)) * time)
    return out


def capture(
    stage: Stage, room: Room, buses: dict[str, Signal], n: int, sample_rate: int
) -> tuple[NDArray[np.float32], str]:
    """What reaches the microphones, shape ``(n_mics, n)``, and how strong the bleed is."""
    names = tuple(buses)
    heard = np.zeros((len(MICS), n + 2 * _BLOCK), np.float32)
    if not names:
        return heard[:, :n], "low"
    responses = paths(stage, room, names, sample_rate)
    size = _BLOCK
    while size < 2 * responses.shape[2]:
        size *= 2
    hop = size - responses.shape[2] + 1
    heard = np.zeros((len(MICS), n + 2 * size), np.float32)
    spectra = scipy.fft.rfft(responses, size, axis=2)
    own = {"kick_in": "kick", "snare_top": "snare"}
    own_power, all_power = dict.fromkeys(own, 0.0), dict.fromkeys(own, 0.0)
    for start in range(0, n, hop):
        total = np.zeros((len(MICS), size // 2 + 1), np.complex64)
        for i, name in enumerate(names):
            block = buses[name][start : start + hop]
            if not block.any():
                continue
            part = spectra[i] * scipy.fft.rfft(block, size)
            for mic in own:
                if own[mic] == name:
                    own_power[mic] += _power(part[MICS.index(mic)])
            total += part
        for mic in own:
            all_power[mic] += _power(total[MICS.index(mic)])
        heard[:, start : start + size] += scipy.fft.irfft(total, size, axis=1)
    lead = lead_samples()
    return heard[:, lead : lead + n], _bleed_level(own_power, all_power)


def _power(spectrum: NDArray[np.complex64]) -> float:
    return float(np.sum(spectrum.real.astype(np.float64) ** 2 + spectrum.imag**2))


def _bleed_level(own: dict[str, float], whole: dict[str, float]) -> str:
    shares = [max(1.0 - own[m] / whole[m], 1e-6) if whole[m] > 0.0 else 1.0 for m in own]
    bleed_db = 10.0 * np.log10(np.mean(shares))
    return next((name for bound, name in BLEED_DB if bleed_db < bound), "high")


def preamps(rng: np.random.Generator, raw: NDArray[np.float32]) -> dict[str, Signal]:
    """Set each microphone's gain so that it peaks between -3 and -1 dBFS; add its noise."""
    out: dict[str, Signal] = {}
    for name, signal in zip(MICS, raw, strict=True):
        hiss = rng.standard_normal(len(signal), dtype=np.float32)
        peak = max(float(np.abs(signal).max()), 1e-6)
        floor = float(db(_NOISE_DB[name] + rng.uniform(-4.0, 4.0)))
        noisy = signal / np.float32(peak) + np.float32(floor) * hiss
        target = float(db(rng.uniform(-2.8, -1.1)))
        out[name] = noisy * np.float32(target / float(np.abs(noisy).max()))
    return out


def _events(performance: Performance, stage: Stage) -> tuple[SynthEvent, ...]:
    travel = {name: min(stage.delay_s(name, mic) for mic in MICS) for name in stage.instruments}
    events = [_event(notes, travel) for notes in performance.events]
    events += [SynthEvent(onset_s=round(t, 6), components=()) for t in performance.quiet_s]
    return tuple(sorted(events, key=lambda e: e.onset_s))


def _event(notes: tuple[Note, ...], travel: dict[str, float]) -> SynthEvent:
    first = min(notes, key=lambda note: (note.bar_index, note.beat))
    techniques = sorted({name for note in notes for name in note.techniques})
    components = tuple(
        SynthComponent(
            label=note.label,
            strike_s=round(note.strike_s, 6),
            velocity=round(note.velocity, 4),
            dynamic_bucket=bucket(round(note.velocity, 4)),
            openness=None if note.openness is None else round(note.openness, 4),
            variant=note.variant,
            choke="cymbal_choke" in note.techniques,
        )
        for note in notes
    )
    return SynthEvent(
        onset_s=round(min(note.strike_s + travel[note.instrument] for note in notes), 6),
        components=components,
        techniques=tuple(techniques),
        tempo_bpm=round(first.tempo_bpm, 3),
        meter=first.meter,
        bar_index=first.bar_index,
        beat_index=round(first.beat, 4),
    )
