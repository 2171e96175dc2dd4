"""Running means on the device, and when to stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from training.loop.distributed import World

__all__ = ["EarlyStopping", "MetricsTracker"]


class MetricsTracker:
    """Weighted means of scalars, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weight: float | Tensor = 0.0

    def update(self, values: Mapping[str, Tensor], weight: float | Tensor = 1.0) -> None:
        """Add one batch's scalars; the weight may be on the device, too."""
        for name, value in values.items():
            term = value.detach().double() * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term
        self._weight = self._weight + weight

    def means(self, world: World | None = None) -> dict[str, float]:
        """Return the weighted means; empty before the first update.

        In a `world` of several processes the sums are added up over them: each has tracked its
        part of the values, weighted with the whole.
        """
        if not self._sums:
            return {}
        sums = torch.stack(list(self._sums.values()))
        if world is not None:
            sums = world.sum(sums)
        weight = float(self._weight)
        return {name: value / weight for name, value in zip(self._sums, sums.tolist(), strict=True)}

    def state_dict(self, world: World | None = None) -> dict[str, Any]:
        """Return the sums as tensors, for a checkpoint: those of all processes of a `world`."""
        sums = {k: (v if world is None else world.sum(v)).cpu() for k, v in self._sums.items()}
        return {"sums": sums, "weight": float(self._weight)}

    def load_state_dict(
        self, state: Mapping[str, Any], device: torch.device, world: World | None = None
    ) -> None:
        """Take over what `state_dict` returned; of a `world`, rank 0 holds it for all."""
        share = 1.0 if world is None or world.leads else 0.0
        self._sums = {name: value.to(device) * share for name, value in state["sums"].items()}
        self._weight = float(state["weight"])


class EarlyStopping:
    """Says whether a figure is the best so far, and when it has stopped getting better.

    An evaluation improves when it beats the best by more than `min_delta`. After `patience`
    evaluations in a row that do not, `stopped` is true.

    An evaluation may come with an `excess`: by how much it breaks a limit that comes before the
    figure. One that keeps the limit (excess 0) beats any that does not; among those that do not,
    the smaller excess wins, whatever the figure.
    """

    def __init__(self, *, patience: int = 15, min_delta: float = 0.001, mode: str = "max") -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be max or min, got {mode!r}")
        self.patience = patience
        self.min_delta = min_delta
        self.sign = 1.0 if mode == "max" else -1.0
        self.best: float | None = None
        self.excess = 0.0
        self.without_improvement = 0

    def update(self, value: float, excess: float = 0.0) -> bool:
        """Take an evaluation in; return whether it is the best so far by more than `min_delta`."""
        if self.best is None:
            better = True
        elif excess > 0 or self.excess > 0:
            better = excess < self.excess
        else:
            better = self.sign * (value - self.best) > self.min_delta
        if better:
            self.best, self.excess = value, excess
            self.without_improvement = 0
        else:
            self.without_improvement += 1
        return better

    @property
    def stopped(self) -> bool:
        """Whether patience has run out."""
        return self.without_improvement >= self.patience

    def state_dict(self) -> dict[str, Any]:
        """Return the best figure and the count since."""
        return {
            "best": self.best,
            "excess": self.excess,
            "without_improvement": self.without_improvement,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.best = state["best"]
        self.excess = float(state["excess"])
        self.without_improvement = int(state["without_improvement"])
