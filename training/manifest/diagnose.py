"""Saying exactly what is wrong with a manifest: path, line, field, why, and what was found there.

This is the slow, careful reader. It runs only once the fast one has met a bad line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Never

import jsonlines
import msgspec

from training.errors import SHOWN_PROBLEMS, UNSET, InputError, Problem
from training.manifest.lines import numbered_lines

_NOUNS = {
    "float": "a number",
    "int": "a whole number",
    "str": "a string",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
}
_WORDING: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"^Expected `(?:str|array)` of length >= 1$"), lambda m: "must not be empty"),
    (
        re.compile(r"^Expected `[^`]+` ([<>]=?) ([-\d.e+]+)$"),
        lambda m: f"must be {m[1]} {float(m[2]):g}",
    ),
    (re.compile(r"^Expected `([^`]+)`"), lambda m: f"must be {_noun(m[1])}"),
    (re.compile(r"^Invalid enum value"), lambda m: "is not one of the values allowed"),
)


def diagnose_lines(path: Path, record: type[Any], bad_lines: Iterable[int] = ()) -> InputError:
    """Read a JSONL file again, line by line, and return the error that names every bad line.

    `bad_lines` are the lines that the fast reader refused: they are reported even if this reader,
    whose limits differ (deep nesting, huge numbers), would let them pass.
    """
    refused = frozenset(bad_lines)
    problems: list[Problem] = []
    total = 0
    for number, value in _read_values(path):
        found = value if isinstance(value, Problem) else diagnose_value(path, value, record, number)
        if found is None and number in refused:
            found = Problem(
                str(path), "holds a number out of range or is nested too deeply", number
            )
        if found is not None:
            total += 1
            if len(problems) < SHOWN_PROBLEMS:
                problems.append(found)
    return InputError(problems, total)


def diagnose_value(
    path: Path, value: object, record: type[Any], line: int | None = None
) -> Problem | None:
    """Return what keeps a JSON value from being a `record`, or None when nothing does."""
    try:
        msgspec.convert(value, record, strict=True)
    except msgspec.ValidationError as error:
        return explain(path, str(error), value, line)
    return None


def explain(path: Path, message: str, value: object, line: int | None) -> Problem:
    """Put a msgspec validation message into our words, with the field and the value found there."""
    why, _, where = message.partition(" - at `$")
    field = where.rstrip("`").removeprefix(".")
    if missing := re.match(r"^Object missing required field `(.+)`$", why):
        field = f"{field}.{missing[1]}" if field else missing[1]
        return Problem(str(path), "is required", line, field)
    if unknown := re.match(r"^Object contains unknown field `(.+)`$", why):
        field = f"{field}.{unknown[1]}" if field else unknown[1]
        return Problem(str(path), "is not a known field", line, field)
    for pattern, wording in _WORDING:
        if match := pattern.match(why):
            got = _walk(value, field)
            return Problem(str(path), wording(match), line, field or None, got)
    if named := re.match(r"^(\w+): (.+)$", why):  # raised by a __post_init__ of ours
        field = f"{field}.{named[1]}" if field else named[1]
        return Problem(str(path), named[2], line, field, _walk(value, field))
    return Problem(str(path), why, line, field or None)


def strict_loads(text: str | bytes) -> Any:
    """Parse JSON as RFC 8259 has it: no NaN or Infinity, no key twice.

    Raises:
        ValueError: the text is not such JSON.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)


def _read_values(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0

    def lines() -> Iterator[bytes]:
        nonlocal number
        for number, line in numbered_lines(path):  # noqa: B007 (read by the loop below)
            yield line

    with jsonlines.Reader(lines(), loads=strict_loads) as reader:
        while True:
            try:
                value = reader.read()
            except EOFError:
                return
            except jsonlines.InvalidLineError as error:
                yield number, Problem(str(path), _json_fault(error), number)
            except RecursionError:
                yield number, Problem(str(path), "is nested too deeply", number)
            else:
                yield number, value


def _json_fault(error: jsonlines.InvalidLineError) -> str:
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return f"is not valid UTF-8 (byte {cause.start + 1} of the line)"
    if isinstance(cause, json.JSONDecodeError):
        return f"is not valid JSON: {cause.msg} (column {cause.colno})"
    return f"is not valid JSON: {cause or error}"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice")
    return record


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not a JSON number")


def _noun(kinds: str) -> str:
    named = [_NOUNS.get(kind, kind) for kind in kinds.split(" | ")]
    wanted = [noun for noun in named if noun != "null"] or named
    return " or ".join(wanted)


def _walk(value: Any, field: str) -> Any:
    """Follow a path such as `components[0].velocity`; UNSET where it leads nowhere."""
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]", field):
        try:
            value = value[name] if name else value[int(index)]
        except (KeyError, IndexError, TypeError, ValueError):
            return UNSET
    return value if isinstance(value, str | int | float | bool | None) else UNSET
