"""What a trainer tells those who watch it, and how it says that the loss is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import DrumgateError
from training.loop.metrics import Evaluation

__all__ = ["Callback", "NonFiniteLossError", "StepInfo"]


class NonFiniteLossError(DrumgateError):
    """The loss or its gradient became NaN or infinite; `rows` are the clips of that batch."""

    def __init__(self, step: int, what: str, rows: Sequence[int], names: Sequence[str]) -> None:
        self.step = step
        self.rows = tuple(rows)
        shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
        super().__init__(
            f"{what} is not finite at step {step}; the batch held {shown or 'unnamed clips'}. "
            "Look at these clips, or lower the learning rate; the last checkpoint is from before."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepInfo:
    """Where a run is, handed to callbacks every `log_every` steps."""

    step: int
    total_steps: int
    epoch: int
    epochs: int
    progress: float
    """Share of the run that is done, 0..1, by steps or by the time budget."""
    loss: float
    learning_rate: float
    clips_per_s: float
    elapsed_s: float


class Callback:
    """Something that watches a run; override what is of interest."""

    def on_step(self, info: StepInfo) -> None:
        """A number of steps has been made."""

    def on_evaluation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """An epoch has been validated; `entry` is its line of the history."""

    def on_end(self, reason: str) -> None:
        """Training is over: all epochs, the time budget, or no improvement."""
