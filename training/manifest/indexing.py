"""One pass over manifests of any size: each line is checked strictly, its place and keys noted.

Files are read in blocks cut at line ends. A block is indexed by itself, here or in a worker
process, and the findings come back in the order of the blocks, so that the result does not depend
on timing.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from training.errors import DrumgateError
from training.manifest.external import read_at
from training.manifest.hashing import hash_ids
from training.manifest.lines import BOM, MAX_LINE_BYTES
from training.manifest.validate import LineCheck, tidy_lines

Array = NDArray[Any]
Sort = Literal["none", "session", "sample_id"]

BLOCK_BYTES = 1 << 20
"""How much of a file is in hand at a time, for each task that is under way."""

WORKERS = 2
"""More of them would take more memory than a merge may use."""

ENTRY = np.dtype(
    [
        ("hash", "<u8"),  # of the sample_id
        ("row", "<u8"),  # which line it is, counted over all inputs, blank lines included
        ("offset", "<u8"),
        ("length", "<u4"),
        ("source", "<u4"),
    ]
)
"""What is noted of an event: 32 bytes."""

TAIL = np.dtype([("row", ">u8"), ("offset", ">u8"), ("length", ">u4"), ("source", ">u4")])
"""What ends a sort key: rows are different, so that keys are, and equals keep their order."""

_AHEAD = 4  # blocks under way for each worker


@dataclass(frozen=True, slots=True)
class Block:
    """Some whole lines of a file; the last one of the file may lack its line end.

    Attributes:
        path: the plain file they stand in.
        source: the number of the input.
        offset: where they begin, in bytes.
        length: how many bytes they are.
        first_row: the number of the first line over all inputs.
        lines: how many lines they are, blank ones included.
        data: the bytes; None where a worker is to read them.
    """

    path: str
    source: int
    offset: int
    length: int
    first_row: int
    lines: int
    data: bytes | None


@dataclass(frozen=True, slots=True)
class Indexed:
    """What was found in a block.

    Attributes:
        entries: one `ENTRY` an event, in order.
        keys: the sort keys in rising order; empty where no order was asked for.
        bad: places of the invalid lines in the block, from 0.
        verbatim: whether the block is its events and their line ends, and nothing else.
        unsourced: how many events state no `source_set`.
    """

    entries: Array
    keys: list[bytes]
    bad: list[int]
    verbatim: bool
    unsourced: int


class Indexer:
    """Indexes blocks; keeps what it has learnt about lines from one block to the next."""

    def __init__(self, sort: Sort) -> None:
        self._sort = sort
        self._check = LineCheck("event")

    def __call__(self, block: Block) -> Indexed:
        """Check each line of a block and note where it stands."""
        data = block.data
        if data is None:
            with open(block.path, "rb", buffering=0) as file:
                data = read_at(file.fileno(), block.offset, block.length)
        return self._tight(block, data) or self._loose(block, data)

    def _tight(self, block: Block, data: bytes) -> Indexed | None:
        """Index a block of nothing but objects and line ends; None where there is anything else."""
        ids: list[str] = []
        order: list[tuple[str, float]] = []
        sourced = 0
        try:
            starts, ends = tidy_lines(data)
            for records in self._check.decode_tidy(data):
                ids += [event.sample_id for event in records]
                sourced += [type(event.source_set) for event in records].count(str)
                if self._sort == "session":
                    order += [(event.session_id, event.onset_time) for event in records]
        except (ValueError, RecursionError):
            return None
        entries = np.empty(len(ends), dtype=ENTRY)
        entries["row"] = block.first_row + np.arange(len(ends))
        entries["offset"] = block.offset + starts
        entries["length"] = ends - starts
        return self._found(block, entries, ids, order, len(ids) - sourced, verbatim=True)

    def _loose(self, block: Block, data: bytes) -> Indexed:
        """Index any block, line by line."""
        lines = lines_of(data, first=block.offset == 0)
        numbers: list[int] = []
        bad: list[int] = []
        ids: list[str] = []
        order: list[tuple[str, float]] = []
        unsourced = 0
        for number, line in enumerate(lines):
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise ValueError
                event = self._check.decode(line)
            except (ValueError, RecursionError):
                if line.strip():
                    bad.append(number)
                continue
            numbers.append(number)
            ids.append(event.sample_id)
            order.append((event.session_id, event.onset_time))
            unsourced += not isinstance(event.source_set, str)
        entries, used = _entries(block, lines, numbers)
        verbatim = len(numbers) == len(lines) and used + len(numbers) == len(data)
        found = self._found(block, entries, ids, order, unsourced, verbatim=verbatim)
        return replace(found, bad=bad)

    def _found(
        self,
        block: Block,
        entries: Array,
        ids: list[str],
        order: list[tuple[str, float]],
        unsourced: int,
        *,
        verbatim: bool,
    ) -> Indexed:
        entries["source"] = block.source
        entries["hash"] = hash_ids(ids)
        keys = _sort_keys(self._sort, ids, order, entries) if self._sort != "none" else []
        return Indexed(entries, keys, [], verbatim, unsourced)


def lines_of(data: bytes, *, first: bool) -> list[bytes]:
    """Cut a block into lines without their line ends.

    `first` says that the block begins its file: a byte order mark there becomes spaces, so that
    offsets stay as they are.
    """
    if first and data.startswith(BOM):
        data = b"   " + data[len(BOM) :]
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _entries(block: Block, lines: list[bytes], numbers: list[int]) -> tuple[Array, int]:
    """The places of the events, without white space around them, and how long they are in all."""
    lengths = np.fromiter(map(len, lines), dtype=np.int64, count=len(lines))
    starts = np.cumsum(lengths + 1) - (lengths + 1)
    tight = [line.strip() for line in lines]
    trimmed = np.fromiter(map(len, tight), dtype=np.int64, count=len(lines))
    for number in np.flatnonzero(trimmed != lengths).tolist():
        starts[number] += len(lines[number]) - len(lines[number].lstrip())
    chosen = np.asarray(numbers, dtype=np.int64)
    entries = np.empty(len(numbers), dtype=ENTRY)
    entries["row"] = block.first_row + chosen
    entries["offset"] = block.offset + starts[chosen]
    entries["length"] = trimmed[chosen]
    return entries, int(trimmed[chosen].sum())


def _sort_keys(
    sort: Sort, ids: list[str], order: list[tuple[str, float]], entries: Array
) -> list[bytes]:
    """Byte strings whose order is that of the events; each ends with its `TAIL`."""
    tails = np.empty(len(entries), dtype=TAIL)
    for name in ("row", "offset", "length", "source"):
        tails[name] = entries[name]
    raw, width = tails.tobytes(), TAIL.itemsize
    ends = (raw[start : start + width] for start in range(0, len(raw), width))
    if sort == "sample_id":
        return sorted(ordered_text(name) + end for name, end in zip(ids, ends, strict=True))
    pack = struct.Struct(">d").pack  # of numbers from 0 on, the bits are in the order of the values
    return sorted(
        ordered_text(session) + pack(onset + 0.0) + ordered_text(name) + end
        for (session, onset), name, end in zip(order, ids, ends, strict=True)
    )


def ordered_text(text: str) -> bytes:
    """Bytes in the order of the texts, whatever follows them as long as it begins below 0xFF."""
    raw = text.encode()
    return (raw.replace(b"\0", b"\0\xff") if b"\0" in raw else raw) + b"\0"


def read_blocks(file: BinaryIO, path: Path, source: int, first_row: int) -> Iterator[Block]:
    """Read an open plain file in blocks cut at line ends.

    A line of any length is taken whole up to `MAX_LINE_BYTES`; of a longer one the rest is passed
    over, so that it cannot fill the memory and is found to be too long.
    """
    offset, row, handle = 0, first_row, file.fileno()
    while data := read_at(handle, offset, BLOCK_BYTES):
        after = 0
        if cut := data.rfind(b"\n") + 1:
            data = data[:cut]
        elif len(data) == BLOCK_BYTES:
            data = read_at(handle, offset, MAX_LINE_BYTES + 2)
            if cut := data.find(b"\n") + 1:
                data = data[:cut]
            else:
                after = _to_line_end(handle, offset + len(data))
        lines = data.count(b"\n") or 1
        yield Block(str(path), source, offset, len(data), row, lines, data)
        offset, row = offset + len(data) + after, row + lines


def _to_line_end(handle: int, offset: int) -> int:
    """How many bytes there are up to and with the next line end, or to the end of the file."""
    passed = 0
    while piece := read_at(handle, offset + passed, BLOCK_BYTES):
        if end := piece.find(b"\n") + 1:
            return passed + end
        passed += len(piece)
    return passed


def worker_count(size: int) -> int:
    """How many processes are worth starting for so many bytes; 0 means that none is."""
    cores = os.cpu_count() or 1
    return 0 if cores < 2 or size < 16 * BLOCK_BYTES else min(WORKERS, cores)


class IndexPool:
    """Indexes blocks in worker processes, or in this one where `workers` is 0.

    The workers end with this process, however it ends: each waits on a pipe of its own, of which
    nobody else holds the other end.
    """

    def __init__(self, sort: Sort, workers: int) -> None:
        self._indexer = Indexer(sort)
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        # "spawn": a fork of a process with threads may hang.
        context = multiprocessing.get_context("spawn")
        for _ in range(workers):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, sort), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> IndexPool:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            if kind is not None:
                process.terminate()
            process.join()

    def map(self, blocks: Iterable[Block]) -> Iterator[tuple[Block, Indexed]]:
        """Yield each block with what was found in it, in order.

        Raises:
            DrumgateError: a worker ended before its time.
        """
        if not self._pipes:
            yield from ((block, self._indexer(block)) for block in blocks)
            return
        waiting: deque[tuple[Connection, Block]] = deque()
        try:
            for number, block in enumerate(blocks):
                if len(waiting) >= _AHEAD * len(self._pipes):
                    yield _result(*waiting.popleft())
                pipe = self._pipes[number % len(self._pipes)]
                pipe.send(replace(block, data=None))
                waiting.append((pipe, block))
            while waiting:
                yield _result(*waiting.popleft())
        except (EOFError, BrokenPipeError, ConnectionResetError):
            raise DrumgateError(
                "a worker process ended before its time, perhaps for lack of memory"
            ) from None


def _result(pipe: Connection, block: Block) -> tuple[Block, Indexed]:
    found = pipe.recv()
    if isinstance(found, BaseException):
        raise found
    return block, found


def _serve(pipe: Connection, sort: Sort) -> None:
    """The life of a worker: index what comes until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees it, and closes the pipe
    indexer = Indexer(sort)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            block = pipe.recv()
            try:
                found: Any = indexer(block)
            except Exception as error:
                found = error
            pipe.send(found)
