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


def packing_of(path: Path) -> Packing:
    """Tell how a file is packed from its first bytes.

    Raises:
        InputError: the file is missing, is a folder, cannot be read or is empty.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
    except FileNotFoundError:
        raise InputError.at(path, "no such file") from None
    except IsADirectoryError:
        raise InputError.at(path, "is a folder, not a file") from None
    except OSError as error:
        raise InputError.at(path, f"cannot be read: {error.strerror}") from None
    if not head:
        raise InputError.at(path, "is empty")
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "plain")


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of a JSONL file; blank lines are passed over.

    Raises:
        InputError: see `packing_of`; also when a compressed file is damaged or cut short.
    """
    number = 0
    with _open_unpacked(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                text = (line.removeprefix(_BOM) if number == 1 else line).strip()
                if text:
                    yield number, text
        except (EOFError, zlib.error, gzip.BadGzipFile, OSError) as error:
            why = f"the compressed data is damaged or cut short ({error})"
            raise InputError.at(path, why, line=number + 1) from None


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
