"""What makes a run the same run: its settings, and the random numbers of each step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

__all__ = ["WITHOUT_EFFECT", "differences", "step_seed"]

WITHOUT_EFFECT: Final = ("save_every", "log_every", "tier", "memory_fraction")
"""Settings that may change when a run is resumed: no weight depends on them."""


SHOWN: Final = 24
"""Characters of a value that a message shows."""


def step_seed(seed: int, step: int, *more: int) -> int:
    """Return a seed for one step: well spread, the same on every machine.

    `more` numbers make it that of something else, such as another process's step.
    """
    return int(np.random.SeedSequence([seed, step, *more]).generate_state(1, np.uint64)[0] >> 1)


def _shown(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def differences(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name the settings in which two nested dicts differ, each with both values."""
    names: list[str] = []
    for key in sorted(set(one) | set(other)):
        a, b = one.get(key), other.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            names += differences(a, b, f"{prefix}{key}.")
        elif json.dumps(a, sort_keys=True) != json.dumps(b, sort_keys=True):
            names.append(f"{prefix}{key} differs ({_shown(a)} there, {_shown(b)} here)")
    return names
