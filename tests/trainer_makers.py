"""A small regression with every part of the trainer in it, for tests that make many runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from training.loop import Callback, Evaluation, Trainer, TrainingConfig
from training.loop.callbacks import CheckpointInfo, EndInfo, PhaseInfo, RunInfo, StepInfo

N, WIDTH, BATCH = 24, 4, 4


class Numbers(Dataset[Any]):
    """Points and their sum; each look at one adds noise from NumPy's and PyTorch's generators."""

    def __init__(self, n: int = N, noise: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(7)
        self.x = torch.randn(n, WIDTH, generator=generator)
        self.noise = noise

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        x = self.x[index]
        if self.noise:
            x = x + self.noise * (float(np.random.normal()) + torch.randn(WIDTH))
        return x, {"y": self.x[index].sum(), "row": torch.tensor(index)}


class Net(nn.Module):
    """Two layers, with dropout and batch norm where asked."""

    def __init__(self, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.body = nn.Linear(WIDTH, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.drop(torch.relu(self.norm(self.body(x))))).squeeze(1)
        return out


class Squares(nn.Module):
    """The mean squared error."""

    def forward(self, output: Tensor, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"total": nn.functional.mse_loss(output, targets["y"])}


class Masked(nn.Module):
    """A mean over the targets that are known; says what it divides by."""

    def counts(self, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"known": (~torch.isnan(targets["y"])).sum()}

    def forward(
        self, output: Tensor, targets: dict[str, Tensor], counts: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        known = ~torch.isnan(targets["y"])
        errors = (output - targets["y"].nan_to_num()) ** 2 * known
        count = known.sum() if counts is None else counts["known"]
        return {"total": errors.sum() / count.clamp_min(1)}


def cut(size: int, holes: bool = False) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """The 24 points in batches; with `holes` a third of them, unevenly, has no known target."""
    data = Numbers()
    y = data.x.sum(dim=1)
    if holes:
        y[torch.arange(len(y)) % 7 < 3] = torch.nan
    return [(data.x[i : i + size], {"y": y[i : i + size]}) for i in range(0, len(y), size)]


def small_trainer(
    run_file: Path | None = None,
    *,
    callbacks: tuple[Callback, ...] = (),
    dropout: float = 0.2,
    norm: bool = True,
    noise: float = 0.1,
    shuffle: bool = True,
    **settings: Any,
) -> Trainer:
    """A run of three epochs of six batches, with all that is random in it."""
    given: dict[str, Any] = {
        "epochs": 3,
        "batch_size": BATCH,
        "log_every": 1,
        "save_every": 1,
        "learning_rate": 1e-2,
        "monitor": "val_loss",
        "mode": "min",
        "patience": 50,
    }
    config = TrainingConfig(**given | settings)
    torch.manual_seed(config.seed)
    np.random.seed(config.seed)
    return Trainer(
        Net(dropout, norm),
        DataLoader(Numbers(noise=noise), batch_size=BATCH, shuffle=shuffle),
        DataLoader(Numbers(8), batch_size=BATCH),
        config,
        Squares(),
        callbacks=callbacks,
        run_file=run_file,
        sample_names=[f"clip_{index}" for index in range(N)],
    )


class At(Callback):
    """Does something when a step has been made."""

    def __init__(self, step: int, action: Callable[[], None]) -> None:
        self.step = step
        self.action = action

    def on_step(self, info: StepInfo) -> None:
        if info.step == self.step:
            self.action()


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Every tensor that the run has come to: weights, averaged weights, optimiser, best."""
    found = {f"model.{k}": v for k, v in trainer.model.state_dict().items()}
    if trainer.averaged is not None:
        found |= {f"averaged.{k}": v for k, v in trainer.averaged.state_dict().items()}
    for key, values in trainer.optimiser.state_dict()["state"].items():
        found |= {f"optimiser.{key}.{k}": v for k, v in values.items() if isinstance(v, Tensor)}
    found |= {f"best.{k}": v for k, v in (trainer.best_weights or {}).items()}
    return found


def assert_same(one: Trainer, other: Trainer) -> None:
    """Bit for bit the same weights, optimiser and history."""
    a, b = state_of(one), state_of(other)
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name
    assert one.history == other.history
    assert (one.step, one.epoch) == (other.step, other.epoch)


class Everything(Callback):
    """Keeps all that it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.run: RunInfo | None = None
        self.end: EndInfo | None = None
        self.steps: list[StepInfo] = []

    def on_train_start(self, info: RunInfo) -> None:
        self.seen.append("start")
        self.run = info

    def on_phase_change(self, phase: PhaseInfo) -> None:
        self.seen.append(phase.name)

    def on_step(self, info: StepInfo) -> None:
        self.seen.append("step")
        self.steps.append(info)

    def on_validation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        self.seen.append("validation")

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        assert info.path.exists()
        self.seen.append(info.why)

    def on_end(self, info: EndInfo) -> None:
        self.seen.append("end")
        self.end = info
