"""Learning-rate schedules.

Most are functions of progress, which runs from 0 to 1 over the run, whether its end is a number of
steps or a time budget: a schedule laid over progress ends where the run ends. ``plateau`` follows
the monitored figure as well, and ``phased`` counts steps.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from training.loop.config import TrainingConfig

__all__ = ["SCHEDULES", "Schedule", "learning_rate_factor"]

SCHEDULES: Final = (
    "onecycle",
    "cosine",
    "linear",
    "constant",
    "exponential",
    "polynomial",
    "plateau",
    "phased",
)
ONECYCLE_START: Final = 1 / 25
ONECYCLE_END: Final = 1e-4


def learning_rate_factor(
    schedule: str,
    progress: float,
    warmup: float,
    *,
    power: float = 2.0,
    final_factor: float = 0.01,
) -> float:
    """Return the factor at `progress`, which is held to [0, 1].

    `warmup` is the share of the run in which the rate rises to its full value. After it, with *p*
    the share of the rest that is done:

    - ``cosine`` falls to 0 along a cosine, ``linear`` as 1 - p, ``polynomial`` as (1 - p)^power;
    - ``exponential`` is final_factor^p;
    - ``constant``, ``plateau`` and ``phased`` stay at 1: `Schedule` moves the latter two;
    - ``onecycle`` rises from 1/25 along a cosine and falls along a cosine to 1e-4 (Smith and Topin
      2018, as in PyTorch's OneCycleLR, without its momentum cycle).

    All but ``onecycle`` rise linearly from 0.

    Raises ValueError for an unknown schedule.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    progress = min(max(progress, 0.0), 1.0)
    rising = progress < warmup
    share = progress / warmup if rising else (progress - warmup) / max(1.0 - warmup, 1e-12)
    if schedule == "onecycle":
        if rising:
            return _cosine(ONECYCLE_START, 1.0, share)
        return _cosine(1.0, ONECYCLE_END, share)
    if rising:
        return share
    share = min(share, 1.0)
    if schedule == "cosine":
        return _cosine(1.0, 0.0, share)
    if schedule == "linear":
        return 1.0 - share
    if schedule == "polynomial":
        return float((1.0 - share) ** power)
    if schedule == "exponential":
        return float(final_factor**share)
    return 1.0


class Schedule:
    """The learning rate of every step of a run.

    Args:
        config: names the schedule and its settings.
        steps_per_epoch: what `warmup_epochs` is counted in.
        total_steps: the steps of the run, if no time budget ends it.
    """

    def __init__(self, config: TrainingConfig, *, steps_per_epoch: int, total_steps: int) -> None:
        self.config = config
        self.ends = tuple(accumulate(config.phase_steps))
        steps = config.warmup_steps
        if config.warmup_epochs is not None:
            steps = round(config.warmup_epochs * steps_per_epoch)
        if steps is None and config.schedule == "phased":
            steps = 0
        self.warmup_steps = steps
        """None where the warm-up is a share of the run."""
        if steps is None:
            self.warmup = config.warmup
        else:
            self.warmup = min(steps / max(total_steps, 1), 1.0)
        self.reductions = 0
        self._best: float | None = None
        self._waited = 0

    def rate(self, step: int, progress: float) -> float:
        """Return the learning rate of a step (counted from 0) at this progress of the run."""
        config = self.config
        if self.warmup_steps is not None:
            share = (step + 0.5) / max(self.warmup_steps, 1)
            progress = (
                share * self.warmup if self._rising(step, progress) else max(progress, self.warmup)
            )
        factor = learning_rate_factor(
            config.schedule,
            progress,
            self.warmup,
            power=config.power,
            final_factor=config.final_factor,
        )
        if config.schedule == "phased":
            return config.phase_learning_rates[self._phase(step)] * factor
        if config.schedule == "plateau":
            factor *= max(config.plateau_factor**self.reductions, config.final_factor)
        return config.learning_rate * factor

    def phase(self, step: int, progress: float) -> str:
        """Name the part of the schedule that a step is in."""
        if self._rising(step, progress):
            return "warm-up"
        if self.config.schedule == "phased":
            return f"phase {self._phase(step) + 1} of {len(self.ends)}"
        return f"plateau {self.reductions}" if self.reductions else "main"

    def on_validation(self, value: float | None) -> None:
        """Take the monitored figure in; ``plateau`` lowers the rate when it has stopped improving.

        As PyTorch's ReduceLROnPlateau with an absolute threshold of `min_delta`: the rate falls
        with the first evaluation after `plateau_patience` others without an improvement.
        """
        config = self.config
        if config.schedule != "plateau" or value is None:
            return
        sign = 1.0 if config.mode == "max" else -1.0
        if self._best is None or sign * (value - self._best) > config.min_delta:
            self._best, self._waited = value, 0
            return
        self._waited += 1
        if self._waited > config.plateau_patience:
            self.reductions, self._waited = self.reductions + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs; all else follows from the step."""
        return {"reductions": self.reductions, "best": self._best, "waited": self._waited}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.reductions = int(state["reductions"])
        self._best = None if state["best"] is None else float(state["best"])
        self._waited = int(state["waited"])

    def _rising(self, step: int, progress: float) -> bool:
        return progress < self.warmup if self.warmup_steps is None else step < self.warmup_steps

    def _phase(self, step: int) -> int:
        return min(bisect_right(self.ends, step), len(self.ends) - 1)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))
