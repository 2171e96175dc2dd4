"""Recall of events near the seams of streaming windows.

Task:
    Each clip is one event heard as a streaming model hears it inside one window, near the
    window's start or end edge. Say how many of the events are still found: overall, per class,
    per edge, and by distance to the edge, with an interval for the macro recall.

Conventions:
    Matrices are ``(n_clips, n_classes)`` as in `training.metrics.classification`, which counts
    the cells and defines the averages. Distances are ms, >= 0. A distance bin is
    ``(lower, upper]``; the first one also holds 0. One event may give several clips (several
    windows contain it), so clips are not independent: the interval draws whole sessions. It is the
    ``expanded`` one of `training.metrics.resampling`, as everywhere, and there is none below
    `MIN_SESSIONS` sessions with reference events.

Empty input:
    No clip, or no reference event, gives ``None`` for every figure that would divide by zero.

Sources:
    Drawing whole clusters: Davison and Hinkley (1997), "Bootstrap Methods and their Application",
    section 3.8. Checked against ``scipy.stats.bootstrap`` and by simulated coverage.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training.metrics import resampling
from training.metrics.classification import Counts, Summary, macro, summarise
from training.metrics.resampling import Resampling

MIN_SESSIONS: Final = 5
"""Sessions with reference events below which there is no interval."""
_RESAMPLE_CELLS = 4_000_000  # size of one block of draws x sessions, about 32 MB


@dataclass(frozen=True, kw_only=True, slots=True)
class DistanceFigures:
    """Figures of the clips whose distance to the seam lies in ``(lower_ms, upper_ms]``."""

    lower_ms: float
    upper_ms: float | None
    """``None`` for the open bin that takes everything farther away."""
    summary: Summary


@dataclass(frozen=True, kw_only=True, slots=True)
class EdgeFigures:
    """Figures of the clips near one kind of edge."""

    edge: str
    summary: Summary
    by_distance: tuple[DistanceFigures, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoundaryFigures:
    """Everything measured on one boundary pack."""

    summary: Summary
    per_edge: tuple[EdgeFigures, ...]
    """Start before end, then any other name; clips without an edge are in none of them."""
    by_distance: tuple[DistanceFigures, ...]
    """Bins that hold clips, nearest first; clips without a distance are in none of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecallInterval:
    """Interval of the macro recall, or the reason why there is none."""

    lower: float | None
    upper: float | None
    confidence: float
    n_sessions: int
    """Sessions with reference events."""
    iterations: int
    resamples_without_a_class: int = 0
    """Resamples in which some class of the pack had no event: fewer classes were averaged there."""
    resamples_undefined: int = 0
    """Resamples without any reference event; they are not part of the interval."""
    reason: str = ""


def boundary_figures(
    counts: Counts,
    classes: Sequence[str],
    *,
    edges: Sequence[str | None],
    distances_ms: ArrayLike,
    bins_ms: Sequence[float] = (5.0, 10.0, 20.0, 40.0),
) -> BoundaryFigures:
    """Measure a boundary pack.

    Args:
        counts: per clip [shape=(n_clips, n_classes)], from `clip_counts`.
        classes: names of the columns.
        edges: the edge that each clip is near; ``None`` where it is not given.
        distances_ms: distance of each clip's onset to that edge [shape=(n_clips,)]; NaN where it
            is not given.
        bins_ms: upper bounds of the distance bins, rising; one more bin takes what is farther.

    Raises:
        ValueError: lengths differ, or the bins do not rise from above 0.
    """
    distance = np.asarray(distances_ms, dtype=np.float64)
    if distance.shape != counts.tp.shape[:1] or len(edges) != len(distance):
        raise ValueError(
            f"{counts.tp.shape[0]} clips, {len(edges)} edges and {distance.shape} distances"
        )
    bounds = check_bins(bins_ms)
    named = sorted({edge for edge in edges if edge is not None}, key=_edge_order)
    per_edge = []
    for edge in named:
        mask = np.array([other == edge for other in edges], dtype=np.bool_)
        here = counts.take(mask)
        per_edge.append(
            EdgeFigures(
                edge=edge,
                summary=summarise(here, classes),
                by_distance=_by_distance(here, classes, distance[mask], bounds),
            )
        )
    return BoundaryFigures(
        summary=summarise(counts, classes),
        per_edge=tuple(per_edge),
        by_distance=_by_distance(counts, classes, distance, bounds),
    )


def check_bins(bins_ms: Sequence[float]) -> tuple[float, ...]:
    """Return the bounds of the distance bins.

    Raises:
        ValueError: there is none, or they are not finite and rising from above 0.
    """
    bounds = tuple(float(bound) for bound in bins_ms)
    rising = all(low < high for low, high in zip((0.0, *bounds), bounds, strict=False))
    if not bounds or not rising or not all(math.isfinite(bound) for bound in bounds):
        raise ValueError("distance bins must be finite and rise from above 0 ms")
    return bounds


