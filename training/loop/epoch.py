"""What is left of an epoch, batch by batch: the same whether it was interrupted or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from training.loop.identity import step_seed
from training.loop.runstate import restore_random_state
from training.loop.stepping import Batch

__all__ = ["batches_left"]


def batches_left(
    loader: Any, *, seed: int, epoch: int, start: int, random: Mapping[str, Any] | None
) -> Iterator[Batch]:
    """Yield the batches of an epoch from number `start` on.

    Args:
        loader: gives the order of an epoch itself, by ``batches(epoch, start)``, or is iterated
            anew for each epoch.
        seed: of the run.
        epoch: counted from 0.
        start: batches that have been seen.
        random: states of the global generators when the run broke off, for a loader that draws
            from them while it makes a batch; None: they are as they should be.
    """
    if random is not None:
        restore_random_state(random)
    if hasattr(loader, "batches"):
        yield from loader.batches(epoch, start)
        return
    # A loader that shuffles draws its order from the generator when its first batch is asked.
    torch.manual_seed(step_seed(seed, epoch, 1, 1))
    batches = iter(loader)
    for _ in range(start):
        next(batches, None)
    if random is not None and start > 0:
        restore_random_state(random)
    yield from batches
