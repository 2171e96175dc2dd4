"""Performances of an events manifest, as strokes that the synthesiser can play.

A performance is what stands under one (source_set, session_id, track_id) of a manifest: when each
thing was struck, how hard, how open. How it sounded then plays no part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import numpy as np

from training.audio.synth.kits import Kit
from training.audio.synth.patterns import DYNAMICS, HAT_OPEN_AT
from training.audio.synth.performance import Note, bucket, damped_hats, instrument_of
from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest import Component, iter_records
from training.manifest.fields import NonEmpty, Positive, Seconds
from training.taxonomy import load_components

HIHAT: Final = ("hihat_closed", "hihat_open")
VOICES: Final = frozenset(
    {
        "kick",
        "snare",
        "side_stick",
        "hihat_closed",
        "hihat_open",
        "hihat_pedal",
        "tom_high",
        "tom_mid",
        "tom_low",
        "ride",
        "ride_bell",
        "crash",
    }
)
"""Labels that the synthesiser has a voice for."""
# What is heard: these stay in the manifest, any other technique does not.
_HEARD: Final = frozenset({"flam", "drag", "ghost_note", "rimshot", "cross_stick", "cymbal_choke"})
# A stroke on the same thing this little earlier is the grace note itself.
_GRACE_S: Final = 0.06
_SPLITS: Final = {"validation": "val", "valid": "val", "dev": "val"}
Key = tuple[str, str, str]


class PlayedEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What rendering needs of an event of the manifest."""

    session_id: NonEmpty
    onset_time: Seconds
    components: tuple[Component, ...]
    offset_time: Seconds | None = None
    track_id: str | None = None
    drummer_id: str | None = None
    source_set: str | None = None
    split: str | None = None
    techniques: tuple[NonEmpty, ...] = ()
    tempo_bpm: Positive | None = None
    meter: str | None = None
    bar_index: int | None = None
    beat_index: float | None = None

    @property
    def key(self) -> Key:
        """The performance that the event belongs to."""
        return self.source_set or "", self.session_id, self.track_id or self.session_id


@dataclass(kw_only=True, slots=True)
class Piece:
    """One performance as a whole: whose it is, and when its events lie."""

    key: Key
    drummer_id: str | None
    split: str | None
    onsets: list[float] = field(default_factory=list)

    @property
    def player(self) -> str:
        """Who kits belong to: the drummer, or the session where no drummer is named."""
        return self.drummer_id or self.key[1]


@dataclass(kw_only=True, slots=True)
class Survey:
    """The performances of a manifest in order of key, and strokes that have no voice."""

    pieces: list[Piece]
    voiceless: Counter[str]


def survey(path: Path, *, splits: Collection[str] = (), skip_voiceless: bool = False) -> Survey:
    """Find the performances of a manifest; only those of some splits, where any are named.

    Raises:
        InputError: a line is no event, events of one performance name two drummers or splits, a
            label has no voice and `skip_voiceless` is not set, or nothing is left to play.
    """
    taxonomy = load_components()
    pieces: dict[Key, Piece] = {}
    voiceless: Counter[str] = Counter()
    problems: list[Problem] = []
    total = 0
    for line, event in iter_records(path, PlayedEvent):
        split = _SPLITS.get(event.split or "", event.split)
        piece = pieces.setdefault(
            event.key, Piece(key=event.key, drummer_id=event.drummer_id, split=split)
        )
        found: list[tuple[str, str, object]] = []
        for name, first, here in (
            ("drummer_id", piece.drummer_id, event.drummer_id),
            ("split", piece.split, split),
        ):
            if first != here:
                found.append((name, f"differs within the performance, first {first}", here))
        struck = [c.label for c in event.components if _voice(taxonomy, c.label) is None]
        voiceless.update(struck)
        if not skip_voiceless:
            why = "the synthesiser has no voice for it (--skip-voiceless leaves such strokes out)"
            found += [("components", why, label) for label in struck]
        total += len(found)
        for name, why, got in found[: SHOWN_PROBLEMS - len(problems)]:
            problems.append(Problem(str(path), why, line, name, got))
        if len(struck) < len(event.components):
            piece.onsets.append(event.onset_time)
    if problems:
        raise InputError(problems, total)
    kept = [p for p in pieces.values() if p.onsets and (not splits or p.split in splits)]
    if not kept:
        why = "holds nothing to play"
        if splits:
            there = sorted({str(piece.split) for piece in pieces.values()})
            why += f" in {', '.join(splits)} (its splits: {', '.join(there)})"
        raise InputError.at(path, why)
    return Survey(pieces=sorted(kept, key=lambda piece: piece.key), voiceless=voiceless)


def read_stretches(
    path: Path, wanted: Mapping[Key, Sequence[tuple[float, float]]]
) -> dict[Key, list[PlayedEvent]]:
    """Return the events within the stretches wanted of each performance, ends included, in time.

    Events that hold no stroke are left out.
    """
    found: dict[Key, list[PlayedEvent]] = {key: [] for key in wanted}
    for _, event in iter_records(path, PlayedEvent):
        at = event.onset_time
        if any(low <= at <= high for low, high in wanted.get(event.key, ())) and event.components:
            found[event.key].append(event)
    for events in found.values():
        events.sort(key=lambda event: event.onset_time)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Reading:
    """How one rendering reads what is not written: drawn once for a performance on a kit.

    `shut` is how open a shut hi-hat is (a module reads every shut pedal as 0, real ones are shut
    more or less tightly); `cymbals` are the plates that crashes are played on, in turn.
    """

    shut: float
    cymbals: tuple[str, ...]


