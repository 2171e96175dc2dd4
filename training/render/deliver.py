"""The table of renderers, and sending one report wherever it was asked for."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from training.manifest import to_json, write_text
from training.render.github import render_github
from training.render.junit import render_junit
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
}


def deliver(report: Report, outputs: ReportOutputs) -> None:
    """Write a report to every file that was asked for and print it.

    Everything is rendered before anything is written, so that a fault in one form leaves no half
    set of outputs behind.
    """
    data = report.to_dict()
    files: list[tuple[Path | None, str]] = [
        (outputs.report, "json"),
        (outputs.html_output, "html"),
        (outputs.junit, "junit"),
    ]
    rendered = [(path, RENDERERS[form](data)) for path, form in files if path]
    for path, text in rendered:
        write_text(path, text)
    show(data, outputs.format)
    if outputs.github:
        show(data, "github")


def show(data: Mapping[str, Any], form: str) -> None:
    """Print a report on stdout; its text form comes in colour where a terminal shows it."""
    if form == "text" and sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        print_rich(data)
    else:
        click.echo(RENDERERS[form](data), nl=False)
