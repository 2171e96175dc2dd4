"""Starting from another model's weights, and leaving part of a model as it is.

Weights are taken over by name, as `load_state_dict(strict=False)` would, and everything that was
not taken over is reported with the reason. The rows of the class layer go by the *names* of the
classes: a model of twelve drums can start one of nine, in another order.

A frozen part does not change at all: its parameters get no gradient, and its batch norms keep the
statistics that they have and normalise with them (in training mode, too).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training.errors import DrumgateError, InputError
from training.manifest import describe_file
from training.model.checkpoint import MODEL_FORMAT, load_checkpoint

__all__ = ["Frozen", "Transfer", "freeze", "load_weights", "start_from"]

CLASS_LAYER: Final = ("cnn.classes.weight", "cnn.classes.bias")


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """What was taken over from another model, and what was not."""

    source: str = ""
    source_sha256: str | None = None
    loaded: tuple[str, ...] = ()
    """Entries of the model that now hold the other's values, wholly."""
    classes_loaded: tuple[str, ...] = ()
    """Classes whose rows of the class layer were taken over, where not all were."""
    classes_new: tuple[str, ...] = ()
    """Classes that the other model does not have: their rows start anew."""
    classes_dropped: tuple[str, ...] = ()
    """Classes of the other model that this one does not have."""
    missing: tuple[str, ...] = ()
    """Entries of the model that the other does not have: left as they were."""
    unused: tuple[str, ...] = ()
    """Entries of the other model that this one does not have."""
    other_shape: Mapping[str, str] | None = None
    """Entries left as they were because the shapes differ → "(theirs) is not (ours)"."""
    other_features: tuple[str, ...] = ()
    """Settings of the features in which the models differ: the weights heard something else."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the card and the report."""
        return {**asdict(self), "other_shape": dict(self.other_shape or {})}

    def lines(self) -> list[str]:
        """Return the report as lines for a person."""
        shown = [f"started from {self.source}: {len(self.loaded)} entries taken over"]
        if self.classes_loaded or self.classes_new:
            shown.append(f"  class rows taken over: {', '.join(self.classes_loaded) or 'none'}")
        named = (
            ("class rows that start anew", self.classes_new),
            ("classes of the other model that are not used", self.classes_dropped),
            ("not in the other model, left as they were", self.missing),
            ("not in this model, not used", self.unused),
            ("feature settings that differ", self.other_features),
        )
        shown += [f"  {title}: {', '.join(names)}" for title, names in named if names]
        shown += [
            f"  another shape, left as it was: {name}: {shapes}"
            for name, shapes in (self.other_shape or {}).items()
        ]
        return shown


