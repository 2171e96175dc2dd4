"""Reports as Markdown that fits into a comment on a pull request.

What comes from data stays plain text there: it is shown as code, or with every character escaped
that GitHub would make something of, so that it links nowhere and names nobody.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from training import __version__
from training.errors import printable
from training.render.text import condensed, headline, observed, waived, wanted, word

COMMENT_LIMIT: Final = 65_536
"""GitHub's limit on a comment is this many characters; here it is kept in bytes."""
ICONS: Final = {"pass": "✅", "warn": "⚠️", "fail": "❌", "not_measured": "❌", "error": "❌"}

_LONGEST_NAME: Final = 160
_LONGEST_TEXT: Final = 320
_ROOM: Final = 160  # bytes kept free for a word on what is left out
_BREAK: Final = "\u200b"  # a space of no width: GitHub then sees no mention and no reference
_MARKS: Final = re.compile(rf"[\\`*_{{}}\[\]<>|~&$^!#@{_BREAK}]|:(?=/)")
_LIVE: Final = re.compile(r"@|#(?=\d)|\bGH-(?=\d)|\bwww(?=\.)|:(?=[\w+-]+:)", re.IGNORECASE)
_COMMIT: Final = re.compile(r"\b(?=\d*[a-f])[0-9a-f]{7,40}\b", re.IGNORECASE)
_UNSAFE_IN_CODE: Final = re.compile(r"[`|\\]|^\s|\s$|^$")


