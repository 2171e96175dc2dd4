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
from training.render import explain
from training.render.facts import Fact, facts
from training.render.text import condensed, headline, observed, waived, word

COMMENT_LIMIT: Final = 65_536
"""GitHub's limit on a comment is this many characters; here it is kept in bytes."""
ICONS: Final = {"pass": "✅", "warn": "⚠️", "fail": "❌", "not_measured": "❌", "error": "❌"}

_LONGEST_NAME: Final = 160
_LONGEST_TEXT: Final = 320
_MOST_IN_OVERVIEW: Final = 12
_ROOM: Final = 160  # bytes kept free for a word on what is left out
_BREAK: Final = "\u200b"  # a space of no width: GitHub then sees no mention and no reference
_MARKS: Final = re.compile(rf"[\\`*_{{}}\[\]<>|~&$^!#@{_BREAK}]|:(?=/)")
_LIVE: Final = re.compile(r"@|#(?=\d)|\bGH-(?=\d)|\bwww(?=\.)|:(?=[\w+-]+:)", re.IGNORECASE)
_COMMIT: Final = re.compile(r"\b(?=\d*[a-f])[0-9a-f]{7,40}\b", re.IGNORECASE)
_UNSAFE_IN_CODE: Final = re.compile(r"[`|\\]|^\s|\s$|^$")


@dataclass(frozen=True, slots=True)
class _Section:
    """A table, or without columns a list: its rows, and how soon it gives way.

    A row of a list may be written in any of the forms that it holds, the shorter ones last. `what`
    names one of the rows; it is said where some are left out.
    """

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
        if not self.columns:
            return title
        return f"{title}| {' | '.join(self.columns)} |\n|{'---|' * len(self.columns)}\n"

    def forms(self, cells: Sequence[str]) -> list[str]:
        """Return a row as it may be written, the one with most in it first."""
        if self.columns:
            return [f"| {' | '.join(cells)} |\n"]
        return [f"- {cell}\n" for cell in cells]

    def foot(self) -> str:
        left = len(self.rows) - len(self.kept)
        are = "is" if left == 1 else "are"
        said = (
            f"\n{_many(left, 'more ' + self.what)} {are} left out here; the JSON report has all.\n"
        )
        return (said if left else "") + ("\n</details>\n" if self.folded else "")


def render_markdown(report: Mapping[str, Any], limit: int = COMMENT_LIMIT) -> str:
    """Return a report as GitHub Markdown of at most `limit` bytes: see `render_many`."""
    return render_many([report], limit)


def render_many(reports: Sequence[Mapping[str, Any]], limit: int = COMMENT_LIMIT) -> str:
    """Return reports, one below the other, as GitHub Markdown of at most `limit` bytes of UTF-8.

    The first line is a comment that nobody sees and by which the same comment can be found and
    changed later. Of several reports all verdicts come first. Of each report comes the verdict,
    then what blocks in plain words, with by how much and what to do, then what changed, what is
    waived and what warns, and, folded, the rest. Where room is short, whole rows are left out, of
    what passed before what blocks, and it says how many. Nothing in it changes from run to run by
    itself.

    Raises:
        ValueError: there is no report.
    """
    if not reports:
        raise ValueError("there is no report to show")
    shown = [(_heading(report), _sections(report)) for report in reports]
    first = f"<!-- drumgate:{_slug(str(reports[0]['tool']))} -->\n"
    overview = _overview(reports)
    first += overview if _size(overview) < limit / 4 else ""
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
        are = "is" if left == 1 else "are"
        parts.append(f"\n{_many(left, 'more report')} {are} left out here.\n")
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
            row = next((each for each in section.forms(cells) if _size(each) <= room), None)
            if row is None and section.urgency:
                return
            if row is None:
                break  # the table of the same gates has shorter rows
            room -= _size(row)
            section.kept.append(row)


def _heading(report: Mapping[str, Any]) -> str:
    return f"\n### {_icon(report)} {code(str(report['tool']))}: {_said(report)}\n"


def _said(report: Mapping[str, Any]) -> str:
    """Say the verdict, and what a report that judges nothing found instead."""
    found = facts(report)
    if found and found.said and not report["gating_results"]:
        return prose(found.said)
    return headline(report)


def _icon(report: Mapping[str, Any]) -> str:
    return ICONS.get(report["status"], "") if report["gating_results"] else "ℹ️"


def _overview(reports: Sequence[Mapping[str, Any]]) -> str:
    """Say the verdicts of several reports in a line each; nothing of one."""
    if not 1 < len(reports) <= _MOST_IN_OVERVIEW:
        return ""
    lines = []
    for report in reports:
        found, said = facts(report), _said(report)
        if found and report["gating_results"]:
            said += f"; {prose(found.said)}"
        lines.append(f"- {_icon(report)} {code(str(report['tool']))}: {said}\n")
    return "\n" + "".join(lines)


