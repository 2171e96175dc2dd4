"""A report for a terminal: the verdict first, then one line a gate."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from training.errors import printable

WORDS: Final = {
    "pass": "PASS",
    "warn": "WARN",
    "fail": "FAIL",
    "not_measured": "NOT MEASURED",
    "error": "ERROR",
}
_RANK: Final = {
    name: rank for rank, name in enumerate(("pass", "warn", "not_measured", "fail", "error"))
}
_INDENT: Final = 14
STYLES: Final = {
    "pass": "green",
    "warn": "yellow",
    "fail": "bold red",
    "not_measured": "bold magenta",
    "error": "bold red",
}


def figure(value: float | None, unit: str = "") -> str:
    """Return a number as a person reads it: four significant digits, counts in full."""
    if value is None:
        return "–"
    whole = isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15)
    text = f"{int(value):,}" if whole else f"{value:.4g}"
    return f"{text} {_of_one(unit) if value == 1 else unit}".rstrip()


def _of_one(unit: str) -> str:
    """Return the unit of a single thing: `hit` of `hits`; `ms` and `PSI` stay."""
    counted, slash, rest = unit.partition("/")
    if not re.fullmatch("[a-z]{2,}[^s]s|[a-z]+sses", counted):
        return unit
    return counted.removesuffix("es" if counted.endswith("sses") else "s") + slash + rest


def between(ci: Mapping[str, float], *figures: float | None) -> tuple[str, str]:
    """Return the ends of an interval, no finer than the figures beside them.

    A lower end of 7.7e-07 beside a figure of 1.5 is 0.
    """
    ends = ci["lower"], ci["upper"]
    largest = max(abs(each) for each in (*ends, *figures) if each is not None)
    if not largest or not math.isfinite(largest):
        return figure(ends[0]), figure(ends[1])
    digits = 4 - math.floor(math.log10(largest))
    return figure(round(ends[0], digits) + 0.0), figure(round(ends[1], digits) + 0.0)


def observed(row: Mapping[str, Any]) -> str:
    """Return what a gate saw, with its interval where there is one."""
    text = figure(row["observed"], row["unit"])
    if row["ci"]:
        text += " [{}, {}]".format(*between(row["ci"], row["observed"]))
    return text


def wanted(row: Mapping[str, Any]) -> str:
    """Return what a gate asks for, and the production threshold where another one is in force."""
    if row["threshold"] is None:
        return "–"
    bound = "" if row["decide_on"] == "point" else f" ({row['decide_on']} bound)"
    text = f"{row['comparator']} {figure(row['threshold'], row['unit'])}{bound}"
    production = row["production_threshold"]
    if production is not None and production != row["threshold"]:
        text += f" · production {row['comparator']} {figure(production, row['unit'])}"
    return text


def waived(row: Mapping[str, Any]) -> bool:
    """Whether a gate that did not pass blocks nothing, since somebody waived it."""
    return bool(row.get("waiver")) and bool(row["passed"])


def waiver_text(row: Mapping[str, Any]) -> str:
    """Return who waived a gate, until when and why, on one line."""
    waiver = row["waiver"]
    said = f"waived by {waiver['who']} until {waiver['expires']}: {waiver['reason']}"
    return printable(said)


def word(row: Mapping[str, Any]) -> str:
    """Return the word for how a gate came out."""
    return "WAIVED" if waived(row) else WORDS[row["status"]]


def condensed(rows: Sequence[Mapping[str, Any]], keep: int = 3) -> list[Mapping[str, Any]]:
    """Fold the passing rows of a gate that judged many subjects into one, the closest call.

    `alignment.max_delay_ms` passes for every mic of every session: one row with the worst figure
    says as much. Rows that did not pass, and groups of up to `keep`, stay as they are.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        folds = row["status"] == "pass" and "[" in row["name"] and row["observed"] is not None
        groups.setdefault(row["name"].partition("[")[0] if folds else "", []).append(row)
    shown: list[Mapping[str, Any]] = []
    folded = set()
    for row in rows:
        base = row["name"].partition("[")[0]
        group = groups.get(base, [])
        if row not in group or len(group) <= keep:
            shown.append(row)
        elif base not in folded:
            folded.add(base)
            pick = min if row["comparator"] == ">=" else max
            worst = pick(group, key=lambda member: float(member["observed"]))
            shown.append({**worst, "name": f"{base} (worst of {len(group)})"})
    return shown


