"""The training loop: plain PyTorch, top to bottom.

A step depends on the weights, the optimiser's state, and (seed, step) only: PyTorch's generator is
seeded anew before each step, and the sampler's order is a function of (seed, epoch). A run that was
stopped at any step therefore goes on bit for bit as if it had not been, on a CPU with the same
number of threads (a run with a time budget depends on the clock as well, and does not).
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.loop import runtime, watched
from training.loop.callbacks import Callback, NonFiniteLossError, Sections
from training.loop.clock import RunClock
from training.loop.config import TrainingConfig
from training.loop.distributed import World, current_world
from training.loop.epoch import batches_left
from training.loop.identity import WITHOUT_EFFECT, step_seed
from training.loop.metrics import Evaluation, evaluate_model
from training.loop.optimisers import make_optimiser, make_scaler
from training.loop.runstate import read_run, run_state, take_over
from training.loop.schedule import Schedule
from training.loop.signals import Signals
from training.loop.stepping import Augment, Batch, Stepper
from training.loop.tracking import EarlyStopping, MetricsTracker
from training.manifest import write_json
from training.model.checkpoint import RUN_FORMAT, save_checkpoint

__all__ = ["Trainer"]


class Trainer:
    """Fits a model, keeps the weights that validate best, and can be stopped and resumed.

    Args:
        model: returns a tensor, or a dict of heads.
        train_loader: yields (inputs, targets), and has a length; where it has
            ``batches(epoch, start)`` that gives the order of an epoch, otherwise it is iterated
            anew for each epoch. With several processes it yields this process's part.
        val_loader: yields (inputs, targets) for validation; None never validates.
        config: see `TrainingConfig`.
        criterion: returns a dict of losses with ``total``, means over the batch. With several
            processes or accumulated batches, losses whose mean is over something else than the
            clips need ``counts(targets)`` and the argument ``counts``, as `DrumLoss` has them.
        device: where to train.
        augment: varies (inputs, targets) on the device before the model sees them.
        evaluate: measures the model on validation data; by default `evaluate_model`'s losses.
        callbacks: are told of what happens; see `Callback`.
        run_file: where resumable checkpoints are written; None writes none.
        history_file: where the history is written after every epoch; None writes none.
        identity: plain values that a resumed run must share (data, features…).
        about: plain values that stand in the checkpoint beside (labels, hashes…).
        sample_names: ids of the training clips by row, for messages.
        network: the part of the model that the config has compiled; by default all of it.
        sections: times the sections of a step.
        world: this process among those of the run; by default as `torch.distributed` says.

    Raises:
        DrumgateError: the config asks for what this machine does not have.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Any,
        val_loader: Iterable[Batch] | None,
        config: TrainingConfig,
        criterion: nn.Module,
        *,
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        evaluate: Callable[[nn.Module], Evaluation] | None = None,
        callbacks: Sequence[Callback] = (),
        run_file: Path | None = None,
        history_file: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
        sample_names: Sequence[str] = (),
        network: nn.Module | None = None,
        sections: Sections | None = None,
        world: World | None = None,
    ) -> None:
        self.config = config
        self.device = torch.device(device)
        self.world = world or current_world()
        model = runtime.with_shared_norms(model.to(self.device), config, self.world, self.device)
        if config.channels_last:
            model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.world.share(model)
        self.model = model
        self.averaged = copy.deepcopy(model) if config.ema_decay > 0 else None
        self.compiled = runtime.compile_network(network or model, config, self.device)
        self.criterion = criterion.to(self.device)
        self.train_loader = train_loader
        self.val_loader = val_loader
        self._evaluate = evaluate
        self.callbacks = tuple(callbacks) if self.world.leads else ()
        self.run_file = run_file
        self.history_file = history_file
        kept = {k: v for k, v in asdict(config).items() if k not in WITHOUT_EFFECT}
        self.identity = {"training": kept, **(identity or {})}
        self.about = dict(about or {})
        self.sample_names = sample_names
        self._sections = sections

        self.optimiser = make_optimiser(model, config, self.device)
        self.scaler = make_scaler(config, self.device)
        self._stepper = Stepper(
            self.model,
            self.criterion,
            self.optimiser,
            self.scaler,
            config,
            averaged=self.averaged,
            augment=augment,
            device=self.device,
            world=self.world,
            section=self._section,
        )
        self._begin()

    def _begin(self) -> None:
        """Set how long the run is, and what changes as it goes on."""
        config = self.config
        self.steps_per_epoch = -(-len(self.train_loader) // config.accumulate_steps)
        self.total_steps = _total_steps(config, self.steps_per_epoch)
        self.epochs = config.epochs
        if config.schedule == "phased":
            self.epochs = -(-self.total_steps // self.steps_per_epoch)
        self.early = EarlyStopping(
            patience=config.patience, min_delta=config.min_delta, mode=config.mode
        )
        self.tracker = MetricsTracker()
        self.history: list[dict[str, Any]] = []
        self.best_weights: dict[str, Tensor] | None = None
        self.step = 0
        self.epoch = 0
        self.batch_in_epoch = 0
        self.clock = RunClock(self.world, self.device)
        self.schedule = Schedule(
            config, steps_per_epoch=self.steps_per_epoch, total_steps=self.total_steps
        )
        self.random_to_restore: dict[str, Any] | None = None
        self._phase: str | None = None
        self._pending: list[watched.Step] = []
        self._signals = Signals()

    @property
    def chosen(self) -> nn.Module:
        """What is validated and kept: the averaged weights, where there are any."""
        return self.model if self.averaged is None else self.averaged

    @property
    def progress(self) -> float:
        """Share of the run that is done: of its steps or of its time budget, whichever is more."""
        done = (self.step + 0.5) / self.total_steps
        if self.config.max_minutes is not None:
            done = max(done, self.elapsed_s / (60.0 * self.config.max_minutes))
        return min(done, 1.0)

    @property
    def elapsed_s(self) -> float:
        """Seconds that the run has taken, also before it was resumed."""
        return self.clock.elapsed_s

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        budget = self.config.max_minutes
        return budget is not None and self.elapsed_s >= 60.0 * budget

    @property
    def why_over(self) -> str | None:
        """Why the run is over; None while it is not. An epoch that was begun is validated first."""
        if self.batch_in_epoch > 0:
            return None
        if self.epoch >= self.epochs:
            return "all epochs done"
        if self.step >= self.total_steps:
            return f"all {self.total_steps} steps done"
        if self.out_of_time:
            return "time budget used up"
        if self.early.stopped:
            return f"no improvement in {self.config.patience} evaluations"
        return None

    def train(self) -> list[dict[str, Any]]:
        """Train to the end, restore the best weights, and return the history.

        A run that was loaded when it was over already is left as it is.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; the run has been saved.
            NonFiniteLossError: the loss, its gradient or a weight became NaN or infinite.
        """
        self.clock.restart()
        with runtime.algorithms(self.config, self.device), self._signals.watch():
            self._tell("on_train_start", watched.run_info(self))
            while self.why_over is None:
                self.train_epoch()
        self.restore_best()
        self._tell("on_end", watched.end_info(self, str(self.why_over)))
        return self.history

    def train_epoch(self) -> dict[str, Any]:
        """Train to the end of the current epoch, validate, save, and return its history line."""
        self.model.train()
        for group in self._groups():
            self._train_step(group)
            self.step += 1
            self.batch_in_epoch += len(group)
            looking = self.step % self.config.log_every == 0
            self.clock.tick(agree=looking)
            if looking:
                self._log()
            # Several processes must agree on a signal, and talk to one another when they look.
            if (looking or self.world.size == 1) and self._interrupted():
                self._interrupt()
            if self.run_file and self.step % self.config.save_every == 0:
                self.save_checkpoint(self.run_file, why="save_every")
            if self._sections is not None:
                self._sections.next_step()
            if self.out_of_time:
                break
        self._check_pending()
        entry = self.validate()
        self.epoch += 1
        self.batch_in_epoch = 0
        self.tracker = MetricsTracker()
        self.clock.tick(agree=True)
        if self.history_file and self.world.leads:
            self.export_history(self.history_file)
        if self.run_file:
            self.save_checkpoint(self.run_file, why="epoch")
        if self._interrupted():
            self._interrupt(saved=True)
        return entry

    def _train_step(self, group: Sequence[Batch]) -> None:
        """Make one step from one batch, or from several whose gradients add up."""
        others = () if self.world.leads else (self.world.rank,)
        torch.manual_seed(step_seed(self.config.seed, self.step, *others))
        rate = self.schedule.rate(self.step, self.progress)
        phase = self.schedule.phase(self.step, self.progress)
        if phase != self._phase:
            self._phase = phase
            self._tell("on_phase_change", watched.phase_info(self, phase, rate))
        step = self._stepper.step(group, self.step, rate)
        self.tracker.update(step.losses, weight=step.weight)
        # Looking at a number waits for the device; steps are looked at together, later.
        self._pending.append(step)

    def validate(self) -> dict[str, Any]:
        """Measure what is `chosen`, keep it if it is the best, and add to the history."""
        means = self.tracker.means(self.world)
        evaluation = Evaluation(figures={})
        if self.world.leads:
            with self._section("validation"):
                evaluation = self.evaluate(self.chosen)
        # Of several processes, all take rank 0's line.
        line = watched.history_line(self, means, evaluation)
        entry: dict[str, Any] = self.world.from_lead(line, self.device)
        found = watched.monitored(entry, self.config, self.early)
        if found is not None:
            value, excess = found
            entry["best"] = self.early.update(value, excess)
            self.schedule.on_validation(value)
            if entry["best"]:
                self.best_weights = {k: v.clone() for k, v in self.chosen.state_dict().items()}
        self.history.append(entry)
        self._tell("on_validation", entry, evaluation)
        return entry

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measure a model on the validation data, uncompiled; no figures when there are none."""
        with runtime.as_written(self.compiled):
            if self._evaluate is not None:
                return self._evaluate(model)
            if self.val_loader is None:
                return Evaluation(figures={})
            return evaluate_model(model, self.val_loader, self.criterion, device=self.device)

    def restore_best(self) -> None:
        """Put the best weights so far (else the averaged ones) into the model."""
        if self.best_weights is not None:
            self.model.load_state_dict(self.best_weights)
        elif self.averaged is not None:
            self.model.load_state_dict(self.averaged.state_dict())

    def save_checkpoint(self, path: Path, *, why: str = "asked") -> None:
        """Write all that `load_checkpoint` needs to go on from here.

        With several processes each must call it; rank 0 writes.

        Raises:
            NonFiniteLossError: a step since the last look was not finite, or a weight is not;
                nothing is written.
        """
        self._check_pending()
        begun = time.monotonic()
        with self._section("checkpoint"):
            content = run_state(self)
            for name, value in content["model"].items():
                if not torch.isfinite(value).all():
                    raise NonFiniteLossError(self.step, f"the weight {name}", [], [])
            if self.world.leads:
                save_checkpoint(path, content, format=RUN_FORMAT)
        taken = time.monotonic() - begun
        self._tell("on_checkpoint", watched.checkpoint_info(self, path, why, taken))

    def load_checkpoint(self, path: Path) -> None:
        """Take over a run that `save_checkpoint` wrote.

        Raises:
            InputError: the file is missing or damaged, or is of a run with other settings or data.
        """
        take_over(self, read_run(path, self.identity), path)
        self.clock.restart()

    def export_history(self, path: Path) -> None:
        """Write the history as JSON: one object an epoch."""
        write_json(path, {"epochs": self.history})

    def _groups(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step that is left of the epoch."""
        random, self.random_to_restore = self.random_to_restore, None
        batches = batches_left(
            self.train_loader,
            seed=self.config.seed,
            epoch=self.epoch,
            start=self.batch_in_epoch,
            random=random,
        )
        while self.step < self.total_steps:
            with self._section("data"):
                group = list(islice(batches, self.config.accumulate_steps))
            if not group:
                return
            yield group

    def _log(self) -> None:
        clips = self.world.size * sum(step.clips for step in self._pending)
        seen = self._check_pending()
        self._tell("on_step", watched.step_info(self, seen, clips / self.clock.since_look()))

    def _check_pending(self) -> watched.Seen:
        """Look at the losses since the last look."""
        pending, self._pending = self._pending, []
        return watched.look(pending, self.world, self.sample_names, self.scaler)

    def _section(self, name: str) -> AbstractContextManager[object]:
        return nullcontext() if self._sections is None else self._sections.section(name)

    def _tell(self, event: str, *what: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*what)

    def _interrupted(self) -> bool:
        return self.world.any(self._signals.came, self.device)

    def _interrupt(self, *, saved: bool = False) -> None:
        if self.run_file and not saved:
            self.save_checkpoint(self.run_file, why="interrupted")
        raise KeyboardInterrupt


def _total_steps(config: TrainingConfig, steps_per_epoch: int) -> int:
    steps = sum(config.phase_steps) or config.epochs * steps_per_epoch
    return max(1, steps if config.max_steps is None else min(steps, config.max_steps))
