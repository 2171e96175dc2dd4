"""Lines that name a key twice, found without parsing every line into Python objects.

Neither msgspec nor DuckDB refuses `{"split": "train", "split": "test"}` wherever it may stand: the
last value wins, silently. Parsing each line with a hook that sees every pair finds it, and costs
more than all the rest of the reading together. But the lines of a manifest are alike: with the
digits taken out only a few thousand *shapes* are left, and one line of a shape speaks for all.

Why that is sound: a repeated key in some line is repeated in its shape. The line that was parsed
for the shape has the same keys but for digits; if they differ from each other there, and none of
them holds a digit, they differ in every line of the shape. Where the argument needs more than that
(a key with a digit, an escape, an exponent, very long numbers), the line is parsed for itself.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Never

from training.errors import shorten

_DIGITS = b"0123456789"
_DIGIT = re.compile(r"\d")
_EXPONENT = re.compile(rb"\d[eE][-+]?\d")

MAX_SHAPES = 20_000
"""Shapes remembered; a manifest with more of them is parsed line by line beyond these."""

MAX_DIGITS = 300
"""A line with fewer digits cannot hold a number out of range, unless it has an exponent."""


def strict_loads(text: str | bytes) -> Any:
    """Parse JSON as RFC 8259 has it: no NaN or Infinity, no key twice, no number out of range.

    Raises:
        ValueError: the text is not such JSON.
        RecursionError: it is nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_once, parse_constant=_refuse, parse_float=_finite)


class KeyCheck:
    """Refuses what `strict_loads` refuses, given lines that a msgspec decoder has accepted."""

    def __init__(self) -> None:
        self._shapes: set[bytes] = set()

    def __call__(self, line: bytes) -> None:
        """Check one line.

        Raises:
            ValueError: an object of the line names a key twice, or a field that the decoder passed
                over holds text that is not UTF-8 or a number out of range.
            RecursionError: it is nested too deeply.
        """
        shape = line.translate(None, _DIGITS)
        if shape in self._shapes and len(line) - len(shape) < MAX_DIGITS:
            return
        digit_in_key = False

        def pairs_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            nonlocal digit_in_key
            digit_in_key = digit_in_key or any(_DIGIT.search(key) for key, _ in pairs)
            return _once(pairs)

        json.loads(line, object_pairs_hook=pairs_once, parse_constant=_refuse, parse_float=_finite)
        speaks_for_others = not (digit_in_key or b"\\" in line or _EXPONENT.search(line))
        if speaks_for_others and len(self._shapes) < MAX_SHAPES:
            self._shapes.add(shape)


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
