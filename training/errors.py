"""What a user is told when the input is wrong: which file, which line, which field, and why."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final


class _Unset(Enum):
    """Stands for "there is no value to show"; an enumeration survives the way to a worker."""

    UNSET = "unset"


UNSET: Final = _Unset.UNSET
SHOWN_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an input.

    `line` counts from 1; `field` is a path such as `components[0].velocity`; `got` is the offending
    value as it was read, left out when there is none.
    """

    path: str
    why: str
    line: int | None = None
    field: str | None = None
    got: object = UNSET

    def __str__(self) -> str:
        place = self.path if self.line is None else f"{self.path}:{self.line}"
        parts = [place] + ([printable(self.field)] if self.field else []) + [self.why]
        got = "" if self.got is UNSET else f" (got {shorten(self.got)})"
        return ": ".join(parts) + got


def printable(text: str) -> str:
    """Return `text` with control characters escaped, so that data cannot drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shorten(value: object, limit: int = 60) -> str:
    """Return `value` as JSON where it can be, cut to `limit` characters, safe for a terminal."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        text = str(value)
    text = printable(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def clip(text: str, limit: int = 60) -> str:
    """Return `text`, cut to `limit` characters: names out of data can be as long as a file."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


class DrumgateError(Exception):
    """An error that the user can mend: shown without a traceback, exit code 2."""


class InputError(DrumgateError):
    """One or more inputs are wrong; nothing has been written.

    `problems` holds those that were kept, `total` how many there were.
    """

    def __init__(self, problems: Iterable[Problem], total: int | None = None) -> None:
        self.problems = tuple(problems)
        self.total = len(self.problems) if total is None else total
        shown = [str(problem) for problem in self.problems[:SHOWN_PROBLEMS]]
        hidden = self.total - len(shown)
        if hidden > 0:
            shown.append(f"… and {hidden} more")
        super().__init__("\n".join(shown))

    @classmethod
    def at(
        cls,
        path: object,
        why: str,
        *,
        line: int | None = None,
        field: str | None = None,
        got: object = UNSET,
    ) -> InputError:
        """Make the error for a single problem."""
        return cls([Problem(str(path), why, line, field, got)])


class BlockedError(Exception):
    """A gate forbids what was asked for: shown without a traceback, exit code 1."""
