"""Lay streaming windows over events and find those that fall near a seam.

Task:
    A streaming detector cuts a recording into windows. An event close to the start or the end of
    a window is heard with part of its attack or its ringing cut off. List, for every event and
    every window that contains it, the edges that it is near.

Conventions:
    Window k covers ``[offset + k * hop, offset + k * hop + window)``, k >= 0, for each offset. An
    event belongs to every window that contains its onset. Its distance to the start edge is
    ``onset - window start`` (>= 0) and to the end edge ``window end - onset`` (> 0). It is near
    an edge when the distance is at most the margin.

    Times become whole microseconds first and stay integers: an onset on a seam is *in* the window
    that starts there and *not* in the one that ends there, whatever floating point does to
    ``k * 0.512``.

Empty input:
    No event, or no event near an edge, yields nothing.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Generic, TypeVar

EDGES = ("start", "end")
US_PER_MS = 1_000
US_PER_S = 1_000_000
MAX_US = 2**53
"""285 years: beyond it a float does not tell whole microseconds apart."""

RESERVE = 4
"""Rows held a place in a stratum: spares for those whose other labels are full already."""

T = TypeVar("T")
Stratum = tuple[str, str]
"""(edge, label)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowLayout:
    """Where the windows lie and how near is near; all times in whole microseconds."""

    window_us: int
    hop_us: int
    margin_us: int
    offsets_us: tuple[int, ...] = (0,)
    edges: tuple[str, ...] = EDGES

    def __post_init__(self) -> None:
        if self.window_us <= 0 or self.hop_us <= 0:
            raise ValueError("window and hop must be longer than 0 ms")
        if self.margin_us < 0:
            raise ValueError("margin must not be negative")
        if not self.offsets_us or len(set(self.offsets_us)) != len(self.offsets_us):
            raise ValueError("offsets must be distinct and at least one")
        if any(not 0 <= offset < self.hop_us for offset in self.offsets_us):
            raise ValueError(
                "each offset must be at least 0 ms and shorter than the hop; "
                "a longer one gives the same windows again"
            )
        if not self.edges or any(edge not in EDGES for edge in self.edges):
            raise ValueError(f"edges must be some of {', '.join(EDGES)}")


def layout_from_ms(
    *,
    window_ms: float,
    hop_ms: float,
    margin_ms: float,
    offsets_ms: Iterable[float] = (0.0,),
    edges: Iterable[str] = EDGES,
) -> WindowLayout:
    """Make a layout from milliseconds.

    Raises:
        ValueError: a time is not finite, too long or finer than a microsecond, or the layout makes
            no sense.
    """
    return WindowLayout(
        window_us=whole_microseconds(window_ms, "window"),
        hop_us=whole_microseconds(hop_ms, "hop"),
        margin_us=whole_microseconds(margin_ms, "margin"),
        offsets_us=tuple(whole_microseconds(offset, "offset") for offset in offsets_ms),
        edges=tuple(dict.fromkeys(edges)),
    )


def whole_microseconds(time_ms: float, name: str) -> int:
    """Milliseconds as whole microseconds, refused when that would not be the same time."""
    if not math.isfinite(time_ms):
        raise ValueError(f"{name} must be a finite number of milliseconds")
    if abs(time_ms) * US_PER_MS > MAX_US:
        raise ValueError(f"{name} must not exceed {MAX_US / US_PER_MS:g} ms")
    time_us = round(time_ms * US_PER_MS)
    if abs(time_us - time_ms * US_PER_MS) > 1e-6 * max(1.0, abs(time_ms)):
        raise ValueError(f"{name} must be a whole number of microseconds (got {time_ms} ms)")
    return time_us


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """An event's place near one edge of one window; times in whole microseconds."""

    offset_us: int
    window_index: int
    window_start_us: int
    edge: str
    distance_us: int
    onset_us: int
    """Onset within the window."""

    @property
    def key(self) -> str:
        """A name for the place, distinct among all places of one event."""
        offset_ms = f"{self.offset_us / US_PER_MS:.3f}".rstrip("0").rstrip(".")
        return f"o{offset_ms}w{self.window_index}{self.edge}"


def windows_containing(onset_us: int, offset_us: int, layout: WindowLayout) -> range:
    """Indices of the windows of one offset that contain an onset; empty before the first."""
    into_grid = onset_us - offset_us
    last = into_grid // layout.hop_us
    first = (into_grid - layout.window_us) // layout.hop_us + 1
    return range(max(first, 0), last + 1)


