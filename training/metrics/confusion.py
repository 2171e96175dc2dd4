"""What a multi-label classifier said instead of what it missed.

Task:
    A confusion matrix has one true and one predicted class an example. Clips here hold any number
    of both, so the question is put to each miss: a clip holds class A, and A was not predicted
    there. Which classes were predicted in that clip without being true?

Conventions:
    Arrays are ``(n_clips, n_classes)``, as in `training.metrics.classification`. A cell whose
    label is not annotated in the clip's source is unknown: it is no event, no miss, and nothing
    wrong. Clips count once each, whatever their weight. A clip in which several wrong classes were
    said counts under each of them, so a row may sum to more than its misses; a miss in whose clip
    nothing wrong was said counts as `nothing`. That B was said where A was missed does not prove
    that A was taken for B: where a clip holds several events, the two may be unrelated.

Empty input:
    Without clips every count is 0; without classes the result is empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.metrics.classification import BoolArray

_BLOCK: Final = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class SaidInstead:
    """Counts of clips; row A is about the clips that hold class A and miss it."""

    labels: tuple[str, ...]
    events: NDArray[np.int64]
    """Clips that hold the class [shape=(n_classes,)]."""
    missed: NDArray[np.int64]
    """Of these, where it was not predicted [shape=(n_classes,)]."""
    nothing: NDArray[np.int64]
    """Of the missed, where no wrong class was predicted [shape=(n_classes,)]."""
    said: NDArray[np.int64]
    """Of the missed, where the column's class was wrongly predicted [shape=(n_classes,) * 2]."""

    def as_metrics(self) -> dict[str, Any]:
        """Return a table a class that has events; `said` holds the most frequent first."""
        return {
            self.labels[row]: {
                "n_events": int(self.events[row]),
                "missed": int(self.missed[row]),
                "nothing": int(self.nothing[row]),
                "said": {
                    self.labels[column]: int(self.said[row, column])
                    for column in np.argsort(-self.said[row], kind="stable")
                    if self.said[row, column]
                },
            }
            for row in np.flatnonzero(self.events)
        }


def said_instead(
    truth: BoolArray, predicted: BoolArray, annotated: BoolArray, labels: Sequence[str]
) -> SaidInstead:
    """Count what was said where a class was missed.

    Args:
        truth: what is there [shape=(n_clips, n_classes)].
        predicted: what was decided [shape=(n_clips, n_classes)].
        annotated: the cells that are known [shape=(n_clips, n_classes)].
        labels: the classes, one a column.

    Raises:
        ValueError: the shapes do not fit each other.
    """
    if not truth.shape == predicted.shape == annotated.shape == (len(truth), len(labels)):
        raise ValueError(
            f"shapes differ: {truth.shape}, {predicted.shape}, {annotated.shape}, "
            f"{len(labels)} labels"
        )
    there = truth & annotated
    missed = there & ~predicted
    wrong = predicted & ~truth & annotated
    alone = missed & ~wrong.any(axis=1, keepdims=True)
    said = np.zeros((len(labels), len(labels)), dtype=np.int64)
    for start in range(0, len(truth), _BLOCK):
        rows = slice(start, start + _BLOCK)
        # a product of floats is much faster than one of integers, and exact up to 2**24
        product = missed[rows].T.astype(np.float32) @ wrong[rows].astype(np.float32)
        said += product.astype(np.int64)
    return SaidInstead(
        labels=tuple(labels),
        events=there.sum(axis=0, dtype=np.int64),
        missed=missed.sum(axis=0, dtype=np.int64),
        nothing=alone.sum(axis=0, dtype=np.int64),
        said=said,
    )
