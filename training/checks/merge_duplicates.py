"""Which events of a merge repeat a `sample_id`, found exactly and in bounded memory.

Hashes of the ids are put into buckets on the disk; only events whose hashes are equal are looked at
again, and then it is the ids themselves that are compared.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.manifest.external import FETCH_BYTES, LineStore, Spill, byte_ranges
from training.manifest.indexing import ENTRY

Array = NDArray[Any]

HASH_BUCKETS = 128
"""Buckets for ids: of 15 million events, each holds 4 MB."""

ROWS_TOGETHER = 1 << 17
"""Repeats are looked at in file order, those of so many rows at a time."""

_PAIR = np.dtype([("again", ENTRY), ("first", ENTRY), ("previous", "<u8")])


class _Id(msgspec.Struct, gc=False):
    sample_id: str


_id_of = msgspec.json.Decoder(_Id).decode


@dataclass(frozen=True, slots=True)
class Repeat:
    """An event whose id stands earlier.

    Attributes:
        sample_id: the id.
        first: the `ENTRY` of the first event with the id.
        again: the `ENTRY` of this one.
        previous: the row of the last event with the id before this one.
        first_line: the line of the first event.
        again_line: the line of this one.
    """

    sample_id: str
    first: Array
    again: Array
    previous: int
    first_line: bytes
    again_line: bytes


class IdSpill:
    """Takes the entries of all events, in order, and tells which of them repeat an id."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = Spill(folder, "ids", ENTRY)

    def add(self, entries: Array) -> None:
        """Add the next events."""
        self._ids.add(entries, entries["hash"] % np.uint64(HASH_BUCKETS))

    def repeats(self, store: LineStore) -> Iterator[Repeat]:
        """Yield every event that is not the first one of its id, in the order of the rows."""
        pairs = Spill(self._folder, "pairs", _PAIR)
        for bucket in self._ids:
            found = _suspects(bucket)
            pairs.add(found, found["again"]["row"] // np.uint64(ROWS_TOGETHER))
        groups: dict[int, dict[str, tuple[Array, int]]] = {}
        for bucket in pairs:
            bucket = bucket[np.argsort(bucket["again"]["row"], kind="stable")]
            lengths = bucket["again"]["length"].astype(np.int64) + bucket["first"]["length"]
            for start, end in byte_ranges(lengths, FETCH_BYTES):
                yield from _confirmed(bucket[start:end], store, groups)


def _suspects(entries: Array) -> Array:
    """Pair every event of a bucket with the first one that has the same hash."""
    entries = entries[np.argsort(entries["hash"], kind="stable")]
    same = np.concatenate(([False], entries["hash"][1:] == entries["hash"][:-1]))
    places = np.arange(len(entries))
    firsts = np.maximum.accumulate(np.where(same, 0, places))
    again = places[same]
    pairs = np.empty(len(again), dtype=_PAIR)
    pairs["again"] = entries[again]
    pairs["first"] = entries[firsts[again]]
    pairs["previous"] = entries["row"][again - 1]
    return pairs


def _confirmed(
    pairs: Array, store: LineStore, groups: dict[int, dict[str, tuple[Array, int]]]
) -> Iterator[Repeat]:
    """Compare the ids themselves.

    `groups` holds what is known of hashes that different ids share (there should be none): for each
    such hash, named by its first row, the first entry and the latest row of every id.
    """
    places = np.concatenate((pairs["first"], pairs["again"]))
    lines = list(store.fetch(places))
    for place, pair in enumerate(pairs):
        first, again, previous = pair["first"], pair["again"], int(pair["previous"])
        first_line, again_line = lines[place], lines[len(pairs) + place]
        name, sample_id = _id_of(first_line).sample_id, _id_of(again_line).sample_id
        group = int(first["row"])
        if group in groups or name != sample_id:
            known = groups.setdefault(group, {name: (first, previous)})
            if sample_id not in known:
                known[sample_id] = (again, int(again["row"]))
                continue
            first, previous = known[sample_id]
            known[sample_id] = (first, int(again["row"]))
            (first_line,) = store.fetch(first.reshape(1))
        yield Repeat(sample_id, first, again, previous, first_line, again_line)


def same_content(first: bytes, again: bytes) -> bool:
    """Whether two lines hold the same object, whatever the order of keys and the spelling."""
    return first == again or _same(json.loads(first), json.loads(again))


def _same(first: Any, again: Any) -> bool:
    if isinstance(first, bool) or isinstance(again, bool):  # to Python, True is 1
        return first is again
    if isinstance(first, dict) and isinstance(again, dict):
        return first.keys() == again.keys() and all(
            _same(value, again[key]) for key, value in first.items()
        )
    if isinstance(first, list) and isinstance(again, list):
        return len(first) == len(again) and all(map(_same, first, again))
    return bool(first == again)