def placements(onset_s: float, layout: WindowLayout) -> Iterator[Placement]:
    """List every (offset, window, edge) that an onset is near.

    Args:
        onset_s: seconds from the start of the recording, >= 0.
        layout: the windows.

    Yields:
        Placements by offset, then window, then edge. Only windows near enough are visited, so
        the cost does not grow with ``window / hop``.

    Raises:
        ValueError: the onset is negative, not finite or beyond `MAX_US`.
    """
    if not 0 <= onset_s * US_PER_S <= MAX_US:
        raise ValueError(f"an onset must lie between 0 and {MAX_US / US_PER_S:g} s, got {onset_s}")
    onset_us = round(onset_s * US_PER_S)
    for offset_us in layout.offsets_us:
        for index in _windows_near_an_edge(onset_us, offset_us, layout):
            start_us = offset_us + index * layout.hop_us
            distance = {"start": onset_us - start_us, "end": start_us + layout.window_us - onset_us}
            for edge in layout.edges:
                if distance[edge] <= layout.margin_us:
                    yield Placement(
                        offset_us=offset_us,
                        window_index=index,
                        window_start_us=start_us,
                        edge=edge,
                        distance_us=distance[edge],
                        onset_us=onset_us - start_us,
                    )


def _windows_near_an_edge(onset_us: int, offset_us: int, layout: WindowLayout) -> Iterable[int]:
    """Windows that contain the onset and may have an edge within the margin of it.

    The windows near the start edge are the last ones of the range, those near the end edge the
    first ones.
    """
    inside = windows_containing(onset_us, offset_us, layout)
    reach = layout.margin_us // layout.hop_us + 1
    if len(inside) <= 2 * reach:
        return inside
    return chain(inside[:reach], inside[-reach:])


def sampling_key(seed: int, sample_id: str) -> int:
    """A number that orders the rows at random, the same for a seed whatever the file's order."""
    digest = hashlib.blake2b(f"{seed}\0{sample_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


@dataclass(slots=True)
class CappedSample(Generic[T]):
    """A random sample of at most `cap` rows an (edge, label), from one pass over any number.

    Each stratum holds the rows with its lowest `sampling_key`s: a reservoir whose outcome does
    not depend on the order of the rows, in ``RESERVE * cap`` rows a stratum. A row with several
    labels competes in each of its strata; `selected` fills the strata from the rarest, lowest key
    first, and takes a row only while all its strata have room, so that no cap is ever exceeded.
    Where every row has one label, each stratum is exactly a uniform sample of `cap` rows.
    """

    cap: int
    seed: int
    _heaps: dict[Stratum, list[tuple[int, str]]] = field(default_factory=dict)
    _rows: dict[str, tuple[int, T, tuple[Stratum, ...]]] = field(default_factory=dict)
    _held_by: Counter[str] = field(default_factory=Counter)
    _seen: Counter[Stratum] = field(default_factory=Counter)
    _n_rows: int = 0

    def __post_init__(self) -> None:
        if self.cap < 1:
            raise ValueError("the cap must be at least 1")

    def add(self, sample_id: str, edge: str, labels: Iterable[str], row: T) -> None:
        """Offer a row; `sample_id` must be new."""
        key = -sampling_key(self.seed, sample_id)
        strata = tuple((edge, label) for label in dict.fromkeys(labels))
        self._n_rows += 1
        for stratum in strata:
            self._seen[stratum] += 1
            heap = self._heaps.setdefault(stratum, [])
            if len(heap) < RESERVE * self.cap:
                heapq.heappush(heap, (key, sample_id))
            else:
                dropped = heapq.heappushpop(heap, (key, sample_id))[1]
                if dropped == sample_id:
                    continue
                self._release(dropped)
            self._held_by[sample_id] += 1
        if self._held_by[sample_id]:
            self._rows[sample_id] = (self._n_rows, row, strata)
        else:
            del self._held_by[sample_id]

    def selected(self) -> list[T]:
        """Return the sample, in the order in which its rows were offered."""
        taken: dict[str, int] = {}
        filled: Counter[Stratum] = Counter()
        for stratum in sorted(self._heaps, key=lambda s: (self._seen[s], s)):
            for _, sample_id in sorted(self._heaps[stratum], reverse=True):
                order, _, strata = self._rows[sample_id]
                if sample_id not in taken and all(filled[s] < self.cap for s in strata):
                    taken[sample_id] = order
                    filled.update(strata)
        return [self._rows[sample_id][1] for sample_id in sorted(taken, key=taken.__getitem__)]

    def _release(self, sample_id: str) -> None:
        self._held_by[sample_id] -= 1
        if self._held_by[sample_id] == 0:
            del self._held_by[sample_id]
            self._rows.pop(sample_id, None)
