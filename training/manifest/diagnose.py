"""Saying exactly what is wrong with a manifest: path, line, field, why, and what was found there.

This is the slow, careful reader. It runs only once the fast one has met a bad line.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Never

import jsonlines
import msgspec

from training.errors import SHOWN_PROBLEMS, UNSET, InputError, Problem, shorten
from training.manifest.lines import numbered_lines

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


def strict_loads(text: str | bytes) -> Any:
    """Parse JSON as RFC 8259 has it: no NaN or Infinity, no key twice, no number out of range.

    Raises:
        ValueError: the text is not such JSON.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)


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


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(f"the number {shorten(number, 20)} is out of range")
    return value


def _refuse(constant: str) -> Never:
    raise ValueError(f"{constant} is not a JSON number")


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
