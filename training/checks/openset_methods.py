"""The unknown scores by name, computed for the examples of one file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from training.checks import openset_input as inputs
from training.checks.openset_input import EXPLICIT, Examples, FeatureFile
from training.errors import DrumgateError, InputError
from training.manifest import InputFile
from training.metrics import openset_features as by_features
from training.metrics.openset import Floats
from training.metrics.openset_features import FEATURE_SCORES, Gaussian
from training.metrics.openset_scores import OUTPUT_SCORES, Task, unknown_scores

METHODS: Final = (*OUTPUT_SCORES, *FEATURE_SCORES)


class ScoreOptions(Protocol):
    """What computing scores needs of the options."""

    @property
    def task(self) -> Task: ...  # noqa: D102
    @property
    def temperature(self) -> float: ...  # noqa: D102
    @property
    def neighbours(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class Scored:
    """Unknown scores by method, and why the others could not be had."""

    arrays: dict[str, Floats]
    unavailable: dict[str, str]
    outputs: dict[str, Any] | None
    """Where probabilities and logits came from; None where no method looked at them."""


@dataclass(kw_only=True, slots=True)
class Statistics:
    """The features of the examples and what is known of training, fitted when first asked for."""

    examples: FeatureFile | None
    training: FeatureFile | None
    _gaussian: Gaussian | None = field(default=None, init=False)

    @classmethod
    def read(cls, features: Path | None, statistics: Path | None) -> Statistics:
        """Read both archives, where given.

        Raises:
            InputError: one is missing or malformed, or they are of different models.
        """
        if features is None or statistics is None:
            return cls(examples=None, training=None)
        examples, training = inputs.read_archive(features), inputs.read_archive(statistics)
        ours, theirs = (file.arrays.get("weight") for file in (examples, training))
        if ours is not None and theirs is not None and not np.array_equal(ours, theirs):
            why = f"is of another model than {features}: their class layers differ"
            raise InputError.at(statistics, why, field="weight")
        return cls(examples=examples, training=training)

    @property
    def sources(self) -> list[InputFile]:
        """The files read."""
        return [file.source for file in (self.examples, self.training) if file is not None]

    def score(self, name: str, ids: list[str], options: ScoreOptions) -> Floats:
        """Compute a score from features, shape (n,).

        Raises:
            DrumgateError: there are no features, or an archive lacks what the score needs.
        """
        if self.examples is None or self.training is None:
            raise DrumgateError(f"{name} needs --features and --statistics")
        x = inputs.features_of(self.examples, ids)
        try:
            if name == "knn":
                bank = self._matching("features", x)
                neighbours = min(options.neighbours, len(bank))
                return by_features.nearest_neighbour(x, bank, neighbours)
            if name == "vim":
                weight = self._matching("weight", x)
                bias = self.training.numbers("bias", ndim=1)
                bank = self._matching("features", x)
                return by_features.vim(
                    x, by_features.fit_vim(bank, weight, bias, task=options.task)
                )
            fitted = self._fitted(x)
        except ValueError as error:
            raise InputError.at(self.training.path, str(error)) from None
        if name == "mahalanobis":
            return by_features.mahalanobis(x, fitted)
        return by_features.relative_mahalanobis(x, fitted)

    def _matching(self, name: str, features: Floats) -> Floats:
        assert self.training is not None
        found = self.training.numbers(name, ndim=2)
        if not len(found) or found.shape[1] != features.shape[1]:
            why = f"has shape {found.shape}, the features {features.shape}"
            raise InputError.at(self.training.path, why, field=name)
        return found

    def _fitted(self, features: Floats) -> Gaussian:
        """The Gaussian statistics as saved, or fitted to training features and targets."""
        assert self.training is not None
        if self._gaussian is None:
            if "means" in self.training.arrays:
                centre = self.training.numbers("centre", ndim=1)
                self._gaussian = Gaussian(
                    means=self._matching("means", features),
                    precision=self._matching("precision", features),
                    centre=centre,
                    background=self._matching("background", features),
                )
                square = (features.shape[1], features.shape[1])
                for name in ("precision", "background"):
                    if getattr(self._gaussian, name).shape != square:
                        raise ValueError(f"{name} must have shape {square}")
                if centre.shape != square[:1]:
                    raise ValueError(f"centre must have shape {square[:1]}")
            else:
                self._gaussian = by_features.fit_gaussian(
                    self._matching("features", features),
                    self.training.numbers("targets", ndim=2) > 0,
                )
        return self._gaussian


def score(
    examples: Examples,
    wanted: Iterable[str],
    statistics: Statistics,
    options: ScoreOptions,
    *,
    tolerant: bool,
) -> Scored:
    """Compute the scores asked for.

    Args:
        examples: of one file.
        wanted: `explicit` and names out of `METHODS`.
        statistics: features and training statistics.
        options: task, temperature, neighbours.
        tolerant: note why a score cannot be had, rather than raise.

    Raises:
        DrumgateError: a score cannot be had.
    """
    arrays: dict[str, Floats] = {}
    unavailable: dict[str, str] = {}
    if not examples.rows:
        return Scored(arrays=dict.fromkeys(wanted, np.empty(0)), unavailable={}, outputs=None)
    read: tuple[Any, dict[str, Any]] | None = None
    for name in wanted:
        try:
            # What overflows becomes a score that is not finite, and is then not measured.
            with np.errstate(all="ignore"):
                if name == EXPLICIT:
                    arrays[name] = inputs.explicit_scores(examples)
                elif name in OUTPUT_SCORES:
                    if read is None:
                        read = inputs.read_outputs(
                            examples, task=options.task, temperature=options.temperature
                        )
                    arrays[name] = unknown_scores(name, read[0])
                else:
                    arrays[name] = statistics.score(name, examples.ids, options)
        except (DrumgateError, ValueError) as error:
            if not tolerant:
                if isinstance(error, DrumgateError):
                    raise
                raise DrumgateError(str(error)) from None
            unavailable[name] = str(error)
    return Scored(arrays=arrays, unavailable=unavailable, outputs=read[1] if read else None)
