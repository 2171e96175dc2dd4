"""What GitHub Actions takes from a step: annotations, its summary and its outputs.

A step may show ten annotations of a kind, and a line counts as a command wherever a stream has
`::` at its beginning or `##[` anywhere; text from data must come to mean neither.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training.errors import SHOWN_PROBLEMS, UNSET, DrumgateError, Problem, printable, shorten
from training.render.explain import asked
from training.render.markdown import prose, render_markdown
from training.render.text import headline, observed, waived, waiver_text
from training.render.titles import measure, trouble

SHOWN: Final = 10
"""How many annotations of a kind GitHub shows of one step."""
SUMMARY_LIMIT: Final = 2**20
"""How many bytes the summary of one step may have."""

_LONGEST: Final = 4_000  # GitHub cuts a message at 64 kB; nobody reads that much
_LEVELS: Final = ("error", "warning", "notice")
# Options that name the file at fault, the likeliest first.
_AT_FAULT: Final = ("predictions", "candidate", "events", "manifests", "manifest", "ground_truth")


@dataclass(frozen=True, slots=True)
class Annotation:
    """One remark that GitHub shows; at `path` and `line` (from 1) where it is about a file.

    Paths are taken from the working directory, and left out where no such file is in the checkout.
    """

    level: str
    message: str
    title: str = ""
    path: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        file = None if self.path is None else _in_checkout(self.path)
        found = {"file": file, "line": self.line if file else None, "title": self.title or None}
        given = ",".join(f"{key}={_property(str(each))}" for key, each in found.items() if each)
        return f"::{self.level}{' ' if given else ''}{given}::{_data(self.message)}"


def render_github(report: Mapping[str, Any]) -> str:
    """Return a notice with the verdict, and an annotation for every gate that did not pass.

    What blocks is an error, what warns a warning, what is waived a notice, each at the line that
    the gate complains of first, where it knows one, and else at the file that was judged.
    Of more than GitHub shows, the last one says how many there are besides.
    """
    found = [Annotation("notice", headline(report), str(report["tool"]))]
    for row in report["gating_results"]:
        if row["status"] == "pass":
            continue
        level = "error" if not row["passed"] else "notice" if waived(row) else "warning"
        waiver = f" ({waiver_text(row)})" if waived(row) else ""
        wrong = trouble(str(row["name"]).partition("[")[0]) if row["status"] == "fail" else ""
        what = "" if row["unit"] else measure(str(row["name"]))
        said = f"{what} {observed(row)}, asked for {asked(row) or 'nothing'}{waiver}".lstrip()
        parts = [f"{wrong}: {said}" if wrong else said, row["detail"], row["fix"]]
        message = ". ".join(part.removesuffix(".") for part in parts if part) + "."
        found.append(Annotation(level, message, row["name"], *_place(report, row)))
    found += [Annotation("warning", text) for text in report["warnings"]]
    return capped(found)


def render_problems(error: DrumgateError) -> str:
    """Return what is wrong with the input as annotations, each at its file and line."""
    problems: Sequence[Problem] = getattr(error, "problems", ())
    if not problems:
        return capped([Annotation("error", str(error), "bad input")])
    found = [
        Annotation("error", without_place(each), "bad input", each.path, each.line)
        for each in problems
    ]
    return capped(found, {"error": getattr(error, "total", 0)})


def capped(found: Iterable[Annotation], totals: Mapping[str, int] | None = None) -> str:
    """Return annotations as lines, of each kind at most as many as GitHub shows.

    Args:
        found: in the order in which they are to be seen.
        totals: how many there are of a level, where not all of them were kept.
    """
    every = list(found)
    lines: list[str] = []
    for level in _LEVELS:
        these = [each for each in every if each.level == level]
        total = max(len(these), (totals or {}).get(level, 0))
        kept = these[: SHOWN if total <= SHOWN else SHOWN - 1]
        lines += map(str, kept)
        if left := total - len(kept):
            lines.append(str(Annotation(level, f"{left:,} more are not shown here")))
    return "".join(f"{line}\n" for line in lines)


def inert(text: str) -> str:
    """Return text that may be printed in a step: no line of it is a command to the runner."""
    return re.sub(r"(^|[\r\n])(\s*):(?=:)", r"\1\2: ", text).replace("##[", "# #[")


def write_summary(report: Mapping[str, Any]) -> None:
    """Append a report to the summary of the step, where a step is running."""
    if (path := _step_file("GITHUB_STEP_SUMMARY")) and (room := _summary_room(path)) > 0:
        _append(path, render_markdown(report, room))


def write_problems(error: DrumgateError) -> None:
    """Append what is wrong with the input to the summary, and say so in the step's outputs."""
    write_outputs({"status": "error", "blocking": ""})
    path = _step_file("GITHUB_STEP_SUMMARY")
    if not path:
        return
    lines = [printable(line) for line in str(error).splitlines()[:SHOWN_PROBLEMS]]
    rows = "".join(f"| {prose(line)} |\n" for line in lines)
    text = f"\n### ❌ bad input: nothing was judged\n\n| what is wrong |\n|---|\n{rows}"
    if len(text.encode()) < _summary_room(path):
        _append(path, text)


