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
from training.loop.distributed import Shard
from training.loop.tiers import MemoryTier, Plan, Tier, in_chunks

__all__ = ["Batch", "ClipFeed", "draw_weights"]

Batch = tuple[Tensor, dict[str, Tensor]]
CHUNK_BYTES = 1 << 27
"""Audio that is read at once from a disk: sorted, the windows of so much lie closer together."""


class ClipFeed:
    """Feeds the clips of a split as ``(audio, targets)``.

    Audio is int16 [shape=(batch, read_samples)]; targets are ``labels`` and ``annotated``
    [shape=(batch, n_classes)], ``velocity`` and ``openness`` [shape=(batch,)] (NaN = unknown), and
    ``row``, the clip's number in the split. With a sampler, a clip has `margin` more samples on
    either side, for the augmentation to use up; without one the clips come in order, unshifted.

    Everything drawn depends on (seed, epoch, batch) only, so that a run can go on at any batch; and
    not on the `tier` that the audio comes from, which by default is the split's blob in memory.
    Tiers on a GPU deliver there, targets included. `notes` are said when a run begins.
    """

    def __init__(
        self,
        split: StoreSplit,
        features: FeatureConfig,
        *,
        batch_size: int,
        sampler: EpochSampler | Shard | None = None,
        jitter_ms: float = 0.0,
        margin: int = 0,
        seed: int = 0,
        tier: Tier | None = None,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.split = split
        self.notes = notes
        self.features = features
        self.batch_size = batch_size
        self.sampler = sampler
        self.jitter = round(jitter_ms * features.sample_rate / 1000.0)
        self.margin = margin if sampler is not None else 0
        self.seed = seed
        self.n_clips = len(split.labels)
        self.tier: Tier = MemoryTier(split.blob) if tier is None else tier
        self._targets = {
            "labels": torch.from_numpy(split.labels.astype(np.float32)),
            "annotated": torch.from_numpy(split.annotated.astype(np.float32)),
            "velocity": torch.from_numpy(split.velocity.astype(np.float32)),
            "openness": torch.from_numpy(split.openness.astype(np.float32)),
        }

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.n_clips // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(0)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, from batch `start` on.

        Raises:
            InputError: the blob is damaged, or cannot be read any more.
        """
        length = self.features.read_samples + 2 * self.margin
        size = self._chunk(length)
        chunks = in_chunks(self._plans(epoch, start), size - start % size, size)
        for rows, audio in self.tier.stream(chunks, length):
            yield audio, self._targets_of(rows)

    def batch(
        self,
        rows: NDArray[np.int64],
        jitter: NDArray[np.int64] | None = None,
        *,
        margin: int = 0,
    ) -> Batch:
        """Return the batch of the given rows, read with `margin` more samples on either side."""
        rows = np.asarray(rows, dtype=np.int64)
        starts = self._starts(rows, jitter, margin)
        audio = self.tier.gather(starts, self.features.read_samples + 2 * margin)
        return audio, self._targets_of(torch.from_numpy(rows).to(audio.device))

    def _plans(self, epoch: int, start: int) -> Iterator[Plan]:
        groups = self._in_order(start)
        if self.sampler is not None:
            groups = self.sampler.batches(epoch, start)
        for index, rows in enumerate(groups, start=start):
            jitter = None
            if self.sampler is not None and self.jitter > 0:
                jitter = self._jitter(epoch, index, len(rows))
            yield Plan(rows, self._starts(rows, jitter, self.margin))

    def _jitter(self, epoch: int, index: int, count: int) -> NDArray[np.int64]:
        """Draw how far each clip is shifted; a process with a share of a batch draws for all."""
        rng = np.random.default_rng([self.seed, epoch, index])
        if not isinstance(self.sampler, Shard):
            return rng.integers(-self.jitter, self.jitter + 1, count)
        whole = min(self.batch_size, self.n_clips - index * self.batch_size)
        world = self.sampler.world
        return rng.integers(-self.jitter, self.jitter + 1, whole)[world.rank :: world.size]

    def _starts(
        self, rows: NDArray[np.int64], jitter: NDArray[np.int64] | None, margin: int
    ) -> NDArray[np.int64]:
        return self.split.starts(
            rows,
            pre=self.features.read_before + margin,
            length=self.features.read_samples + 2 * margin,
            jitter=jitter,
        )

    def _chunk(self, length: int) -> int:
        """Return the batches that are read at once: those of a window that is read in sequence."""
        sampler = self.sampler.order if isinstance(self.sampler, Shard) else self.sampler
        if isinstance(sampler, EpochSampler) and sampler.blocks is not None:
            return sampler.blocks.window_batches(self.batch_size)
        return max(1, CHUNK_BYTES // (2 * length * self.batch_size))

    def _targets_of(self, rows: Tensor) -> dict[str, Tensor]:
        if self._targets["labels"].device != rows.device:
            self._targets = {k: v.to(rows.device) for k, v in self._targets.items()}
        return {**{name: table[rows] for name, table in self._targets.items()}, "row": rows}

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
