"""From strokes on a grid to a performance: feel, timing, and which strokes make one event."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

import numpy as np

from training.audio.synth import patterns
from training.audio.synth.drummers import Drummer
from training.audio.synth.form import LEAD_S, TEMPO_BPM, PlannedBar, lay_out
from training.audio.synth.patterns import DYNAMICS, Bar, Stroke
from training.audio.synth.percussion import VARIANTS

# Strokes that fall within this time of the first one are one event.
SIMULTANEOUS_S: Final = 0.015
# Velocities below these bounds are ghost, light, medium; the rest are accents.
BUCKETS: Final = ((0.30, "ghost"), (0.60, "light"), (0.90, "medium"))
_NEAREST_S: Final = 0.035
# Silence that a negative example needs before and after it.
_QUIET_BEFORE_S: Final = 0.25
_QUIET_AFTER_S: Final = 0.60
_FEET: Final = frozenset({"kick", "hihat_pedal"})
# Who keeps playing when there are more strokes than hands.
_HANDS_ORDER: Final = (
    "crash",
    "ride_bell",
    "tom_high",
    "tom_mid",
    "tom_low",
    "snare",
    "side_stick",
    "ride",
    "hihat_open",
    "hihat_closed",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Note:
    """One stroke in time, as it is struck (not yet heard).

    `stop_s` is when the cymbal is damped, or None when it rings out; `graces` are the grace notes
    before it, as (time in s, velocity).
    """

    strike_s: float
    label: str
    instrument: str
    velocity: float
    openness: float | None = None
    variant: str | None = None
    techniques: tuple[str, ...] = ()
    graces: tuple[tuple[float, float], ...] = ()
    stop_s: float | None = None
    tempo_bpm: float
    meter: str
    bar_index: int
    beat: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """What was played: events as groups of notes, in time, and places where nothing is struck."""

    events: tuple[tuple[Note, ...], ...]
    quiet_s: tuple[float, ...]


def bucket(velocity: float) -> str:
    """Dynamic bucket of a velocity (see `BUCKETS`)."""
    return next((name for bound, name in BUCKETS if velocity < bound), "accent")


def instrument_of(label: str, variant: str | None) -> str:
    """The thing that is struck: several labels may share one."""
    if label == "crash":
        return variant if variant in ("crash_left", "crash_right") else "effect"
    shared = {"side_stick": "snare", "ride_bell": "ride", "aux_percussion": "percussion"}
    return "hihat" if label.startswith("hihat") else shared.get(label, label)


def perform(
    rng: np.random.Generator,
    drummer: Drummer,
    *,
    duration_s: float,
    effect: str,
    metric_modulation: bool,
    variable_meter: bool,
) -> Performance:
    """Play one session of `duration_s` on the kit: silence, a pick-up, sections, a last crash."""
    bars = lay_out(rng, drummer, duration_s, effect, metric_modulation, variable_meter)
    return _finish(rng, drummer, bars, duration_s)


def perform_unknown(
    rng: np.random.Generator, drummer: Drummer, *, duration_s: float
) -> Performance:
    """Play percussion alone, one instrument after the other, in turn by sections of two bars."""
    tempo = float(np.clip(drummer.tempo_bpm * rng.uniform(0.9, 1.1), *TEMPO_BPM))
    bars: list[PlannedBar] = []
    now, index = LEAD_S, int(rng.integers(len(VARIANTS)))
    while now + 240.0 / tempo <= duration_s - 1.0:
        bar = Bar(beats=4.0, drummer=drummer, rng=rng, effect="", variant=0)
        strokes = patterns.percussion_bar(bar, VARIANTS[(index + len(bars) // 2) % len(VARIANTS)])
        bars.append(
            PlannedBar(start_s=now, meter="4/4", tempo_bpm=tempo, strokes=strokes, techniques=())
        )
        now += 240.0 / tempo
    return _finish(rng, drummer, bars, duration_s)


def _playable(strokes: list[Stroke]) -> list[Stroke]:
    """Keep what two hands and two feet can play: one stroke a thing, two hands a moment."""
    kept: list[Stroke] = []
    by_beat: dict[float, list[Stroke]] = {}
    for stroke in strokes:
        by_beat.setdefault(round(stroke.beat, 4), []).append(stroke)
    for beat in sorted(by_beat):
        hands: dict[str, Stroke] = {}
        feet: dict[str, Stroke] = {}
        rank = {label: index for index, label in enumerate(_HANDS_ORDER)}
        for stroke in sorted(by_beat[beat], key=lambda s: rank.get(s.label, -1)):
            thing = instrument_of(stroke.label, stroke.variant)
            if stroke.label in _FEET:
                feet.setdefault(thing, stroke)
            elif thing not in hands and len(hands) < 2:
                hands[thing] = stroke
        if "hihat" in hands:
            feet.pop("hihat", None)
        if any(s.grace for s in hands.values()):  # a flam takes both hands
            hands = {thing: s for thing, s in hands.items() if s.grace}
        kept += [*feet.values(), *hands.values()]
    return kept


def _swung(beat: float, swing: float) -> float:
    """Delay the off-beat sixteenths; triplets and eighths stay where they are."""
    half = beat % 0.5
    return beat + (swing - 0.5) * 0.5 if abs(half - 0.25) < 1e-6 else beat


def _finish(
    rng: np.random.Generator, drummer: Drummer, bars: list[PlannedBar], duration_s: float
) -> Performance:
    notes: list[Note] = []
    wander = 0.0
    for index, bar in enumerate(bars):
        beat_s = 60.0 / bar.tempo_bpm
        last_beat = -1.0
        for stroke in _playable(bar.strokes):
            if stroke.beat != last_beat:
                wander = 0.8 * wander + 0.6 * drummer.jitter_ms * rng.standard_normal()
                last_beat = stroke.beat
            late_ms = wander + drummer.limb_jitter_ms * rng.standard_normal()
            if stroke.label in ("snare", "side_stick"):
                late_ms += drummer.snare_bias_ms
            elif stroke.label not in ("kick", "tom_high", "tom_mid", "tom_low"):
                late_ms += drummer.cymbal_bias_ms
            strike = bar.start_s + _swung(stroke.beat, drummer.swing) * beat_s + 1e-3 * late_ms
            notes.append(_note(rng, drummer, stroke, bar, index, strike, beat_s))
    notes = _cleaned([n for n in notes if 0.1 < n.strike_s < duration_s - 0.5])
    notes = damped_hats(notes)
    events: list[list[Note]] = []
    for note in notes:
        if events and note.strike_s - events[-1][0].strike_s <= SIMULTANEOUS_S:
            events[-1].append(note)
        else:
            events.append([note])
    struck = sorted(t for n in notes for t in (n.strike_s, *(g for g, _ in n.graces)))
    return Performance(
        events=tuple(tuple(event) for event in events),
        quiet_s=_quiet(rng, struck, duration_s),
    )


def _note(
    rng: np.random.Generator,
    drummer: Drummer,
    stroke: Stroke,
    bar: PlannedBar,
    bar_index: int,
    strike: float,
    beat_s: float,
) -> Note:
    velocity = DYNAMICS[stroke.dynamic] * drummer.strength + drummer.spread * rng.standard_normal()
    velocity = float(np.clip(velocity, 0.05, 1.0))
    techniques = stroke.techniques + bar.techniques
    if stroke.dynamic == patterns.GHOST:
        velocity = float(np.clip(velocity, 0.05, 0.29))
    graces: tuple[tuple[float, float], ...] = ()
    if stroke.grace:
        gap = 1e-3 * rng.uniform(18.0, 34.0)
        soft = float(np.clip(velocity * rng.uniform(0.30, 0.55), 0.05, 0.6))
        graces = tuple((strike - gap * (k + 1), soft * 0.9**k) for k in range(stroke.grace))
        techniques += ("flam",) if stroke.grace == 1 else ("drag",)
    return Note(
        strike_s=strike,
        label=stroke.label,
        instrument=instrument_of(stroke.label, stroke.variant),
        velocity=velocity,
        openness=stroke.openness,
        variant=stroke.variant,
        techniques=techniques,
        graces=graces,
        stop_s=None if stroke.choke_beats is None else strike + stroke.choke_beats * beat_s,
        tempo_bpm=bar.tempo_bpm,
        meter=bar.meter,
        bar_index=bar_index,
        beat=stroke.beat,
    )


def _cleaned(notes: list[Note]) -> list[Note]:
    """In order of time, without strokes that fall on top of another on the same thing."""
    kept: list[Note] = []
    last: dict[str, int] = {}
    for note in sorted(notes, key=lambda n: (n.strike_s, n.label)):
        before = last.get(note.instrument)
        if before is not None:
            gap = note.strike_s - kept[before].strike_s
            if gap < _NEAREST_S:
                continue
            if note.graces and gap < 0.09:
                tags = tuple(t for t in note.techniques if t not in ("flam", "drag"))
                note = replace(note, graces=(), techniques=tags)
        last[note.instrument] = len(kept)
        kept.append(note)
    return kept


def damped_hats(notes: list[Note]) -> list[Note]:
    """A hi-hat rings until it is shut: by the foot, or by the next closed stroke."""
    out = list(notes)
    shut_s: float | None = None
    for index in range(len(notes) - 1, -1, -1):
        note = notes[index]
        if note.instrument != "hihat":
            continue
        if note.label != "hihat_pedal":
            out[index] = replace(note, stop_s=shut_s)
        if note.label in ("hihat_pedal", "hihat_closed"):
            shut_s = note.strike_s
    return out


def _quiet(rng: np.random.Generator, struck: list[float], duration_s: float) -> tuple[float, ...]:
    """Moments with nothing struck around them: half a second apart, at most eight."""
    edges = [-_QUIET_BEFORE_S, *struck, duration_s]
    found: list[float] = []
    for before, after in pairwise(edges):
        low, high = before + _QUIET_BEFORE_S, after - _QUIET_AFTER_S
        count = int((high - low) / 0.5) + 1 if high > low else 0
        for k in range(count):
            width = (high - low) / count
            found.append(low + (k + 0.8 * float(rng.random())) * width)
    chosen = sorted(rng.permutation(found)[:8].tolist()) if found else []
    return tuple(float(t) for t in chosen)
