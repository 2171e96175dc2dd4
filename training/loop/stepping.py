"""One step: from batches to gradients to moved weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from training.loop.config import TrainingConfig
from training.loop.distributed import World
from training.loop.metrics import move
from training.loop.optimisers import precision
from training.loop.watched import Step

__all__ = ["Augment", "Batch", "Stepper"]

Batch: TypeAlias = tuple[Any, Any]
Augment: TypeAlias = Callable[[Any, Any], tuple[Any, Any]]


class Stepper:
    """Makes steps: augmentation, forward, backward, clipping, the optimiser, averaged weights.

    `section` times a part of a step. The rest is as in `Trainer`, which makes one of these.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module,
        optimiser: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        config: TrainingConfig,
        *,
        averaged: nn.Module | None,
        augment: Augment | None,
        device: torch.device,
        world: World,
        section: Callable[[str], AbstractContextManager[object]],
    ) -> None:
        self.model = model
        self.criterion = criterion
        self.optimiser = optimiser
        self.scaler = scaler
        self.config = config
        self.averages = _Averages(averaged, model) if averaged is not None else None
        self.augment = augment
        self.device = device
        self.world = world
        self.section = section
        self.low = precision(config, device)
        # What is run forward: the model, or the model with its gradients averaged.
        self.network = model
        if world.size > 1:
            on = [device] if device.type == "cuda" else None
            self.network = nn.parallel.DistributedDataParallel(
                model, device_ids=on, gradient_as_bucket_view=True
            )

    def step(self, group: Sequence[Batch], number: int, rate: float) -> Step:
        """Make one step, at this learning rate, from batches whose gradients add up."""
        for parameters in self.optimiser.param_groups:
            parameters["lr"] = rate
        named = [targets for _, targets in group if isinstance(targets, Mapping)]
        rows = [targets["row"] for targets in named if "row" in targets]
        with self.section("data"):
            batches = [(move(x, self.device), move(y, self.device)) for x, y in group]
        if self.augment is not None:
            with self.section("augment"):
                batches = [self.augment(inputs, targets) for inputs, targets in batches]
        parts, weight = self._parts(batches)
        if self.config.cuda_graphs:
            # Once a step: what a replay leaves behind, gradients among it, lasts till then.
            torch.compiler.cudagraph_mark_step_begin()

        totals: dict[str, Tensor] = {}
        for index, (inputs, targets) in enumerate(batches):
            with self._alone(until_last=index < len(batches) - 1):
                losses = self._losses(inputs, targets, parts[index])
                with self.section("backward"):
                    # Processes average their gradients; their losses are parts to be added up.
                    self.scaler.scale(losses["total"] * self.world.size).backward()
            for name, value in losses.items():
                totals[name] = totals[name] + value.detach() if index else value.detach()
        with self.section("optimiser"):
            norm = self._move_weights(number)
        clips = sum(len(inputs) for inputs, _ in batches)
        return Step(number, totals, norm, rows, clips, weight)

    def _losses(self, inputs: Any, targets: Any, part: Any) -> dict[str, Tensor]:
        """Run forward; return the losses, of a size that those of the whole step add up.

        `part` are the counts that the criterion divides by, or this batch's share of the clips.
        """
        with self.section("forward"), self._autocast():
            outputs = self.network(inputs)
            if isinstance(part, Mapping):
                losses: dict[str, Tensor] = self.criterion(outputs, targets, counts=part)
                return losses
            losses = self.criterion(outputs, targets)
            if part is None:
                return losses
            return {name: value * part for name, value in losses.items()}

    def _autocast(self) -> AbstractContextManager[Any]:
        """Run what is within it in low precision, where the config and the device say so."""
        if self.low == "float32":
            return nullcontext()
        dtype = torch.float16 if self.low == "fp16" else torch.bfloat16
        return torch.autocast(self.device.type, dtype=dtype)

    def _parts(self, batches: Sequence[Batch]) -> tuple[list[Any], float | Tensor]:
        """Return what makes the losses of each batch add up to those of the step, and its clips."""
        clips = [len(inputs) for inputs, _ in batches]
        if len(batches) == 1 and self.world.size == 1:
            return [None], float(clips[0])
        # Filled there: a number that is sent would have the host wait for the device.
        total = self.world.sum(torch.full((), float(sum(clips)), device=self.device))
        count: Any = getattr(self.criterion, "counts", None)
        if count is None:
            return [number / total for number in clips], total
        found = [count(targets) for _, targets in batches]
        names = list(found[0])
        stacked = [torch.stack([counts[name].double() for name in names]) for counts in found]
        summed = self.world.sum(torch.stack(stacked).sum(dim=0)).float().unbind()
        return [dict(zip(names, summed, strict=True))] * len(batches), total

    def _move_weights(self, number: int) -> Tensor:
        """Clip the gradient, step, and return the norm that the gradient had."""
        config = self.config
        self.scaler.unscale_(self.optimiser)
        limit = config.gradient_clip if config.gradient_clip is not None else float("inf")
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        if self.averages is not None:
            self.averages.update(config.ema_decay, number)
        return norm

    def _alone(self, *, until_last: bool) -> AbstractContextManager[Any]:
        """Let only the last of several batches average gradients over the processes."""
        if until_last and isinstance(self.network, nn.parallel.DistributedDataParallel):
            return self.network.no_sync()
        return nullcontext()


class _Averages:
    """Averaged weights and those that they follow, listed once: their tensors stay the same."""

    def __init__(self, averaged: nn.Module, model: nn.Module) -> None:
        current = model.state_dict()
        pairs = [(value, current[name]) for name, value in averaged.state_dict().items()]
        self._moved = [pair for pair in pairs if pair[0].is_floating_point()]
        self._copied = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, decay: float, step: int) -> None:
        """Move the averages towards the weights; early steps count more."""
        weight = 1.0 - min(decay, (1.0 + step) / (10.0 + step))
        averages, weights = zip(*self._moved, strict=True)
        # All together: on a GPU one kernel, not one a tensor.
        torch._foreach_lerp_(averages, weights, weight)
        for average, value in self._copied:
            average.copy_(value)
