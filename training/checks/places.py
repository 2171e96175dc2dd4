"""Where in a file the first thing stands that a gate complains of, for whoever opens the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from training.gates import Place, Verdict
from training.manifest.lines import limited_lines, packing_of

Holds = Callable[[Mapping[str, Any]], bool]


def first_line(paths: Iterable[Path], texts: Collection[str], holds: Holds) -> Place | None:
    """Return the first line of JSON Lines files that holds a record of some kind.

    Args:
        paths: files that were read before, packed or not; standard input, of which nothing is left,
            and Parquet, which has no lines, are passed over.
        texts: one of them stands in such a record as a string; lines without are not decoded.
        holds: whether a record is one.
    """
    marks = {
        json.dumps(text, ensure_ascii=plain).encode() for text in texts for plain in (True, False)
    }
    if not marks:
        return None
    for path in paths:
        if not path.is_file() or packing_of(path) == "parquet":
            continue
        for number, line in limited_lines(path):
            if line and any(mark in line for mark in marks) and _holds(line, holds):
                return Place(path=str(path), line=number)
    return None


def labelled(names: Collection[str]) -> Holds:
    """Return whether an event has a component under one of these labels."""
    return lambda event: any(each.get("label") in names for each in event.get("components", ()))


def played(names: Collection[str]) -> Holds:
    """Return whether an event has one of these techniques."""
    return lambda event: not set(names).isdisjoint(event.get("techniques") or ())


def identified(sample_id: str) -> Holds:
    """Return whether a record has this id."""
    return lambda record: record.get("sample_id") == sample_id


def placed(
    verdicts: Sequence[Verdict], where: Mapping[str, Callable[[], Place | None]]
) -> list[Verdict]:
    """Give the verdicts that did not pass their places; `where` has what finds one for a gate."""
    return [
        replace(verdict, place=where[verdict.name]())
        if verdict.name in where and verdict.status.blocks
        else verdict
        for verdict in verdicts
    ]


def _holds(line: bytes, holds: Holds) -> bool:
    """Ask of a line; an invalid one, which may have been skipped, holds nothing."""
    try:
        return holds(msgspec.json.decode(line))
    except (msgspec.DecodeError, AttributeError, TypeError):
        return False
