"""The order in which a trainer meets its clips: reproducible, weighted, resumable.

The order of an epoch depends on (seed, epoch) alone. Nothing is carried from one epoch to the
next, so a trainer that was killed anywhere can continue with exactly the batches it would have
seen, by storing three integers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Blocks:
    """An order for slow disks, which read in sequence fast and here and there slowly.

    Rows that lie near each other in the blob make a block. Blocks are shuffled; the rows of some
    blocks that then follow each other, a window, are shuffled among themselves. Whoever reads a
    window at once reads in sequence. The price: clips of one session meet in a batch more often.

    Attributes:
        positions: shape ``(n,)``, where each row lies.
        block_rows: rows of a block.
        window_rows: rows of a window, at least a block, rounded up to whole batches.
    """

    positions: NDArray[np.int64]
    block_rows: int = 512
    window_rows: int = 8192

    def __post_init__(self) -> None:
        if not 1 <= self.block_rows <= self.window_rows:
            raise ValueError("block_rows must be at least 1, window_rows at least as many")

    def window_batches(self, batch_size: int) -> int:
        """Return the batches of a window."""
        return -(-self.window_rows // batch_size)


class EpochSampler:
    """Batches of row numbers, shuffled anew each epoch.

    Without weights an epoch is a permutation: each row exactly once. With weights an epoch is
    ``n`` independent draws with replacement, row ``i`` with probability ``w[i] / sum(w)``, so
    that a rare class can be met more often than it occurs.

    Args:
        n: number of rows (clips), at least 1.
        batch_size: rows a batch; the last batch of an epoch holds what is left.
        seed: any non-negative integer.
        weights: optional, shape ``(n,)``: finite, >= 0, not all 0.
        blocks: optional: keep rows that lie near each other together, for slow disks.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        n: int,
        batch_size: int,
        seed: int,
        weights: ArrayLike | None = None,
        *,
        blocks: Blocks | None = None,
    ) -> None:
        """Check the arguments; nothing is drawn yet."""
        for name, value, least in (("n", n, 1), ("batch_size", batch_size, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name} must be at least {least} (got {value})")
        self.n = int(n)
        self.batch_size = int(batch_size)
        self.seed = int(seed)
        self.epoch = 0
        self.index = 0
        self.blocks = blocks
        if blocks is not None and blocks.positions.shape != (self.n,):
            raise ValueError(f"positions must have the shape ({n},)")
        self._cumulative: NDArray[np.float64] | None = None
        if weights is not None:
            values = np.asarray(weights, dtype=np.float64)
            if values.shape != (self.n,):
                raise ValueError(f"weights must have the shape ({n},) (got {values.shape})")
            if not np.isfinite(values).all() or (values < 0).any() or not values.any():
                raise ValueError("weights must be finite, at least 0, and not all 0")
            self._cumulative = np.cumsum(values / values.sum())
            self._last_drawable = int(np.flatnonzero(values)[-1])

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-self.n // self.batch_size)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Return the rows of an epoch in the order in which they are met, shape ``(n,)``."""
        if epoch < 0:
            raise ValueError(f"epoch must be at least 0 (got {epoch})")
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
        if self.blocks is not None:
            return self._in_blocks(self._drawn(rng), self.blocks, rng)
        if self._cumulative is None:
            return np.asarray(rng.permutation(self.n), dtype=np.int64)
        return self._drawn(rng)

    def _drawn(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the rows of an epoch in no order that matters."""
        if self._cumulative is None:
            return np.arange(self.n, dtype=np.int64)
        draws = rng.random(self.n) * self._cumulative[-1]
        # side="right" so that a row of weight 0, an empty interval, can never be drawn
        rows: NDArray[np.int64] = np.searchsorted(self._cumulative, draws, side="right")
        # a draw may round up to the end of the last interval
        return np.asarray(np.minimum(rows, self._last_drawable), dtype=np.int64)

    def _in_blocks(
        self, rows: NDArray[np.int64], blocks: Blocks, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """Shuffle blocks of neighbours, then the rows within each window of some blocks."""
        rows = rows[np.argsort(blocks.positions[rows], kind="stable")]
        cut = np.arange(blocks.block_rows, len(rows), blocks.block_rows)
        parts = np.split(rows, cut)
        shuffled = np.concatenate([parts[index] for index in rng.permutation(len(parts))])
        window = blocks.window_batches(self.batch_size) * self.batch_size
        for first in range(0, len(shuffled), window):
            rng.shuffle(shuffled[first : first + window])
        return shuffled

    def batches(self, epoch: int, start: int = 0) -> Iterator[NDArray[np.int64]]:
        """Yield the batches of an epoch, from batch number ``start`` on.

        The position is moved on *before* a batch is handed over: a state saved while the
        trainer works on batch ``k`` names batch ``k + 1`` as the next. A trainer that fetches
        ahead of its steps must store its own step number instead.

        Raises:
            ValueError: ``epoch`` or ``start`` is out of range (``start == len(self)`` is an
                epoch that is over, and yields nothing).
        """
        if not 0 <= start <= len(self):
            raise ValueError(f"start must be within 0..{len(self)} (got {start})")
        rows = self.order(epoch)
        self.epoch, self.index = int(epoch), int(start)
        for batch in range(start, len(self)):
            self.index = batch + 1
            yield rows[batch * self.batch_size : (batch + 1) * self.batch_size]

    def state_dict(self) -> dict[str, int]:
        """Return the position: seed, epoch, index of the next batch, and what they rest on."""
        return {
            "seed": self.seed,
            "epoch": self.epoch,
            "index": self.index,
            "n": self.n,
            "batch_size": self.batch_size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take a position over; continue with ``batches(sampler.epoch, sampler.index)``.

        Raises:
            ValueError: the state is of another number of rows or batch size, for which the
                index would mean other clips; or a key is missing.
        """
        missing = {"seed", "epoch", "index", "n", "batch_size"} - set(state)
        if missing:
            raise ValueError(f"sampler state lacks {', '.join(sorted(missing))}")
        for name in ("n", "batch_size"):
            if int(state[name]) != getattr(self, name):
                raise ValueError(
                    f"sampler state is of {name} {state[name]}, this sampler of "
                    f"{getattr(self, name)}: the position cannot be taken over"
                )
        self.seed = int(state["seed"])
        self.epoch = int(state["epoch"])
        self.index = int(state["index"])
