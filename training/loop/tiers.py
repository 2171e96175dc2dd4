"""Where the audio of a split lies while it is trained on: on the device, in memory, or on disk.

A tier turns windows (positions in the blob) into batches of clips. All tiers give the same batches;
they differ in what a batch costs:

``device``
    the blob is a tensor on the GPU, a batch is one gather there;
``memory``
    the blob is mapped, and read once so that it lies in memory; a batch is copied out of it and,
    where the model is on a GPU, sent there ahead of time, from pinned memory, on a stream of its
    own;
``disk``
    the windows of many batches are sorted, neighbours joined, and read at once, ahead of time, by
    one thread.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.dataset.store import SAMPLE, StoreSplit
from training.errors import InputError
from training.loop.delivery import Delivery, Fill, Plan, ahead, deliver, filled, to_device

__all__ = ["DeviceTier", "DiskTier", "MemoryTier", "Plan", "Tier", "ahead"]

BLOCK: Final = 1 << 22
JOINED_SAMPLES: Final = 1 << 15
"""Windows at most this far apart are read together: 64 KiB take no longer than another read."""


class Tier(Protocol):
    """Somewhere to get clips from."""

    name: str

    def gather(self, starts: NDArray[np.int64], length: int) -> Tensor:
        """Return the clips ``blob[start : start + length]``, int16 ``(b, length)``."""

    def stream(self, chunks: Iterable[Sequence[Plan]], length: int) -> Iterator[Delivery]:
        """Deliver the batches of all chunks in order; a chunk is what may be read at once."""


class MemoryTier:
    """Copies clips out of an array: a mapped blob, or any other.

    Args:
        blob: int16 ``(n_samples,)``.
        device: where batches go; on a GPU they are sent ahead of time.
        load: read the blob's file once, in sequence, so that it lies in the page cache.

    A mapped file that is cut short takes the process with it when the part that is gone is touched
    (SIGBUS). So the length of a file that was loaded is looked at before each batch, which takes a
    microsecond.

    Raises:
        InputError: the file cannot be read, or is shorter than its samples. `gather` and `stream`
            raise it for a file that became shorter.
    """

    name = "memory"

    def __init__(
        self,
        blob: NDArray[np.int16],
        *,
        device: torch.device | str = "cpu",
        load: bool = False,
    ) -> None:
        # a plain view: slicing np.memmap itself costs several microseconds a clip
        self.samples = np.asarray(blob).view(np.ndarray)
        self.device = torch.device(device)
        self._file: _Length | None = None
        if load and isinstance(blob, np.memmap) and blob.filename is not None:
            self._file = _Length(Path(blob.filename), self.samples.nbytes)
            self._file.read_through()

    def gather(self, starts: NDArray[np.int64], length: int) -> Tensor:
        """See `Tier`; the clips lie in main memory."""
        return filled(self._from(starts, length), len(starts), length)

    def stream(self, chunks: Iterable[Sequence[Plan]], length: int) -> Iterator[Delivery]:
        """See `Tier`."""
        plans = (plan for chunk in chunks for plan in chunk)
        fills = ((plan, self._from(plan.starts, length)) for plan in plans)
        return deliver(fills, length, self.device)

    def _from(self, starts: NDArray[np.int64], length: int) -> Fill:
        fill = _from(self.samples, starts, length)

        def whole(out: NDArray[np.int16]) -> None:
            if self._file is not None:
                self._file.require()
            fill(out)

        return whole


class DeviceTier:
    """Holds the blob as a tensor on the device, where a batch is one gather.

    Args:
        blob: int16 ``(n_samples,)``; it is copied in blocks.
        device: where to.
    """

    name = "device"

    def __init__(self, blob: NDArray[np.int16], *, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self.samples = torch.empty(len(blob), dtype=torch.int16, device=self.device)
        for first in range(0, len(blob), BLOCK):
            part = np.array(blob[first : first + BLOCK])
            self.samples[first : first + BLOCK] = torch.from_numpy(part).to(self.device)

    def gather(self, starts: NDArray[np.int64], length: int) -> Tensor:
        """See `Tier`; the clips lie on the device."""
        return self._gather(to_device(starts, self.device), length)

    def stream(self, chunks: Iterable[Sequence[Plan]], length: int) -> Iterator[Delivery]:
        """See `Tier`; all row numbers and positions of a chunk are sent at once."""
        for chunk in chunks:
            both = np.stack([np.concatenate(part) for part in zip(*chunk, strict=True)])
            rows, starts = to_device(both, self.device)
            sizes = [len(plan.rows) for plan in chunk]
            for mine, places in zip(rows.split(sizes), starts.split(sizes), strict=True):
                yield mine, self._gather(places, length)

    def _gather(self, starts: Tensor, length: int) -> Tensor:
        # every window of the blob as a row of a view, without a copy; those asked for are copied
        return self.samples.unfold(0, length, 1)[starts]


class DiskTier:
    """Reads clips from the blob's file: many batches at once, sorted, ahead of time.

    Args:
        path: the blob.
        n_samples: how many samples it should hold.
        device: where batches go; on a GPU they are sent ahead of time.

    Raises:
        InputError: the file is missing, or not as long as it should be. `gather` and `stream` raise
            it for a file that became shorter or cannot be read.
    """

    name = "disk"

    def __init__(self, path: Path, n_samples: int, *, device: torch.device | str = "cpu") -> None:
        self.path = path
        self.device = torch.device(device)
        self._file = _opened(self, path)
        size, wanted = os.fstat(self._file).st_size, n_samples * SAMPLE.itemsize
        if size != wanted:
            raise InputError.at(path, _damaged(size, wanted))
        if hasattr(os, "posix_fadvise"):
            # windows are asked for exactly: what the system reads beyond them is for nothing
            os.posix_fadvise(self._file, 0, 0, os.POSIX_FADV_RANDOM)

    def gather(self, starts: NDArray[np.int64], length: int) -> Tensor:
        """See `Tier`; the clips lie in main memory."""
        samples, (places,) = self._read([starts], length)
        return filled(_from(samples, places, length), len(starts), length)

    def stream(self, chunks: Iterable[Sequence[Plan]], length: int) -> Iterator[Delivery]:
        """See `Tier`; the next chunk is read while this one is handed out."""
        return deliver(self._fills(chunks, length), length, self.device)

    def _fills(self, chunks: Iterable[Sequence[Plan]], length: int) -> Iterator[tuple[Plan, Fill]]:
        def read() -> Iterator[tuple[Sequence[Plan], NDArray[np.int16], list[NDArray[np.int64]]]]:
            for chunk in chunks:
                yield chunk, *self._read([plan.starts for plan in chunk], length)

        for chunk, samples, places in ahead(read()):
            for plan, mine in zip(chunk, places, strict=True):
                yield plan, _from(samples, mine, length)

    def _read(
        self, windows: Sequence[NDArray[np.int64]], length: int
    ) -> tuple[NDArray[np.int16], list[NDArray[np.int64]]]:
        """Read all windows; return the samples read, and where in them each window starts."""
        starts = np.concatenate(windows)
        if not len(starts):
            return np.empty(0, dtype=SAMPLE), list(windows)
        order = np.argsort(starts, kind="stable")
        ascending = starts[order]
        # windows have one length, so that each ends after the one before
        new = np.flatnonzero(np.diff(ascending) > length + JOINED_SAMPLES) + 1
        firsts = ascending[np.concatenate([[0], new])]
        lasts = ascending[np.concatenate([new, [len(ascending)]]) - 1] + length
        bases = np.concatenate([[0], np.cumsum(lasts - firsts)])
        samples = np.empty(int(bases[-1]), dtype=SAMPLE)
        for first, last, base in zip(firsts.tolist(), lasts.tolist(), bases.tolist(), strict=False):
            self._read_run(first, samples[base : base + last - first])
        run = np.searchsorted(firsts, starts, side="right") - 1
        places = starts - firsts[run] + bases[run]
        return samples, np.split(places, np.cumsum([len(each) for each in windows])[:-1])

    def _read_run(self, first: int, into: NDArray[np.int16]) -> None:
        view, at = into.view(np.uint8).data, first * SAMPLE.itemsize
        while len(view):
            try:
                got = os.preadv(self._file, [view], at)
            except OSError as error:
                raise InputError.at(self.path, f"cannot be read: {error.strerror}") from None
            if not got:
                why = f"is damaged: it ends at byte {at}, while it is being read"
                raise InputError.at(self.path, why)
            view, at = view[got:], at + got


def file_of(split: StoreSplit) -> Path | None:
    """Return the file that a split's blob is mapped from; None when it is only in memory."""
    name = getattr(split.blob, "filename", None)
    return None if name is None else Path(name)