@dataclass(frozen=True, slots=True)
class _Section:
    """A table: what stands above and below it, its rows, and how soon it gives way."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    what: str
    folded: bool = False
    urgency: int = 0
    kept: list[str] = field(default_factory=list)

    def head(self) -> str:
        title = f"<details><summary>{self.title}</summary>" if self.folded else self.title
        title = f"\n{title}\n\n" if title else "\n"
        return f"{title}| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}\n"

    def foot(self) -> str:
        left = len(self.rows) - len(self.kept)
        said = f"\n{left:,} more {self.what} left out here; the JSON report has all.\n"
        return (said if left else "") + ("\n</details>\n" if self.folded else "")


def render_markdown(report: Mapping[str, Any], limit: int = COMMENT_LIMIT) -> str:
    """Return a report as GitHub Markdown of at most `limit` bytes: see `render_many`."""
    return render_many([report], limit)


def render_many(reports: Sequence[Mapping[str, Any]], limit: int = COMMENT_LIMIT) -> str:
    """Return reports, one below the other, as GitHub Markdown of at most `limit` bytes of UTF-8.

    The first line is a comment that nobody sees and by which the same comment can be found and
    changed later. Of each report the verdict comes first, then what blocks, what is waived, what
    warns, and, folded, the rest. Where room is short, whole rows are left out, of what passed
    before what blocks, and it says how many. Nothing in it changes from run to run by itself.

    Raises:
        ValueError: there is no report.
    """
    if not reports:
        raise ValueError("there is no report to show")
    shown = [(_heading(report), _sections(report)) for report in reports]
    first = f"<!-- drumgate:{_slug(str(reports[0]['tool']))} -->\n"
    last = f"\n<sub>drumgate {__version__}</sub>\n"
    room = limit - _size(first) - _size(last)
    fitting: list[tuple[str, list[_Section]]] = []
    for heading, sections in shown:
        needed = _size(heading) + sum(_least(section) for section in sections)
        if needed > room - _ROOM:
            heading += "\nThe tables are left out here; the JSON report has all.\n"
            sections, needed = [], _size(heading)
        if needed > room - _ROOM:
            break
        room -= needed
        fitting.append((heading, sections))
    _fill([section for _, sections in fitting for section in sections], room - _ROOM)
    parts = [first]
    for heading, sections in fitting:
        parts.append(heading)
        parts += [s.head() + "".join(s.kept) + s.foot() for s in sections]
    if left := len(shown) - len(fitting):
        parts.append(f"\n{left:,} more reports are left out here.\n")
    return "".join([*parts, last])


def code(text: str) -> str:
    """Return text as code, which GitHub shows to the letter; it fits into a cell of a table."""
    shown = _cut(printable(text), _LONGEST_NAME)
    if _UNSAFE_IN_CODE.search(shown):
        return f"<code>{_escaped(shown)}</code>"
    return f"`{shown}`"


def prose(text: str) -> str:
    """Return text as it reads, with nothing in it left for GitHub to act on."""
    return _escaped(_cut(printable(text), _LONGEST_TEXT))


def _escaped(text: str) -> str:
    cut = _COMMIT.sub(lambda found: _BREAK.join(re.findall(".{1,6}", found[0])), text)
    calm = _LIVE.sub(lambda found: found[0] + _BREAK, cut)
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};", calm)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:60].strip("-")


def _size(text: str) -> int:
    return len(text.encode())


def _least(section: _Section) -> int:
    """How much a section takes without any row; with rows, its last words become fewer."""
    return _size(section.head()) + _size(section.foot())


def _fill(sections: Sequence[_Section], room: int) -> None:
    """Put rows into the sections while there is room, into the most urgent ones first."""
    for section in sorted(sections, key=lambda each: each.urgency):
        for cells in section.rows:
            row = f"| {' | '.join(cells)} |\n"
            room -= _size(row)
            if room < 0:
                return
            section.kept.append(row)


def _heading(report: Mapping[str, Any]) -> str:
    icon = ICONS.get(report["status"], "") if report["gating_results"] else "ℹ️"
    return f"\n### {icon} {code(str(report['tool']))}: {headline(report)}\n"


def _sections(report: Mapping[str, Any]) -> list[_Section]:
    """Make the tables of a report; those without rows are left out."""
    rows = report["gating_results"]
    blocking = [row for row in rows if not row["passed"]]
    excused = [row for row in rows if waived(row)]
    passed = [row for row in rows if row["status"] == "pass"]
    warned = [row for row in rows if row["passed"] and row["status"] != "pass" and not waived(row)]
    gate = ("verdict", "gate", "observed", "asks for")
    inputs = report.get("inputs") or []
    texts = report["warnings"]
    checks = _checks(report)
    made = [
        _Section("", ("check", "verdict", "gates", "blocking"), checks, "checks are", urgency=1),
        _Section(
            "**What blocks**",
            (*gate, "why, and what to do"),
            _rows(blocking, _why_once()),
            "gates are",
        ),
        _Section(
            "**What is waived**", (*gate, "waiver"), _rows(excused, _waiver), "gates are", urgency=2
        ),
        _Section(
            "**What warns**", (*gate, "why"), _rows(warned, _why_once()), "gates are", urgency=3
        ),
        _Section(
            _many(len(texts), "warning"),
            ("warning",),
            [(prose(text),) for text in texts],
            "warnings are",
            folded=True,
            urgency=4,
        ),
        _Section(
            f"{_many(len(passed), 'gate')} passed",
            gate,
            _rows(condensed(passed)),
            "rows are",
            folded=True,
            urgency=6,
        ),
        _Section(
            _many(len(inputs), "input"),
            ("file", "records", "sha256"),
            [_input(file) for file in inputs],
            "inputs are",
            folded=True,
            urgency=5,
        ),
    ]
    return [section for section in made if section.rows]


def _rows(
    rows: Iterable[Mapping[str, Any]], last: Callable[[Mapping[str, Any]], str] | None = None
) -> list[tuple[str, ...]]:
    """Make the cells of gates; `last` makes one more."""
    return [
        (
            f"**{word(row)}**" if not row["passed"] else word(row),
            code(row["name"]),
            prose(observed(row)),
            prose(wanted(row)),
            *([last(row)] if last else []),
        )
        for row in rows
    ]


def _why_once() -> Callable[[Mapping[str, Any]], str]:
    """Say why a gate came out as it did, and what to do where no row above has said it."""
    said: set[str] = set()

    def why(row: Mapping[str, Any]) -> str:
        fix = "" if row["fix"] in said else row["fix"]
        said.add(row["fix"])
        return "<br>".join(prose(text) for text in (row["detail"], fix) if text)

    return why


def _waiver(row: Mapping[str, Any]) -> str:
    waiver = row["waiver"]
    who, until = prose(str(waiver["who"])), prose(str(waiver["expires"]))
    return f"{who}, until {until} ({prose(str(waiver['reason']))})"


def _checks(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Make a row a check of a readiness run; none for other reports."""
    checks = report["metrics"].get("checks")
    if not isinstance(checks, Mapping):
        return []
    return [
        (
            code(str(name)),
            f"{ICONS[row['status']]} {row['status'].replace('_', ' ')}",
            str(row["gates"]),
            str(row["blocking"]),
        )
        for name, row in checks.items()
        if isinstance(row, Mapping)
        and row.get("status") in ICONS
        and isinstance(row.get("gates"), int)
        and isinstance(row.get("blocking"), int)
    ]


def _input(file: Mapping[str, Any]) -> tuple[str, ...]:
    records = file.get("records")
    count = f"{records:,}" if isinstance(records, int) else "–"
    return code(str(file["path"])), count, code(str(file["sha256"])[:16])


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
