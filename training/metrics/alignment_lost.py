"""Stretches of a recording in which the hits do not support the lag found elsewhere.

A lag may be carried by a part of the recording alone: after a jump beyond the search range, or
where a mic went dead, hits are merely not recognised. So runs of hits that do not support the lag
are looked at together: a run is a lost stretch when chance would hardly make one so long, and the
mean correlation of its hits then says at which lag they do fit, if at any.

Chance: when a share q of the other hits is not recognised either, n hits hold a run of r such hits
about n q^r times. Runs that are expected less than once in `EXPECTED` recordings are kept; q is
(lost + 1) / (n + 2), after Laplace, so that a recording without other losses has a chance, too. The
longest run is judged first, and the others without it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from training.metrics.alignment_gcc import fit_together
from training.metrics.alignment_types import (
    AlignmentConfig,
    BoolArray,
    FloatArray,
    IntArray,
    LostStretch,
)
from training.metrics.alignment_windows import AnchorWindows

__all__ = ["find_lost", "long_runs"]

EXPECTED: Final = 100
SHORTEST: Final = 2


def long_runs(supported: BoolArray) -> list[tuple[int, int]]:
    """Find runs of False in `supported` (h,) too long for chance, as (first, one past the last).

    No hit, or none that is supported, yields nothing: there is no lag then that could be lost.
    """
    if not supported.any():
        return []
    edges = np.flatnonzero(np.diff(np.concatenate(([1], supported.astype(np.int8), [1]))))
    runs = list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
    n, n_lost = len(supported), int((~supported).sum())
    found = []
    # The longest first, and what is found is taken away: it would hide the others.
    for start, stop in sorted(runs, key=lambda run: run[0] - run[1]):
        length = stop - start
        elsewhere = (n_lost - length + 1) / (n - length + 2)
        if length < SHORTEST or n * elsewhere**length * EXPECTED >= 1.0:
            break
        found.append((start, stop))
        n, n_lost = n - length, n_lost - length
    return sorted(found)


def find_lost(
    windows: AnchorWindows,
    target: FloatArray,
    hits: IntArray,
    supported: BoolArray,
    lags_ms: FloatArray,
    *,
    inverted: bool,
    config: AlignmentConfig,
) -> tuple[LostStretch, ...]:
    """Find the stretches of `target` (m,) that do not support the lag, in order of time.

    `hits` (h,) number the onsets compared, rising; `supported` (h,) says which support the lag,
    and `lags_ms` (h,) is the lag where one does (any number elsewhere). A run of hits that,
    averaged, fit the lag of their neighbours after all is none: they were only faint one by one.
    """
    times = windows.onsets[hits] / windows.sample_rate
    known = np.flatnonzero(supported)
    lost = []
    for start, stop in long_runs(supported):
        neighbours = [int(known[known < start][-1])] if start > known[0] else []
        neighbours += [int(known[known >= stop][0])] if stop <= known[-1] else []
        usual_ms = float(np.mean(lags_ms[neighbours]))
        lag_ms = fit_together(
            windows, target, hits[start:stop], usual_ms, inverted=inverted, config=config
        )
        apart_ms = None if lag_ms is None else lag_ms - usual_ms
        if apart_ms is not None and abs(apart_ms) <= config.path_search_ms:
            continue
        lost.append(
            LostStretch(
                start_s=float(times[start]),
                stop_s=float(times[stop - 1]),
                hits=stop - start,
                step_ms=apart_ms,
                at_end=len(neighbours) == 1,
            )
        )
    return tuple(lost)
