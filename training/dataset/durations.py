"""Compare how long recordings are with how long they should be.

A list of expected durations comes from whoever made the recordings: a file that was cut off while
it was copied, or padded, or swapped for another, decodes without complaint.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.errors import SHOWN_PROBLEMS, InputError, Problem

KEYS: Final = ("audio_path", "session_id")
_SECONDS: Final = "duration_s"


@dataclass(frozen=True, kw_only=True, slots=True)
class DurationCheck:
    """What became of a list of expected durations.

    Attributes:
        compared: entries of the list that name something in the store.
        off: those that differ by more than the tolerance, largest difference first:
            ``{audio_path | session_id, expected_s, found_s, difference_s}``.
        absent: entries that name nothing in the store: ``{audio_path | session_id, expected_s}``.
        unlisted: recordings of the store that the list does not name, by path or session.
        tolerance_ms: the largest difference that is let pass.
    """

    compared: int
    off: tuple[dict[str, Any], ...]
    absent: tuple[dict[str, Any], ...]
    unlisted: tuple[str, ...]
    tolerance_ms: float

    @property
    def mismatches(self) -> int:
        """Entries that are off or absent."""
        return len(self.off) + len(self.absent)

    def facts(self) -> dict[str, Any]:
        """Return it for a report; of the unlisted the first twenty names."""
        return {
            "compared": self.compared,
            "off": list(self.off),
            "absent": list(self.absent),
            "unlisted_recordings": len(self.unlisted),
            "unlisted_first": list(self.unlisted[:SHOWN_PROBLEMS]),
            "tolerance_ms": self.tolerance_ms,
        }


def read_expected_durations(path: Path) -> dict[tuple[str, str], float]:
    """Read a CSV of durations: ``{(audio_path | session_id, name): seconds}``.

    The header names `duration_s` and `audio_path` or `session_id` or both; other columns are left
    alone. A row names one of the two.

    Raises:
        InputError: the file cannot be read, or has no such header, no row, a row that names
            nothing, or both, or something twice, or a duration that is not a number above 0.
    """
    expected: dict[tuple[str, str], float] = {}
    problems: list[Problem] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = list(reader.fieldnames or ())
            if _SECONDS not in columns or not set(KEYS) & set(columns):
                why = f"must have the columns {_SECONDS} and {' or '.join(KEYS)}"
                raise InputError.at(path, why, line=1, got=", ".join(columns))
            for row in reader:
                where = (str(path), reader.line_num)
                read = _entry(row, *where)
                if isinstance(read, Problem):
                    problems.append(read)
                elif read[0] in expected:
                    problems.append(Problem(where[0], "stands twice", where[1], *read[0]))
                else:
                    expected[read[0]] = read[1]
    except OSError as error:
        raise InputError.at(path, f"cannot be read: {error.strerror}") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError.at(path, f"is not CSV ({error})") from None
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))
    if not expected:
        raise InputError.at(path, "lists no duration")
    return expected


def compare_durations(
    expected: Mapping[tuple[str, str], float],
    recordings: Iterable[tuple[str, Iterable[str], float]],
    *,
    tolerance_ms: float,
) -> DurationCheck:
    """Compare expected with found durations.

    Args:
        expected: as `read_expected_durations` returns them.
        recordings: path, sessions and seconds of each; a session lasts as long as its recordings
            together.
        tolerance_ms: the largest difference that is let pass.
    """
    found: dict[tuple[str, str], float] = {}
    unlisted = []
    for audio_path, sessions, seconds in recordings:
        keys = [("audio_path", audio_path), *(("session_id", each) for each in sessions)]
        for key in keys:
            found[key] = found.get(key, 0.0) + seconds
        if not any(key in expected for key in keys):
            unlisted.append(audio_path)
    off, absent = [], []
    for (kind, name), seconds in expected.items():
        entry: dict[str, Any] = {kind: name, "expected_s": round(seconds, 6)}
        if (kind, name) not in found:
            absent.append(entry)
            continue
        difference = found[kind, name] - seconds
        # half a microsecond: neither side is known better, and 0.1 - 0.2 is not -0.1
        if abs(difference) * 1000 > tolerance_ms + 5e-4:
            entry |= {"found_s": round(found[kind, name], 6), "difference_s": round(difference, 6)}
            off.append(entry)
    off.sort(key=lambda each: -abs(each["difference_s"]))
    return DurationCheck(
        compared=len(expected) - len(absent),
        off=tuple(off),
        absent=tuple(absent),
        unlisted=tuple(unlisted),
        tolerance_ms=tolerance_ms,
    )


def _entry(
    row: Mapping[str | None, Any], path: str, line: int
) -> tuple[tuple[str, str], float] | Problem:
    if None in row:
        return Problem(path, "has more cells than the header", line)
    named = [(key, row[key]) for key in KEYS if row.get(key)]
    if len(named) != 1:
        why = "must name an audio_path or a session_id" + (", not both" if named else "")
        return Problem(path, why, line)
    text = row[_SECONDS]
    try:
        seconds = float(text)
    except (TypeError, ValueError):
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        return Problem(path, "must be a number above 0", line, _SECONDS, text)
    return named[0], seconds