def draw_reading(rng: np.random.Generator, kit: Kit) -> Reading:
    """Draw a reading for a kit; in one of five a splash or china takes a crash's place."""
    cymbals = [str(name) for name in rng.permutation(["crash_left", "crash_right"])]
    if rng.random() < 0.2:
        cymbals[int(rng.integers(2))] = kit.effect
    return Reading(shut=float(rng.uniform(0.0, 0.14)), cymbals=tuple(cymbals))


def notes_of(
    events: Iterable[PlayedEvent],
    rng: np.random.Generator,
    *,
    kit: Kit,
    reading: Reading,
    shift_s: float,
) -> list[tuple[Note, PlayedEvent]]:
    """Return the strokes in order of time, each with the event that it comes from.

    Onsets move by `shift_s`. What a component does not say is drawn: velocity by its dynamic
    bucket, openness by its label. An openness that contradicts the label (modules report the pedal
    late) is drawn anew, so that what is heard and what is written agree.
    """
    pairs = sorted(_strokes(events, rng, kit, reading, shift_s), key=lambda p: p[0].strike_s)
    notes = damped_hats([note for note, _ in pairs])
    last: dict[str, float] = {}
    played = []
    for note, (_, event) in zip(notes, pairs, strict=True):
        near = note.strike_s - last.get(note.instrument, -1.0) < _GRACE_S
        last[note.instrument] = note.strike_s
        played.append((note if near else _graced(note, rng), event))
    return played


def component_of(note: Note) -> Component:
    """Return a note as the manifest has it: as it was rendered."""
    velocity = round(note.velocity, 4)
    return Component(
        label=note.label,
        velocity=velocity,
        dynamic_bucket=cast(Any, bucket(velocity)),
        openness=None if note.openness is None else round(note.openness, 4),
        choke=True if "cymbal_choke" in note.techniques else None,
        instrument_variant=note.variant,
    )


def _strokes(
    events: Iterable[PlayedEvent],
    rng: np.random.Generator,
    kit: Kit,
    reading: Reading,
    shift_s: float,
) -> Iterator[tuple[Note, PlayedEvent]]:
    taxonomy = load_components()
    for event in events:
        for component in event.components:
            label = _voice(taxonomy, component.label)
            if label is None:
                continue
            variant = _plate(component, kit, reading) if label == "crash" else None
            strike = event.onset_time + shift_s
            choked = bool(component.choke) and label == "crash"
            note = Note(
                strike_s=strike,
                label=label,
                instrument=instrument_of(label, variant),
                velocity=_velocity(component, rng),
                openness=_openness(label, component.openness, reading, rng),
                variant=variant,
                techniques=tuple(_heard(event, label, choked)),
                stop_s=_stop(event, strike, shift_s, rng) if choked else None,
                tempo_bpm=event.tempo_bpm or 0.0,
                meter=event.meter or "",
                bar_index=event.bar_index or 0,
                beat=event.beat_index or 0.0,
            )
            yield note, event


def _voice(taxonomy: Any, name: str) -> str | None:
    label = taxonomy.canonical(name)
    return label if label in VOICES else None


def _velocity(component: Component, rng: np.random.Generator) -> float:
    if component.velocity is not None:
        return max(float(component.velocity), 0.02)
    mean = DYNAMICS[component.dynamic_bucket or "medium"]
    return float(np.clip(mean + 0.06 * rng.standard_normal(), 0.05, 1.0))


def _openness(
    label: str, given: float | None, reading: Reading, rng: np.random.Generator
) -> float | None:
    if label not in HIHAT:
        return None
    is_open = label == "hihat_open"
    if given is None or (given >= HAT_OPEN_AT) is not is_open:
        return float(rng.uniform(0.45, 1.0) if is_open else reading.shut)
    if is_open:
        return float(given)
    return float(min(reading.shut + given, HAT_OPEN_AT - 0.01))


def _plate(component: Component, kit: Kit, reading: Reading) -> str:
    """Choose what a crash is played on: a variant that ends in an even number is the second."""
    variant = component.instrument_variant or ""
    if variant in ("crash_left", "crash_right", kit.effect):
        return variant
    digits = "".join(c for c in variant if c.isdecimal())
    return reading.cymbals[1 if digits and int(digits) % 2 == 0 else 0]


def _stop(event: PlayedEvent, strike: float, shift_s: float, rng: np.random.Generator) -> float:
    if event.offset_time is not None and event.offset_time > event.onset_time:
        return event.offset_time + shift_s
    return strike + float(rng.uniform(0.15, 0.6))


def _heard(event: PlayedEvent, label: str, choked: bool) -> Iterator[str]:
    """Name the techniques of an event that this stroke lets hear."""
    for name in event.techniques:
        of_snare = name in ("flam", "drag", "ghost_note", "rimshot")
        if name == "cymbal_choke":
            continue
        if name in _HEARD and label == ("snare" if of_snare else "side_stick"):
            yield name
    if choked:
        yield "cymbal_choke"


def _graced(note: Note, rng: np.random.Generator) -> Note:
    """Add the grace notes of a flam or a drag that the manifest has as one stroke."""
    count = 2 if "drag" in note.techniques else 1 if "flam" in note.techniques else 0
    if not count:
        return note
    gap = 1e-3 * float(rng.uniform(18.0, 34.0))
    soft = note.velocity * float(rng.uniform(0.30, 0.55))
    graces = tuple(
        (note.strike_s - gap * (k + 1), soft * 0.9**k)
        for k in range(count)
        if note.strike_s > gap * (k + 1)
    )
    return replace(note, graces=graces)