def _from(samples: NDArray[np.int16], starts: NDArray[np.int64], length: int) -> Fill:
    def fill(out: NDArray[np.int16]) -> None:
        for clip, start in enumerate(starts.tolist()):
            out[clip] = samples[start : start + length]

    return fill


class _Length:
    """A file that is to stay as long as it is needed; InputError where it is not."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self.path = path
        self.n_bytes = n_bytes
        self._number = _opened(self, path)
        self.require()

    def require(self) -> None:
        """See that the file is not shorter than it should be."""
        size = os.fstat(self._number).st_size
        if size < self.n_bytes:
            raise InputError.at(self.path, _damaged(size, self.n_bytes))

    def read_through(self) -> None:
        """Read the file once, in sequence."""
        block = bytearray(BLOCK)
        try:
            while os.readv(self._number, [block]):
                pass
        except OSError as error:
            raise InputError.at(self.path, f"cannot be read: {error.strerror}") from None
        self.require()


def _opened(owner: object, path: Path) -> int:
    """Open a file for as long as its owner lives."""
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise InputError.at(path, f"cannot be read: {error.strerror}") from None
    weakref.finalize(owner, os.close, number)
    return number


def _damaged(size: int, wanted: int) -> str:
    return f"is damaged: {size} bytes where {wanted} were written"


def in_chunks(plans: Iterator[Plan], first: int, size: int) -> Iterator[list[Plan]]:
    """Group batches into chunks of `size`, the first of them shorter: `first`."""
    chunk = list(islice(plans, first))
    while chunk:
        yield chunk
        chunk = list(islice(plans, size))