def write_outputs(values: Mapping[str, str]) -> None:
    """Set outputs of the step, where a step is running; a value may hold anything."""
    path = _step_file("GITHUB_OUTPUT")
    if not path:
        return
    parts = []
    for name, value in values.items():
        # Nobody can guess the line that ends a value, so no value can set another output.
        end = f"drumgate-{uuid.uuid4()}"
        parts.append(f"{name}<<{end}\n{value}\n{end}\n")
    _append(path, "".join(parts))


def step_outputs(report: Mapping[str, Any], files: Mapping[str, Path | None]) -> dict[str, str]:
    """Return the outputs of a step that judged: the verdict, and where each file was written.

    `status` is that of the report, `blocking` and `gates` are counts.
    """
    rows = report["gating_results"]
    counts = {"blocking": sum(not row["passed"] for row in rows), "gates": len(rows)}
    return {
        "status": str(report["status"]),
        **{name: str(count) for name, count in counts.items()},
        **{name: str(path) for name, path in files.items() if path},
    }


def _step_file(variable: str) -> Path | None:
    name = os.environ.get(variable)
    return Path(name) if name else None


def _append(path: Path, text: str) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(text)
    except OSError as error:
        raise DrumgateError(f"{path}: cannot be written: {error.strerror}") from None


def _summary_room(path: Path) -> int:
    try:
        return SUMMARY_LIMIT - path.stat().st_size
    except OSError:
        return SUMMARY_LIMIT


def _place(report: Mapping[str, Any], row: Mapping[str, Any]) -> tuple[str | None, int | None]:
    """Return the file and the line that a gate complains of; else the file that it judged."""
    place = row.get("place")
    if place and _in_checkout(place["path"]):
        return place["path"], place["line"]
    return _judged_file(report, row), None


def _judged_file(report: Mapping[str, Any], row: Mapping[str, Any]) -> str | None:
    """Return the input that a gate judged, as far as the report tells; a readiness run has many."""
    parameters = report.get("parameters") or {}
    inputs = [str(file["path"]) for file in report.get("inputs") or []]
    of_check = parameters.get(str(row["name"]).partition(".")[0])
    asked = of_check if isinstance(of_check, Mapping) else parameters
    for name in _AT_FAULT:
        value = asked.get(name)
        for path in [value] if isinstance(value, str) else value or ():
            if path in inputs:
                return str(path)
    return inputs[0] if asked is parameters and inputs else None


def _in_checkout(path: str) -> str | None:
    """Return a path as seen from the root of the checkout; None where there is no such file."""
    root = Path(os.path.realpath(os.environ.get("GITHUB_WORKSPACE") or Path.cwd()))
    try:
        full = Path(os.path.realpath(path))
        inside = full.is_relative_to(root) and full.is_file()
    except (OSError, ValueError):  # no name that a file could have
        return None
    return full.relative_to(root).as_posix() if inside else None


def without_place(problem: Problem) -> str:
    """Say what is wrong without the path and the line, which GitHub shows itself."""
    got = "" if problem.got is UNSET else f" (got {shorten(problem.got)})"
    field = f"{printable(problem.field)}: " if problem.field else ""
    return f"{field}{problem.why}{got}"


def _data(text: str) -> str:
    shown = printable(text)
    shown = shown if len(shown) <= _LONGEST else shown[: _LONGEST - 1] + "…"
    return shown.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
