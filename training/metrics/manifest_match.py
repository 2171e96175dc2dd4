"""Pairing by time the events of two manifests that share no id.

Within a take (the events of one session and track) onsets are cut into clusters wherever
neighbours lie further apart than the tolerance, since no pair can span such a gap; then each
cluster is solved for itself. Nearly all clusters hold one event, or one of each side, or the same
events on both: those are settled for many clusters at once. The rest are assignment problems.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.errors import DrumgateError

MAX_CELLS: Final = 16_000_000
"""The largest assignment problem, base events times candidate events: half a gigabyte."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Hits:
    """Events that wait for a partner, in columns of one length.

    Attributes:
        take: what stands for the session and track; only equality matters.
        onset_s: onsets.
        side: 0 for the base, 1 for the candidate.
        row: the position in the event's own manifest.
        labels: what stands for the multiset of its labels; only equality matters.
    """

    take: Array
    onset_s: Array
    side: Array
    row: Array
    labels: Array

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, chosen: slice | Array) -> Hits:
        return Hits(
            self.take[chosen],
            self.onset_s[chosen],
            self.side[chosen],
            self.row[chosen],
            self.labels[chosen],
        )


def match_blocks(blocks: Iterable[Hits], tolerance_s: float) -> tuple[Array, Array]:
    """Pair events by time, block by block.

    Args:
        blocks: the events of both sides, ordered over all blocks by take, onset, sample id, side
            and row; empty blocks are allowed.
        tolerance_s: onsets further apart are never paired.

    Returns:
        The rows of the pairs in the base and in the candidate, int64, of one length.

    Raises:
        DrumgateError: more events lie within the tolerance of each other than can be assigned.
    """
    pairs: list[tuple[Array, Array]] = []
    for hits, starts in _whole_clusters(blocks, tolerance_s):
        pairs += _match(hits, starts, tolerance_s)
    empty = np.empty(0, np.int64)
    return (
        np.concatenate([empty, *(before for before, _ in pairs)]),
        np.concatenate([empty, *(after for _, after in pairs)]),
    )


def _whole_clusters(
    blocks: Iterable[Hits], tolerance_s: float
) -> Iterator[tuple[Hits, NDArray[np.intp]]]:
    """Yield events and where their clusters start; a cluster is never cut by the end of a block."""
    waiting: list[Hits] = []
    for block in blocks:
        if not len(block):
            continue
        starts = _starts(block, tolerance_s)
        # The first cluster may go on from the last block, the last one into the next.
        if waiting and not _gap(waiting[-1], block, tolerance_s):
            starts = starts[1:]
        if not len(starts):
            waiting.append(block)
            continue
        last = int(starts[-1])
        if waiting or last:
            done = _joined([*waiting, block[:last]])
            yield done, _starts(done, tolerance_s)
        waiting = [block[last:]]
    if waiting:
        done = _joined(waiting)
        yield done, _starts(done, tolerance_s)


def _starts(hits: Hits, tolerance_s: float) -> NDArray[np.intp]:
    new = np.ones(len(hits), bool)
    new[1:] = (np.diff(hits.onset_s) > tolerance_s) | (hits.take[1:] != hits.take[:-1])
    return np.flatnonzero(new)


def _gap(before: Hits, after: Hits, tolerance_s: float) -> bool:
    apart = after.onset_s[0] - before.onset_s[-1] > tolerance_s
    return bool(apart or after.take[0] != before.take[-1])


def _joined(parts: Sequence[Hits]) -> Hits:
    if len(parts) == 1:
        return parts[0]
    names = Hits.__slots__
    return Hits(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _match(hits: Hits, starts: Array, tolerance_s: float) -> list[tuple[Array, Array]]:
    """Pair the events of whole clusters."""
    sizes = np.diff(np.append(starts, len(hits)))
    afters = np.add.reduceat(hits.side.astype(np.int64), starts)
    befores = sizes - afters
    # Clusters with as many events on both sides: their sides, in order, stand beside each other.
    even = befores == afters
    inside = np.repeat(even, sizes)
    before, after = (hits[inside & (hits.side == side)] for side in (0, 1))
    same = (before.onset_s == after.onset_s) & (before.labels == after.labels)
    counts = befores[even]
    equal = np.ones(len(counts), bool)
    if len(counts):
        equal = np.logical_and.reduceat(same, np.cumsum(counts) - counts)
    settled = np.repeat(equal | (counts == 1), counts)
    pairs = [(before.row[settled], after.row[settled])]
    hard = (befores > 0) & (afters > 0)
    hard[even] = ~(equal | (counts == 1))
    for index in np.flatnonzero(hard):
        cluster = hits[slice(starts[index], starts[index] + sizes[index])]
        some = [cluster[cluster.side == side] for side in (0, 1)]
        chosen = assign(
            (some[0].onset_s, some[1].onset_s), (some[0].labels, some[1].labels), tolerance_s
        )
        pairs.append((some[0].row[chosen[0]], some[1].row[chosen[1]]))
    return pairs


def assign(
    onsets_s: tuple[Array, Array], labels: tuple[Array, Array], tolerance_s: float
) -> tuple[Array, Array]:
    """Pair the events of one cluster: as many as possible, then as near as possible.

    Differing labels count as one tolerance more. Sides that are equal one by one are paired so.

    Args:
        onsets_s: the onsets of the base's and of the candidate's events.
        labels: what stands for their labels.
        tolerance_s: onsets further apart are never paired.

    Returns:
        The positions of the pairs within each side.

    Raises:
        DrumgateError: the problem has more than `MAX_CELLS` cells.
    """
    before, after = len(onsets_s[0]), len(onsets_s[1])
    if not before or not after:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    if before == after and bool(
        np.all(onsets_s[0] == onsets_s[1]) and np.all(labels[0] == labels[1])
    ):
        return np.arange(before), np.arange(before)
    if before * after > MAX_CELLS:
        raise DrumgateError(
            f"{before:,} and {after:,} events without a common id lie within "
            f"{tolerance_s * 1000:g} ms of each other, near {float(onsets_s[0][0]):g} s, in one "
            "session and track: too many to pair by time; give a smaller --tolerance-ms"
        )
    from scipy.optimize import linear_sum_assignment

    distance = np.abs(onsets_s[0][:, None] - onsets_s[1][None, :])
    allowed = distance <= tolerance_s
    # One forbidden pair costs more than all allowed ones together, so that as few as possible are
    # chosen; a zero tolerance still needs a price.
    unit = tolerance_s or 1.0
    distance[labels[0][:, None] != labels[1][None, :]] += unit
    distance[~allowed] = 2.0 * unit * (min(before, after) + 1)
    rows, columns = linear_sum_assignment(distance)
    kept = allowed[rows, columns]
    return rows[kept], columns[kept]
