"""The training loop: plain PyTorch, top to bottom.

A step depends on the weights, the optimiser's state, and (seed, step) only: PyTorch's generator is
seeded anew before each step, and the sampler's order is a function of (seed, epoch). A run that was
stopped at any step therefore goes on bit for bit as if it had not been, on a CPU with the same
number of threads (a run with a time budget depends on the clock as well, and does not).
"""

from __future__ import annotations

import copy
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from training.errors import InputError
from training.loop.callbacks import Callback, NonFiniteLossError, StepInfo
from training.loop.config import TrainingConfig
from training.loop.identity import WITHOUT_EFFECT, differences, step_seed
from training.loop.metrics import EarlyStopping, Evaluation, MetricsTracker, evaluate_model, move
from training.loop.schedule import learning_rate_factor
from training.manifest import write_json
from training.model.checkpoint import RUN_FORMAT, load_checkpoint, save_checkpoint

__all__ = ["Trainer"]

Augment = Callable[[Tensor, dict[str, Tensor]], tuple[Tensor, dict[str, Tensor]]]


class Trainer:
    """Fits a model, keeps the weights that validate best, and can be stopped and resumed.

    Args:
        model: returns a tensor, or a dict of heads.
        train_loader: yields (inputs, targets); where it has ``batches(epoch, start)`` that gives
            the order of an epoch, otherwise it is iterated anew for each epoch.
        val_loader: yields (inputs, targets) for validation; None never validates.
        config: see `TrainingConfig`.
        criterion: returns a dict of losses with ``total``.
        device: where to train.
        augment: varies (inputs, targets) on the device before the model sees them.
        evaluate: measures the model on validation data; by default `evaluate_model`'s losses.
        callbacks: are told of steps, evaluations and the end.
        run_file: where resumable checkpoints are written; None writes none.
        identity: plain values that a resumed run must share (data, features…).
        sample_names: ids of the training clips by row, for messages.
    """

    def __init__(
        self,
        model: nn.Module,
        train_loader: Any,
        val_loader: Iterable[tuple[Any, Any]] | None,
        config: TrainingConfig,
        criterion: nn.Module,
        *,
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        evaluate: Callable[[nn.Module], Evaluation] | None = None,
        callbacks: Sequence[Callback] = (),
        run_file: Path | None = None,
        identity: Mapping[str, Any] | None = None,
        sample_names: Sequence[str] = (),
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.criterion = criterion.to(self.device)
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.config = config
        self.augment = augment
        self._evaluate = evaluate
        self.callbacks = tuple(callbacks)
        self.run_file = run_file
        kept = {k: v for k, v in asdict(config).items() if k not in WITHOUT_EFFECT}
        self.identity = {"training": kept, **(identity or {})}
        self.sample_names = sample_names

        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.averaged = copy.deepcopy(self.model) if config.ema_decay > 0 else None
        self.early = EarlyStopping(
            patience=config.patience, min_delta=config.min_delta, mode=config.mode
        )
        self.tracker = MetricsTracker()
        self.history: list[dict[str, Any]] = []
        self.best_weights: dict[str, Tensor] | None = None
        self.step = 0
        self.epoch = 0
        self.batch_in_epoch = 0
        self.elapsed_s = 0.0
        self.total_steps = config.epochs * len(train_loader)
        self._pending: list[tuple[int, Tensor, Any, int]] = []
        self._clock = self._logged = time.monotonic()
        self._signal: int | None = None

    @property
    def progress(self) -> float:
        """Share of the run that is done: of its steps or of its time budget, whichever is more."""
        done = (self.step + 0.5) / self.total_steps
        if self.config.max_minutes is not None:
            done = max(done, self.elapsed_s / (60.0 * self.config.max_minutes))
        return min(done, 1.0)

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        budget = self.config.max_minutes
        return budget is not None and self.elapsed_s >= 60.0 * budget

    def train(self) -> list[dict[str, Any]]:
        """Train to the end, restore the best weights, and return the history.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; the run has been saved.
            NonFiniteLossError: the loss became NaN or infinite.
        """
        self._tick(restart=True)
        reason = "all epochs done"
        with self._watch_signals():
            while self.epoch < self.config.epochs:
                self.train_epoch()
                if self.out_of_time:
                    reason = "time budget used up"
                    break
                if self.early.stopped:
                    reason = f"no improvement in {self.config.patience} evaluations"
                    break
        self.restore_best()
        for callback in self.callbacks:
            callback.on_end(reason)
        return self.history

    def train_epoch(self) -> dict[str, Any]:
        """Train to the end of the current epoch, validate, save, and return its history line."""
        self.model.train()
        for inputs, targets in self._batches():
            self._train_step(inputs, targets)
            self.step += 1
            self.batch_in_epoch += 1
            self._tick()
            if self.step % self.config.log_every == 0:
                self._log()
            if self._signal is not None:
                self._interrupt()
            if self.run_file and self.step % self.config.save_every == 0:
                self.save_checkpoint(self.run_file)
            if self.out_of_time:
                break
        self._check_pending()
        entry = self.validate()
        self.epoch += 1
        self.batch_in_epoch = 0
        self.tracker = MetricsTracker()
        self._tick()
        if self.run_file:
            self.save_checkpoint(self.run_file)
        if self._signal is not None:
            self._interrupt()
        return entry

    def _train_step(self, inputs: Any, targets: Any) -> None:
        config = self.config
        torch.manual_seed(step_seed(config.seed, self.step))
        rate = config.learning_rate * learning_rate_factor(
            config.schedule, self.progress, config.warmup
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate

        rows = targets.get("row") if isinstance(targets, Mapping) else None
        inputs, targets = move(inputs, self.device), move(targets, self.device)
        if self.augment is not None:
            inputs, targets = self.augment(inputs, targets)
        use_amp = config.amp and self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=use_amp):
            outputs = self.model(inputs)
            losses = self.criterion(outputs, targets)
        losses["total"].backward()
        limit = config.gradient_clip if config.gradient_clip is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        if self.averaged is not None:
            _average(self.averaged, self.model, config.ema_decay, self.step)

        self.tracker.update(losses, weight=len(inputs))
        # Looking at a number waits for the device; these are looked at together, later.
        looked_at = torch.stack([losses["total"].detach().float(), norm.float()])
        self._pending.append((self.step, looked_at, rows, len(inputs)))

    def validate(self) -> dict[str, Any]:
        """Measure the model (its averaged weights, if any), keep it if best; add to the history."""
        entry: dict[str, Any] = {"epoch": self.epoch + 1, "step": self.step}
        entry["learning_rate"] = float(self.optimiser.param_groups[0]["lr"])
        for name, mean in self.tracker.means().items():
            entry["train_loss" if name == "total" else f"train_{name}"] = mean
        evaluation = self.evaluate(self.averaged or self.model)
        entry.update(evaluation.figures)
        entry["dead_classes"] = list(evaluation.dead)
        value = self._monitored(entry)
        if value is not None:
            entry["best"] = self.early.update(value)
            if entry["best"]:
                chosen = self.averaged or self.model
                self.best_weights = {k: v.clone() for k, v in chosen.state_dict().items()}
        self.history.append(entry)
        for callback in self.callbacks:
            callback.on_evaluation(entry, evaluation)
        return entry

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Measure a model on the validation data; no figures when there are none."""
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

    def save_checkpoint(self, path: Path) -> None:
        """Write all that `load_checkpoint` needs to go on from here.

        Raises:
            NonFiniteLossError: a step since the last look was not finite; nothing is written.
        """
        self._check_pending()
        averaged = None if self.averaged is None else self.averaged.state_dict()
        content = {
            "identity": self.identity,
            "model": self.model.state_dict(),
            "averaged": averaged,
            "optimiser": self.optimiser.state_dict(),
            "best_weights": self.best_weights,
            "early": self.early.state_dict(),
            "tracker": self.tracker.state_dict(),
            "history": self.history,
            "step": self.step,
            "epoch": self.epoch,
            "batch_in_epoch": self.batch_in_epoch,
            "elapsed_s": self.elapsed_s,
        }
        save_checkpoint(path, content, format=RUN_FORMAT)

    def load_checkpoint(self, path: Path) -> None:
        """Take over a run that `save_checkpoint` wrote.

        Raises:
            InputError: the file is missing or damaged, or is of a run with other settings or data.
        """
        content = load_checkpoint(path, format=RUN_FORMAT, device=self.device)
        differing = differences(content["identity"], self.identity)
        if differing:
            raise InputError.at(
                path, f"is of another run: {', '.join(differing)} differ; start without --resume"
            )
        self.model.load_state_dict(content["model"])
        if self.averaged is not None:
            self.averaged.load_state_dict(content["averaged"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.best_weights = content["best_weights"]
        self.early.load_state_dict(content["early"])
        self.tracker.load_state_dict(content["tracker"], self.device)
        self.history = content["history"]
        self.step = content["step"]
        self.epoch = content["epoch"]
        self.batch_in_epoch = content["batch_in_epoch"]
        self.elapsed_s = content["elapsed_s"]
        self._tick(restart=True)

    def export_history(self, path: Path) -> None:
        """Write the history as JSON: one object an epoch."""
        write_json(path, {"epochs": self.history})

    def _batches(self) -> Iterator[tuple[Any, Any]]:
        if hasattr(self.train_loader, "batches"):
            yield from self.train_loader.batches(self.epoch, self.batch_in_epoch)
        else:
            yield from islice(iter(self.train_loader), self.batch_in_epoch, None)

    def _monitored(self, entry: Mapping[str, Any]) -> float | None:
        """Return the monitored figure; where there is none of that name, minus the loss."""
        if self.config.monitor in entry:
            return float(entry[self.config.monitor])
        if "val_loss" in entry:
            return -self.early.sign * abs(float(entry["val_loss"]))
        return None

    def _log(self) -> None:
        clips = sum(size for *_, size in self._pending)
        loss = self._check_pending()
        now = time.monotonic()
        rate = clips / max(now - self._logged, 1e-9)
        self._logged = now
        info = StepInfo(
            step=self.step,
            total_steps=self.total_steps,
            epoch=self.epoch + 1,
            epochs=self.config.epochs,
            progress=self.progress,
            loss=loss,
            learning_rate=float(self.optimiser.param_groups[0]["lr"]),
            clips_per_s=rate,
            elapsed_s=self.elapsed_s,
        )
        for callback in self.callbacks:
            callback.on_step(info)

    def _check_pending(self) -> float:
        """Look at the losses since the last look; return the last one (NaN if there are none)."""
        pending, self._pending = self._pending, []
        if not pending:
            return float("nan")
        values = torch.stack([numbers for _, numbers, _, _ in pending]).cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            step, _, rows, _ = pending[bad[0]]
            what = "the gradient" if np.isfinite(values[bad[0], 0]) else "the loss"
            ids = [] if rows is None else [int(row) for row in rows]
            names = [self.sample_names[i] for i in ids] if len(self.sample_names) else []
            raise NonFiniteLossError(step, what, ids, names)
        return float(values[-1, 0])

    def _tick(self, *, restart: bool = False) -> None:
        now = time.monotonic()
        if restart:
            self._logged = now
        else:
            self.elapsed_s += now - self._clock
        self._clock = now

    @contextmanager
    def _watch_signals(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the run after the step under way; a second one at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _frame: FrameType | None) -> None:
            self._signal = number
            for each, handler in previous.items():
                signal.signal(each, handler)

        previous = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        for each in previous:
            signal.signal(each, note)
        try:
            yield
        finally:
            for each, handler in previous.items():
                signal.signal(each, handler)

    def _interrupt(self) -> None:
        if self.run_file:
            self.save_checkpoint(self.run_file)
        raise KeyboardInterrupt


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Move the averaged weights towards the model's; early steps count more."""
    weight = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
    current = model.state_dict()
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            value.lerp_(current[name], weight)
        else:
            value.copy_(current[name])
