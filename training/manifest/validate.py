"""Strict validation of whole files: every line, on every core, with what is wrong and where.

This is what stands behind the promise that a manifest has been read *as if each line had been
strictly validated*. Files are cut into blocks at line ends; each block is checked by itself, by
`check_block`, in this process or in workers.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.errors import SHOWN_PROBLEMS, Problem
from training.manifest.diagnose import diagnose_line
from training.manifest.fields import CLOSED, RECORDS
from training.manifest.keys import KeyCheck
from training.manifest.lines import MAX_LINE_BYTES, TOO_LONG

BLOCK_BYTES = 8 * 2**20
"""How much of a file is checked at a time."""

PARALLEL_BYTES = 64 * 2**20
"""Smaller files are checked in this process: starting workers takes longer."""

LINES_AT_ONCE = 128
"""How many lines are decoded in one go: so many that what is made of them stays near the core."""

_NEWLINE, _OPEN, _CLOSE = b"\n{}"

Track: TypeAlias = Callable[[Iterable[Any], int], Iterable[Any]]
"""Shows progress over an iterable of a known length while passing its items on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """What checking some lines found.

    Attributes:
        lines: how many lines there are, blank ones included.
        records: how many of them are valid records.
        bad_lines: numbers of the lines that are not, from 1 at the start of what was checked.
        problems: what is wrong with the first of them, up to `SHOWN_PROBLEMS`.
    """

    lines: int
    records: int
    bad_lines: tuple[int, ...] = ()
    problems: tuple[Problem, ...] = ()


class LineCheck:
    """Tells whether a line is a valid record of a kind, and names no key twice.

    No decoder in C refuses a repeated key. It is found by counting: a line with more colons than
    the record that was read from it, encoded again, has lost something on the way. (With no escape
    in the line, every colon is one that follows a key or one inside a string that was kept.)

    Attributes:
        kind: a key of `RECORDS`.
        every_key: also find keys that stand twice among the fields that the record knows. Those
            among the fields that it does not know are always found.
    """

    def __init__(self, kind: str, every_key: bool = True) -> None:
        self.kind = kind
        self.every_key = every_key
        self._open = msgspec.json.Decoder(RECORDS[kind], strict=True).decode
        self._closed = msgspec.json.Decoder(CLOSED[kind], strict=True).decode
        self._closed_lines: Callable[[bytes], list[Any]] = msgspec.json.Decoder(
            CLOSED[kind], strict=True
        ).decode_lines
        encoder = msgspec.json.Encoder()
        self._encode, self._encode_lines = encoder.encode, encoder.encode_lines
        self._keys = KeyCheck()

    def decode(self, line: bytes) -> Any:
        """Return the record that a line holds; fields that it does not state may be UNSET or None.

        Raises:
            ValueError: the line is not such a record (a msgspec error, or one of `KeyCheck`).
            RecursionError: it is nested too deeply.
        """
        try:
            record = self._closed(line)
        except msgspec.ValidationError:
            # Bad, or merely with fields that the record does not know: those are read with care.
            record = self._open(line)
            self._keys(line)
            return record
        if self.every_key and (
            b"\\" in line or line.count(b":") != self._encode(record).count(b":")
        ):
            self._keys(line)
        return record

    def decode_tidy(self, data: bytes) -> Iterator[list[Any]]:
        """Yield the records of a block, `LINES_AT_ONCE` at a time: faster than line by line.

        The block must hold nothing but objects, each on a line of its own. Lines that begin with
        `{` and end with `}` hold whole objects, since in JSON no `{` follows a `}`; if they are as
        many as the objects, each holds one.

        Raises:
            ValueError: something is wrong, or merely unusual: go line by line to know which.
            RecursionError: something is nested too deeply.
        """
        starts, ends = tidy_lines(data)
        if self.every_key and b"\\" in data:
            raise ValueError("a line has an escape")
        for first in range(0, len(ends), LINES_AT_ONCE):
            last = min(first + LINES_AT_ONCE, len(ends)) - 1
            text = data[int(starts[first]) : int(ends[last]) + 1]
            records = self._closed_lines(text)
            if len(records) != last + 1 - first:
                raise ValueError("a line does not hold one object")
            if self.every_key and text.count(b":") != self._encode_lines(records).count(b":"):
                raise ValueError("a key may stand twice")
            yield records


