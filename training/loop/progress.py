"""What a run shows on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Final, TextIO

from training.loop.callbacks import Callback, StepInfo
from training.loop.metrics import Evaluation

__all__ = ["ConsoleProgress"]

PLAIN_EVERY_S: Final = 10.0


class ConsoleProgress(Callback):
    """Shows steps with an estimate of the end, and a line an evaluation.

    `live` chooses the bar; by default it is shown where stderr is a terminal.
    """

    def __init__(self, stream: TextIO | None = None, *, live: bool | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        self.stream = stream or sys.stderr
        self.live = self.stream.isatty() if live is None else live
        self._console = Console(file=self.stream, highlight=False)
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._shown = 0.0

    def on_step(self, info: StepInfo) -> None:
        """Move the bar, or print a line every ten seconds."""
        left = info.elapsed_s * (1.0 - info.progress) / max(info.progress, 1e-6)
        text = (
            f"epoch {info.epoch}/{info.epochs}  step {info.step}  loss {info.loss:.4f}  "
            f"lr {info.learning_rate:.2e}  {info.clips_per_s:.0f} clips/s  {_clock(left)} left"
        )
        if self.live:
            self._bar.start()
            self._bar.update(self._task, completed=info.progress, description=text)
        elif time.monotonic() - self._shown >= PLAIN_EVERY_S:
            self._shown = time.monotonic()
            self._print(f"{100.0 * info.progress:3.0f} %  {text}")

    def on_evaluation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """Print how the validation came out, and an alarm for dead classes."""
        names = ("train_loss", "val_loss", "macro_f1", "micro_f1", "velocity_mae", "openness_mae")
        figures = "  ".join(f"{name} {entry[name]:.4f}" for name in names if name in entry)
        best = "  (best so far)" if entry.get("best") else ""
        self._print(f"epoch {entry['epoch']}  {figures}{best}")
        if evaluation.dead:
            self._print(f"  dead classes (events, but F1 = 0): {', '.join(evaluation.dead)}")

    def on_end(self, reason: str) -> None:
        """Take the bar away and say why training ended."""
        self.close()
        self._print(f"training ended: {reason}")

    def close(self) -> None:
        """Take the bar away; to be called also when a run breaks off."""
        if self._bar.live.is_started:
            self._bar.stop()

    def _print(self, text: str) -> None:
        if self.live:
            self._console.print(text, markup=False)
        else:
            self.stream.write(text + "\n")
            self.stream.flush()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
