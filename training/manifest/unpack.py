"""Laying a packed manifest out as plain lines in a scratch folder, to be read by place."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest.diagnose import diagnose_value
from training.manifest.fields import Event
from training.manifest.lines import packing_of, unpack
from training.manifest.read import parquet_rows
from training.manifest.write import to_json

COPY_BYTES = 1 << 20


def received(path: Path, folder: Path, name: str) -> Path:
    """Return a file that can be read more than once: a copy of what is no regular file.

    `-` is standard input; a pipe is read to its end.

    Raises:
        InputError: it cannot be read.
    """
    if str(path) != "-" and not _is_stream(path):
        return path
    copy = folder / f"{name}.received"
    try:
        with copy.open("wb") as file:
            if str(path) == "-":
                shutil.copyfileobj(sys.stdin.buffer, file, COPY_BYTES)
            else:
                with path.open("rb") as stream:
                    shutil.copyfileobj(stream, file, COPY_BYTES)
    except OSError as error:
        raise InputError.at(path, f"cannot be read: {error.strerror}") from None
    return copy


def plain_lines(path: Path, folder: Path, name: str, shown_as: Path) -> Path:
    """Return a plain file with the lines of a manifest: itself, or one in `folder`.

    Line n of it is line n of what was packed, or row n of a Parquet file, whose nulls are fields
    that the row does not have.

    Raises:
        InputError: the file is missing, empty, damaged or cut short, or a row is no event.
    """
    packing = packing_of(path, shown_as=str(shown_as))
    if packing == "plain":
        return path
    plain = folder / f"{name}.jsonl"
    if packing != "parquet":
        unpack(path, plain, shown_as=str(shown_as))
        return plain
    with plain.open("wb") as file:
        for line in _parquet_lines(path, shown_as):
            file.write(line)
    return plain


def _is_stream(path: Path) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False  # what is wrong is said where it is opened
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode) or stat.S_ISSOCK(mode)


def _parquet_lines(path: Path, shown_as: Path) -> Iterator[bytes]:
    problems: list[Problem] = []
    bad = 0
    for number, value in enumerate(parquet_rows(path, shown_as=shown_as), start=1):
        found = diagnose_value(shown_as, value, Event, number)
        if found is None:
            try:
                line = to_json(value, indent=None)
            except (ValueError, TypeError) as error:
                found = Problem(str(shown_as), f"cannot be written as JSON: {error}", number)
        if found is not None:
            bad += 1
            problems += [found] if len(problems) < SHOWN_PROBLEMS else []
        elif not bad:
            yield line.encode() + b"\n"
    if bad:
        raise InputError(problems, bad)
