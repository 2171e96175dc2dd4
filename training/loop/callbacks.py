"""What a trainer tells those who watch it, and how it says that the loss is lost.

The order of the calls, on the process that writes (rank 0) and nowhere else::

    on_train_start
    ( on_phase_change | on_step | on_validation | on_checkpoint )*
    on_end
    on_files          only in `train_classifier`: the finished model, its card, its history
    close             only in `train_classifier`: always, also when a run breaks off

A callback gets plain data and changes nothing. What it raises ends the run, which can be resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from training.errors import BlockedError
from training.loop.metrics import Evaluation

__all__ = [
    "Callback",
    "CheckpointInfo",
    "EndInfo",
    "NonFiniteLossError",
    "PhaseInfo",
    "RunInfo",
    "Sections",
    "StepInfo",
]


class NonFiniteLossError(BlockedError):
    """The loss, its gradient or a weight became NaN or infinite: there is no model to judge.

    `rows` are the clips of the batch, `names` their ids. Exit code 1: nothing need be wrong with
    the input, but what was asked for could not be measured.
    """

    def __init__(self, step: int, what: str, rows: Sequence[int], names: Sequence[str]) -> None:
        self.step = step
        self.rows = tuple(rows)
        self.names = tuple(names)
        listed = self.names or tuple(f"row {row}" for row in self.rows)
        shown = ", ".join(listed[:8]) + (" …" if len(listed) > 8 else "")
        super().__init__(
            f"{what} is not finite at step {step}; the batch held {shown or 'unnamed clips'}. "
            "Look at these clips, or lower the learning rate; the last checkpoint is from before."
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RunInfo:
    """What is about to run, handed to callbacks once, before the first step."""

    epochs: int
    steps_per_epoch: int
    total_steps: int
    batch_size: int
    """Clips a step: those of all micro-batches and all processes."""
    accumulate_steps: int
    world_size: int
    device: str
    precision: str
    """``float32``, ``bf16`` or ``fp16``."""
    compiled: bool
    parameters: int
    """Trainable parameters."""
    step: int
    """0, or the step at which a resumed run goes on."""
    config: dict[str, Any]
    """Every training setting, defaults included."""
    notes: tuple[str, ...] = ()
    """Settings that have no effect on this device, each with the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PhaseInfo:
    """The learning rate enters another phase: warm-up, main, a listed phase, a plateau."""

    name: str
    """``warm-up``, ``main``, ``phase 2 of 3``, ``plateau 1``…"""
    step: int
    learning_rate: float


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
    gradient_norm: float | None = None
    """Of the last step, before clipping; None where fp16 scaling made it overflow."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Means of all losses since the last call, by name, ``total`` among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """A checkpoint has been written, whole."""

    path: Path
    step: int
    epoch: int
    why: str
    """``save_every``, ``epoch``, ``interrupted``, or ``asked``."""
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EndInfo:
    """Training is over; the best weights have been restored."""

    reason: str
    """All epochs, the steps asked for, the time budget, or no improvement."""
    step: int
    epoch: int
    elapsed_s: float
    monitor: str
    best: float | None
    best_epoch: int | None


class Callback:
    """Something that watches a run; override what is of interest."""

    def on_train_start(self, info: RunInfo) -> None:
        """Training is about to begin, or to go on."""

    def on_phase_change(self, phase: PhaseInfo) -> None:
        """The learning rate has entered another phase."""

    def on_step(self, info: StepInfo) -> None:
        """A number of steps has been made."""

    def on_validation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """An epoch has been validated; `entry` is its line of the history."""

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        """A resumable checkpoint has been written."""

    def on_end(self, info: EndInfo) -> None:
        """Training is over: all epochs, the time budget, or no improvement."""

    def on_files(self, files: Mapping[str, Path]) -> None:
        """The run's files are written, by kind: ``model``, ``card``, ``page``, ``history``."""

    def close(self) -> None:
        """Let go of what is held, however the run ended; called once, last."""


class Sections(Protocol):
    """Where the time goes: what a profiler offers to `Trainer(sections=…)`.

    The sections of a step are ``data`` (waiting for a batch and moving it), ``augment``,
    ``forward`` (the features that the model computes, the network, the losses), ``backward`` and
    ``optimiser`` (clipping, the step, averaged weights). Beside them: ``validation`` and
    ``checkpoint``. Sections do not overlap.
    """

    def section(self, name: str) -> AbstractContextManager[object]:
        """Return what times a section while it is open."""

    def next_step(self) -> None:
        """A step is over."""
