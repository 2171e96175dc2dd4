"""Runs that several processes and one process make alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from trainer_makers import At, Masked, Net, Numbers, Squares

from training.dataset.samplers import EpochSampler
from training.loop import Trainer, TrainingConfig
from training.loop.distributed import Shard, World

N = 22
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "masked": {"masked": True},
    "accumulated": {"masked": True, "accumulate_steps": 2},
    "averaged": {"ema_decay": 0.9, "optimiser": "sgd", "schedule": "plateau"},
    "signal": {"masked": True},
    "nan": {},
}


class Feed:
    """Batches of points by row; a process of several gets its part of each."""

    def __init__(self, order: EpochSampler | Shard, masked: bool) -> None:
        self.order = order
        self.x = Numbers(N).x
        self.y = self.x.sum(dim=1)
        if masked:
            self.y[::3] = torch.nan

    def __len__(self) -> int:
        return len(self.order)

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
        for rows in self.order.batches(epoch, start):
            yield self.x[rows], {"y": self.y[rows], "row": torch.from_numpy(np.array(rows))}


def ddp_trainer(
    world: World, run_file: Path | None = None, *, masked: bool = False,
    callbacks: tuple[At, ...] = (), **settings: Any,
) -> Trainer:  # fmt: skip
    """Three epochs of batches of 6, 6, 6 and 4; no batch norm, which is not alike."""
    config = TrainingConfig(
        epochs=3, batch_size=6, learning_rate=1e-2, monitor="val_loss", mode="min", log_every=2,
        save_every=3, **settings,
    )  # fmt: skip
    torch.manual_seed(world.rank)  # the weights of rank 0 count
    order = EpochSampler(N, 6, 0)
    criterion = Masked() if masked else Squares()
    val = Numbers(8)
    validation = [(val.x, {"y": val.x.sum(dim=1)})]
    return Trainer(
        Net(), Feed(Shard(order, world) if world.size > 1 else order, masked), validation, config,
        criterion, callbacks=callbacks, run_file=run_file, world=world,
        sample_names=[f"clip_{row}" for row in range(N)],
    )  # fmt: skip


def finished(trainer: Trainer) -> dict[str, Any]:
    """What a run came to, as JSON."""
    weights = {name: value.tolist() for name, value in trainer.model.state_dict().items()}
    return {"weights": weights, "history": trainer.history}
