"""Dividing any dataset into a part to train on and a part to validate on."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch.utils.data import Dataset, Subset

from training.dataset.stratify import deal_groups

__all__ = ["create_train_val_split"]


def create_train_val_split(
    dataset: Dataset[Any],
    val_ratio: float = 0.2,
    *,
    groups: Sequence[Hashable] | None = None,
    labels: ArrayLike | None = None,
    seed: int = 0,
) -> tuple[Subset[Any], Subset[Any]]:
    """Divide a dataset at random; whole groups stay together, labels are spread evenly.

    Args:
        dataset: has a length and is indexed by number.
        val_ratio: share to validate on, in (0, 1); each part gets at least one group.
        groups: what each example belongs to: its recording, session or player. Examples of one
            group are never on both sides. None: each example is a group of its own, which is right
            only where examples do not resemble one another.
        labels: label vectors [shape=(n, n_classes)] whose shares are kept alike on both sides.
        seed: the same one gives the same division.

    Returns:
        The training and the validation part, each in the order of the dataset.

    Raises:
        ValueError: the ratio is out of range, a length differs, or there are fewer than two groups.
    """
    count = len(dataset)  # type: ignore[arg-type]
    if not 0.0 < val_ratio < 1.0:
        raise ValueError(f"val_ratio must lie in (0, 1), got {val_ratio}")
    names = list(range(count)) if groups is None else list(groups)
    if len(names) != count:
        raise ValueError(f"groups must have {count} entries, got {len(names)}")
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    if len(numbers) < 2:
        raise ValueError(f"needs at least two groups to divide, got {len(numbers)}")
    group = np.array([numbers[name] for name in names], dtype=np.int64)
    if labels is None:
        validated = _by_number(group, len(numbers), val_ratio, seed)
    else:
        matrix = (np.asarray(labels) > 0).astype(np.uint8)
        if matrix.ndim != 2 or len(matrix) != count:
            raise ValueError(f"labels must have the shape ({count}, n_classes), got {matrix.shape}")
        ratios = np.array([1.0 - val_ratio, val_ratio])
        validated = deal_groups(group, matrix, ratios, seed=seed) == 1
        if validated.all() or not validated.any():
            validated = _by_number(group, len(numbers), val_ratio, seed)
    on_val = validated[group]
    return (
        Subset(dataset, np.flatnonzero(~on_val).tolist()),
        Subset(dataset, np.flatnonzero(on_val).tolist()),
    )


def _by_number(
    group: np.ndarray[Any, np.dtype[np.int64]], n_groups: int, ratio: float, seed: int
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Take groups at random until they hold the share asked for, as nearly as may be."""
    order = np.random.default_rng(seed).permutation(n_groups)
    held = np.cumsum(np.bincount(group, minlength=n_groups)[order])
    taken = int(np.abs(held - ratio * len(group)).argmin()) + 1
    validated = np.zeros(n_groups, dtype=np.bool_)
    validated[order[: min(taken, n_groups - 1)]] = True
    return validated
