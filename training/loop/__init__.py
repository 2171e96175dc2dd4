"""The trainer: recipes, schedules, the loop, what watches it, and how it is measured.

Usable on their own, whatever the model::

    from training.loop import (
        EarlyStopping, MetricsTracker, Trainer, TrainingConfig, create_train_val_split,
        evaluate_model,
    )
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from training.loop.callbacks import Callback, NonFiniteLossError
    from training.loop.config import TrainingConfig, load_recipe
    from training.loop.divide import create_train_val_split
    from training.loop.metrics import Evaluation, evaluate_model
    from training.loop.tracking import EarlyStopping, MetricsTracker
    from training.loop.trainer import Trainer

__all__ = [
    "Callback",
    "EarlyStopping",
    "Evaluation",
    "MetricsTracker",
    "NonFiniteLossError",
    "Trainer",
    "TrainingConfig",
    "create_train_val_split",
    "evaluate_model",
    "load_recipe",
]

# Looked up when they are asked for: modules of this package that need no torch load without it.
_WHERE: Final = {
    "Callback": "callbacks",
    "EarlyStopping": "tracking",
    "Evaluation": "metrics",
    "MetricsTracker": "tracking",
    "NonFiniteLossError": "callbacks",
    "Trainer": "trainer",
    "TrainingConfig": "config",
    "create_train_val_split": "divide",
    "evaluate_model": "metrics",
    "load_recipe": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
