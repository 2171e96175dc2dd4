"""Writing files whole or not at all: a temporary name beside the target, fsync, rename."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from training.errors import InputError


@contextmanager
def atomic_write(path: Path | str, *, binary: bool = False) -> Iterator[IO[Any]]:
    """Open a file that takes its name only once it has been written whole.

    Missing parent folders are made. When the block raises, the old file (if any) stays as it was
    and nothing is left beside it. A link stays, and what it leads to is written. What is no file,
    such as /dev/null or a pipe, is written to directly: a file in its place would be the end of it.

    Raises:
        InputError: the file cannot be written there.
    """
    named, path = Path(path), Path(os.path.realpath(path))
    mode, encoding = ("wb", None) if binary else ("w", "utf-8")
    temporary = None
    try:
        if path.is_dir():
            raise InputError.at(named, "is a folder, not a file to write")
        if named.exists() and not named.is_file():
            file = named.open(mode, encoding=encoding)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(
                prefix=f".{path.name}.", suffix=".tmp", dir=path.parent
            )
            file = open(handle, mode, encoding=encoding)  # noqa: SIM115 (closed below)
    except OSError as error:
        raise InputError.at(named, f"cannot be written: {error.strerror}") from None
    try:
        with file:
            yield file
            file.flush()
            if temporary is not None:
                os.fsync(file.fileno())
        if temporary is not None:
            # mkstemp makes files private; a report is meant to be read like any other new file.
            Path(temporary).chmod(0o666 & ~current_umask())
            Path(temporary).replace(path)
    except BaseException:
        if temporary is not None:
            with suppress(FileNotFoundError):
                Path(temporary).unlink()
        raise


def write_text(path: Path | str, text: str) -> None:
    """Write a text file whole or not at all."""
    with atomic_write(path) as file:
        file.write(text)


def to_json(value: Any, *, indent: int | None = 2) -> str:
    """Return strict JSON text; dataclasses and msgspec structs are written as objects.

    Raises:
        ValueError: a number is NaN or infinite (JSON has no word for either).
    """
    text = msgspec.json.encode(value)
    if b"null" in text:  # which is also how msgspec writes NaN and infinities
        _check_finite(msgspec.to_builtins(value), "$")
    return (msgspec.json.format(text, indent=indent) if indent else text).decode()


def write_json(path: Path | str, value: Any) -> None:
    """Write an object as indented JSON, whole or not at all."""
    write_text(path, to_json(value) + "\n")


def write_jsonl(path: Path | str, rows: Iterable[Any]) -> int:
    """Write one JSON object a line, whole or not at all; return how many."""
    count = 0
    with atomic_write(path) as file:
        for row in rows:
            file.write(to_json(row, indent=None) + "\n")
            count += 1
    return count


def _check_finite(value: Any, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}; a report holds finite numbers or null")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{where}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_finite(item, f"{where}[{index}]")


def current_umask() -> int:
    """Return the permissions that new files of this process lack."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
