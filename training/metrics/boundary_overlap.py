"""Several windows on one event: who reports it twice, who misses it, and how much must overlap.

Task:
    The clips of `training.metrics.boundary_parity`, taken as windows of a stream. Mark the finds
    that another window reports as well (duplicates), put the finds of all windows together, and
    find the smallest overlap of consecutive windows that loses nothing.

Conventions:
    A grid is one layout of windows (offset, hop, length); clips are grouped by event and grid. Two
    edges of one window are one window.

    A find is a *duplicate* where another window of the group finds the same label and the event
    lies farther from the seams there (ties: the lower window index): the window that is farthest
    keeps the event.

    The *guard* of an edge is the smallest distance in the pack from which on no cell is lost: 0
    without a loss, otherwise the next greater distance of a cell that both have found. Events
    nearer to the window's other edge tell nothing of this one. A stream that trusts each window
    only between its guards, ``[start + guard_start, end - guard_end]``, loses nothing where
    consecutive windows overlap by at least ``guard_start + guard_end``: that is the smallest
    overlap. It is a statement on the events of the pack, exact to the next event of it.

Empty input:
    No clip marks nothing, merges nothing, and leaves each guard unknown, with the reason.

Sources:
    Trusting only the middle of overlapping windows is overlap-save (Oppenheim and Schafer,
    "Discrete-Time Signal Processing", section 8.7.3) applied to detections. Checked against loops
    over single cells, and by laying the windows that the smallest overlap asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.boundary_parity import Cells
from training.metrics.classification import BoolArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Guard:
    """How much of a window is not to be trusted beside one kind of edge."""

    edge: str
    guard_ms: float | None
    """Smallest distance from which on nothing is lost; ``None`` = unknown, see `reason`."""
    farthest_lost_ms: float | None
    """Greatest distance at which a cell is lost; ``None`` without a loss."""
    n_beyond: int
    """Cells found by both at the guard or farther: what the guard rests on."""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """Events of which the pack holds every window: found where any of them finds them."""

    n_events: int
    """Events, once for each grid of windows."""
    n_ref: float
    whole_recall: float | None
    any_window_recall: float | None
    lost: float
    """Cells that the whole recording gives away and none of the windows; weighted."""


def merge_windows(these: Cells, grid_event: ArrayLike, complete: ArrayLike) -> Merged:
    """Say what is left when the finds of all windows are put together.

    Args:
        these: the clips.
        grid_event: number of the (event, grid of windows) of each clip [shape=(n_clips,)].
        complete: whether the pack holds every window of it [shape=(n_clips,)].
    """
    rows = np.flatnonzero(np.asarray(complete, dtype=np.bool_))
    group = np.asarray(grid_event, dtype=np.int64)[rows]
    if not rows.size:
        return Merged(n_events=0, n_ref=0.0, whole_recall=None, any_window_recall=None, lost=0.0)
    order = rows[np.argsort(group, kind="stable")]
    starts = np.flatnonzero(np.r_[True, np.diff(np.sort(group)) != 0])
    weight = np.maximum.reduceat(these.weight[order], starts)
    labels = these.truth & these.known
    there, whole, window = (
        np.maximum.reduceat(each[order], starts, axis=0)
        for each in (labels, labels & these.whole, labels & these.window)
    )
    n_ref = float(there.sum(axis=1) @ weight)
    return Merged(
        n_events=len(starts),
        n_ref=n_ref,
        whole_recall=float(whole.sum(axis=1) @ weight) / n_ref if n_ref else None,
        any_window_recall=float(window.sum(axis=1) @ weight) / n_ref if n_ref else None,
        lost=float((whole & ~window).sum(axis=1) @ weight),
    )


def find_duplicates(
    these: Cells,
    grid_event: ArrayLike,
    window_index: ArrayLike,
    distance_ms: ArrayLike,
    edges: Sequence[str | None],
) -> BoolArray:
    """Mark the finds that another window of the same grid reports as well.

    Only windows of the pack are seen. A window with rows at both its edges is marked at the row
    with the smaller distance (ties: at the start edge).

    Args:
        these: the clips.
        grid_event: number of the (event, grid of windows) of each clip [shape=(n_clips,)].
        window_index: number of its window [shape=(n_clips,)].
        distance_ms: to the seam, finite [shape=(n_clips,)].
        edges: the edge that each clip is near.
    """
    group, index = np.asarray(grid_event, dtype=np.int64), np.asarray(window_index, dtype=np.int64)
    distance = np.asarray(distance_ms, dtype=np.float64)
    marked = np.zeros_like(these.truth)
    if not len(group):
        return marked
    # nearest row of a window first: it stands for the window
    at_end = np.array([edge != "start" for edge in edges], dtype=np.bool_)
    order = np.lexsort((-these.weight, at_end, distance, index, group))
    first = np.ones(len(order), dtype=np.bool_)
    first[1:] = (np.diff(group[order]) != 0) | (np.diff(index[order]) != 0)
    found = these.truth & these.known & these.window
    at_window = np.maximum.reduceat(found[order], np.flatnonzero(first), axis=0)
    rows = order[first]
    # farthest from the seams first: that window keeps the event
    by_rank = np.lexsort((index[rows], -distance[rows], group[rows]))
    rows, at_window = rows[by_rank], at_window[by_rank]
    running = np.cumsum(at_window, axis=0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, np.diff(group[rows]) != 0])
    before = running[starts] - at_window[starts]
    sizes = np.diff(np.r_[starts, len(rows)])
    rank = running - np.repeat(before, sizes, axis=0)
    marked[rows] = at_window & (rank > 1)
    return marked


def guard(
    these: Cells, edge: str, edges: Sequence[str | None], distance_ms: ArrayLike, window_ms: float
) -> Guard:
    """Find how far from one kind of edge the windows lose something.

    Args:
        these: the clips.
        edge: which one.
        edges: the edge that each clip is near; ``None`` where it is not given.
        distance_ms: to that edge; NaN where it is not given [shape=(n_clips,)].
        window_ms: length of a window.
    """
    distance = np.asarray(distance_ms, dtype=np.float64)
    # beyond the middle the other edge is nearer, and what is lost is lost to that one
    rows = np.array([each == edge for each in edges], dtype=np.bool_) & (distance <= window_ms / 2)
    lost_at = distance[these.lost.any(axis=1) & rows]
    farthest = float(lost_at.max()) if lost_at.size else None
    # one entry a cell, so that an event of two labels is evidence for both
    found_at = np.repeat(distance[rows], these.common[rows].sum(axis=1))
    beyond = found_at if farthest is None else found_at[found_at > farthest]
    value, reason = None, ""
    if beyond.size:
        value = 0.0 if farthest is None else float(beyond.min())
    elif farthest is None:
        reason = f"no event near the {edge} of a window was found by the whole recording"
    else:
        reason = (
            f"events are still lost {farthest:g} ms from the {edge}, and none farther away is "
            "found: make a pack with a larger --margin-ms"
        )
    return Guard(
        edge=edge,
        guard_ms=value,
        farthest_lost_ms=farthest,
        n_beyond=int(beyond.size),
        reason=reason,
    )


def smallest_overlap(guards: Sequence[Guard], window_ms: float) -> tuple[float | None, str]:
    """Return the smallest overlap that loses nothing, in ms, or None and why there is none.

    Args:
        guards: of the edges of the pack.
        window_ms: length of a window.
    """
    by_edge = {each.edge: each for each in guards}
    total = 0.0
    for edge in ("start", "end"):
        if edge not in by_edge:
            return None, f"the pack has no event near the {edge} of a window"
        value = by_edge[edge].guard_ms
        if value is None:
            return None, by_edge[edge].reason
        total += value
    if total >= window_ms:
        return None, f"it would be {total:g} ms, and a window has {window_ms:g} ms only"
    return round(total, 6), ""
