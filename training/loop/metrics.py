"""What a model does on a validation set: losses, F1 a class, dead classes, and early stopping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.metrics.classification import Summary, clip_counts, decide, summarise

__all__ = [
    "ClassSupport",
    "EarlyStopping",
    "Evaluation",
    "MetricsTracker",
    "class_support",
    "dead_classes",
    "evaluate_model",
    "move",
    "predict_labels",
]

BoolArray = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The result of `evaluate_model`.

    `figures` are plain numbers by name (``val_loss``, ``macro_f1``, ``micro_f1``…); a figure that
    is not defined is left out. `outputs` and `targets` hold what the heads said and what was true,
    in the order of the clips.
    """

    figures: dict[str, float]
    summary: Summary | None = None
    dead: tuple[str, ...] = ()
    """Classes that have events here and of which none was found."""
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    targets: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassSupport:
    """How much stands behind the figures of a class: events, and recordings they come from."""

    label: str
    events: int
    recordings: int


class MetricsTracker:
    """Weighted means of scalars, kept on the device until they are asked for."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._weight = 0.0

    def update(self, values: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """Add one batch's scalars."""
        for name, value in values.items():
            term = value.detach().double() * weight
            self._sums[name] = self._sums[name] + term if name in self._sums else term
        self._weight += weight

    def means(self) -> dict[str, float]:
        """Return the weighted means; empty before the first update."""
        return {name: float(value) / self._weight for name, value in self._sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return the sums as tensors, for a checkpoint."""
        return {"sums": {k: v.cpu() for k, v in self._sums.items()}, "weight": self._weight}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Take over what `state_dict` returned."""
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._weight = float(state["weight"])


class EarlyStopping:
    """Says when a figure has stopped getting better.

    An evaluation improves when it beats the best by more than `min_delta`; after `patience`
    evaluations in a row that do not, `update` returns False for "stop" through `stopped`.
    """

    def __init__(self, *, patience: int = 15, min_delta: float = 0.001, mode: str = "max") -> None:
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be max or min, got {mode!r}")
        self.patience = patience
        self.min_delta = min_delta
        self.sign = 1.0 if mode == "max" else -1.0
        self.best: float | None = None
        self.without_improvement = 0

    def update(self, value: float) -> bool:
        """Take an evaluation in; return whether it is the best so far by more than `min_delta`."""
        better = self.best is None or self.sign * (value - self.best) > self.min_delta
        if better:
            self.best = value
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
        return {"best": self.best, "without_improvement": self.without_improvement}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self.best = state["best"]
        self.without_improvement = int(state["without_improvement"])


def move(targets: Any, device: torch.device) -> Any:
    """Return tensors, or a dict of them, on the device."""
    if isinstance(targets, Mapping):
        return {name: value.to(device, non_blocking=True) for name, value in targets.items()}
    return targets.to(device, non_blocking=True)


@torch.no_grad()
def evaluate_model(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    criterion: nn.Module | None = None,
    *,
    device: torch.device | str = "cpu",
    labels: Sequence[str] | None = None,
    task: str = "multilabel",
    keep: Sequence[str] = ("logits", "velocity", "openness"),
) -> Evaluation:
    """Run a model over all batches, in evaluation mode, and measure it.

    Args:
        model: returns a tensor or a dict of heads.
        batches: (inputs, targets) pairs; targets a tensor or a dict of tensors.
        criterion: returns a dict with ``total``; gives ``val_loss`` and ``val_<part>``.
        device: where the model is.
        labels: class names; where given, the outputs must hold ``logits`` and the targets
            ``labels`` and ``annotated``, and F1 figures are given.
        task: ``multilabel`` (a score of at least 0.5 is a yes) or ``multiclass`` (the highest).
        keep: outputs to return.
    """
    device = torch.device(device)
    was_training = model.training
    model.eval()
    losses = MetricsTracker()
    kept: dict[str, list[Tensor]] = {}
    truth: dict[str, list[Tensor]] = {}
    for inputs, targets in batches:
        on_device = move(targets, device)
        outputs = model(move(inputs, device))
        named = outputs if isinstance(outputs, Mapping) else {"logits": outputs}
        if criterion is not None:
            losses.update(criterion(outputs, on_device), weight=len(inputs))
        for name in keep:
            if name in named:
                kept.setdefault(name, []).append(named[name].float())
        if isinstance(targets, Mapping):
            for name, value in targets.items():
                truth.setdefault(name, []).append(value)
    model.train(was_training)

    outputs_all = {name: torch.cat(parts).cpu().numpy() for name, parts in kept.items()}
    targets_all = {name: torch.cat(parts).cpu().numpy() for name, parts in truth.items()}
    figures = {
        "val_loss" if name == "total" else f"val_{name}": value
        for name, value in losses.means().items()
        if np.isfinite(value)
    }
    if labels is None or "logits" not in outputs_all:
        return Evaluation(figures=figures, outputs=outputs_all, targets=targets_all)

    predicted = predict_labels(outputs_all["logits"], task=task)
    reference = targets_all["labels"] > 0.5
    counts = clip_counts(reference, predicted, annotated=targets_all["annotated"] > 0.5)
    summary = summarise(counts, labels)
    for name, value in (("macro_f1", summary.macro.f1), ("micro_f1", summary.micro.f1)):
        if value is not None:
            figures[name] = value
    for head in ("velocity", "openness"):
        if head in outputs_all:
            error = np.abs(outputs_all[head] - targets_all[head])
            if np.isfinite(error).any():
                figures[f"{head}_mae"] = float(np.nanmean(error))
    return Evaluation(
        figures=figures,
        summary=summary,
        dead=dead_classes(summary),
        outputs=outputs_all,
        targets=targets_all,
    )


def predict_labels(logits: NDArray[Any], *, task: str = "multilabel") -> BoolArray:
    """Say which labels the logits name [shape=(n, n_classes)]: those ≥ 0, or the highest."""
    if task == "multiclass":
        return decide(logits, threshold=-np.inf, top_k=1)
    return decide(logits, threshold=0.0)


def dead_classes(summary: Summary) -> tuple[str, ...]:
    """Return the classes with reference events and F1 = 0: what a high average would hide."""
    return tuple(entry.label for entry in summary.per_class if entry.n_ref > 0 and not entry.f1)


def class_support(
    labels: NDArray[Any], sources: Sequence[object], names: Sequence[str]
) -> tuple[ClassSupport, ...]:
    """Count the events of each class and the recordings that they come from.

    Args:
        labels: label vectors [shape=(n, n_classes)].
        sources: the recording or session of each clip, n of them.
        names: names of the classes.
    """
    where = np.asarray(list(sources), dtype=object)
    return tuple(
        ClassSupport(
            label=name,
            events=int((labels[:, column] > 0).sum()),
            recordings=len(set(where[labels[:, column] > 0])),
        )
        for column, name in enumerate(names)
    )
