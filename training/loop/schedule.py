"""Learning-rate schedules as functions of progress.

Progress runs from 0 to 1 over the run, whether its end is a number of steps or a time budget: a
schedule laid over progress ends where the run ends. The result is a factor of the configured
learning rate.
"""

from __future__ import annotations

import math
from typing import Final

__all__ = ["SCHEDULES", "learning_rate_factor"]

SCHEDULES: Final = ("onecycle", "cosine", "linear", "constant")
ONECYCLE_START: Final = 1 / 25
ONECYCLE_END: Final = 1e-4


def learning_rate_factor(schedule: str, progress: float, warmup: float) -> float:
    """Return the factor at `progress`, which is held to [0, 1].

    `warmup` is the share of the run in which the rate rises to its full value. After it,
    ``cosine`` and ``linear`` fall to 0 and ``constant`` stays. ``onecycle`` rises from 1/25 along a
    cosine and falls along a cosine to 1e-4 (Smith and Topin 2018, as in PyTorch's OneCycleLR,
    without its momentum cycle); the others rise linearly from 0.

    Raises ValueError for an unknown schedule.
    """
    progress = min(max(progress, 0.0), 1.0)
    rising = progress < warmup
    share = progress / warmup if rising else (progress - warmup) / max(1.0 - warmup, 1e-12)
    if schedule == "onecycle":
        if rising:
            return _cosine(ONECYCLE_START, 1.0, share)
        return _cosine(1.0, ONECYCLE_END, share)
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, got {schedule!r}")
    if rising:
        return share
    if schedule == "cosine":
        return _cosine(1.0, 0.0, share)
    return 1.0 - share if schedule == "linear" else 1.0


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * share))
