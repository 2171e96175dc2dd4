"""The table of renderers, and sending one report wherever it was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training import options
from training.manifest import to_json, write_text
from training.progress import quiet_now
from training.render.github import (
    inert,
    render_github,
    step_outputs,
    write_outputs,
    write_summary,
)
from training.render.junit import render_junit
from training.render.markdown import render_markdown
from training.render.page import render_html
from training.render.text import print_rich, render_text

if TYPE_CHECKING:
    from training.gates import Report
    from training.options import ReportOutputs

Renderer = Callable[[Mapping[str, Any]], str]


def render_json(report: Mapping[str, Any]) -> str:
    """Return a report as indented JSON."""
    return to_json(report) + "\n"


RENDERERS: Final[dict[str, Renderer]] = {
    "text": render_text,
    "json": render_json,
    "html": render_html,
    "junit": render_junit,
    "github": render_github,
    "markdown": render_markdown,
}


def deliver(report: Report, outputs: ReportOutputs) -> None:
    """Write a report to every file that was asked for and print it.

    Everything is rendered before anything is written, so that a fault in one form leaves no half
    set of outputs behind. For GitHub, annotations are printed as well, and the summary and the
    outputs of the step are written where one is running.
    """
    data = report.to_dict()
    files: list[tuple[Path | None, str]] = [
        (outputs.report, "json"),
        (outputs.html_output, "html"),
        (outputs.junit, "junit"),
        (outputs.markdown, "markdown"),
    ]
    rendered = [(path, RENDERERS[form](data)) for path, form in files if path]
    for path, text in rendered:
        write_text(path, text)
    show(data, outputs.format, guard=outputs.github)
    if outputs.github:
        # The runner reads commands from both streams; JSON on stdout stays JSON.
        options.say(RENDERERS["github"](data), err=outputs.format == "json")
        write_summary(data)
        written = {"report": outputs.report, "page": outputs.html_output, "junit": outputs.junit}
        write_outputs(step_outputs(data, {**written, "markdown": outputs.markdown}))


def show(data: Mapping[str, Any], form: str, *, guard: bool = False) -> None:
    """Print a report on stdout; its text form comes in colour where a terminal shows it.

    `guard` keeps data in it from being read as commands by the runner of GitHub Actions.
    """
    if form == "text" and sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        quiet_now()
        print_rich(data)
        return
    text = RENDERERS[form](data)
    options.say(inert(text) if guard and form == "text" else text)
