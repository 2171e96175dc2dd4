"""Inferring techniques from what a manifest already says: one pure function a technique.

A rule gets the events of one performance in order of time, and returns the places (indices) of the
events that show the technique. Rules look at labels, onsets, velocities, tempo and meter, never at
audio. They are cautious: where the manifest does not say enough, they say nothing.

The thresholds are in `RuleSettings`, each with where it comes from; none was fitted to labelled
playing. What a technique *is* follows the reference that its rule names. The subclasses of MDB
Drums are those of Southall, Wu, Lerch and Hockman, "MDB Drums: an annotated subset of MedleyDB for
automatic drum transcription" (ISMIR 2017, late-breaking).
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import mean, pstdev
from typing import Final

from training.manifest import Event
from training.taxonomy.strokes import EPSILON_MS, Stroke, runs_of, single_strokes, strokes_on

__all__ = ["RULES", "Rule", "RuleSettings", "infer"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleSettings:
    """The thresholds of all rules; times in ms.

    Attributes:
        tempo_change: smallest relative change of tempo that counts, twice what listeners can just
            notice in a steady sequence (about 2 %: Drake and Botte 1993).
        ratio_tolerance: how near a ratio of tempi must lie to a fraction, relative.
        ratio_max_term: largest number in such a fraction. With 4 these are the ratios that dotted
            and triplet values give (3:2, 4:3, 2:1, 3:1 and so on).
        bark_ms: longest time from an open hi-hat to the stroke that closes it; off-beat
            eighths, which are no barks, come further apart than this up to 166 bpm.
        bark_openness: an open hi-hat whose stated openness is less than this was shut, whatever its
            label says; `normalize-openness` counts such strokes with the same edge.
        flam_ms: longest time between the strokes of a flam; above it two strokes are heard.
        drag_ms: longest time between neighbouring strokes of a drag.
        grace_ratio: a grace stroke is at most this loud beside its main stroke.
        apart_ms: a flam or drag stands alone: no other stroke on its drum is nearer than this.
        ghost_velocity: a ghost note is softer than this; ingest uses the same edge.
        ghost_contrast: and some snare stroke of the performance is this many times louder.
        ghost_apart_ms: and no other snare stroke is nearer than this: nearer ones are grace notes
            or part of a roll. 20 strokes a second are sixteenths at 300 bpm.
        same_stroke_ms: strokes on one drum that follow each other faster than this are one stroke
            that is written twice, or that a trigger heard twice.
        burst_ms, burst_strokes: a double-kick burst has at least so many kicks, none further apart
            than sixteenths at 136 bpm, which one foot does not keep up.
        blast_ms, blast_strokes: a blast beat has at least so many snare strokes, none further apart
            than eighths at 180 bpm.
        blast_spread: largest standard deviation of their gaps, relative to the mean gap.
    """

    tempo_change: float = 0.04
    ratio_tolerance: float = 0.01
    ratio_max_term: int = 4
    bark_ms: float = 180.0
    bark_openness: float = 0.1
    flam_ms: float = 40.0
    drag_ms: float = 90.0
    grace_ratio: float = 0.75
    apart_ms: float = 100.0
    ghost_velocity: float = 0.30
    ghost_contrast: float = 2.0
    ghost_apart_ms: float = 50.0
    same_stroke_ms: float = 20.0
    burst_ms: float = 110.0
    burst_strokes: int = 6
    blast_ms: float = 167.0
    blast_strokes: int = 8
    blast_spread: float = 0.25


Events = Sequence[Event]
Rule = Callable[[Events, RuleSettings], set[int]]

_DRUMS: Final = ("snare", "tom_high", "tom_mid", "tom_low")
_CRASHES_AND_RIDES: Final = ("crash", "ride")
_BESIDE_CRASH: Final = frozenset({"ride", "ride_bell", "hihat_open", "hihat_closed"})
_CHOKED: Final = frozenset({"crash", "ride", "ride_bell", "hihat_open"})
_HIHATS: Final = frozenset({"hihat_open", "hihat_closed", "hihat_pedal"})
_TIME_KEEPERS: Final = _HIHATS | {"ride", "ride_bell", "crash"}
# A value that lies on a threshold must not fall on either side by its rounding.
_EPSILON: Final = 1e-9


def tempo_change(events: Events, settings: RuleSettings) -> set[int]:
    """The first bar at a tempo that differs from the one before by more than `tempo_change`.

    Reference: Drake and Botte, "Tempo sensitivity in auditory sequences", Perception &
    Psychophysics 54 (1993): what listeners notice.
    """
    return _first_bars(events, (place for place, _ in _changes(events, settings)))


def metric_modulation(events: Events, settings: RuleSettings) -> set[int]:
    """The first bar after a tempo change whose ratio is a fraction of small whole numbers.

    Such a ratio lets a subdivision of the old pulse become the new pulse: at 3:2 the old triplet
    quarter, at 4:3 the old dotted eighth, and so on.

    Reference: Benadon, "Towards a theory of tempo modulation" (ICMPC 8, 2004): a change of tempo by
    means of a duration that both tempi share, so that their ratio is one of whole numbers.
    """
    terms = range(1, settings.ratio_max_term + 1)
    fractions = {Fraction(a, b) for a in terms for b in terms}
    places = (
        place
        for place, ratio in _changes(events, settings)
        if any(
            abs(ratio / float(f) - 1.0) <= settings.ratio_tolerance + _EPSILON for f in fractions
        )
    )
    return _first_bars(events, places)


def variable_meter(events: Events, settings: RuleSettings) -> set[int]:
    """The first bar in a meter other than the one before.

    Reference: London, "Hearing in Time" (Oxford, 2nd edition 2012), on changing meters.
    """
    told = [(index, event.meter) for index, event in enumerate(events) if event.meter is not None]
    places = (index for (_, before), (index, after) in pairwise(told) if after != before)
    return _first_bars(events, places)


def multi_cymbal_same_class(events: Events, settings: RuleSettings) -> set[int]:
    """An event with two cymbals of one class: two crashes or two rides.

    Two components that name the same `instrument_variant` are one cymbal named twice.

    Reference: General MIDI level 1, percussion key map: two crashes (keys 49 and 57) and two rides
    (51 and 59), which fall into one class each here.
    """
    found = set()
    for index, event in enumerate(events):
        for label in _CRASHES_AND_RIDES if len(event.components) > 1 else ():
            variants = [c.instrument_variant for c in event.components if c.label == label]
            one_named_twice = len(set(variants)) == 1 and variants[0] is not None
            if len(variants) > 1 and not one_named_twice:
                found.add(index)
    return found


def crash_dual_label(events: Events, settings: RuleSettings) -> set[int]:
    """An event with a crash and, at the same moment, a ride, a ride bell or a struck hi-hat.

    Reference: Vogl, Widmer and Knees, "Towards multi-instrument drum transcription" (DAFx 2018),
    for why simultaneous cymbals are worth counting: they mask and are taken for each other.
    """
    return {
        index
        for index, event in enumerate(events)
        if len(event.components) > 1
        and "crash" in event.labels
        and not _BESIDE_CRASH.isdisjoint(event.labels)
    }


def cymbal_choke(events: Events, settings: RuleSettings) -> set[int]:
    """An event with a crash, ride or open hi-hat that is marked as choked.

    Reference: the entry "Cymbal choke" of Wikipedia: struck and at once silenced by hand. The mark
    comes from the source; nothing in onsets or labels shows it.
    """
    return {
        index
        for index, event in enumerate(events)
        if any(c.choke and c.label in _CHOKED for c in event.components)
    }


def hihat_bark(events: Events, settings: RuleSettings) -> set[int]:
    """An open hi-hat whose next hi-hat stroke, within `bark_ms`, is closed or with the foot.

    Where its openness is stated, it must have been open by that as well.

    Reference: drum methods call a short hi-hat opening a bark (for one, drumstheword.com, "Basic
    hi-hat opening and closing beats and grooves"); none gives a length in ms.
    """
    strokes = [
        (index, event)
        for index, event in enumerate(events)
        if any(component.label in _HIHATS for component in event.components)
    ]
    found = set()
    for (index, event), (_, after) in pairwise(strokes):
        gap_ms = (after.onset_time - event.onset_time) * 1000.0
        closes = "hihat_open" not in after.labels
        # An event that holds both does not say which of them came last.
        opens = {"hihat_open"} == _HIHATS.intersection(event.labels) and not any(
            c.openness is not None and c.openness < settings.bark_openness
            for c in event.components
            if c.label == "hihat_open"
        )
        if opens and closes and 0.0 < gap_ms <= settings.bark_ms + EPSILON_MS:
            found.add(index)
    return found


def flam(events: Events, settings: RuleSettings) -> set[int]:
    """Two strokes on one drum at most `flam_ms` apart, the first softer, no third one near.

    Where velocities are unknown the time alone decides: one hand cannot play that fast.

    Reference: Percussive Arts Society, International Drum Rudiments, the flam: a grace note before
    a main note. MDB Drums has it as subclass SDF.
    """
    return _figures(events, settings, strokes=2, gap_ms=settings.flam_ms, need_velocity=False)


def drag(events: Events, settings: RuleSettings) -> set[int]:
    """Three strokes on one drum, each at most `drag_ms` after the last, two soft ones and the main.

    Needs velocities: without them a drag is not to be told from the end of a roll.

    Reference: Percussive Arts Society, International Drum Rudiments, the drag: two grace notes
    before a main note. MDB Drums has it as subclass SDD.
    """
    return _figures(events, settings, strokes=3, gap_ms=settings.drag_ms, need_velocity=True)


def ghost_note(events: Events, settings: RuleSettings) -> set[int]:
    """A snare stroke in the bucket `ghost`, or softer than `ghost_velocity` among louder ones.

    A performance whose snare is soft throughout has no ghost notes: some stroke must be
    `ghost_contrast` times as loud. Soft strokes in quick succession are none either. A bucket
    without a velocity is taken at its word.

    Reference: MDB Drums, subclass SDG (snare drum, ghost note); and the entry "Ghost note" of
    Wikipedia: it has a place in the rhythm, which a grace note and the strokes of a roll have not.
    """
    snares = [(i, c) for i, e in enumerate(events) for c in e.components if c.label == "snare"]
    loudest = max((c.velocity for _, c in snares if c.velocity is not None), default=0.0)
    alone = _alone(events, {index for index, _ in snares}, settings.ghost_apart_ms)
    return {
        index
        for index, c in snares
        if (
            c.dynamic_bucket == "ghost"
            if c.velocity is None
            else index in alone
            and c.velocity < settings.ghost_velocity
            and c.velocity * settings.ghost_contrast <= loudest
        )
    }


def double_kick_burst(events: Events, settings: RuleSettings) -> set[int]:
    """Every kick of a run of at least `burst_strokes`, each at most `burst_ms` after the last.

    Reference: Franco, "Double Bass Drumming" (1984), on playing with two feet; the rate is ours.
    """
    runs = runs_of(strokes_on(events, "kick")["kick"], settings.burst_ms)
    return {
        stroke.index
        for run in runs
        if len(single_strokes(run, settings.same_stroke_ms)) >= settings.burst_strokes
        for stroke in run
    }


def blast_beat(events: Events, settings: RuleSettings) -> set[int]:
    """Every event of an even, very fast run of snare strokes with as many kicks and a cymbal.

    The run has at least `blast_strokes` snare strokes at most `blast_ms` apart. Within it there are
    at least four kicks for five snare strokes (together or in turn) and a cymbal on two in five.

    Reference: MacGregor's definition, as the entry "Blast beat" of Wikipedia quotes it: a very fast
    repeated figure divided uniformly among bass drum, snare, and ride, crash or hi-hat.
    """
    onsets = [event.onset_time * 1000.0 for event in events]
    found: set[int] = set()
    strokes = strokes_on(events, "snare", "kick")
    snares = single_strokes(strokes["snare"], settings.same_stroke_ms)
    kick_ms = [stroke.ms for stroke in single_strokes(strokes["kick"], settings.same_stroke_ms)]
    for run in runs_of(snares, settings.blast_ms):
        gaps = [after.ms - before.ms for before, after in pairwise(run)]
        if len(run) < settings.blast_strokes or pstdev(gaps) > settings.blast_spread * mean(gaps):
            continue
        # Half a gap on either side, so that a kick in turn with the snare belongs to the run.
        half = mean(gaps) / 2
        start, end = run[0].ms - half, run[-1].ms + half
        inside = range(bisect_left(onsets, start), bisect_right(onsets, end))
        kicks = bisect_right(kick_ms, end) - bisect_left(kick_ms, start)
        cymbals = sum(not _TIME_KEEPERS.isdisjoint(events[i].labels) for i in inside)
        if kicks >= 0.8 * len(run) and cymbals >= 0.4 * len(run):
            found.update(inside)
    return found


RULES: Final[Mapping[str, Rule]] = {
    "metric_modulation": metric_modulation,
    "tempo_change": tempo_change,
    "variable_meter": variable_meter,
    "multi_cymbal_same_class": multi_cymbal_same_class,
    "crash_dual_label": crash_dual_label,
    "cymbal_choke": cymbal_choke,
    "hihat_bark": hihat_bark,
    "flam": flam,
    "drag": drag,
    "ghost_note": ghost_note,
    "double_kick_burst": double_kick_burst,
    "blast_beat": blast_beat,
}


def infer(
    events: Events, settings: RuleSettings, *, rules: Iterable[str] = tuple(RULES)
) -> list[list[str]]:
    """Apply rules to the events of one performance, which must stand in order of time.

    Returns for each event the techniques that the rules find, in the order of `rules`.

    Raises:
        ValueError: the events are not in order of time.
        KeyError: there is no such rule.
    """
    if any(after.onset_time < before.onset_time for before, after in pairwise(events)):
        raise ValueError("the events of a performance must stand in order of time")
    found: list[list[str]] = [[] for _ in events]
    for name in rules:
        for index in RULES[name](events, settings):
            found[index].append(name)
    return found


def _changes(events: Events, settings: RuleSettings) -> list[tuple[int, float]]:
    """Return (place, new tempo over old) of each event whose tempo has changed."""
    told = [(i, event.tempo_bpm) for i, event in enumerate(events) if event.tempo_bpm is not None]
    ratios = [(index, after / before) for (_, before), (index, after) in pairwise(told)]
    least = settings.tempo_change + _EPSILON
    return [(index, ratio) for index, ratio in ratios if abs(ratio - 1.0) > least]


def _first_bars(events: Events, places: Iterable[int]) -> set[int]:
    """Return each place and the events after it in its bar; the place alone without `bar_index`."""
    found: set[int] = set()
    for place in places:
        bar = events[place].bar_index
        if place in found and bar is not None:
            continue  # a change within a bar that changed before: the rest of it is there already
        found.add(place)
        for index in range(place + 1, len(events)):
            if bar is None or events[index].bar_index != bar:
                break
            found.add(index)
    return found


def _alone(events: Events, places: set[int], apart_ms: float) -> set[int]:
    """Return those of some events that have no other of them nearer than `apart_ms`."""
    order = sorted(places)
    gaps = [
        (events[after].onset_time - events[before].onset_time) * 1000.0
        for before, after in pairwise(order)
    ]
    least = apart_ms - EPSILON_MS
    sides = zip(order, [math.inf, *gaps], [*gaps, math.inf], strict=True) if order else ()
    return {place for place, before, after in sides if min(before, after) >= least}


def _figures(
    events: Events, settings: RuleSettings, *, strokes: int, gap_ms: float, need_velocity: bool
) -> set[int]:
    """Find grace figures: so many strokes on one drum and no other near, the last the loudest."""
    found: set[int] = set()
    for drum in strokes_on(events, *_DRUMS).values():
        for run in runs_of(drum, settings.apart_ms):
            gaps = [after.ms - before.ms for before, after in pairwise(run)]
            if len(run) != strokes or not all(0.0 < gap <= gap_ms + EPSILON_MS for gap in gaps):
                continue
            if _softer(run, settings.grace_ratio, need_velocity):
                found.update(stroke.index for stroke in run)
    return found


def _softer(run: Sequence[Stroke], ratio: float, need_velocity: bool) -> bool:
    velocities = [stroke.velocity for stroke in run if stroke.velocity is not None]
    if len(velocities) < len(run):
        return not need_velocity
    return all(grace <= ratio * velocities[-1] + _EPSILON for grace in velocities[:-1])