def session_interval(
    counts: Counts,
    session_index: ArrayLike,
    *,
    iterations: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    min_sessions: int = MIN_SESSIONS,
) -> RecallInterval:
    """Bootstrap interval of the macro recall, drawing whole sessions.

    Each resample draws as many sessions as there are, with replacement; the counts of a session
    come with it as often as it is drawn. A class without an event in a resample is left out of
    that resample's average, and the number of such resamples is returned.

    Args:
        counts: per clip [shape=(n_clips, n_classes)].
        session_index: session of each clip, ``0 .. n_sessions - 1`` [shape=(n_clips,)].
        iterations: number of resamples.
        confidence: share of the resamples inside the interval, 0 to 1.
        seed: of the draws.
        min_sessions: with fewer sessions with reference events there is no interval (at least 2).
    """
    index = np.asarray(session_index, dtype=np.intp)
    n_sessions = int(index.max()) + 1 if index.size else 0
    grouped = counts.by_group(index, n_sessions)
    present = grouped.n_ref.sum(axis=0) > 0
    recalls: list[NDArray[np.float64]] = []
    without_a_class = 0
    for multiplicity in draws(n_sessions, iterations, seed):
        drawn = grouped.resampled(multiplicity)
        recalls.append(macro(drawn).recall)
        without_a_class += int(np.any(drawn.n_ref[:, present] <= 0, axis=1).sum())
    return interval_of(
        float(macro(counts.total()).recall),
        np.concatenate(recalls) if recalls else np.zeros(0),
        confidence=confidence,
        n_sessions=sessions_heard(grouped),
        without_a_class=without_a_class,
        min_sessions=min_sessions,
    )


def sessions_heard(grouped: Counts) -> int:
    """Count the sessions with reference events in counts [shape=(n_sessions, n_classes)]."""
    return int((grouped.n_ref.sum(axis=1) > 0).sum())


def draws(n_sessions: int, iterations: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each session is drawn, in blocks [shape=(n_resamples, n_sessions)].

    The blocks bound the memory; their sizes do not change what is drawn. Without a session nothing
    is drawn.
    """
    rng = np.random.default_rng(seed)
    shares = np.full(n_sessions, 1.0 / max(n_sessions, 1))
    left = iterations if n_sessions else 0
    while left > 0:
        block = min(left, max(1, _RESAMPLE_CELLS // n_sessions))
        left -= block
        yield rng.multinomial(n_sessions, shares, size=block)


def interval_of(
    point: float,
    values: NDArray[np.float64],
    *,
    confidence: float,
    n_sessions: int,
    without_a_class: int = 0,
    min_sessions: int = MIN_SESSIONS,
) -> RecallInterval:
    """Return the interval of a resampled figure; NaN entries are counted and left out.

    Args:
        point: the figure on the pack itself.
        values: the figure in each resample [shape=(iterations,)].
        confidence: share of the resamples inside the interval, 0 to 1.
        n_sessions: how many sessions have reference events.
        without_a_class: resamples in which some class had no event.
        min_sessions: with fewer sessions there is no interval (at least 2).
    """
    defined = values[np.isfinite(values)]
    reason = ""
    if n_sessions < min_sessions:
        reason = (
            f"an interval needs at least {min_sessions} sessions with reference events, "
            f"the pack has {n_sessions}"
        )
    elif len(values) - len(defined) > len(values) * (1.0 - confidence) / 2.0:
        reason = f"{len(values) - len(defined)} of {len(values)} resamples hold no reference event"
    bounds = None
    if not reason:
        settings = Resampling(iterations=len(values), confidence=confidence)
        bounds = resampling.interval(point, defined, None, n_sessions, settings)
    return RecallInterval(
        lower=bounds[0] if bounds else None,
        upper=bounds[1] if bounds else None,
        confidence=confidence,
        n_sessions=n_sessions,
        iterations=len(values),
        resamples_without_a_class=without_a_class,
        resamples_undefined=int(values.size - defined.size),
        reason=reason,
    )


def _by_distance(
    counts: Counts,
    classes: Sequence[str],
    distance: NDArray[np.float64],
    bounds: tuple[float, ...],
) -> tuple[DistanceFigures, ...]:
    # side="left" puts a distance equal to a bound into the bin that ends there
    which = np.searchsorted(np.asarray(bounds), distance, side="left")
    figures = []
    for number, lower in enumerate((0.0, *bounds)):
        mask = (which == number) & np.isfinite(distance)
        if mask.any():
            figures.append(
                DistanceFigures(
                    lower_ms=lower,
                    upper_ms=bounds[number] if number < len(bounds) else None,
                    summary=summarise(counts.take(mask), classes),
                )
            )
    return tuple(figures)


def no_interval(
    reason: str, *, confidence: float, n_sessions: int, iterations: int
) -> RecallInterval:
    """Return the interval that there is not, with the reason."""
    return RecallInterval(
        lower=None,
        upper=None,
        confidence=confidence,
        n_sessions=n_sessions,
        iterations=iterations,
        reason=reason,
    )


def _edge_order(edge: str) -> tuple[int, str]:
    return ({"start": 0, "end": 1}.get(edge, 2), edge)
