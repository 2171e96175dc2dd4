"""How far a long step is: the one display of it, on stderr, for every tool.

It appears once a step has taken a second, on a terminal only, and is gone when the step is done;
with `NO_COLOR`, a dumb terminal or a pipe there is none. What is measured knows nothing of it: it
wraps its loops in `training.steps`, or takes a function that does.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, TypeVar

import click

from training.errors import printable
from training.steps import watcher

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

T = TypeVar("T")

SHOWN_AFTER_S: Final = 1.0

more_said: ContextVar[bool] = ContextVar("verbose", default=False)
"""Whether the user asked for more with `-v`."""


def track(description: str) -> Callable[[Iterable[T], int], Iterable[T]]:
    """Give what shows the progress of a long step inside a library function: see `progress`."""
    return lambda items, total: progress(items, description=description, total=total)


def progress(
    items: Iterable[T], *, description: str = "working", total: int | None = None
) -> Iterator[T]:
    """Yield the items; a bar on stderr shows how many are done and when the rest will be.

    Args:
        items: what a step works through.
        description: what the step does.
        total: how many items there are, where `items` does not know itself; None = unknown.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    step = _display.begin(description, total)
    try:
        for item in items:
            yield item
            step.done += 1
            _display.moved(step)
    finally:
        _display.end(step)


@contextmanager
def shown(description: str) -> Iterator[None]:
    """Show the steps of the work inside, and that it goes on where there is nothing to count."""
    seen = watcher.set(lambda items, what, total: progress(items, description=what, total=total))
    step = _display.begin(description, None, background=True)
    try:
        yield
    finally:
        _display.end(step)
        watcher.reset(seen)


def quiet_now() -> None:
    """Take the display away before something is printed."""
    _display.hide()


def wanted() -> bool:
    """Whether stderr is a terminal on which something may move."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return sys.stderr.isatty() and not plain


class _Step:
    """A step under way: how much of it is done, and its row of the display once there is one."""

    def __init__(self, description: str, total: int | None, *, background: bool) -> None:
        self.description = printable(description)
        self.total, self.background = total, background
        self.started = time.monotonic()
        self.done = 0
        self.row: TaskID | None = None


class _Display:
    """The rows of all steps under way; rich is imported when the first one has taken long."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._steps: list[_Step] = []
        self._timer: threading.Timer | None = None
        self._bars: Progress | None = None

    def begin(self, description: str, total: int | None, *, background: bool = False) -> _Step:
        step = _Step(description, total, background=background)
        with self._lock:
            self._steps.append(step)
            if self._bars is not None:
                self._add(self._bars, step)
            else:
                self._wait()
        return step

    def moved(self, step: _Step) -> None:
        bars, row = self._bars, step.row
        if bars is not None and row is not None:
            bars.update(row, completed=step.done)

    def end(self, step: _Step) -> None:
        with self._lock:
            self._steps.remove(step)
            if self._bars is not None and step.row is not None:
                self._bars.remove_task(step.row)
                self._show_background(self._bars)
            if not self._steps:
                self.hide()
        if more_said.get() and not step.background:
            count = f"{step.done:,} in " if step.done else ""
            took = time.monotonic() - step.started
            click.echo(f"{step.description}: {count}{took:.1f} s", err=True)

    def hide(self) -> None:
        """Take the display away; if steps are still under way after a while, it comes back."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._bars is not None:
                self._bars.stop()
                self._bars = None
            for step in self._steps:
                step.row = None
            if self._steps:
                self._wait()

    def _wait(self) -> None:
        """Have the display come up in a while, where one is wanted."""
        if self._timer is None and wanted():
            self._timer = threading.Timer(SHOWN_AFTER_S, self._show)
            self._timer.daemon = True
            self._timer.start()

    def _show(self) -> None:
        """Bring the display up: runs in the timer's thread."""
        from training.progress_bars import bars as make_bars

        with self._lock:
            if self._timer is None or not self._steps:
                return
            self._timer = None
            bars = make_bars()
            self._bars = bars
            for step in self._steps:
                self._add(bars, step)
            bars.start()

    def _add(self, bars: Progress, step: _Step) -> None:
        step.row = bars.add_task(step.description, total=step.total)
        bars.tasks[-1].start_time = step.started
        if step.done:
            bars.update(step.row, completed=step.done)
        self._show_background(bars)

    def _show_background(self, bars: Progress) -> None:
        """Show that something goes on only where no row says what."""
        alone = all(step.background for step in self._steps)
        for step in self._steps:
            if step.background and step.row is not None:
                bars.update(step.row, visible=alone)


_display: Final = _Display()
