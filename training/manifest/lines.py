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
_BOM = b"\xef\xbb\xbf"
_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile, OSError)

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
        return file.read(len(_BOM)) == _BOM


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of a JSONL file; blank lines are passed over.

    Raises:
        InputError: see `packing_of`; also when a compressed file is damaged or cut short, or a line
            is longer than `MAX_LINE_BYTES`.
    """
    number = 0
    with _open_unpacked(path) as file:
        try:
            while line := file.readline(MAX_LINE_BYTES + 2):
                number += 1
                text = (line.removeprefix(_BOM) if number == 1 else line).strip()
                if len(text) > MAX_LINE_BYTES:
                    raise InputError.at(path, TOO_LONG, line=number)
                if text:
                    yield number, text
        except _DAMAGE as error:
            raise InputError.at(path, _damaged(error), line=number + 1) from None


def unpack(path: Path, target: Path, *, shown_as: str) -> None:
    """Write the plain lines of a packed file, without a byte order mark, to `target`.

    Raises:
        InputError: see `packing_of`; also when the compressed data is damaged or cut short.
    """
    lines = 0
    with _open_unpacked(path) as file, target.open("wb") as plain:
        try:
            block = file.read(2**20).removeprefix(_BOM)
            while block:
                lines += block.count(b"\n")
                plain.write(block)
                block = file.read(2**20)
        except _DAMAGE as error:
            raise InputError.at(shown_as, _damaged(error), line=lines + 1) from None


def _damaged(error: Exception) -> str:
    return f"the compressed data is damaged or cut short ({error})"


def _open_unpacked(path: Path) -> BinaryIO:
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
