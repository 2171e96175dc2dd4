"""Which techniques a manifest gains: found by performance, however the lines are ordered.

The lines of a performance usually stand together, and then one pass over the manifest holds no more
than one performance. Where one turns up again after another has begun, its lines are gathered in a
second pass: they go to temporary files by a hash of the performance, and each file is read by
itself. What stays in memory of every event is one 32-bit number, the rules that found something.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby
from typing import IO, Final, TypeAlias

import msgspec

from training.manifest import Event
from training.manifest.lines import BOM
from training.manifest.rewrite import RawManifest, with_fields
from training.taxonomy.rules import RULES, RuleSettings, infer
from training.taxonomy.techniques import TechniqueCatalogue

__all__ = ["Additions", "Annotator", "annotated_lines"]

_Key: TypeAlias = tuple[str, str | None]

# Text of a temporary file: what is read back at once while performances are put together.
_PART_BYTES: Final = 4 * 2**20
_MAX_PARTS: Final = 128
# How much longer than its file a packed manifest may be, for choosing the number of parts only.
_UNPACKED: Final = 10
_MARKS_BITS: Final = 26
_HEAD: Final = struct.Struct("<QI")


@dataclass(kw_only=True, slots=True)
class Additions:
    """What is to be added to a manifest.

    Attributes:
        rules: the rules that were applied; bit i of a mask stands for the i-th.
        masks: one number an event in the order of the lines, blank lines not counted.
        present: events that named a technique before, by id of the catalogue.
        unknown: events by name that the catalogue does not have; such names are left as they stand.
        gathered: events whose performance was put together from scattered lines.
        mixed: hashes of the performances whose events name several audio files and no track: if
            these are takes of their own, their onsets are not on one clock.
    """

    rules: tuple[str, ...]
    masks: array[int] = field(default_factory=lambda: array("I"))
    present: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    gathered: int = 0
    mixed: set[int] = field(default_factory=set)

    @property
    def changed(self) -> int:
        """How many events gain a technique."""
        return len(self.masks) - self.masks.count(0)

    @property
    def added(self) -> Counter[str]:
        """How many events gain each technique; every rule is there."""
        found = Counter(dict.fromkeys(self.rules, 0))
        for mask, count in Counter(self.masks).items():
            found.update(dict.fromkeys(self.names(mask), count))
        return found

    def names(self, mask: int) -> list[str]:
        """The techniques that a mask stands for, in the order of the rules."""
        return [name for bit, name in enumerate(self.rules) if mask >> bit & 1]


@dataclass(frozen=True, kw_only=True)
class Annotator:
    """Finds the techniques that events show and do not name.

    A performance is the events of one session and, where tracks are named, one track: onsets of
    different tracks are not on one clock. A technique that stands under an alias is not new.
    """

    catalogue: TechniqueCatalogue
    rules: tuple[str, ...] = tuple(RULES)
    settings: RuleSettings = field(default_factory=RuleSettings)

    def new_techniques(self, events: Sequence[Event]) -> list[list[str]]:
        """Return for each event of whole performances, in whatever order, the techniques it gains.

        Events with equal onsets are taken in the order in which they are given.
        """
        performances: dict[_Key, list[int]] = defaultdict(list)
        for place, event in enumerate(events):
            performances[_performance(event)].append(place)
        new: list[list[str]] = [[] for _ in events]
        for places in performances.values():
            places.sort(key=lambda place: events[place].onset_time)
            played = [events[place] for place in places]
            found = infer(played, self.settings, rules=self.rules)
            for place, names in zip(places, found, strict=True):
                if names:
                    standing = set(map(self.catalogue.canonical, events[place].techniques))
                    new[place] = [name for name in names if name not in standing]
        return new

    def find(self, manifest: RawManifest) -> Additions:
        """Read a manifest and return what each of its events gains.

        Memory holds one performance (or one part of the scattered ones) at a time.

        Raises:
            InputError: a line of the manifest is not a valid event.
        """
        found = Additions(rules=self.rules)
        closed, scattered = _Marks(), _Marks()
        held: Counter[str] = Counter()
        events = (event for _, _, event in manifest.events("reading"))
        for key, group in groupby(events, key=_performance):
            played = list(group)
            for event in played:
                held.update(event.techniques)
            found.mixed |= _mixed(played)
            if key in closed:
                scattered.add(key)
                found.masks.extend([0] * len(played))
            else:
                closed.add(key)
                found.masks.extend(self._masks(played))
        for name, count in held.items():
            known = self.catalogue.canonical(name)
            (found.unknown if known is None else found.present)[known or name] += count
        if scattered:
            self._gather(manifest, scattered, found)
        return found

    def _masks(self, events: Sequence[Event]) -> Iterator[int]:
        bits = {name: 1 << bit for bit, name in enumerate(self.rules)}
        return (sum(bits[name] for name in names) for names in self.new_techniques(events))

    def _gather(self, manifest: RawManifest, scattered: _Marks, found: Additions) -> None:
        """Do the performances anew whose lines do not stand together."""
        decode = msgspec.json.Decoder(Event).decode
        with ExitStack() as stack:
            for part in _spill(manifest, scattered, stack):
                places: list[int] = []
                events: list[Event] = []
                for place, body in _read_part(part):
                    places.append(place)
                    events.append(decode(body))
                found.gathered += len(places)
                found.mixed |= _mixed(events)
                for place, mask in zip(places, self._masks(events), strict=True):
                    found.masks[place] = mask


def annotated_lines(manifest: RawManifest, additions: Additions) -> Iterator[bytes]:
    """Yield the lines of the manifest, those that gain techniques with them added at the end.

    All other lines are given as they stand, blank ones too; of a changed line, the values of all
    other fields are given as they stand.
    """
    names: dict[int, list[str]] = {}
    index = 0
    for raw, is_record in manifest.records("writing"):
        if not is_record:
            yield raw
            continue
        mask = additions.masks[index]
        index += 1
        if not mask:
            yield raw
            continue
        if mask not in names:
            names[mask] = additions.names(mask)
        before = _techniques_of(raw.removeprefix(BOM)).techniques
        yield with_fields(raw, {"techniques": [*before, *names[mask]]})


class _Marks:
    """A set of performances in 8 MiB, however many there are.

    It may hold one that was never added (whose hash is that of another), but never lacks one that
    was: taking a performance for scattered costs a second look at it and changes no result.
    """

    def __init__(self) -> None:
        self._bits = bytearray(2 ** (_MARKS_BITS - 3))
        self._any = False

    def __bool__(self) -> bool:
        return self._any

    def __contains__(self, key: _Key) -> bool:
        place = _hash(key) % 2**_MARKS_BITS
        return bool(self._bits[place >> 3] >> (place & 7) & 1)

    def add(self, key: _Key) -> None:
        place = _hash(key) % 2**_MARKS_BITS
        self._bits[place >> 3] |= 1 << (place & 7)
        self._any = True


class _Named(msgspec.Struct):
    session_id: str
    track_id: str | None = None


class _Played(msgspec.Struct):
    techniques: list[str] = []


_named = msgspec.json.Decoder(_Named).decode
_techniques_of = msgspec.json.Decoder(_Played).decode


def _performance(event: Event | _Named) -> _Key:
    return event.session_id, event.track_id


def _mixed(events: Sequence[Event]) -> set[int]:
    """Return the hashes of the performances without a track whose events name several files."""
    first: dict[_Key, str] = {}
    found = set()
    for event in events:
        if event.track_id is None and event.audio_path is not None:
            key = _performance(event)
            if first.setdefault(key, event.audio_path) != event.audio_path:
                found.add(_hash(key))
    return found


def _hash(key: _Key) -> int:
    return zlib.crc32((key[1] or "").encode(), zlib.crc32(key[0].encode()))


def _spill(manifest: RawManifest, scattered: _Marks, stack: ExitStack) -> list[IO[bytes]]:
    """Copy the lines of scattered performances, with their places, to temporary files.

    The files have no name, so that nothing is left of them whatever happens to the process.
    """
    size = manifest.size * (1 if manifest.packing == "plain" else _UNPACKED)
    count = min(_MAX_PARTS, 1 + size // _PART_BYTES)
    parts: list[IO[bytes]] = []
    for _ in range(count):
        unnamed: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (the stack closes it)
        parts.append(stack.enter_context(unnamed))
    index = 0
    for raw, is_record in manifest.records("gathering scattered performances"):
        if is_record:
            body = raw.removeprefix(BOM)
            key = _performance(_named(body))
            if key in scattered:
                part = parts[_hash(key) % count]
                part.write(_HEAD.pack(index, len(body)))
                part.write(body)
            index += 1
    return parts


def _read_part(part: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    part.seek(0)
    while head := part.read(_HEAD.size):
        index, length = _HEAD.unpack(head)
        yield index, part.read(length)
