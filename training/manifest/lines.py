"""Turning a manifest into lines, whatever it is packed in; the content decides, not the name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal, cast

from training.errors import InputError

Packing = Literal["plain", "gzip", "zstd", "parquet"]

_MAGIC: dict[bytes, Packing] = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PAR1": "parquet",
}
BOM = b"\xef\xbb\xbf"
DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, OSError)

MAX_LINE_BYTES = 16 * 2**20
"""Longer lines are refused: no record needs them, and one of them could fill the memory."""

TOO_LONG = f"is longer than {MAX_LINE_BYTES // 2**20} MiB"


def packing_of(path: Path, *, shown_as: str | None = None) -> Packing:
    """Tell how a file is packed from its first bytes; `shown_as` names it in messages.

    Raises:
        InputError: the file is missing, is a folder, cannot be read or is empty.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise InputError.at(shown_as or path, "no such file") from None
    except IsADirectoryError:
        raise InputError.at(shown_as or path, "is a folder, not a file") from None
    except OSError as error:
        raise InputError.at(shown_as or path, f"cannot be read: {error.strerror}") from None
    if not head:
        raise InputError.at(shown_as or path, "is empty")
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "plain")


def starts_with_bom(path: Path) -> bool:
    """Tell whether a file begins with the byte order mark of UTF-8."""
    with path.open("rb") as file:
        return file.read(len(BOM)) == BOM


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of a JSONL file; blank lines are passed over.

    Raises:
        InputError: see `packing_of`; also when a compressed file is damaged or cut short, or a line
            is longer than `MAX_LINE_BYTES`.
    """
    for number, line in limited_lines(path):
        if line is None:
            raise InputError.at(path, TOO_LONG, line=number)
        yield number, line


def limited_lines(path: Path) -> Iterator[tuple[int, bytes | None]]:
    """Yield the same, but None for a line that is too long, and go on behind it.

    Raises:
        InputError: as `numbered_lines`, but not for a long line.
    """
    number = 0
    with open_unpacked(path) as file:
        try:
            while line := file.readline(MAX_LINE_BYTES + 2):
                number += 1
                text = (line.removeprefix(BOM) if number == 1 else line).strip()
                if len(text) > MAX_LINE_BYTES:
                    while line and not line.endswith(b"\n"):
                        line = file.readline(2**20)
                    yield number, None
                elif text:
                    yield number, text
        except DAMAGE as error:
            raise InputError.at(path, damaged(error), line=number + 1) from None


def unpack(path: Path, target: Path, *, shown_as: str) -> None:
    """Write the plain lines of a packed file, without a byte order mark, to `target`.

    Raises:
        InputError: see `packing_of`; also when the compressed data is damaged or cut short.
    """
    lines = 0
    with open_unpacked(path) as file, target.open("wb") as plain:
        try:
            block = file.read(2**20).removeprefix(BOM)
            while block:
                lines += block.count(b"\n")
                plain.write(block)
                block = file.read(2**20)
        except DAMAGE as error:
            raise InputError.at(shown_as, damaged(error), line=lines + 1) from None


def damaged(error: Exception) -> str:
    """Say what one of `DAMAGE` means to somebody who wanted to read a file."""
    return f"the compressed data is damaged or cut short ({error})"


def open_unpacked(path: Path) -> BinaryIO:
    """Open a JSONL file, packed or not, to be read as plain bytes.

    Raises:
        InputError: see `packing_of`; what is read later may raise one of `DAMAGE`.
    """
    match packing_of(path):
        case "gzip":
            return cast(BinaryIO, gzip.open(path, "rb"))
        case "zstd":
            import pyarrow as pa

            return io.BufferedReader(pa.input_stream(path, compression="zstd"))
        case "parquet":
            raise ValueError("a Parquet file has rows, not lines")
        case "plain":
            return path.open("rb")
