"""Work on more events than memory holds: records spilled by bucket, sorted runs, lines by place.

Everything here keeps a bounded amount in memory, whatever the number of events; the rest lies in
files of a scratch folder. Little work never touches the disk.
"""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SPILL_BYTES = 4 << 20
"""Records that a `Spill` holds in memory before it writes them out."""

RUN_BYTES = 24 << 20
"""Keys that `SortedRuns` holds in memory, with what Python adds to each, before it writes a run."""

CHUNK_BYTES = 128 << 10
"""How much of each run is in memory while runs are merged."""

FETCH_BYTES = 4 << 20
GAP_BYTES = 2 << 10
"""Lines nearer to each other than this are read with one call, and what lies between is let go."""

_OBJECT_BYTES = 48  # what a bytes object and its place in a list take beside the bytes themselves


class Spill:
    """Fixed-width records, put into buckets as they come and read back bucket by bucket.

    Inside a bucket the records keep the order in which they were added.
    """

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any]) -> None:
        self._folder, self._name, self._dtype = folder, name, dtype
        self._held: list[tuple[Array, Array]] = []
        self._bytes = 0
        self._written: set[int] = set()

    def add(self, records: Array, buckets: Array) -> None:
        """Add records, each with the number of its bucket (non-negative whole numbers)."""
        if not len(records):
            return
        self._held.append((records, buckets.astype(np.int64)))
        self._bytes += records.nbytes
        if self._bytes >= SPILL_BYTES:
            self._flush()

    def __iter__(self) -> Iterator[Array]:
        """Yield the records of each bucket that has any, by rising bucket number."""
        if not self._written:
            for _, records in self._groups():
                yield records
            return
        self._flush()
        for bucket in sorted(self._written):
            yield np.fromfile(self._path(bucket), dtype=self._dtype)

    def _path(self, bucket: int) -> Path:
        return self._folder / f"{self._name}.{bucket}"

    def _flush(self) -> None:
        for bucket, records in self._groups():
            # Opened for each write: there may be more buckets than files a process may hold open.
            with self._path(bucket).open("ab") as file:
                file.write(records.tobytes())
            self._written.add(bucket)
        self._held, self._bytes = [], 0

    def _groups(self) -> Iterator[tuple[int, Array]]:
        if not self._held:
            return
        records = np.concatenate([part for part, _ in self._held])
        buckets = np.concatenate([part for _, part in self._held])
        order = np.argsort(buckets, kind="stable")
        records, buckets = records[order], buckets[order]
        edges = np.flatnonzero(np.diff(buckets)) + 1
        for group in np.split(np.arange(len(records)), edges):
            yield int(buckets[group[0]]), records[group]


