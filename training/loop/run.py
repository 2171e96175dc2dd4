"""One training run of the drum model, from a clip store to a model file, a card and a report."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from training.errors import InputError
from training.gates import Report
from training.loop import runtime
from training.loop.callbacks import Callback
from training.loop.distributed import World, joined
from training.loop.outcome import write_outcome
from training.loop.prepare import make_trainer, prepare_run
from training.loop.run_options import MODEL_FILE, RUN_FILE, TrainOptions
from training.loop.signals import termination_interrupts
from training.loop.trainer import Trainer
from training.model.inference import resolve_device

__all__ = ["MODEL_FILE", "TrainOptions", "train_classifier"]


def train_classifier(options: TrainOptions, callbacks: Sequence[Callback] = ()) -> Report | None:
    """Train as the options say; write the model, its card and its history; return the report.

    Under ``torchrun`` each process calls this; all but rank 0 get None.

    Raises:
        InputError: the dataset or a file is not usable.
        DrumgateError: the device is not there.
        BlockedError: the dataset is not known to be ready, or the loss became NaN.
        KeyboardInterrupt: the run was interrupted, and saved.
    """
    runtime.prepare(options.recipe.training)
    with termination_interrupts(), joined(resolve_device(options.device)) as (world, device):
        report = _train(options, device, world, callbacks)
        # Rank 0 calibrates and writes; the others wait, so that all end together.
        world.from_lead(None, device)
        return report


def _train(
    options: TrainOptions, device: torch.device, world: World, callbacks: Sequence[Callback]
) -> Report | None:
    with ExitStack() as at_the_end:
        for callback in callbacks:
            at_the_end.callback(callback.close)
        run = prepare_run(options, device, world)
        trainer = make_trainer(run, device, world, callbacks)
        for callback in set(trainer.callbacks) - set(callbacks):
            at_the_end.callback(callback.close)  # the profiler
        if options.resume or options.finish:
            trainer.load_checkpoint(options.output / RUN_FILE)
        if options.finish:
            _restore(trainer, options.output / RUN_FILE)
        else:
            trainer.train()
        return write_outcome(run, trainer, callbacks) if world.leads else None


def _restore(trainer: Trainer, run_file: Path) -> None:
    if trainer.best_weights is None:
        raise InputError.at(run_file, "holds no validated weights: there is nothing to finish")
    trainer.restore_best()