def tidy_lines(data: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the lines of a block start and end: the places of `{` and of the line end.

    Raises:
        ValueError: a line does not begin with `{`, does not end with `}` or is too long, or the
            last one lacks its line end.
    """
    text = np.frombuffer(data, dtype=np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (
        not len(ends)
        or ends[-1] != len(data) - 1
        or (text[starts] != _OPEN).any()
        or (text[ends - 1] != _CLOSE).any()
        or int((ends - starts).max()) > MAX_LINE_BYTES
    ):
        raise ValueError("a line is no object")
    return starts, ends


def check_block(data: bytes, check: LineCheck, path: Path | str) -> Checked:
    """Check a block of whole lines; the last one may lack its line end.

    `path` is the name under which problems are reported. An empty block has no lines.
    """
    with suppress(ValueError, RecursionError):
        count = sum(map(len, check.decode_tidy(data)))
        return Checked(lines=count, records=count)
    texts = data.split(b"\n")
    if not texts[-1]:
        texts.pop()
    decode = check.decode
    blank = 0
    bad: list[int] = []
    problems: list[Problem] = []
    for number, text in enumerate(texts, start=1):
        try:
            decode(text)
        except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError among them
            if not text.strip():
                blank += 1
                continue
            bad.append(number)
            if len(problems) < SHOWN_PROBLEMS:
                problems.append(diagnose_line(Path(path), text, RECORDS[check.kind], number))
    return Checked(
        lines=len(texts),
        records=len(texts) - blank - len(bad),
        bad_lines=tuple(bad),
        problems=tuple(problems),
    )


def joined(parts: Iterable[Checked]) -> Checked:
    """Put the findings of consecutive blocks together, with line numbers that count on."""
    lines = records = 0
    bad: list[int] = []
    problems: list[Problem] = []
    for part in parts:
        bad += [lines + number for number in part.bad_lines]
        for found in islice(part.problems, max(0, SHOWN_PROBLEMS - len(problems))):
            problems.append(
                Problem(found.path, found.why, lines + (found.line or 0), found.field, found.got)
            )
        lines += part.lines
        records += part.records
    return Checked(lines=lines, records=records, bad_lines=tuple(bad), problems=tuple(problems))


def blocks(size: int) -> list[tuple[int, int]]:
    """Cut a file of `size` bytes into [start, end) ranges, not yet at line ends."""
    return [(start, min(start + BLOCK_BYTES, size)) for start in range(0, size, BLOCK_BYTES)]


def read_block(file: BinaryIO, start: int, end: int) -> bytes:
    """Read the lines that begin in [start, end): the last one whole, a line cut in front left out.

    A line of more than `MAX_LINE_BYTES` is cut off there, so that it cannot fill the memory.
    """
    if start:
        file.seek(start - 1)
        _skip_line(file, end)
        start = file.tell()
        if start >= end:
            return b""
    else:
        file.seek(0)
    data = file.read(end - start)
    if data and not data.endswith(b"\n"):
        data += file.readline(MAX_LINE_BYTES + 1)
    return data


def _skip_line(file: BinaryIO, end: int) -> None:
    """Move behind the next line end, or behind `end` where there is none before it."""
    while file.tell() < end:
        piece = file.readline(BLOCK_BYTES)
        if not piece or piece.endswith(b"\n"):
            return


def check_range(
    path: str, start: int, end: int, kind: str, every_key: bool, shown_as: str
) -> Checked:
    """Check the lines that begin in a range of a plain file: the work of one task of a worker."""
    with open(path, "rb") as file:
        data = read_block(file, start, end)
    return check_data(data, kind, every_key, shown_as)


def check_data(data: bytes, kind: str, every_key: bool, shown_as: str) -> Checked:
    """Check a block of whole lines as `check_block` does, and refuse lines that are too long."""
    check = _line_check(kind, every_key)
    found = check_block(data, check, shown_as)
    if len(data) <= MAX_LINE_BYTES:
        return found
    # Only a block with a very long line can be this large.
    return joined(
        Checked(
            lines=1,
            records=0,
            bad_lines=(1,),
            problems=(Problem(shown_as, TOO_LONG, 1),),
        )
        if len(line) > MAX_LINE_BYTES
        else check_block(line, check, shown_as)
        for line in io.BytesIO(data)
    )


_CHECKS: dict[tuple[str, bool], LineCheck] = {}


def _line_check(kind: str, every_key: bool) -> LineCheck:
    """One check a process, so that the shapes it has learnt serve the next block as well."""
    if (kind, every_key) not in _CHECKS:
        _CHECKS[kind, every_key] = LineCheck(kind, every_key)
    return _CHECKS[kind, every_key]


def check_file(
    path: Path,
    kind: str = "event",
    *,
    every_key: bool = True,
    shown_as: Path | str | None = None,
    track: Track | None = None,
) -> Checked:
    """Check every line of a plain JSONL file, on all cores where the file is large.

    Args:
        path: the file; it must not be packed and must not begin with a byte order mark.
        kind: a key of `RECORDS`.
        every_key: see `LineCheck`.
        shown_as: the name under which problems are reported; the path itself by default.
        track: shows the progress over the blocks.
    """
    size = path.stat().st_size
    name = str(shown_as or path)
    tasks = [(str(path), start, end, kind, every_key, name) for start, end in blocks(size)]
    with worker_map(parallel=size >= PARALLEL_BYTES) as run:
        found = run(check_range, tasks)
        return joined(track(found, len(tasks)) if track else found)


@contextmanager
def worker_map(
    *, parallel: bool
) -> Iterator[Callable[[Callable[..., Any], Sequence[tuple[Any, ...]]], Iterator[Any]]]:
    """Give a function that runs tasks, in order of their results, on all cores or just here.

    At most a few tasks a worker are under way at once, so that results never pile up.
    """
    if not parallel:
        yield lambda function, tasks: (function(*task) for task in tasks)
        return
    workers = os.cpu_count() or 1
    # "spawn": a fork of a process whose engine runs threads may hang.
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_end_with_parent
    )

    def run(function: Callable[..., Any], tasks: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
        waiting: list[Future[Any]] = []
        for task in tasks:
            waiting.append(pool.submit(function, *task))
            if len(waiting) >= 4 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()

    try:
        yield run
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _end_with_parent() -> None:
    """Let a worker end with its parent: by itself it would wait for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent sees it, and ends the pool
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
