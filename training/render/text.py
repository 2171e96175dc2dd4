"""A report for a terminal: the verdict first, then one line a gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from training.errors import printable

WORDS: Final = {
    "pass": "PASS",
    "warn": "WARN",
    "fail": "FAIL",
    "not_measured": "NOT MEASURED",
    "error": "ERROR",
}
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
    return f"{text} {unit}".rstrip()


def observed(row: Mapping[str, Any]) -> str:
    """Return what a gate saw, with its interval where there is one."""
    text = figure(row["observed"], row["unit"])
    if row["ci"]:
        text += f" [{figure(row['ci']['lower'])}, {figure(row['ci']['upper'])}]"
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
    for row in rows:
        line = (
            f"  {word(row):<12}  {printable(row['name']):<{name_width}}"
            f"  {observed(row):>{seen_width}}  {wanted(row)}"
        )
        lines.append(line.rstrip())
        lines += [f"  {'':<12}  {note}" for note in _notes(row)]
    lines += [f"warning: {printable(text)}" for text in report["warnings"]]
    return "\n".join(lines) + "\n"


def print_rich(report: Mapping[str, Any]) -> None:
    """Print a report to a colour terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    style = STYLES[report["status"]] if report["gating_results"] else "bold"
    console.print(Text(f"{report['tool']}: ", style="bold") + Text(headline(report), style=style))
    if report["gating_results"]:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name, justify in (
            ("", "left"),
            ("gate", "left"),
            ("observed", "right"),
            ("asks", "left"),
        ):
            table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
        for row in condensed(report["gating_results"]):
            table.add_row(
                Text(word(row), style="yellow" if waived(row) else STYLES[row["status"]]),
                Text(printable(row["name"])),
                Text(observed(row)),
                Text(wanted(row)),
            )
            for note in _notes(row):
                table.add_row("", Text(note, style="dim"), "", "")
        console.print(table)
    for text in report["warnings"]:
        console.print(Text(f"warning: {printable(text)}", style="yellow"))


def _notes(row: Mapping[str, Any]) -> list[str]:
    """Why a gate came out as it did and what to do, for those that did not pass."""
    if row["status"] == "pass":
        return []
    notes = [printable(text) for text in (row["detail"], row["fix"]) if text]
    return [*notes, waiver_text(row)] if waived(row) else notes
