"""How batches of clips get to where the model is: ahead of time, from pinned memory.

Reading and copying let go of Python's lock, so that one thread beside the training is enough and
no worker processes are needed.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Courier", "Delivery", "Fill", "Plan", "ahead", "deliver", "filled", "to_device"]

SLOTS: Final = 3
"""Pinned buffers: one being filled, one being sent, one that the last batch may still leave."""
T = TypeVar("T")


class Plan(NamedTuple):
    """A batch to be: its clips' numbers and where their windows start, both int64 ``(b,)``."""

    rows: NDArray[np.int64]
    starts: NDArray[np.int64]


Delivery = tuple[Tensor, Tensor]
"""Row numbers, int64 ``(b,)``, and clips, int16 ``(b, length)``."""
Fill = Callable[[NDArray[np.int16]], None]
"""Writes the clips of a batch into an array ``(b, length)``."""


class Courier:
    """Sends tensors from main memory to a GPU, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = _stream_to(device)

    def buffer(self, clips: int, length: int) -> Tensor:
        """Return pinned memory for so many clips, from which the GPU can copy by itself."""
        return torch.empty((clips, length), dtype=torch.int16, pin_memory=True)

    def send(self, rows: NDArray[np.int64], clips: Tensor) -> tuple[Delivery, torch.cuda.Event]:
        """Begin to copy; return where to, and what happens when all of it is there."""
        with torch.cuda.stream(self.stream):
            there = to_device(rows, self.device), clips.to(self.device, non_blocking=True)
            sent = torch.cuda.Event()
            sent.record(self.stream)
        return there, sent

    def hand_over(self, there: Delivery, sent: torch.cuda.Event) -> None:
        """Have the stream that computes wait for what was sent."""
        current = torch.cuda.current_stream(self.device)
        current.wait_event(sent)
        for each in there:
            each.record_stream(current)  # its memory is not given away while it is in use


@functools.cache
def _stream_to(device: torch.device) -> torch.cuda.Stream:
    """One stream for all epochs: memory that was freed on a stream is reused on that one alone."""
    return torch.cuda.Stream(device)


def deliver(
    fills: Iterator[tuple[Plan, Fill]], length: int, device: torch.device
) -> Iterator[Delivery]:
    """Fill batches one by one; where the model is on a GPU, ahead of time, and send them there."""
    if device.type == "cuda":
        yield from _sent(fills, length, Courier(device))
        return
    for plan, fill in fills:
        yield torch.from_numpy(plan.rows), filled(fill, len(plan.rows), length)


def _sent(fills: Iterator[tuple[Plan, Fill]], length: int, courier: Courier) -> Iterator[Delivery]:
    """Fill and send batches in a thread; a buffer is filled anew when what was in it has left."""
    slots: list[tuple[Tensor, torch.cuda.Event] | None] = [None] * SLOTS

    def send() -> Iterator[tuple[Delivery, torch.cuda.Event]]:
        for number, (plan, fill) in enumerate(fills):
            slot = slots[number % SLOTS]
            if slot is not None:
                slot[1].synchronize()
            if slot is None or len(slot[0]) < len(plan.rows):
                held = courier.buffer(len(plan.rows), length)
            else:
                held = slot[0]
            clips = held[: len(plan.rows)]
            fill(clips.numpy())
            there, sent = courier.send(plan.rows, clips)
            slots[number % SLOTS] = (held, sent)
            yield there, sent

    for there, sent in ahead(send(), depth=SLOTS - 1):
        courier.hand_over(there, sent)
        yield there


def ahead(items: Iterator[T], depth: int = 1) -> Iterator[T]:
    """Run an iterator in a thread of its own, `depth` items ahead of who takes them.

    What it raises is raised where its item would have come. When the taker stops early, the item
    under way is finished, and no further one is begun.
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="feed") as pool:
        waiting: deque[Future[Any]] = deque()
        try:
            for _ in range(depth):
                waiting.append(pool.submit(next, items, end))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, items, end))
                yield item
        finally:
            for each in waiting:
                each.cancel()


def to_device(values: NDArray[np.int64], device: torch.device) -> Tensor:
    """Return numbers as a tensor there; to a GPU they are sent without being waited for."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor


def filled(fill: Fill, clips: int, length: int) -> Tensor:
    """Return a batch in main memory."""
    out = np.empty((clips, length), dtype=np.int16)
    fill(out)
    return torch.from_numpy(out)
