"""What a model does on a validation set: losses, F1 a class, dead classes, and early stopping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.loop.score_figures import score_figures
from training.loop.tracking import EarlyStopping, MetricsTracker
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
Arrays = dict[str, NDArray[Any]]


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
    average_precision: dict[str, float] = field(default_factory=dict)
    """Of each class where it is defined."""
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    targets: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassSupport:
    """How much stands behind the figures of a class: events, and recordings they come from."""

    label: str
    events: int
    recordings: int


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
            ``labels`` and ``annotated``, and figures of the classes are given: F1, mean average
            precision (``map``), ``ece``, ``top_1`` and ``top_3``.
        task: ``multilabel`` (a score of at least 0.5 is a yes) or ``multiclass`` (the highest).
        keep: outputs to return.
    """
    was_training = model.training
    model.eval()
    losses, outputs, truth = _heard(model, batches, criterion, torch.device(device), keep)
    model.train(was_training)
    figures = {
        "val_loss" if name == "total" else f"val_{name}": value
        for name, value in losses.means().items()
        if np.isfinite(value)
    }
    found = Evaluation(figures=figures, outputs=outputs, targets=truth)
    if labels is None or "logits" not in outputs:
        return found
    return _judged(found, labels, task)


def _heard(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    criterion: nn.Module | None,
    device: torch.device,
    keep: Sequence[str],
) -> tuple[MetricsTracker, Arrays, Arrays]:
    """Run the model over all batches; return the losses, the outputs to keep, and the targets."""
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
    # Only here is the device waited for.
    return (
        losses,
        {name: torch.cat(parts).cpu().numpy() for name, parts in kept.items()},
        {name: torch.cat(parts).cpu().numpy() for name, parts in truth.items()},
    )


def _judged(found: Evaluation, labels: Sequence[str], task: str) -> Evaluation:
    """Add the figures of the classes, and the errors of velocity and openness."""
    outputs, truth = found.outputs, found.targets
    figures = dict(found.figures)
    predicted = predict_labels(outputs["logits"], task=task)
    reference = truth["labels"] > 0.5
    summary = summarise(
        clip_counts(reference, predicted, annotated=truth["annotated"] > 0.5), labels
    )
    for name, value in (("macro_f1", summary.macro.f1), ("micro_f1", summary.micro.f1)):
        if value is not None:
            figures[name] = value
    for head in ("velocity", "openness"):
        if head in outputs:
            error = np.abs(outputs[head] - truth[head])
            if np.isfinite(error).any():
                figures[f"{head}_mae"] = float(np.nanmean(error))
    more, precisions = score_figures(
        outputs["logits"], truth["labels"], truth["annotated"], labels, task=task
    )
    return replace(
        found,
        figures=figures | more,
        summary=summary,
        dead=dead_classes(summary),
        average_precision=precisions,
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
