"""Several processes, one run: who one is among them, and what they tell each other.

``torchrun --nproc-per-node N …`` starts N processes. Each takes every N-th clip of every batch;
gradients are averaged, so that a step is that of one process with the whole batch. Rank 0 alone
validates, writes and reports.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from training.errors import DrumgateError

__all__ = ["BatchOrder", "Shard", "World", "current_world", "joined"]

PATIENCE: Final = timedelta(hours=2)
"""How long processes wait for one another: rank 0 validates and calibrates alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """The processes of a run, as one of them sees it."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over all processes; every process must call it."""
        if self.size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether the flag is up anywhere; every process must call it."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor(int(flag), device=device)) > 0)

    def from_lead(self, value: Any, device: torch.device) -> Any:
        """Return rank 0's plain value on every process; every process must call it."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=device)
        return box[0]

    def share(self, model: nn.Module) -> None:
        """Give every process rank 0's weights and statistics; every process must call it."""
        if self.size > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, src=0)

    def gather(self, value: Any) -> list[Any]:
        """Return the plain values of all processes, by rank; every process must call it."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value)
        return found


def current_world() -> World:
    """Return the world of the process group that this process has joined; else one of its own."""
    if dist.is_available() and dist.is_initialized():
        return World(rank=dist.get_rank(), size=dist.get_world_size())
    return World()


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that ``torchrun`` started, for as long as the block lasts.

    Yields the world and this process's device: with CUDA, the GPU of its local rank. Without
    ``torchrun`` there is one process, and nothing is joined.

    Raises:
        DrumgateError: there are fewer GPUs than processes on this machine.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield current_world(), device
        return
    if device.type == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise DrumgateError(
                f"torchrun: process {local} of this machine has no GPU of its own "
                f"({torch.cuda.device_count()} there); lower --nproc-per-node"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if device.type == "cuda":
        # Named, the GPU is joined to the group now, and never guessed from the rank.
        dist.init_process_group("nccl", timeout=PATIENCE, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=PATIENCE)
    try:
        yield current_world(), device
    finally:
        # Models that still average their gradients would hold on to the group until the
        # interpreter ends, and its threads would then be cut off: an abort, now and then.
        gc.collect()
        dist.destroy_process_group()


class BatchOrder(Protocol):
    """What gives the batches of an epoch as row numbers: see `EpochSampler`."""

    def __len__(self) -> int:
        """Batches in an epoch."""

    def batches(self, epoch: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of an epoch, from batch number `start` on."""


class Shard:
    """One process's part of every batch: rows ``rank, rank + size, …`` of it.

    All parts together are the batches of one process, clip for clip. A last batch with fewer clips
    than there are processes is left out.
    """

    def __init__(self, order: BatchOrder, world: World) -> None:
        self.order = order
        self.world = world

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.order)

    def batches(self, epoch: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield this process's part of the batches of an epoch, from batch number `start` on."""
        for rows in self.order.batches(epoch, start):
            if len(rows) >= self.world.size:
                yield rows[self.world.rank :: self.world.size]
