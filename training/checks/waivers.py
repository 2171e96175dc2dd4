"""Waivers: leave for single gates not to pass, each with a reason, a name and a last day.

    [[waiver]]
    gate = "alignment.max_delay_ms[session_001/room]"
    reason = "The room mics stand 4 m away, and nobody has measured how far exactly."
    who = "J. Doe"
    expires = 2026-12-31

A waiver excuses a gate that failed or could not be measured. It blocks by itself once it is no
longer needed, or no longer holds: a list of waivers that only grows is no list of exceptions.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, Literal

from training.errors import UNSET, InputError, Problem
from training.gates import Place, Status, Verdict, Waiver, nearest
from training.manifest import InputFile, describe_file

Fate = Literal["used", "expired", "unneeded", "unknown", "refused", "not_judged"]

_KEYS: Final = ("gate", "reason", "who", "expires")
_WHY: Final[dict[str, str]] = {
    "expired": "the waiver held until {expires} (by {who}: {reason})",
    "unneeded": "no gate that it names stands in the way any more (by {who}: {reason})",
    "unknown": "this run has no such gate{hint}",
    "refused": "the gate could not be judged because of an error, and no waiver excuses an error",
}
_REASON: Final = "A waiver that excuses nothing now would hide what fails next."
_FIX: Final[dict[str, str]] = {
    "expired": "Mend what the gate found, or agree on a new day and write it into {path}.",
    "unneeded": "Delete the waiver from {path}.",
    "unknown": "Correct the name of the gate in {path}, or delete the waiver.",
    "refused": "Mend the error; -v shows where it comes from.",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Waivers:
    """The waivers of a file, in its order, and the line where each begins (0: not known)."""

    source: InputFile
    waivers: tuple[Waiver, ...]
    lines: tuple[int, ...] = ()

    def excuse(self, verdicts: Sequence[Verdict], today: date) -> list[Verdict]:
        """Return the verdicts, those that a valid waiver names with that waiver."""
        valid = [each for each in self.waivers if not _expired(each, today)]
        return [_excused(verdict, valid) for verdict in verdicts]

    def fates(
        self,
        verdicts: Sequence[Verdict],
        today: date,
        *,
        judged: Callable[[str], bool | None],
    ) -> list[dict[str, Any]]:
        """Return what became of each waiver, as plain values: itself, `fate`, and `waives`.

        Args:
            verdicts: of the whole run, excused.
            today: the day that decides which waivers hold.
            judged: whether the check that a gate belongs to could be judged in this run; None for
                a gate of no check that there is.
        """
        return [self._fate(each, verdicts, today, judged) for each in self.waivers]

    def _fate(
        self,
        waiver: Waiver,
        verdicts: Sequence[Verdict],
        today: date,
        judged: Callable[[str], bool | None],
    ) -> dict[str, Any]:
        named = [verdict for verdict in verdicts if names(waiver, verdict.name)]
        waives = [verdict.name for verdict in named if verdict.waiver == waiver]
        fate: Fate
        if _expired(waiver, today):
            fate = "expired"
        elif waives:
            fate = "used"
        elif any(verdict.status is Status.ERROR for verdict in named):
            fate = "refused"
        elif any(verdict.status is Status.NOT_MEASURED for verdict in named):
            fate = "not_judged"  # the input is allowed to be missing: nobody knows
        elif named:
            fate = "unneeded"
        else:
            fate = "not_judged" if judged(waiver.gate) is False else "unknown"
        return {**asdict(waiver), "fate": fate, "waives": waives}

    def rows(self, fates: Sequence[Mapping[str, Any]], gates: Collection[str]) -> list[Verdict]:
        """Return a verdict that blocks for each waiver that is not, or no longer, in order.

        `gates` are the names of this run, of which the nearest is suggested.
        """
        rows = []
        for each, line in zip(fates, self.lines or [0] * len(fates), strict=True):
            if each["fate"] not in _WHY:
                continue
            said = {**each, "hint": nearest(each["gate"], gates), "path": self.source.path}
            rows.append(
                Verdict(
                    name=f"waivers.{each['fate']}[{each['gate']}]",
                    status=Status.FAIL,
                    observed=0,
                    comparator=">=",
                    threshold=1,
                    unit="gates",
                    reason=_REASON,
                    detail=_WHY[each["fate"]].format(**said),
                    fix=_FIX[each["fate"]].format(**said),
                    place=Place(path=self.source.path, line=line) if line else None,
                )
            )
        return rows


def read_waivers(path: Path) -> Waivers:
    """Read a file of waivers.

    Raises:
        InputError: it is not TOML, a waiver lacks something or holds something unknown, or a gate
            is waived twice; every fault is named.
    """
    source = describe_file(path)
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError.at(path, f"is not valid TOML: {error}") from None
    problems = [
        Problem(str(path), f"is not a known key{nearest(key, ['waiver'])}", None, key)
        for key in data
        if key != "waiver"
    ]
    entries = data.get("waiver", [])
    if not isinstance(entries, list) or not all(isinstance(each, dict) for each in entries):
        problems.append(Problem(str(path), "must be tables: write [[waiver]]", None, "waiver"))
        entries = []
    for number, entry in enumerate(entries):
        problems += _faults(path, f"waiver[{number}]", entry)
        earlier = [each.get("gate") for each in entries[:number]]
        if entry.get("gate") in earlier:
            why = f"is waived already, by waiver[{earlier.index(entry['gate'])}]"
            problems.append(Problem(str(path), why, None, f"waiver[{number}].gate", entry["gate"]))
    if problems:
        raise InputError(problems)
    made = tuple(Waiver(**{key: str(entry[key]).strip() for key in _KEYS}) for entry in entries)
    return Waivers(source=source, waivers=made, lines=_lines(path, len(made)))


def _lines(path: Path, count: int) -> tuple[int, ...]:
    """Return the line where each waiver begins; 0 where they are written in another form."""
    text = path.read_text(encoding="utf-8")
    found = [
        number
        for number, line in enumerate(text.splitlines(), start=1)
        if re.match(r"\s*\[\[\s*waiver\s*\]\]", line)
    ]
    return tuple(found) if len(found) == count else (0,) * count


def names(waiver: Waiver, gate: str) -> bool:
    """Tell whether a waiver is about a gate.

    It is when it gives its name; or when it ends in `*]` and the gate's name begins like it, with
    at least one character of the subject given: `x[*]` would waive what nobody has seen yet.
    """
    if waiver.gate == gate:
        return True
    stem = waiver.gate.removesuffix("*]")
    bounded = stem != waiver.gate and "[" in stem[:-1]
    return bounded and gate.startswith(stem) and gate.endswith("]")


def _faults(path: Path, where: str, entry: Mapping[str, Any]) -> list[Problem]:
    problems = []
    for key in entry:
        if key not in _KEYS:
            why = f"is not a known key{nearest(key, _KEYS)}"
            problems.append(Problem(str(path), why, None, f"{where}.{key}"))
    for key in _KEYS:
        value = entry.get(key, UNSET)
        if value is UNSET:
            problems.append(Problem(str(path), "is required", None, f"{where}.{key}"))
        elif key == "expires":
            if not isinstance(value, date) or isinstance(value, datetime):
                why = "must be a day such as 2026-12-31, without quotes"
                problems.append(Problem(str(path), why, None, f"{where}.{key}", str(value)))
        elif not isinstance(value, str) or not value.strip():
            why = "must be a text that is not empty"
            problems.append(Problem(str(path), why, None, f"{where}.{key}", str(value)))
    return problems


def _expired(waiver: Waiver, today: date) -> bool:
    return date.fromisoformat(waiver.expires) < today


def _excused(verdict: Verdict, valid: Sequence[Waiver]) -> Verdict:
    if verdict.passed or verdict.status is Status.ERROR:
        return verdict
    exact = [each for each in valid if each.gate == verdict.name]
    found = exact or [each for each in valid if names(each, verdict.name)]
    return replace(verdict, waiver=found[0]) if found else verdict
