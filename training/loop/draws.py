"""How often clips of each class were drawn for training, beside what was to be expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.dataset.samplers import EpochSampler

__all__ = ["class_draws"]


def class_draws(
    labels: NDArray[Any],
    names: Sequence[str],
    sampler: EpochSampler,
    weights: NDArray[np.float64] | None,
    history: Sequence[Mapping[str, Any]],
    *,
    accumulate_steps: int = 1,
) -> dict[str, Any]:
    """Return ``{clips, per_class: {label: {expected, realised}}}`` of a run.

    The order of an epoch follows from its number, so nothing needs to be counted on the way.

    Args:
        labels: of the training clips [shape=(n, n_classes)].
        names: the classes.
        sampler: what drew the clips.
        weights: what each clip was drawn in proportion to [shape=(n,)]; None: all alike.
        history: a line an epoch with the `step` at its end; the last may have ended early.
        accumulate_steps: batches a step.

    Without history nothing was drawn, and all figures are 0.
    """
    present = np.asarray(labels) > 0
    realised = np.zeros(len(names), dtype=np.int64)
    clips = step = 0
    for epoch, line in enumerate(history):
        batches = (int(line["step"]) - step) * accumulate_steps
        step = int(line["step"])
        rows = sampler.order(epoch)[: batches * sampler.batch_size]
        realised += present[rows].sum(axis=0)
        clips += len(rows)
    share = np.full(len(present), 1.0) if weights is None else weights
    expected = clips * (share @ present) / share.sum()
    return {
        "clips": clips,
        "per_class": {
            name: {"expected": float(mean), "realised": int(count)}
            for name, mean, count in zip(names, expected, realised, strict=True)
        },
    }
