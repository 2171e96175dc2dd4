"""What is played in one bar: grooves, fills and breaks, on a grid of quarter-note beats.

A pattern is a function from the bar's circumstances to strokes.  Patterns know nothing of seconds;
`performance` turns beats into time.  All of them work in any meter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from training.audio.synth.drummers import Drummer

HAT_OPEN_AT: Final = 0.30
GHOST, LIGHT, MEDIUM, ACCENT = "ghost", "light", "medium", "accent"
# Mean velocity of each dynamic.
DYNAMICS: Final = {GHOST: 0.20, LIGHT: 0.45, MEDIUM: 0.70, ACCENT: 0.94}
_BACKBEATS: Final = {2.0: (1.0,), 3.0: (1.0, 2.0), 3.5: (1.0, 2.5), 5.0: (1.0, 3.0, 4.0)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Stroke:
    """One stroke on the grid.

    `beat` counts quarter notes from the start of the bar; `dynamic` is ghost, light, medium or
    accent; `grace` is the number of grace notes (1 flam, 2 drag); `choke_beats` says after how
    long the cymbal is grabbed.
    """

    beat: float
    label: str
    dynamic: str = MEDIUM
    openness: float | None = None
    variant: str | None = None
    techniques: tuple[str, ...] = ()
    grace: int = 0
    choke_beats: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """The circumstances of one bar: its length in quarter notes, who plays, and chance."""

    beats: float
    drummer: Drummer
    rng: np.random.Generator
    effect: str
    variant: int

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return bool(self.rng.random() < probability)

    def grid(self, step: float, start: float = 0.0) -> list[float]:
        """Places from `start` on, every `step` beats, within the bar."""
        return [float(p) for p in np.arange(start, self.beats - 1e-6, step)]

    @property
    def backbeats(self) -> tuple[float, ...]:
        """Where the snare falls."""
        return _BACKBEATS.get(self.beats, tuple(self.grid(2.0, 1.0)))


Pattern = Callable[[Bar], list[Stroke]]


def shut_hat(bar: Bar, beat: float, dynamic: str) -> Stroke:
    """A closed hi-hat, as shut as this drummer keeps it."""
    openness = bar.drummer.hat_shut + 0.05 * bar.rng.standard_normal()
    openness = float(np.clip(openness, 0.0, HAT_OPEN_AT - 0.01))
    return Stroke(beat=beat, label="hihat_closed", dynamic=dynamic, openness=openness)


def open_hat(bar: Bar, beat: float, dynamic: str, *, half: bool = False) -> Stroke:
    """An open or half-open hi-hat."""
    low, high = (0.32, 0.65) if half else (0.60, 1.0)
    return Stroke(
        beat=beat,
        label="hihat_open",
        dynamic=dynamic,
        openness=float(bar.rng.uniform(low, high)),
        techniques=("hihat_half_open",) if half else (),
    )


def _pedals(bar: Bar, places: tuple[float, ...] | list[float]) -> list[Stroke]:
    """The foot keeps time at `places`; some grooves have it on every beat, or off the beat."""
    if bar.variant in (1, 2):
        places = bar.grid(1.0, 0.5)
    elif bar.variant == 3:
        places = bar.grid(1.0)
    return [
        Stroke(beat=p, label="hihat_pedal", dynamic=ACCENT if bar.chance(0.4) else MEDIUM)
        for p in places
    ]


def _kicks(bar: Bar, busy: float) -> list[Stroke]:
    places = {0.0} | {p for p in bar.grid(2.0, 2.0) if bar.chance(0.8)}
    places |= {p for p in bar.grid(0.5) if p not in bar.backbeats and bar.chance(busy * 0.35)}
    places |= {p for p in bar.grid(1.0, 0.75) if bar.chance(busy * 0.3)}
    return [
        Stroke(beat=p, label="kick", dynamic=ACCENT if p == 0.0 else MEDIUM) for p in sorted(places)
    ]


def _snares(bar: Bar, ghosts: float) -> list[Stroke]:
    strokes = []
    for p in bar.backbeats:
        grace = 0
        if bar.chance(bar.drummer.ornaments):
            grace = 1 if bar.chance(0.6) else 2
        strokes.append(Stroke(beat=p, label="snare", dynamic=ACCENT, grace=grace))
    for p in bar.grid(0.5, 0.25):
        if bar.chance(ghosts * 0.6):
            strokes.append(Stroke(beat=p, label="snare", dynamic=GHOST, techniques=("ghost_note",)))
    return strokes


def _bark(bar: Bar, beat: float) -> list[Stroke]:
    """Open, then shut by the foot at once: the hi-hat barks."""
    opened = replace(open_hat(bar, beat, ACCENT), techniques=("hihat_bark",))
    return [opened, Stroke(beat=beat + 0.25, label="hihat_pedal", dynamic=LIGHT)]


def hat_groove(bar: Bar) -> list[Stroke]:
    """Rock in eighths, funk in sixteenths, disco off-beats, or half-open and loud."""
    strokes = _kicks(bar, 0.5) + _snares(bar, bar.drummer.ghosts)
    if bar.variant in (0, 1) and (bar.variant == 1 or bar.chance(0.25)):
        places = bar.grid(0.25)
    elif bar.variant == 2:
        for p in bar.grid(1.0):
            strokes.append(shut_hat(bar, p, MEDIUM))
            if p + 0.5 < bar.beats:
                strokes.append(open_hat(bar, p + 0.5, ACCENT))
        return strokes
    elif bar.variant == 3:
        return strokes + [open_hat(bar, p, MEDIUM, half=True) for p in bar.grid(0.5)]
    else:
        places = bar.grid(0.5)
    barks = {p for p in places if p % 1.0 == 0.5 and bar.chance(0.4 * bar.drummer.barks)}
    for p in places:
        if p in barks:
            strokes += _bark(bar, p)
        elif p - 0.25 in barks:
            continue
        elif p % 1.0 == 0.5 and bar.chance(0.18):
            strokes.append(open_hat(bar, p, MEDIUM, half=bar.chance(0.3)))
        else:
            strokes.append(shut_hat(bar, p, MEDIUM if p % 1.0 == 0.0 else LIGHT))
    return strokes


def ride_groove(bar: Bar) -> list[Stroke]:
    """Swing ride, rock ride, bell on the beat, or bell off the beat; the foot keeps time."""
    strokes = _pedals(bar, bar.backbeats)
    if bar.variant == 0:
        for p in bar.grid(1.0):
            strokes.append(Stroke(beat=p, label="ride", dynamic=MEDIUM))
            if p in bar.backbeats and p + 2 / 3 < bar.beats:
                strokes.append(Stroke(beat=p + 2 / 3, label="ride", dynamic=LIGHT))
            if bar.chance(bar.drummer.ghosts):
                ghost = bar.chance(0.7)
                strokes.append(
                    Stroke(
                        beat=p + (2 / 3 if bar.chance(0.6) else 1 / 3),
                        label="snare",
                        dynamic=GHOST if ghost else MEDIUM,
                        techniques=("ghost_note",) if ghost else (),
                    )
                )
            if bar.chance(0.35):
                strokes.append(Stroke(beat=p, label="kick", dynamic=LIGHT))
        bells = [p for p in bar.grid(1.0) if bar.chance(0.5)]
    else:
        strokes += _kicks(bar, 0.5) + _snares(bar, 0.4 * bar.drummer.ghosts)
        start = 0.0 if bar.variant == 1 else 0.5
        bells = [p for p in bar.grid(1.0, start) if bar.chance(0.8 if bar.variant == 3 else 0.95)]
        if bar.variant in (1, 2):
            bells += [p for p in bar.grid(1.0, 0.5 - start) if bar.chance(0.4)]
        strokes += [
            Stroke(beat=p, label="ride", dynamic=MEDIUM if p % 1.0 == 0.0 else LIGHT)
            for p in bar.grid(0.5)
        ]
    strokes = [s for s in strokes if not (s.label == "ride" and s.beat in bells)]
    return strokes + [Stroke(beat=p, label="ride_bell", dynamic=ACCENT) for p in bells]


def stick_groove(bar: Bar) -> list[Stroke]:
    """Side stick: bossa, ballad, one drop, or a busy Latin figure."""
    figures = (
        (0.0, 0.75, 1.5, 2.5, 3.25, 4.5),
        (1.0, 1.75, 3.0, 4.5),
        (0.5, 1.0, 2.0, 2.5, 3.0, 4.0),
    )
    places = bar.grid(0.75)
    if bar.variant < 3:
        places = [p for p in figures[bar.variant] if p < bar.beats]
    strokes = [
        Stroke(
            beat=p,
            label="side_stick",
            dynamic=ACCENT if bar.chance(0.4) else MEDIUM,
            techniques=("cross_stick",),
        )
        for p in places
    ]
    strokes += [
        Stroke(beat=p, label="side_stick", dynamic=LIGHT, techniques=("cross_stick",))
        for p in bar.grid(1.0, 0.5)
        if bar.chance(0.25)
    ]
    strokes += _pedals(bar, bar.backbeats)
    with_ride = bar.variant in (1, 3)
    for p in bar.grid(0.5):
        dynamic = MEDIUM if p % 1.0 == 0.0 else LIGHT
        if with_ride:
            strokes.append(Stroke(beat=p, label="ride", dynamic=dynamic))
        elif p not in bar.backbeats:
            strokes.append(shut_hat(bar, p, dynamic))
    dotted = bar.grid(2.0) + [p for p in bar.grid(2.0, 1.5) if bar.variant != 2]
    return strokes + [Stroke(beat=p, label="kick", dynamic=MEDIUM) for p in dotted]


def tom_groove(bar: Bar) -> list[Stroke]:
    """The hands leave the cymbals: eighths or sixteenths on the toms, kick below."""
    strokes = [Stroke(beat=p, label="kick", dynamic=MEDIUM) for p in bar.grid(1.0)]
    strokes += [
        Stroke(beat=p, label="hihat_pedal", dynamic=MEDIUM)
        for p in bar.backbeats
        if bar.chance(0.25)
    ]
    melody = {
        0: ("tom_low", "tom_low", "tom_mid", "tom_low", "tom_high", "tom_low", "tom_mid"),
        1: ("tom_low", "tom_high", "tom_high", "tom_mid", "tom_mid", "tom_low"),
        2: ("tom_high", "tom_mid", "tom_low"),
        3: ("tom_mid", "tom_high", "tom_mid", "tom_low", "tom_low"),
    }[bar.variant]
    for index, p in enumerate(bar.grid(0.5)):
        label = melody[index % len(melody)]
        dynamic = ACCENT if bar.chance(0.4) else MEDIUM
        grace = 1 if bar.chance(0.5 * bar.drummer.ornaments) else 0
        if p in bar.backbeats and bar.chance(0.5):
            label = "snare"
        strokes.append(Stroke(beat=p, label=label, dynamic=dynamic, grace=grace))
        if p + 0.25 < bar.beats and bar.chance(0.3):
            strokes.append(Stroke(beat=p + 0.25, label=label, dynamic=LIGHT))
    return strokes


def crash_groove(bar: Bar) -> list[Stroke]:
    """Riding the crashes; now and then both at once, or one grabbed."""
    strokes = _kicks(bar, 0.4) + [
        Stroke(beat=p, label="snare", dynamic=ACCENT) for p in bar.backbeats
    ]
    for index, p in enumerate(bar.grid(1.0)):
        sides = ("crash_left", "crash_right")
        if bar.chance(0.22) and p not in bar.backbeats:
            strokes += both_crashes(p)
        elif bar.chance(0.15):
            strokes.append(crash(p, bar.effect))
        elif bar.chance(0.2) and p not in bar.backbeats:
            tags = ("crash_dual_label",)
            strokes.append(Stroke(beat=p, label="ride", dynamic=ACCENT, techniques=tags))
            strokes.append(replace(crash(p, sides[index % 2]), techniques=tags))
        else:
            side = sides[(index + bar.variant) % 2]
            strokes.append(
                Stroke(
                    beat=p, label="crash", dynamic=ACCENT if index == 0 else MEDIUM, variant=side
                )
            )
    if bar.chance(0.3):
        last = max(s.beat for s in strokes if s.label == "crash")
        strokes = [
            replace(s, choke_beats=0.6, techniques=(*s.techniques, "cymbal_choke"))
            if s.label == "crash" and s.beat == last
            else s
            for s in strokes
        ]
    return strokes


def crash(beat: float, cymbal: str) -> Stroke:
    """An accent on one of the crash-class cymbals."""
    accents = {"splash": ("splash_accent",), "china": ("china_accent",)}
    return Stroke(
        beat=beat,
        label="crash",
        dynamic=ACCENT,
        variant=cymbal,
        techniques=accents.get(cymbal, ()),
    )


def both_crashes(beat: float) -> list[Stroke]:
    """Both hands, two crashes."""
    tags = ("multi_cymbal_same_class",)
    return [
        Stroke(beat=beat, label="crash", dynamic=ACCENT, variant=side, techniques=tags)
        for side in ("crash_left", "crash_right")
    ]


def stop_bar(bar: Bar) -> list[Stroke]:
    """One hit on the first beat, then nothing."""
    hit = "crash" if bar.chance(0.5) else "snare"
    variant = "crash_right" if hit == "crash" else None
    return [
        Stroke(beat=0.0, label="kick", dynamic=ACCENT),
        Stroke(beat=0.0, label=hit, dynamic=ACCENT, variant=variant),
    ]


def pick_up(bar: Bar) -> list[Stroke]:
    """Before the first bar: a hi-hat bark over snare and kick."""
    return [
        Stroke(beat=0.0, label="snare", dynamic=MEDIUM, grace=1),
        *_bark(bar, 0.5),
    ]


def fill(bar: Bar, start: float) -> list[Stroke]:
    """From `start` to the end of the bar: around the drums, with flams and drags."""
    step = (0.25, 0.25, 1.0 / 3.0, 0.5)[int(bar.rng.choice(4, p=bar.drummer.leaning))]
    places = bar.grid(step, start)
    roads = (
        ("snare", "tom_high", "tom_mid", "tom_low"),
        ("tom_high", "tom_high", "tom_mid", "tom_low"),
        ("snare", "tom_mid", "tom_low"),
        ("tom_low", "tom_mid", "tom_high", "snare"),
        ("tom_high", "tom_mid", "tom_low"),
    )
    road = roads[int(bar.rng.integers(len(roads)))]
    strokes = []
    for index, p in enumerate(places):
        label = road[min(int(len(road) * index / len(places)), len(road) - 1)]
        grace = 0
        if step >= 0.3 and bar.chance(2.0 * bar.drummer.ornaments):
            grace = 1 if bar.chance(0.65) else 2
        dynamic = ACCENT if index % 2 == 0 or bar.chance(0.3) else MEDIUM
        if bar.chance(0.12):
            dynamic = LIGHT
        strokes.append(Stroke(beat=p, label=label, dynamic=dynamic, grace=grace))
        if p % 1.0 == 0.0 and bar.chance(0.6):
            strokes.append(Stroke(beat=p, label="kick", dynamic=MEDIUM))
    return strokes


GROOVES: Final[dict[str, Pattern]] = {
    "hat": hat_groove,
    "ride": ride_groove,
    "stick": stick_groove,
    "tom": tom_groove,
    "crash": crash_groove,
}
# Share of a session's time.
SHARES: Final = {"hat": 0.29, "ride": 0.28, "stick": 0.21, "tom": 0.10, "crash": 0.12}


def percussion_bar(bar: Bar, instrument: str) -> list[Stroke]:
    """A percussion instrument by itself."""
    steps = {"cowbell": 1.0, "clap": 1.0, "shaker": 0.5}
    start = 1.0 if instrument == "clap" and bar.chance(0.4) else 0.0
    return [
        Stroke(
            beat=p + (0.5 if instrument == "cowbell" and bar.chance(0.25) else 0.0),
            label="aux_percussion",
            variant=instrument,
            dynamic=(ACCENT, MEDIUM, LIGHT)[int(bar.rng.integers(3))],
        )
        for p in bar.grid(steps[instrument], start)
        if bar.chance(0.97)
    ]
