"""What a trainer sees of its own steps, and how it tells others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from training.errors import DrumgateError
from training.loop import runtime
from training.loop.callbacks import (
    CheckpointInfo,
    EndInfo,
    NonFiniteLossError,
    PhaseInfo,
    RunInfo,
    StepInfo,
)
from training.loop.config import TrainingConfig
from training.loop.distributed import World
from training.loop.metrics import Evaluation
from training.loop.optimisers import precision
from training.loop.tracking import EarlyStopping

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

__all__ = ["Seen", "Step", "look", "monitored"]


LEAST_SCALE: Final = 1e-4
"""Of the loss in fp16. A scale starts at 65,536 and is halved when a gradient overflows; below
this it is not the scale that makes it overflow."""


class Step(NamedTuple):
    """A step that nobody has looked at; its numbers are still on the device."""

    number: int
    losses: Mapping[str, Tensor]
    norm: Tensor
    rows: Sequence[Any]
    """Rows of the clips, a tensor a batch; empty where they are not known."""
    clips: int
    weight: float | Tensor
    """Clips of all processes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What was seen at a look."""

    loss: float = float("nan")
    """Of the last step; NaN when there was none to look at."""
    norm: float | None = None
    """Of the last step's gradient; None where it was not finite, which scaling allows."""
    means: dict[str, float] = field(default_factory=dict)
    """Of all losses since the look before."""


def look(
    pending: Sequence[Step],
    world: World,
    names: Sequence[str],
    scaler: torch.amp.GradScaler | None = None,
) -> Seen:
    """Fetch the losses and gradient norms of some steps from the device, in one go.

    With several processes each must call it, with the same steps. When a `scaler` is at work a
    gradient may overflow: that step was left out, and the scale lowered. Where lowering it does not
    help, the gradient itself is not finite.

    Raises:
        NonFiniteLossError: a loss or gradient is NaN or infinite.
    """
    scaled = scaler is not None and scaler.is_enabled()
    if not pending:
        return Seen()
    keys = list(pending[0].losses)
    losses = torch.stack(
        [torch.stack([step.losses[key].float() for key in keys]) for step in pending]
    )
    norms = torch.stack([step.norm.float() for step in pending])
    together = torch.cat([world.sum(losses), norms[:, None]], dim=1).cpu().numpy()
    judged = together[:, :-1] if scaled else together
    bad = np.flatnonzero(~np.isfinite(judged).all(axis=1))
    if not len(bad) and scaler is not None and scaled and scaler.get_scale() < LEAST_SCALE:
        bad = np.flatnonzero(~np.isfinite(together).all(axis=1))[-1:]
    if len(bad):
        step = pending[bad[0]]
        what = "the gradient" if np.isfinite(together[bad[0], :-1]).all() else "the loss"
        own = [int(row) for rows in step.rows for row in rows]
        rows = [row for part in world.gather(own) for row in part]
        raise NonFiniteLossError(
            step.number, what, rows, [names[row] for row in rows] if len(names) else []
        )
    norm = float(together[-1, -1])
    means = together[:, :-1].mean(axis=0)
    return Seen(
        loss=float(together[-1, keys.index("total")]),
        norm=norm if np.isfinite(norm) else None,
        means={key: float(mean) for key, mean in zip(keys, means, strict=True)},
    )


def monitored(
    entry: Mapping[str, Any], config: TrainingConfig, early: EarlyStopping
) -> tuple[float, float] | None:
    """Return the monitored figure of a validation, and by how much it breaks the limit.

    A model without class figures is judged by minus its loss when `macro_f1` is asked for, as it is
    by default; without any figure the result is None.

    Raises:
        DrumgateError: there is no figure of the name that the config gives.
    """
    figures = {
        name: float(value)
        for name, value in entry.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
    measured = sorted(set(figures) - {"epoch", "step", "learning_rate"})
    if not any(not name.startswith("train_") for name in measured):
        return None
    excess = 0.0
    if config.limit_figure is not None and config.limit is not None:
        excess = max(0.0, _figure(figures, measured, config.limit_figure) - config.limit)
    if config.monitor == "macro_f1" and "macro_f1" not in figures and "val_loss" in figures:
        return -early.sign * abs(figures["val_loss"]), excess
    return _figure(figures, measured, config.monitor), excess


def _figure(figures: Mapping[str, float], measured: Sequence[str], name: str) -> float:
    if name not in measured:
        raise DrumgateError(
            f"monitor: there is no finite figure {name}; there are {', '.join(measured)}"
        )
    return figures[name]


def run_info(trainer: Trainer) -> RunInfo:
    """Describe a run that is about to begin or to go on."""
    config = trainer.config
    return RunInfo(
        epochs=trainer.epochs,
        steps_per_epoch=trainer.steps_per_epoch,
        total_steps=trainer.total_steps,
        batch_size=config.batch_size * config.accumulate_steps,
        accumulate_steps=config.accumulate_steps,
        world_size=trainer.world.size,
        device=str(trainer.device),
        precision=precision(config, trainer.device),
        compiled=trainer.compiled,
        parameters=sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        step=trainer.step,
        config=asdict(config),
        notes=(
            *runtime.notes(trainer.model, config, trainer.world, trainer.device),
            *getattr(trainer.train_loader, "notes", ()),
        ),
    )


def history_line(
    trainer: Trainer, means: Mapping[str, float], evaluation: Evaluation
) -> dict[str, Any]:
    """Return an epoch's line of the history: mean losses of training, figures of validation."""
    line: dict[str, Any] = {
        "epoch": trainer.epoch + 1,
        "step": trainer.step,
        "learning_rate": float(trainer.optimiser.param_groups[0]["lr"]),
    }
    for name, mean in means.items():
        line["train_loss" if name == "total" else f"train_{name}"] = mean
    line.update(evaluation.figures)
    line["dead_classes"] = list(evaluation.dead)
    if evaluation.summary is not None:
        line["class_f1"] = {row.label: row.f1 for row in evaluation.summary.per_class}
    return line


def phase_info(trainer: Trainer, name: str, rate: float) -> PhaseInfo:
    """Describe the phase that begins with the step to come."""
    return PhaseInfo(name=name, step=trainer.step, learning_rate=rate)


def step_info(trainer: Trainer, seen: Seen, clips_per_s: float) -> StepInfo:
    """Describe where a run is."""
    return StepInfo(
        step=trainer.step,
        total_steps=trainer.total_steps,
        epoch=trainer.epoch + 1,
        epochs=trainer.epochs,
        progress=trainer.progress,
        loss=seen.loss,
        learning_rate=float(trainer.optimiser.param_groups[0]["lr"]),
        clips_per_s=clips_per_s,
        elapsed_s=trainer.elapsed_s,
        gradient_norm=seen.norm,
        losses=seen.means,
    )


def checkpoint_info(trainer: Trainer, path: Path, why: str, seconds: float) -> CheckpointInfo:
    """Describe a checkpoint that has been written."""
    return CheckpointInfo(
        path=path, step=trainer.step, epoch=trainer.epoch, why=why, seconds=seconds
    )


def end_info(trainer: Trainer, reason: str) -> EndInfo:
    """Describe the end of a run."""
    best = next((line for line in reversed(trainer.history) if line.get("best")), None)
    return EndInfo(
        reason=reason,
        step=trainer.step,
        epoch=trainer.epoch,
        elapsed_s=trainer.elapsed_s,
        monitor=trainer.config.monitor,
        best=trainer.early.best,
        best_epoch=None if best is None else int(best["epoch"]),
    )
