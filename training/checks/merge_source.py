"""What a merge reads and writes: its inputs, its output, and which rows are left out."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np
from msgspec import UNSET, Raw, UnsetType
from numpy.typing import NDArray

from training.errors import InputError
from training.manifest import InputFile, describe_file
from training.manifest.unpack import plain_lines, received

Array = NDArray[Any]

_WRITES_AHEAD = 4


class _Stated(msgspec.Struct, gc=False):
    source_set: str | UnsetType | None = UNSET


_stated = msgspec.json.Decoder(_Stated).decode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode


class Source:
    """One input.

    Attributes:
        number: its place among the inputs, from 0.
        shown: the path as it was given, for messages.
        plain: the plain file that holds its lines: itself, or an unpacked copy.
        size: the size of `plain` in bytes.
        first_row: the number of its first line over all inputs.
        events: how many events have been found in it.
        unsourced: how many of them state no `source_set`.
    """

    def __init__(self, number: int, shown: Path, whole: Path, plain: Path) -> None:
        self.number, self.shown, self.plain = number, shown, plain
        self.first_row = self.events = self.unsourced = 0
        self._stamp = self._look()
        self.size = self._stamp[0]
        # A plain file is hashed while it is read.
        self._digest = hashlib.sha256() if plain == whole else None
        self._whole = None if plain == whole else describe_file(whole)
        name = "stdin" if str(shown) == "-" else shown.name.partition(".")[0]
        self._name = msgspec.json.encode(name)

    def take(self, data: bytes) -> None:
        """Count the next bytes of `plain` in."""
        if self._digest:
            self._digest.update(data)

    def described(self) -> InputFile:
        """What the input is, for the sidecar; call it when all has been taken."""
        digest, size = (
            (self._whole.sha256, self._whole.bytes)
            if self._whole
            else (self._digest.hexdigest() if self._digest else "", self.size)
        )
        return InputFile(str(self.shown), digest, size, self.events)

    def line(self, entry: Array) -> int:
        """The number of the line of an entry, from 1."""
        return int(entry["row"]) - self.first_row + 1

    def named(self, line: bytes) -> bytes:
        """Add `source_set` at the end of an object that does not state it, the rest as it stood."""
        if b'"source_set"' in line or b"\\" in line:
            stated = _stated(line).source_set
            if isinstance(stated, str):
                return line
            if stated is None:  # adding a second key would not be JSON any more
                return msgspec.json.encode({**_fields(line), "source_set": Raw(self._name)})
        return line.removesuffix(b"}").rstrip() + b',"source_set":' + self._name + b"}"

    def check_unchanged(self) -> None:
        """Make sure that all passes have read the same file.

        Raises:
            InputError: it has changed since it was opened.
        """
        if self._look() != self._stamp:
            raise InputError.at(self.shown, "has changed while it was read")

    def _look(self) -> tuple[int, int, int, int]:
        try:
            found = self.plain.stat()
        except OSError as error:
            raise InputError.at(self.shown, f"cannot be read: {error.strerror}") from None
        return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


def open_sources(paths: Sequence[Path], scratch: Path) -> list[Source]:
    """Look at every input before any is read through; packed ones are laid out in `scratch`.

    Raises:
        InputError: one is missing, empty or damaged, or standard input is named twice.
    """
    if sum(str(path) == "-" for path in paths) > 1:
        raise InputError.at("-", "standard input can be read only once")
    wholes = [received(path, scratch, f"input{number}") for number, path in enumerate(paths)]
    sources = []
    for number, (path, whole) in enumerate(zip(paths, wholes, strict=True)):
        plain = plain_lines(whole, scratch, f"input{number}", path)
        sources.append(Source(number, path, whole, plain))
    return sources


class Writer:
    """The output: hashed while it is written.

    Attributes:
        has_audio: whether a line that was written names an audio file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._digest = file, hashlib.sha256()
        # Neither hashing nor writing needs the interpreter, and both take long.
        self._hashing, self._writing = (ThreadPoolExecutor(max_workers=1) for _ in range(2))
        self._under_way: deque[tuple[Future[Any], Future[Any]]] = deque()
        self.has_audio = False

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._hashing.shutdown()
        self._writing.shutdown()

    def finish(self) -> str:
        """Wait until all has been written; return the hash of it."""
        self._wait(0)
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Write whole lines, in the background.

        Raises:
            OSError: these or earlier ones could not be written.
        """
        self._wait(_WRITES_AHEAD)
        hashed = self._hashing.submit(self._digest.update, data)
        self._under_way.append((hashed, self._writing.submit(self._file.write, data)))
        self.has_audio = self.has_audio or b'"audio_path"' in data

    def _wait(self, most: int) -> None:
        """Wait until no more than so many writes are under way."""
        while len(self._under_way) > most:
            for future in self._under_way.popleft():
                future.result()


class Drops:
    """The rows that are left out: one bit a row.

    Attributes:
        count: how many there are.
    """

    def __init__(self, rows: int) -> None:
        self._bits = np.zeros(rows // 8 + 1, dtype=np.uint8)
        self.count = 0

    def add(self, row: int) -> None:
        """Leave a row out, which was not left out before."""
        self._bits[row >> 3] |= 1 << (row & 7)
        self.count += 1

    def of(self, rows: Array) -> Array:
        """Tell which of these rows are left out (`bool`)."""
        rows = rows.astype(np.int64)
        if not self.count:
            return np.zeros(len(rows), dtype=bool)
        bits: Array = self._bits[rows >> 3] >> (rows & 7).astype(np.uint8)
        return (bits & 1).astype(bool)

    def among(self, first: int, count: int) -> frozenset[int]:
        """Return those of `count` rows from `first` that are left out."""
        if not self.count:
            return frozenset()
        rows = np.arange(first, first + count)
        return frozenset(rows[self.of(rows)].tolist())