class SortedRuns:
    """Byte strings, added in any order and read back in rising order (an external merge sort)."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._held: list[bytes] = []
        self._bytes = 0
        self._runs: list[Path] = []

    def add(self, keys: Sequence[bytes]) -> None:
        """Add keys; it helps if they are sorted already."""
        self._held += keys
        self._bytes += sum(map(len, keys)) + _OBJECT_BYTES * len(keys)
        if self._bytes >= RUN_BYTES:
            self._flush()

    def __iter__(self) -> Iterator[list[bytes]]:
        """Yield all keys in order, in lists of moderate size."""
        if not self._runs:
            self._held.sort()
            yield from _chunks(self._held)
            return
        self._flush()
        heads = [_Head(_read_chunks(path)) for path in self._runs]
        while heads := [head for head in heads if head.keys]:
            # No run holds anything unread below the least of the last keys that are in memory.
            limit = min(head.keys[-1] for head in heads)
            ready: list[bytes] = []
            for head in heads:
                ready += head.take(limit)
            ready.sort()  # joined sorted runs, which this sort merges rather than sorts
            yield from _chunks(ready)

    def _flush(self) -> None:
        if not self._held:
            return
        self._held.sort()
        path = self._folder / f"{self._name}.{len(self._runs)}"
        with path.open("wb") as file:
            for keys in _chunks(self._held):
                lengths = np.fromiter(map(len, keys), dtype="<u4", count=len(keys))
                file.write(len(keys).to_bytes(4, "little") + lengths.tobytes() + b"".join(keys))
        self._runs.append(path)
        self._held, self._bytes = [], 0


class _Head:
    """The part of a run that is in memory."""

    def __init__(self, chunks: Iterator[list[bytes]]) -> None:
        self._chunks = chunks
        self.keys: list[bytes] = next(chunks, [])

    def take(self, limit: bytes) -> list[bytes]:
        """Remove and return the keys up to `limit`; read on when none is left."""
        cut = bisect_right(self.keys, limit)
        taken, self.keys = self.keys[:cut], self.keys[cut:]
        if not self.keys:
            self.keys = next(self._chunks, [])
        return taken


def _chunks(keys: Sequence[bytes]) -> Iterator[list[bytes]]:
    """Cut a list into parts of about CHUNK_BYTES, none empty."""
    start, size = 0, 0
    for place, key in enumerate(keys):
        size += len(key) + _OBJECT_BYTES
        if size >= CHUNK_BYTES:
            yield list(keys[start : place + 1])
            start, size = place + 1, 0
    if start < len(keys):
        yield list(keys[start:])


def _read_chunks(path: Path) -> Iterator[list[bytes]]:
    place = 0
    while True:
        # Opened for each chunk: there may be more runs than files a process may hold open.
        with path.open("rb") as file:
            file.seek(place)
            if not (head := file.read(4)):
                return
            count = int.from_bytes(head, "little")
            lengths = np.frombuffer(file.read(4 * count), dtype="<u4").astype(np.int64)
            text = file.read(int(lengths.sum()))
            place = file.tell()
        ends = np.cumsum(lengths).tolist()
        yield [text[start:end] for start, end in pairwise([0, *ends])]


class LineStore:
    """Lines of files, fetched by place: `source` (which file), `offset` and `length` in bytes."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._files = [os.open(path, os.O_RDONLY) for path in paths]

    def __enter__(self) -> LineStore:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            os.close(file)
        self._files = []

    def read(self, source: int, offset: int, length: int) -> bytes:
        """Read bytes of one file; fewer where it ends."""
        return read_at(self._files[source], offset, length)

    def fetch(self, places: Array) -> Iterator[bytes]:
        """Yield the line at each place, in the order given.

        Args:
            places: a structured array with the fields `source`, `offset` and `length`.
        """
        for start, end in byte_ranges(places["length"], FETCH_BYTES):
            yield from self._batch(places[start:end])

    def _batch(self, places: Array) -> list[bytes]:
        order = np.lexsort((places["offset"], places["source"]))
        source = places["source"][order].astype(np.int64)
        begin = places["offset"][order].astype(np.int64)
        end = begin + places["length"][order]
        apart = (source[1:] != source[:-1]) | (begin[1:] > end[:-1] + GAP_BYTES)
        firsts = np.concatenate(([0], np.flatnonzero(apart) + 1, [len(order)])).tolist()
        order, begin, end = order.tolist(), begin.tolist(), end.tolist()
        lines = [b""] * len(order)
        for first, after in pairwise(firsts):
            origin = begin[first]
            data = self.read(int(source[first]), origin, max(end[first:after]) - origin)
            for place in range(first, after):
                lines[order[place]] = data[begin[place] - origin : end[place] - origin]
        return lines


def byte_ranges(lengths: Array, limit: int) -> Iterator[tuple[int, int]]:
    """Cut things of these lengths into [start, end) ranges of at most `limit` bytes, or of one."""
    sizes = np.cumsum(lengths.astype(np.int64))
    start = 0
    while start < len(sizes):
        before = int(sizes[start - 1]) if start else 0
        end = max(int(np.searchsorted(sizes, before + limit, side="right")), start + 1)
        yield start, end
        start = end


def read_at(handle: int, offset: int, length: int) -> bytes:
    """Read `length` bytes of an open file, or up to its end."""
    data = os.pread(handle, length, offset)
    while len(data) < length and (more := os.pread(handle, length - len(data), offset + len(data))):
        data += more
    return data
