"""What a run shows on stderr: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TextIO

from training.errors import printable
from training.loop.callbacks import (
    Callback,
    CheckpointInfo,
    EndInfo,
    PhaseInfo,
    RunInfo,
    StepInfo,
)
from training.loop.confusion import confusions
from training.loop.metrics import Evaluation

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["ConsoleProgress"]

PLAIN_EVERY_S: Final = 10.0
SHOWN_CONFUSIONS: Final = 3
FIGURES: Final = (
    "train_loss",
    "val_loss",
    "macro_f1",
    "floor_macro_f1",
    "micro_f1",
    "map",
    "ece",
    "velocity_mae",
    "openness_mae",
    "fa_per_hour",
    "onset_recall",
)


class ConsoleProgress(Callback):
    """Shows what runs, each phase, step, evaluation and checkpoint, and how it ended.

    On a terminal a view at the bottom is kept up to date: the bar, and the last evaluation a class.
    Elsewhere, and with ``NO_COLOR``, there are plain lines: one every ten seconds for steps.

    Args:
        stream: where it goes; stderr by default.
        live: whether to show the view; by default where `stream` is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, *, live: bool | None = None) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self.stream = stream or sys.stderr
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self.live = self.stream.isatty() and not plain if live is None else live
        self._console = Console(file=self.stream, highlight=False)
        self._bar = Progress(
            TextColumn("training"), BarColumn(), TaskProgressColumn(), console=self._console
        )
        self._task = self._bar.add_task("", total=1.0)
        self._view = Live(console=self._console, transient=True, refresh_per_second=4)
        self._classes: Table | None = None
        self._kind = "multilabel"
        self._text = ""
        self._shown = 0.0

    def on_train_start(self, info: RunInfo) -> None:
        """Say what is about to run."""
        self._kind = str(info.config.get("task", self._kind))
        going_on = f", going on after step {info.step}" if info.step else ""
        processes = f" on each of {info.world_size} processes" if info.world_size > 1 else ""
        self._print(
            f"training {info.parameters:,} parameters on {info.device} ({info.precision}"
            f"{', compiled' if info.compiled else ''}){processes}: {info.epochs} epochs of "
            f"{info.steps_per_epoch} steps, {info.batch_size} clips a step{going_on}"
        )
        for note in info.notes:
            self._print(f"  {note}")

    def on_phase_change(self, phase: PhaseInfo) -> None:
        """Say which phase of the learning rate begins."""
        self._print(f"step {phase.step}: {phase.name}, learning rate {phase.learning_rate:.2e}")

    def on_step(self, info: StepInfo) -> None:
        """Move the bar, or print a line every ten seconds."""
        left = info.elapsed_s * (1.0 - info.progress) / max(info.progress, 1e-6)
        text = (
            f"epoch {info.epoch}/{info.epochs}  step {info.step}  loss {info.loss:.4f}  "
            f"lr {info.learning_rate:.2e}  {info.clips_per_s:.0f} clips/s  {_clock(left)} left"
        )
        if self.live:
            self._bar.update(self._task, completed=info.progress)
            self._text = text
            self._refresh()
        elif time.monotonic() - self._shown >= PLAIN_EVERY_S:
            self._shown = time.monotonic()
            self._print(f"{100.0 * info.progress:3.0f} %  {text}")

    def on_validation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """Print how the validation came out, and an alarm for dead classes."""
        figures = "  ".join(f"{name} {entry[name]:.4f}" for name in FIGURES if name in entry)
        best = "  (best so far)" if entry.get("best") else ""
        self._print(f"epoch {entry['epoch']}  {figures}{best}")
        if evaluation.dead:
            self._print(f"  dead classes (events, but F1 = 0): {', '.join(evaluation.dead)}")
        if self.live and evaluation.summary is not None:
            self._classes = _class_table(evaluation, self._kind)
            self._refresh()

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        """Say that the run was saved when it is broken off; on a terminal always."""
        if info.why == "interrupted":
            self._print(f"step {info.step}: saved {info.path.name}; --resume goes on from here")
        elif self.live:
            self._print(f"step {info.step}: saved {info.path.name} ({info.seconds:.2f} s)")

    def on_end(self, info: EndInfo) -> None:
        """Take the view away and say why training ended."""
        self.close()
        self._print(f"training ended: {info.reason}")
        if info.best is not None:
            self._print(
                f"  best {info.monitor} {info.best:.4f} in epoch {info.best_epoch}; "
                f"{_clock(info.elapsed_s)} of training"
            )

    def close(self) -> None:
        """Take the view away; to be called also when a run breaks off."""
        if self._view.is_started:
            self._view.stop()

    def _refresh(self) -> None:
        from rich.console import Group
        from rich.text import Text

        parts: list[Any] = [] if self._classes is None else [self._classes]
        self._view.update(Group(*parts, self._bar, Text(self._text)))
        if not self._view.is_started:
            self._view.start()

    def _print(self, text: str) -> None:
        if self.live:
            self._console.print(printable(text), markup=False)
        else:
            self.stream.write(printable(text) + "\n")
            self.stream.flush()


def _class_table(evaluation: Evaluation, task: str = "multilabel") -> Table:
    from rich.table import Table
    from rich.text import Text

    assert evaluation.summary is not None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("class", "precision", "recall", "F1", "events", "taken for"):
        table.add_column(name, justify="left" if name in ("class", "taken for") else "right")
    taken = confusions(evaluation, task=task)
    for row in evaluation.summary.per_class:
        others = taken.get(row.label, {})
        most = sorted(others, key=lambda name: -others[name])[:SHOWN_CONFUSIONS]
        table.add_row(
            Text(printable(row.label)),
            *(Text(_figure(value)) for value in (row.precision, row.recall, row.f1)),
            Text(f"{row.n_ref:.0f}"),
            Text(printable(", ".join(f"{name} {others[name]}" for name in most))),
            style="red" if row.label in evaluation.dead else "",
        )
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
