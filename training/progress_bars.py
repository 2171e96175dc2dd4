"""The rows that `training.progress` shows, drawn by rich; imported only when one is shown."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text


class _Count(ProgressColumn):
    """How much is done, of how much; nothing where there is nothing to count."""

    def render(self, task: Task) -> Text:
        done = f"{int(task.completed):,}"
        if task.total is None:
            return Text(done if task.completed else "")
        return Text(f"{done}/{int(task.total):,}")


class _Left(ProgressColumn):
    """When the rest will be done, as far as what is done can tell."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        seconds = task.time_remaining
        if seconds is None:
            return Text("")
        minutes, second = divmod(int(seconds), 60)
        hours, minute = divmod(minutes, 60)
        return Text(f"{hours}:{minute:02}:{second:02} left", style="cyan")


def bars() -> Progress:
    """Make an empty display on stderr; its rows go when it stops."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        _Count(),
        TimeElapsedColumn(),
        _Left(),
        console=Console(stderr=True),
        transient=True,
        # Otherwise what goes into a pipe would come out on the terminal.
        redirect_stdout=sys.stdout.isatty(),
        # A step may take minutes for an item; the estimate needs two of them.
        speed_estimate_period=1800,
    )