def tally(report: Mapping[str, Any]) -> str:
    """Return how many gates block, as a sentence."""
    rows = report["gating_results"]
    if not rows:
        return "no gate was asked for"
    blocking = sum(not row["passed"] for row in rows)
    gates = "1 gate" if len(rows) == 1 else f"{len(rows)} gates"
    excused = sum(map(waived, rows))
    besides = f", {excused} {'is' if excused == 1 else 'are'} waived" if excused else ""
    if not blocking:
        return f"{gates} {'lets' if len(rows) == 1 else 'let'} this pass{besides}"
    return f"{blocking} of {gates} {'blocks' if blocking == 1 else 'block'}{besides}"


def headline(report: Mapping[str, Any]) -> str:
    """Return the verdict in one line."""
    if not report["gating_results"]:
        return tally(report)
    return f"{WORDS[report['status']]}: {tally(report)}"


def render_text(report: Mapping[str, Any]) -> str:
    """Return a report as plain text."""
    lines = [f"{report['tool']}: {headline(report)}"]
    rows = condensed(report["gating_results"])
    name_width = max((len(row["name"]) for row in rows), default=0)
    seen_width = max((len(observed(row)) for row in rows), default=0)
    for row, notes in _noted(rows):
        line = (
            f"  {word(row):<12}  {printable(row['name']):<{name_width}}"
            f"  {observed(row):>{seen_width}}  {wanted(row)}"
        )
        lines.append(line.rstrip())
        lines += [f"  {'':<12}  {note}" for note in notes]
    lines += [f"warning: {printable(text)}" for text in report["warnings"]]
    return "\n".join(lines) + "\n"


def print_rich(report: Mapping[str, Any]) -> None:
    """Print a report to a colour terminal: what blocks comes last, just above the next prompt.

    Where the terminal is too narrow for a line a gate, its figures stand below its name.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console(highlight=False)
    style = STYLES[report["status"]] if report["gating_results"] else "bold"
    head = Text(f"{report['tool']}: ", style="bold") + Text(headline(report), style=style)
    console.print(head)
    shown = sorted(condensed(report["gating_results"]), key=lambda row: _RANK[row["status"]])
    names = max((len(printable(row["name"])) for row in shown), default=0)
    seen = max((len(observed(row)) for row in shown), default=0)
    asks = max((len(wanted(row)) for row in shown), default=0)
    fits = _INDENT + names + seen + asks + 4 <= console.width
    lines = len(report["warnings"])
    for row, notes in _noted(shown):
        tone = "yellow" if waived(row) else STYLES[row["status"]]
        line = Text(f"{word(row):<{_INDENT}}", style=tone) + Text(printable(row["name"]))
        if fits:
            line.append(" " * (names - len(printable(row["name"])) + 2))
            line.append(f"{observed(row):>{seen}}  {wanted(row)}")
        else:
            notes = [f"{observed(row)}, asked for {wanted(row)}", *notes]
        console.print(line, overflow="fold")
        for number, note in enumerate(notes):
            plain = not fits and number == 0
            console.print(
                Padding(Text(note, style="" if plain else "dim"), (0, 0, 0, _INDENT)),
            )
        lines += 1 + len(notes)
    for text in report["warnings"]:
        console.print(Text(f"warning: {printable(text)}", style="yellow"))
    if lines > console.height - 4:
        console.print(head)


def _noted(
    rows: Sequence[Mapping[str, Any]],
) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """Yield each row with its notes; what is to be done is said the first time only."""
    said: set[str] = set()
    for row in rows:
        fix = "" if row["fix"] in said else row["fix"]
        if row["status"] != "pass":
            said.add(row["fix"])
        yield row, _notes({**row, "fix": fix})


def _notes(row: Mapping[str, Any]) -> list[str]:
    """Why a gate came out as it did and what to do, for those that did not pass."""
    if row["status"] == "pass":
        return []
    place = row.get("place")
    first = f"the first one: {place['path']}:{place['line']}" if place else ""
    notes = [printable(text) for text in (row["detail"], first, row["fix"]) if text]
    return [*notes, waiver_text(row)] if waived(row) else notes
