"""Batches for the trainer: one gather a batch from the clip store, no worker processes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.audio.logmel import FeatureConfig
from training.dataset.samplers import EpochSampler
from training.dataset.store import StoreSplit

__all__ = ["Batch", "ClipFeed", "draw_weights"]

Batch = tuple[Tensor, dict[str, Tensor]]


class ClipFeed:
    """Feeds the clips of a split as ``(audio, targets)``.

    Audio is int16 [shape=(batch, read_samples)]; targets are ``labels`` and ``annotated``
    [shape=(batch, n_classes)], ``velocity`` and ``openness`` [shape=(batch,)] (NaN = unknown), and
    ``row``, the clip's number in the split. With a sampler, a clip has `margin` more samples on
    either side, for the augmentation to use up; without one the clips come in order, unshifted.

    Everything drawn depends on (seed, epoch, batch) only, so that a run can go on at any batch.
    """

    def __init__(
        self,
        split: StoreSplit,
        features: FeatureConfig,
        *,
        batch_size: int,
        sampler: EpochSampler | None = None,
        jitter_ms: float = 0.0,
        margin: int = 0,
        seed: int = 0,
    ) -> None:
        self.split = split
        self.features = features
        self.batch_size = batch_size
        self.sampler = sampler
        self.jitter = round(jitter_ms * features.sample_rate / 1000.0)
        self.margin = margin if sampler is not None else 0
        self.seed = seed
        self.n_clips = len(split.labels)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.n_clips // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(0)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `start` on."""
        if self.sampler is not None:
            groups = self.sampler.batches(epoch, start)
        else:
            groups = self._in_order(start)
        for index, rows in enumerate(groups, start=start):
            jitter = None
            if self.sampler is not None and self.jitter > 0:
                rng = np.random.default_rng([self.seed, epoch, index])
                jitter = rng.integers(-self.jitter, self.jitter + 1, len(rows))
            yield self.batch(rows, jitter, margin=self.margin)

    def batch(
        self,
        rows: NDArray[np.int64],
        jitter: NDArray[np.int64] | None = None,
        *,
        margin: int = 0,
    ) -> Batch:
        """Return the batch of the given rows, read with `margin` more samples on either side."""
        split, features = self.split, self.features
        audio = split.gather(
            rows,
            pre=features.read_before + margin,
            length=features.read_samples + 2 * margin,
            jitter=jitter,
        )
        targets = {
            "labels": torch.from_numpy(split.labels[rows].astype(np.float32)),
            "annotated": torch.from_numpy(split.annotated[rows].astype(np.float32)),
            "velocity": torch.from_numpy(split.velocity[rows].astype(np.float32)),
            "openness": torch.from_numpy(split.openness[rows].astype(np.float32)),
            "row": torch.from_numpy(np.asarray(rows, dtype=np.int64)),
        }
        return torch.from_numpy(np.ascontiguousarray(audio)), targets

    def _in_order(self, start: int) -> Iterator[NDArray[np.int64]]:
        for first in range(start * self.batch_size, self.n_clips, self.batch_size):
            yield np.arange(first, min(first + self.batch_size, self.n_clips), dtype=np.int64)


def draw_weights(labels: NDArray[np.uint8], balance: float) -> NDArray[np.float64] | None:
    """Weight clips by the rarest label they have, ``(1 / frequency) ** balance``; None for 0.

    `labels` has shape (n, n_classes). A clip without labels (background) counts as a class of its
    own.
    """
    if balance == 0.0 or len(labels) == 0:
        return None
    present = np.concatenate([labels > 0, ~(labels > 0).any(axis=1, keepdims=True)], axis=1)
    count = np.maximum(present.sum(axis=0), 1)
    rarity = np.where(present, (len(labels) / count) ** balance, 0.0)
    weights: NDArray[np.float64] = rarity.max(axis=1)
    return weights
