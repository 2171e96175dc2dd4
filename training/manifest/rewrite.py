"""Rewriting manifests: the lines as they stand, read as often as needed, changed where needed.

Tools that rewrite a manifest read it twice: once to find out what is to change, once to write it.
Nothing but the changes stays in memory in between, and a line to which nothing happens is written
byte for byte as it stood, its line end included.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest.diagnose import diagnose_line
from training.manifest.fields import Event
from training.manifest.lines import BOM, MAX_LINE_BYTES, TOO_LONG, open_unpacked, packing_of
from training.manifest.read import InputFile, describe_file, parquet_rows
from training.manifest.scratch import scratch_folder
from training.manifest.unpack import received
from training.manifest.validate import LineCheck
from training.manifest.write import to_json

__all__ = ["RawManifest", "Track", "open_raw", "quiet", "with_fields"]

Track: TypeAlias = Callable[[Iterable[Any], str, int | None], Iterable[Any]]
"""Wraps a loop to show how far it is: the items, what is being done, how many items if known."""

BLOCK_BYTES = 2**20


def quiet(items: Iterable[Any], what: str, total: int | None) -> Iterable[Any]:
    """Show nothing."""
    return items


@contextmanager
def open_raw(path: Path, *, track: Track = quiet) -> Iterator[RawManifest]:
    """Give a manifest that can be read several times, also what comes from a pipe or as `-`.

    Raises:
        InputError: see `RawManifest`.
    """
    if str(path) != "-" and path.is_file():
        yield RawManifest(path, track=track)
        return
    with scratch_folder() as scratch:
        readable = received(path, scratch, "manifest")
        yield RawManifest(readable, shown_as=path, track=track)


class RawManifest:
    """A manifest that is read line by line, several times, and must stay the same meanwhile.

    It may be packed. Rows of a Parquet file are given as lines of JSON. `shown_as` is its name in
    messages.

    Raises:
        InputError: the file is missing, a folder, unreadable or empty; from the iterators also when
            it is damaged, or has changed since the first look.
    """

    def __init__(self, path: Path, *, shown_as: Path | None = None, track: Track = quiet) -> None:
        self.path = path
        self.name = shown_as or path
        self.packing = packing_of(path, shown_as=str(self.name))
        self._track = track
        self._stamp = self._look()

    @property
    def size(self) -> int:
        """The size of the file as it lies on the disk, in bytes."""
        return self._stamp[0]

    def describe(self, records: int) -> InputFile:
        """Return the hash and the size of the file, for a report."""
        return replace(describe_file(self.path, records), path=str(self.name))

    def lines(self, what: str) -> Iterator[bytes]:
        """Yield every line with its line end, blank lines too; `what` names the pass to the user.

        Raises:
            InputError: see the class; also when a line is too long.
        """
        self._check_unchanged()
        blocks = self._rows() if self.packing == "parquet" else self._blocks()
        total = -(-self.size // BLOCK_BYTES) if self.packing == "plain" else None
        for block in self._track(blocks, what, total):
            yield from block
        self._check_unchanged()

    def records(self, what: str) -> Iterator[tuple[bytes, bool]]:
        """Yield every line with its line end, and whether it holds a record (is not blank)."""
        for number, raw in enumerate(self.lines(what)):
            body = raw if number else raw.removeprefix(BOM)
            yield raw, bool(body) and not body.isspace()

    def events(self, what: str) -> Iterator[tuple[int, bytes, Event]]:
        """Yield (line number from 1, line with its line end, event), each strictly validated.

        Raises:
            InputError: see the class; at the first bad line, naming every bad line of the file; or
                when there is no event at all.
        """
        decode = _strict_decoder()
        lines = self.lines(what)
        count = 0
        for number, raw in enumerate(lines, start=1):
            body = raw if number > 1 else raw.removeprefix(BOM)
            try:
                event = decode(body)
            except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError too
                if not body.strip():
                    continue
                raise self._every_problem(number, body, lines, decode) from None
            count += 1
            yield number, raw, event
        if not count:
            raise InputError.at(self.name, "holds no record")

    def _every_problem(
        self, number: int, body: bytes, rest: Iterator[bytes], decode: Callable[[bytes], Any]
    ) -> InputError:
        problems = [diagnose_line(self.name, body, Event, number)]
        total = 1
        for later, raw in enumerate(rest, start=number + 1):
            try:
                decode(raw)
            except (ValueError, RecursionError):
                if raw.strip():
                    total += 1
                    if len(problems) < SHOWN_PROBLEMS:
                        problems.append(diagnose_line(self.name, raw, Event, later))
        return InputError(problems, total)

    def _blocks(self) -> Iterator[list[bytes]]:
        number = 0
        with open_unpacked(self.path) as file:
            try:
                while data := file.read(BLOCK_BYTES):
                    if not data.endswith(b"\n"):
                        data += file.readline(MAX_LINE_BYTES + 1)
                    lines = list(io.BytesIO(data))
                    if len(data) > MAX_LINE_BYTES:
                        self._check_lengths(lines, number)
                    number += len(lines)
                    yield lines
            except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
                why = f"the compressed data is damaged or cut short ({error})"
                raise InputError.at(self.name, why, line=number + 1) from None

    def _check_lengths(self, lines: list[bytes], before: int) -> None:
        for number, line in enumerate(lines, start=before + 1):
            if len(line) > MAX_LINE_BYTES:
                raise InputError.at(self.name, TOO_LONG, line=number)

    def _rows(self) -> Iterator[list[bytes]]:
        for number, row in enumerate(parquet_rows(self.path), start=1):
            try:
                yield [to_json(row, indent=None).encode() + b"\n"]
            except (ValueError, TypeError) as error:
                raise InputError([Problem(str(self.name), str(error), number)]) from None

    def _look(self) -> tuple[int, int]:
        try:
            stat = self.path.stat()
        except OSError as error:
            raise InputError.at(self.name, f"cannot be read: {error.strerror}") from None
        return stat.st_size, stat.st_mtime_ns

    def _check_unchanged(self) -> None:
        if self._look() != self._stamp:
            raise InputError.at(self.name, "has changed while it was read")


def _strict_decoder() -> Callable[[bytes], Event]:
    """Make a decoder that also refuses what msgspec lets pass: a key that stands twice, say."""
    typed = msgspec.json.Decoder(Event, strict=True).decode
    check = LineCheck("event").decode

    def decode(line: bytes) -> Event:
        check(line)
        return typed(line)

    return decode


_fields_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def with_fields(raw: bytes, changes: Mapping[str, Any]) -> bytes:
    """Return a line with some fields of its object replaced, or added at its end.

    The values of all other fields, known or not, stay as they are written there, to the last digit.
    What stands around the object (its line end, say) stays, too.
    """
    start, end = raw.index(b"{"), raw.rindex(b"}") + 1
    changed = msgspec.json.encode({**_fields_of(raw[start:end]), **changes})
    return raw[:start] + changed + raw[end:]
