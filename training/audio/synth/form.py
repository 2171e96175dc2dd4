"""The form of a piece: sections, meters, tempi, and what is played in each bar."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from training.audio.synth import patterns
from training.audio.synth.drummers import Drummer
from training.audio.synth.patterns import Bar, Stroke

LEAD_S: Final = 1.2
TAIL_S: Final = 2.0
_METERS: Final = {
    "4/4": 4.0,
    "3/4": 3.0,
    "6/8": 3.0,
    "7/8": 3.5,
    "5/4": 5.0,
    "2/4": 2.0,
    "1/4": 1.0,
}
_HOME_METERS: Final = ("4/4", "4/4", "4/4", "4/4", "3/4", "6/8", "5/4", "7/8")
# One beat before the first bar.
_PICK_UP: Final = "1/4"
_CHANGES: Final = (("4/4", "7/8", "4/4", "5/4"), ("3/4", "4/4", "2/4"), ("7/8", "4/4", "7/8"))
_MODULATIONS: Final = (3 / 2, 4 / 3, 3 / 4, 2 / 3)
TEMPO_BPM: Final = (68.0, 180.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedBar:
    """A bar in time: its strokes and the techniques that all of them share."""

    start_s: float
    meter: str
    tempo_bpm: float
    strokes: list[Stroke]
    techniques: tuple[str, ...]


class Form:
    """The form of a piece while it is being laid out, bar after bar."""

    def __init__(
        self, rng: np.random.Generator, drummer: Drummer, duration_s: float, effect: str
    ) -> None:
        self.rng, self.drummer, self.effect = rng, drummer, effect
        self.tempo_bpm = float(np.clip(drummer.tempo_bpm * rng.uniform(0.92, 1.08), *TEMPO_BPM))
        self.home = str(rng.choice(_HOME_METERS))
        self.end_s = duration_s - TAIL_S
        # Sections round up and stops take time: plan a little less than there is.
        self.cycle_s = max(0.8 * min(self.end_s - LEAD_S, 30.0), 1.0)
        self.bars: list[PlannedBar] = []

    @property
    def now_s(self) -> float:
        """Where the next bar begins."""
        return self.bars[-1].start_s + _length_s(self.bars[-1]) if self.bars else LEAD_S

    def add(self, meter: str, strokes: list[Stroke], techniques: tuple[str, ...] = ()) -> None:
        """Append a bar."""
        self.bars.append(
            PlannedBar(
                start_s=self.now_s,
                meter=meter,
                tempo_bpm=self.tempo_bpm,
                strokes=strokes,
                techniques=techniques,
            )
        )

    def bar(self, meter: str, variant: int = 0) -> Bar:
        """The circumstances of a bar to come."""
        return Bar(
            beats=_METERS[meter],
            drummer=self.drummer,
            rng=self.rng,
            effect=self.effect,
            variant=variant,
        )

    def has_room(self, meter: str) -> bool:
        """Whether one more bar ends in time."""
        return self.now_s + _METERS[meter] * 60.0 / self.tempo_bpm <= self.end_s

    def modulate(self) -> None:
        """Let a subdivision of the old pulse be the new one."""
        slowest, fastest = TEMPO_BPM
        fitting = [r for r in _MODULATIONS if slowest <= self.tempo_bpm * r <= fastest]
        self.tempo_bpm *= float(self.rng.choice(fitting))

    def section(self, kind: str, *, first: bool, modulate: bool, changing: bool) -> None:
        """A few bars of one groove: a crash to begin with, a fill at the end."""
        if modulate:
            self.modulate()
        meters: tuple[str, ...] = (self.home,)
        if changing:
            meters = _CHANGES[int(self.rng.integers(len(_CHANGES)))]
        variant = int(self.rng.choice(4, p=self.drummer.leaning))
        bar_s = _METERS[meters[0]] * 60.0 / self.tempo_bpm
        count = max(1, round(patterns.SHARES[kind] * self.cycle_s / bar_s))
        count = max(count, 2) if changing else count
        for index in range(count):
            meter = meters[index % len(meters)]
            if not self.has_room(meter):
                break
            here = self.bar(meter, variant if index < 2 else int(self.rng.integers(4)))
            strokes = patterns.GROOVES[kind](here)
            if index == 0 and not first and kind != "crash":
                strokes = _opened(here, strokes)
            if index == count - 1:
                strokes = _filled(here, strokes)
            techniques: tuple[str, ...] = ("variable_meter",) if changing else ()
            if modulate and index == 0:
                techniques += ("metric_modulation",)
            self.add(meter, strokes, techniques)

    def end(self) -> None:
        """Both crashes and the kick; sometimes the crashes are grabbed."""
        crashes = patterns.both_crashes(0.0)
        if self.rng.random() < 0.4:
            tags = (*crashes[0].techniques, "cymbal_choke")
            crashes = [replace(s, choke_beats=0.7, techniques=tags) for s in crashes]
        kick = Stroke(beat=0.0, label="kick", dynamic=patterns.ACCENT)
        self.add(self.home, [kick, *crashes])


def lay_out(
    rng: np.random.Generator,
    drummer: Drummer,
    duration_s: float,
    effect: str,
    metric_modulation: bool,
    variable_meter: bool,
) -> list[PlannedBar]:
    """Lay out a piece: a pick-up, sections with fills, now and then a stop, a last crash."""
    form = Form(rng, drummer, duration_s, effect)
    form.add(_PICK_UP, patterns.pick_up(form.bar("2/4")))
    kinds: list[str] = []
    section = 0
    while form.has_room("2/4"):
        if not kinds:
            kinds = [str(kind) for kind in rng.permutation(list(patterns.GROOVES))]
        # The changes come in the first two sections, so that short sessions have them too.
        form.section(
            kinds.pop(),
            first=section == 0,
            modulate=metric_modulation and section == 1,
            changing=variable_meter and section == 0,
        )
        section += 1
        if not form.has_room(form.home):
            break
        if section % 3 == 2:
            stop = "2/4" if form.tempo_bpm < 115.0 else form.home
            form.add(stop, patterns.stop_bar(form.bar(stop)))
    form.end()
    return form.bars


def _length_s(bar: PlannedBar) -> float:
    return _METERS[bar.meter] * 60.0 / bar.tempo_bpm


def _opened(bar: Bar, strokes: list[Stroke]) -> list[Stroke]:
    """A crash on the first beat, with the kick, instead of what would be played there."""
    cymbal = bar.effect if bar.chance(0.25) else ("crash_left", "crash_right")[bar.variant % 2]
    crash = patterns.crash(0.0, cymbal)
    tags = ("unison_kick_crash",)
    return [
        replace(crash, techniques=crash.techniques + tags),
        Stroke(beat=0.0, label="kick", dynamic=patterns.ACCENT, techniques=tags),
        *[s for s in strokes if s.beat > 0.0],
    ]


def _filled(bar: Bar, strokes: list[Stroke]) -> list[Stroke]:
    length = float(np.ceil(bar.drummer.fills * bar.beats * bar.rng.uniform(0.7, 1.2)))
    start = max(0.0, bar.beats - max(length, 1.0))
    return [s for s in strokes if s.beat < start] + patterns.fill(bar, start)