@dataclass(frozen=True, kw_only=True, slots=True)
class Frozen:
    """What `freeze` froze."""

    prefixes: tuple[str, ...] = ()
    parameters: int = 0
    """Numbers that will not change."""
    trainable: int = 0
    """Numbers that will."""
    norms: tuple[str, ...] = ()
    """Batch norms that keep their statistics."""

    def lines(self) -> list[str]:
        """Return what is frozen as a line for a person; none where nothing is."""
        if not self.prefixes:
            return []
        return [
            f"frozen: {self.parameters:,} parameters and {len(self.norms)} batch norms below "
            f"{', '.join(self.prefixes)}; {self.trainable:,} are trained"
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for the card and the report."""
        return asdict(self)


def start_from(
    model: nn.Module,
    path: Path,
    labels: Sequence[str],
    *,
    features: Mapping[str, Any] | None = None,
    class_layer: Sequence[str] = CLASS_LAYER,
) -> Transfer:
    """Take over what fits of a model file's weights.

    Args:
        model: is changed in place.
        path: a model file, as the trainer writes it.
        labels: the classes of `model`, in order.
        features: its feature settings, to be compared with the file's.
        class_layer: the entries whose rows are classes.

    Raises:
        InputError: the file is not a model file, or nothing of it fits the model.
    """
    content = load_checkpoint(path, format=MODEL_FORMAT)
    weights, theirs = content.get("weights"), content.get("labels")
    if not isinstance(weights, dict) or not all(isinstance(v, Tensor) for v in weights.values()):
        raise InputError.at(path, "is not a complete model file", field="weights")
    texts = isinstance(theirs, list) and all(isinstance(label, str) for label in theirs)
    if not isinstance(theirs, list) or not texts or len(set(theirs)) != len(theirs):
        raise InputError.at(path, "is not a complete model file", field="labels")
    heard = content.get("features")
    differing: tuple[str, ...] = ()
    if features is not None and isinstance(heard, dict):
        names = sorted(set(heard) | set(features))
        differing = tuple(
            f"{name} ({heard.get(name)} there, {features.get(name)} here)"
            for name in names
            if heard.get(name) != features.get(name)
        )
    found = load_weights(model, weights, labels, theirs, class_layer=class_layer)
    if not found.loaded and not found.classes_loaded:
        raise InputError.at(path, "holds no weights that fit this model", field="weights")
    known = {name: getattr(found, name) for name in Transfer.__slots__}
    known |= {
        "source": str(path),
        "source_sha256": describe_file(path).sha256,
        "other_features": differing,
    }
    return Transfer(**known)


@torch.no_grad()
def load_weights(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    labels: Sequence[str],
    their_labels: Sequence[str],
    *,
    class_layer: Sequence[str] = CLASS_LAYER,
) -> Transfer:
    """Copy the weights that have a place of the same name and shape in the model, in place.

    Of the entries in `class_layer` the rows are copied by class name; the others stay as they are.
    """
    own = model.state_dict()
    loaded: list[str] = []
    shapes: dict[str, str] = {}
    by_class = list(labels) != list(their_labels)
    rows = [(labels.index(label), row) for row, label in enumerate(their_labels) if label in labels]
    mapped = False
    for name, value in weights.items():
        if name not in own:
            continue
        place = own[name]
        if by_class and name in class_layer:
            fits = value.shape[1:] == place.shape[1:] and len(value) == len(their_labels)
            if fits and rows:
                here, there = (list(side) for side in zip(*rows, strict=True))
                place[here] = value[there].to(place)
                mapped = True
                continue
        elif value.shape == place.shape:
            place.copy_(value)
            loaded.append(name)
            continue
        shapes[name] = f"{tuple(value.shape)} is not {tuple(place.shape)}"
    return Transfer(
        loaded=tuple(loaded),
        classes_loaded=tuple(labels[here] for here, _ in sorted(rows)) if mapped else (),
        classes_new=tuple(x for x in labels if x not in their_labels),
        classes_dropped=tuple(x for x in their_labels if x not in labels),
        missing=tuple(name for name in own if name not in weights),
        unused=tuple(name for name in weights if name not in own),
        other_shape=shapes,
    )


def freeze(model: nn.Module, prefixes: Sequence[str]) -> Frozen:
    """Freeze the parameters below each prefix, and the statistics of the batch norms there.

    A prefix is the dotted name of a module or a parameter, such as ``cnn.trunk`` or
    ``cnn.trunk.0``; it ends at a dot, so that ``cnn.trunk.1`` does not mean ``cnn.trunk.10``.

    Raises:
        DrumgateError: no parameter is below a prefix, or none would be left to train.
    """
    if not prefixes:
        return Frozen(trainable=sum(p.numel() for p in model.parameters()))
    parameters = dict(model.named_parameters())
    norms = []
    for prefix in prefixes:
        below = [name for name in parameters if _is_below(name, prefix)]
        if not below:
            raise DrumgateError(f"--freeze {prefix}: {_nearest(prefix, parameters)}")
        for name in below:
            parameters[name].requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and any(_is_below(name, each) for each in prefixes):
            _freeze_norm(module)
            norms.append(name)
    trainable = sum(p.numel() for p in parameters.values() if p.requires_grad)
    if trainable == 0:
        raise DrumgateError(
            f"--freeze {', '.join(prefixes)}: nothing would be left to train; leave a head free"
        )
    return Frozen(
        prefixes=tuple(prefixes),
        parameters=sum(p.numel() for p in parameters.values()) - trainable,
        trainable=trainable,
        norms=tuple(norms),
    )


class _FrozenNorm:
    """A batch norm that is in evaluation mode whatever it is told."""

    def train(self, mode: bool = True) -> Any:
        return super().train(False)  # type: ignore[misc]


_KINDS: dict[type, type] = {}


def _frozen_kind(kind: type) -> type:
    if kind not in _KINDS:
        _KINDS[kind] = type(f"Frozen{kind.__name__}", (_FrozenNorm, kind), {})
    return _KINDS[kind]


def _freeze_norm(module: nn.Module) -> None:
    # Changing the class keeps names, state and copies of the module as they are; a flag would
    # have to be set again whenever the model is told to train.
    if not isinstance(module, _FrozenNorm):
        module.__class__ = _frozen_kind(type(module))
    module.train(False)


def _is_below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")


def _nearest(prefix: str, names: Mapping[str, Any]) -> str:
    known = sorted({".".join(name.split(".")[:n]) for name in names for n in range(1, 9)})
    near = difflib.get_close_matches(prefix, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known[:12])}"
    return f"no parameter is below this name; {hint}"
