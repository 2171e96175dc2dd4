"""A run as plain values: everything that going on bit for bit needs."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from training.errors import InputError
from training.loop.identity import differences
from training.model.checkpoint import RUN_FORMAT, load_checkpoint

if TYPE_CHECKING:
    from training.loop.trainer import Trainer

__all__ = ["random_state", "read_run", "restore_random_state", "run_state", "take_over"]


def run_state(trainer: Trainer) -> dict[str, Any]:
    """Return the state of a run as tensors and plain values."""
    averaged = trainer.averaged
    return {
        "identity": trainer.identity,
        "about": trainer.about,
        "world_size": trainer.world.size,
        "model": trainer.model.state_dict(),
        "averaged": None if averaged is None else averaged.state_dict(),
        "optimiser": trainer.optimiser.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "scaler": trainer.scaler.state_dict(),
        "random": random_state(),
        "best_weights": trainer.best_weights,
        "early": trainer.early.state_dict(),
        "tracker": trainer.tracker.state_dict(trainer.world),
        "history": trainer.history,
        "step": trainer.step,
        "epoch": trainer.epoch,
        "batch_in_epoch": trainer.batch_in_epoch,
        "elapsed_s": trainer.elapsed_s,
    }


def read_run(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """Read the state of a run with this identity, into main memory.

    `take_over` puts each part where it belongs. Read onto a GPU, the counts of steps that an
    optimiser keeps in main memory would lie there, and each step would wait for them.

    Raises:
        InputError: the file is missing or damaged, or is of a run with other settings or data.
    """
    content = load_checkpoint(path, format=RUN_FORMAT)
    theirs = content.get("identity")
    if not isinstance(theirs, dict):
        raise InputError.at(path, "is not a complete run", field="identity")
    differing = differences(theirs, identity)
    if differing:
        raise InputError.at(
            path,
            f"is of another run: {', '.join(differing)}. Go on with what it was begun with, or "
            "start anew without --resume",
        )
    return content


def take_over(trainer: Trainer, content: Mapping[str, Any], path: Path) -> None:
    """Put a state that `run_state` made into a trainer.

    Raises:
        InputError: something is missing in it, or does not fit the model.
    """
    try:
        trainer.model.load_state_dict(content["model"])
        if trainer.averaged is not None:
            trainer.averaged.load_state_dict(content["averaged"])
        trainer.optimiser.load_state_dict(content["optimiser"])
        trainer.schedule.load_state_dict(content["schedule"])
        if content["scaler"]:  # empty where the run was made without scaling, on a CPU say
            trainer.scaler.load_state_dict(content["scaler"])
        trainer.early.load_state_dict(content["early"])
        trainer.tracker.load_state_dict(content["tracker"], trainer.device, trainer.world)
        best = content["best_weights"]
        trainer.best_weights = best and {k: v.to(trainer.device) for k, v in best.items()}
        trainer.history = list(content["history"])
        trainer.step = int(content["step"])
        trainer.epoch = int(content["epoch"])
        trainer.batch_in_epoch = int(content["batch_in_epoch"])
        trainer.clock.elapsed_s = float(content["elapsed_s"])
        trainer.random_to_restore = _checked(content["random"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError.at(path, f"is not a complete run of this model ({error})") from error


def _checked(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state that the global generators take; they stay as they are."""
    present = random_state()
    restore_random_state(state)
    restore_random_state(present)
    return dict(state)


def random_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's and PyTorch's global generators.

    The trainer seeds PyTorch's anew before each step; these are for datasets that draw from the
    global generators while a batch is made.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state())
    state: dict[str, Any] = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(kind), keys.tolist(), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Put the global generators into the state that `random_state` returned.

    Raises KeyError, TypeError or ValueError where it is no such state.
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
