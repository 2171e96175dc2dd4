"""The time that a run has taken, also over interruptions and over several processes."""

from __future__ import annotations

import time

import torch

from training.loop.distributed import World

__all__ = ["RunClock"]


class RunClock:
    """Counts the seconds of a run while it is at work.

    With several processes the time is rank 0's, and the others learn it where all agree on it.
    """

    def __init__(self, world: World, device: torch.device) -> None:
        self.elapsed_s = 0.0
        """Of all parts of the run; a resumed one begins with what it had taken before."""
        self._world = world
        self._device = device
        self._seen = self._looked = time.monotonic()

    def restart(self) -> None:
        """Begin to count here: what lies before was no part of the run."""
        self._seen = self._looked = time.monotonic()

    def tick(self, *, agree: bool = False) -> None:
        """Move on to now; of several processes, only where all call it with `agree`."""
        now = time.monotonic()
        if self._world.size == 1:
            self.elapsed_s += now - self._seen
        elif agree:
            self.elapsed_s = self._world.from_lead(self.elapsed_s + now - self._seen, self._device)
        else:
            return
        self._seen = now

    def since_look(self) -> float:
        """Return the seconds since this was last asked for, or since the start; above 0."""
        now = time.monotonic()
        before, self._looked = self._looked, now
        return max(now - before, 1e-9)
