"""Saying exactly what is wrong with a manifest: path, line, field, why, and what was found there.

This is the slow, careful reader. It runs only once the fast one has met a bad line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonlines
import msgspec

from training.errors import SHOWN_PROBLEMS, UNSET, InputError, Problem
from training.manifest.keys import strict_loads
from training.manifest.lines import BOM, numbered_lines

Step = str | int

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


def diagnose_lines(path: Path, record: type[Any]) -> InputError:
    """Read a JSONL file again, line by line, and return the error that names every bad line."""
    decode = msgspec.json.Decoder(record, strict=True).decode
    problems: list[Problem] = []
    total = 0
    for number, line in numbered_lines(path):
        found = _problem_of(path, line, record, number)
        if found is None:
            try:
                decode(line)
            except (ValueError, RecursionError):  # its limits differ from those of `json`
                found = _beyond_limits(path, number)
        if found is not None:
            total += 1
            if len(problems) < SHOWN_PROBLEMS:
                problems.append(found)
    return InputError(problems, total)


def diagnose_line(path: Path, line: bytes, record: type[Any], number: int) -> Problem:
    """Say what is wrong with a line that the fast reader has refused."""
    return _problem_of(path, line, record, number) or _beyond_limits(path, number)


def _problem_of(path: Path, line: bytes, record: type[Any], number: int) -> Problem | None:
    if line.startswith(BOM):
        why = "begins with a byte order mark, which may only stand at the start of a file"
        return Problem(str(path), why, number)
    try:
        with jsonlines.Reader([line], loads=strict_loads) as reader:
            value = reader.read(allow_none=True)
        json.dumps(value, ensure_ascii=False).encode()
    except jsonlines.InvalidLineError as error:
        return Problem(str(path), _json_fault(error), number)
    except UnicodeEncodeError:
        return Problem(str(path), "holds half of a surrogate pair", number)
    except RecursionError:
        return Problem(str(path), "is nested too deeply", number)
    return diagnose_value(path, value, record, number)


def _beyond_limits(path: Path, number: int) -> Problem:
    return Problem(str(path), "holds a number out of range or is nested too deeply", number)


def diagnose_value(
    path: Path, value: object, record: type[Any], line: int | None = None
) -> Problem | None:
    """Return what keeps a JSON value from being a `record`, or None when nothing does."""
    try:
        msgspec.convert(value, record, strict=True)
    except msgspec.ValidationError as error:
        return explain(path, str(error), value, line, record)
    return None


def explain(
    path: Path, message: str, value: object, line: int | None, record: Any = None
) -> Problem:
    """Put a msgspec validation message into our words, with the field and the value found there.

    `record` is the type that was asked for; with it, a key of a mapping can be named.
    """
    why, _, where = message.partition(" - at `$")
    steps = _steps(where.rstrip("`"))
    if record is not None:
        steps = _name_keys(value, steps, record)
    if named := re.match(r"^Object (missing required|contains unknown) field `(.+)`$", why):
        why = "is required" if named[1].startswith("missing") else "is not a known field"
        return Problem(str(path), why, line, _join([*steps, named[2]]))
    for pattern, wording in _WORDING:
        if match := pattern.match(why):
            return Problem(str(path), wording(match), line, _join(steps), _walk(value, steps))
    if named := re.match(r"^(\w+): (.+)$", why):  # raised by a __post_init__ of ours
        steps = [*steps, named[1]]
        return Problem(str(path), named[2], line, _join(steps), _walk(value, steps))
    return Problem(str(path), why, line, _join(steps))


def _json_fault(error: jsonlines.InvalidLineError) -> str:
    cause = error.__cause__
    if isinstance(cause, UnicodeDecodeError):
        return f"is not valid UTF-8 (byte {cause.start + 1} of the line)"
    if isinstance(cause, json.JSONDecodeError):
        return f"is not valid JSON: {cause.msg} (column {cause.colno})"
    return f"is not valid JSON: {cause or error}"


def _noun(kinds: str) -> str:
    named = [_NOUNS.get(kind, kind) for kind in kinds.split(" | ")]
    wanted = [noun for noun in named if noun != "null"] or named
    return " or ".join(wanted)


def _steps(where: str) -> list[Step]:
    """Split a path such as `.components[0].velocity`; `...` stands for some key of a mapping."""
    found = re.findall(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]", where)
    return [name or (int(index) if index.isdigit() else index) for name, index in found]


def _join(steps: Sequence[Step]) -> str | None:
    """Write steps as a path again; None for the record itself."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".") or None


def _name_keys(value: object, steps: list[Step], record: Any) -> list[Step]:
    """Find the key that msgspec's `[...]` stands for: the one that is still refused when alone."""
    named = list(steps)
    for place, step in enumerate(steps):
        if step == "...":
            mapping = _follow(value, named[:place])
            for key in mapping if isinstance(mapping, dict) else ():
                alone = _replaced(value, named[:place], {key: mapping[key]})
                try:
                    msgspec.convert(alone, record, strict=True)
                except msgspec.ValidationError:
                    named[place] = key
                    break
    return named


def _replaced(value: Any, steps: Sequence[Step], part: object) -> Any:
    """Copy a value with one part replaced."""
    if not steps:
        return part
    copied: Any = dict(value) if isinstance(value, dict) else list(value)
    copied[steps[0]] = _replaced(value[steps[0]], steps[1:], part)
    return copied


def _walk(value: Any, steps: Sequence[Step]) -> Any:
    """Return the plain value at a path; UNSET where there is none to show."""
    found = _follow(value, steps)
    return found if isinstance(found, str | int | float | bool | None) else UNSET


def _follow(value: Any, steps: Sequence[Step]) -> Any:
    for step in steps:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return UNSET
    return value