def _sections(report: Mapping[str, Any]) -> list[_Section]:
    """Make the parts of a report; those without rows are left out."""
    rows = report["gating_results"]
    blocking = [row for row in rows if not row["passed"]]
    excused = [row for row in rows if waived(row)]
    passed = [row for row in rows if row["status"] == "pass"]
    warned = [row for row in rows if row["passed"] and row["status"] != "pass" and not waived(row)]
    gate = ("verdict", "gate", "seen", "asked for")
    one = _Section
    inputs = report.get("inputs") or []
    texts = report["warnings"]
    reasons = _blockers(report)
    made = [
        one("**What blocks, and what to do**", (), reasons, "reason"),
        one("", ("check", "verdict", "gates", "blocking"), _checks(report), "check", urgency=2),
        *_facts(facts(report)),
        one("**What is waived**", (*gate, "waiver"), _rows(excused, _waiver), "gate", urgency=3),
        one(
            _that(warned, "warn") if blocking else "**What warns**",
            (*gate, "why"),
            _rows(warned, _why_once()),
            "gate",
            folded=bool(blocking),
            urgency=4,
        ),
        one(
            _that(blocking, "block"),
            (*gate, "why"),
            _rows(blocking, lambda row: prose(row["detail"])),
            "gate",
            folded=True,
            urgency=1,
        ),
        one(
            _many(len(texts), "warning"),
            ("warning",),
            [(prose(text),) for text in texts],
            "warning",
            folded=True,
            urgency=5,
        ),
        one(
            f"{_many(len(passed), 'gate')} passed",
            gate,
            _rows(condensed(passed)),
            "row",
            folded=True,
            urgency=7,
        ),
        one(
            _many(len(inputs), "input"),
            ("file", "records", "sha256"),
            [_input(file) for file in inputs],
            "input",
            folded=True,
            urgency=6,
        ),
    ]
    return [section for section in made if section.rows]


def _that(rows: Sequence[Mapping[str, Any]], do: str) -> str:
    return f"{_many(len(rows), 'gate')} that {do}{'s' if len(rows) == 1 else ''}"


def _blockers(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say of each gate that blocks what is wrong, by how much, and what to do."""
    return [_blocker(each) for each in explain.blockers(report)]


def _blocker(each: Mapping[str, Any]) -> tuple[str, str]:
    """Say it in full, and in short."""
    row = each["row"]
    said = f"**{prose(each['title'] or word(row).capitalize())}**"
    about = each["subject"] or ("" if each["title"] else each["base"])
    said += f": {code(about)}" if about else ""
    if row["observed"] is not None:
        wanted = explain.asked(row)
        said += f" {'has' if about else '–'} {prose(explain.seen(row))}"
        said += f", asked for {prose(wanted)}" if wanted else ""
        gap = explain.gap(row)
        said += f" (**{prose(gap)}**)" if gap else ""
    others = [f"{code(o['subject'])} {prose(o['seen'])}".strip() for o in each["others"]]
    others += [f"{each['more']:,} more"] if each["more"] else []
    lines = [
        said,
        prose(row["detail"]),
        f"The first one: {code(explain.first_at(row))}" if explain.first_at(row) else "",
        f"The same for {', '.join(others)}" if others else "",
        f"*To do:* {prose(row['fix'])}" if row["fix"] else "",
        f"<sub>gate {code(each['base'])}</sub>",
    ]
    return "<br>".join(line for line in lines if line), said


def _facts(found: Fact | None) -> list[_Section]:
    """Make a table of what a report is about besides its gates."""
    if found is None:
        return []
    rows = [
        tuple(code(cell) if n == 0 else prose(cell) for n, cell in enumerate(row))
        for row in found.rows
    ]
    return [_Section(f"**{found.title}**", found.columns, rows, found.what, urgency=2)]


def _rows(
    rows: Iterable[Mapping[str, Any]], last: Callable[[Mapping[str, Any]], str] | None = None
) -> list[tuple[str, ...]]:
    """Make the cells of gates; `last` makes one more."""
    return [
        (
            f"**{word(row)}**" if not row["passed"] else word(row),
            code(row["name"]),
            prose(observed(row)),
            prose(_wanted(row)),
            *([last(row)] if last else []),
        )
        for row in rows
    ]


def _wanted(row: Mapping[str, Any]) -> str:
    bound = "" if row["decide_on"] == "point" else f" ({row['decide_on']} bound)"
    other = explain.production(row)
    return f"{explain.asked(row) or '–'}{bound}{f' ({other})' if other else ''}"


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
