"""The curves of a run for TensorBoard (the extra ``tensorboard``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.errors import DrumgateError
from training.loop.callbacks import Callback, EndInfo, RunInfo, StepInfo
from training.loop.loggers.figures import scalars
from training.loop.metrics import Evaluation

__all__ = ["TensorBoardLog"]


class TensorBoardLog(Callback):
    """Writes scalars a step and an evaluation, F1 a class, and the settings as text.

    A resumed run goes on in the same folder: TensorBoard drops what it does again.

    Raises:
        DrumgateError: when it is made, where TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise DrumgateError(
                "--tensorboard needs TensorBoard: pip install 'drumgate[tensorboard]'"
            ) from error
        self.folder = folder
        self._writer: Any = None

    def on_train_start(self, info: RunInfo) -> None:
        """Open the event file."""
        from torch.utils.tensorboard import SummaryWriter

        purge = info.step + 1 if info.step else None
        self._writer = SummaryWriter(str(self.folder), purge_step=purge)
        settings = json.dumps(info.config, indent=2, default=str)
        self._writer.add_text("settings", f"```\n{settings}\n```", info.step)

    def on_step(self, info: StepInfo) -> None:
        """Write losses, learning rate, gradient norm and speed."""
        figures: dict[str, Any] = {
            "train/loss": info.loss,
            "train/learning_rate": info.learning_rate,
            "train/clips_per_s": info.clips_per_s,
        }
        if info.gradient_norm is not None:
            figures["train/gradient_norm"] = info.gradient_norm
        self._add(figures, info.step)

    def on_validation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """Write the figures of the evaluation."""
        figures = {f"validation/{name}": value for name, value in scalars(entry).items()}
        if evaluation.summary is not None:
            figures |= {
                f"f1/{row.label}": row.f1
                for row in evaluation.summary.per_class
                if row.f1 is not None
            }
        self._add(figures, int(entry["step"]))
        self._writer.flush()

    def on_end(self, info: EndInfo) -> None:
        """See that everything is on disk."""
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, figures: Mapping[str, Any], step: int) -> None:
        for name, value in scalars(figures).items():
            self._writer.add_scalar(name, value, step)
