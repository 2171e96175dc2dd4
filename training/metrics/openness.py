"""Hi-hat openness: from the raw pedal value that a device sends (CC4, 0..127) to [0, 1], 1 = open.

Devices differ in range and even in direction, so each has a curve: points (raw, openness) joined by
straight lines. A curve never turns back, and says itself which way it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

__all__ = [
    "MIN_STROKES",
    "Curve",
    "Polarity",
    "PolarityFigures",
    "RawCounts",
    "check_curve",
    "detect_polarity",
    "openness_of",
]

Floats = npt.NDArray[np.floating[Any]]
Polarity = Literal["high_is_closed", "high_is_open"]

RAW_MAX = 127.0
MIN_STROKES = 20
# Closed and open strokes differ plainly on a device that reports its pedal at all: the Roland TD-11
# of the Groove dataset reaches 0.90. Between 0.3 and 0.7 the data do not say which way it runs.
_CLEAR = 0.7
# Past 0..127 in steps of 0.01 there is nothing to keep apart; 14-bit controllers stay exact.
EXACT_VALUES = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """A calibration curve: `points` of (raw 0..127, openness 0..1), in order of raw value."""

    id: str
    polarity: Polarity
    points: tuple[tuple[float, float], ...]


@dataclass(slots=True)
class RawCounts:
    """How often each raw value occurs, in bounded memory whatever the values are.

    Devices send whole numbers, and those are counted exactly. Where there are more than
    `EXACT_VALUES` different ones, all are rounded to 0.01. The result does not depend on the order
    in which values are added.
    """

    coarse: bool = False
    _counts: dict[float, int] = field(default_factory=dict)

    def add(self, raw: float) -> None:
        """Count one value."""
        value = round(raw, 2) if self.coarse else raw
        self._counts[value] = self._counts.get(value, 0) + 1
        if len(self._counts) > EXACT_VALUES and not self.coarse:
            self.coarse = True
            exact, self._counts = self._counts, {}
            for value, count in exact.items():
                value = round(value, 2)
                self._counts[value] = self._counts.get(value, 0) + count

    @property
    def total(self) -> int:
        """How many values were added."""
        return sum(self._counts.values())

    def arrays(self) -> tuple[Floats, Floats]:
        """Return the different values in rising order, and how often each occurs; both (k,)."""
        values = np.array(sorted(self._counts), dtype=np.float64)
        counts = np.array([self._counts[value] for value in values.tolist()], dtype=np.float64)
        return values, counts


@dataclass(frozen=True, kw_only=True, slots=True)
class PolarityFigures:
    """Which way a device's pedal value runs, as its strokes tell.

    `separation` is the chance that a closed stroke has a higher raw value than an open one, ties
    counting half (the Mann-Whitney statistic): near 1 high means closed, near 0 high means open.
    `polarity` is None where that is unclear or there are fewer than `MIN_STROKES` of either kind;
    `separation` is None where there are none.
    """

    n_closed: int
    n_open: int
    separation: float | None
    polarity: Polarity | None


def check_curve(curve: Curve) -> str | None:
    """Return what is wrong with a curve's points, or None.

    The raw values must rise from 0 to 127; openness must lie in [0, 1], never turn back, run the
    way that `polarity` says, and not be the same everywhere.
    """
    points = np.asarray(curve.points, dtype=np.float64)
    if points.ndim != 2 or points.shape[0] < 2 or points.shape[1] != 2:
        return "must hold at least two points [raw, openness]"
    if not np.isfinite(points).all():
        return "must be finite"
    raw, openness = points[:, 0], points[:, 1]
    if raw[0] != 0.0 or raw[-1] != RAW_MAX:
        return "must run from raw 0 to raw 127"
    for before, after in pairwise(raw.tolist()):
        if after <= before:
            return f"must have rising raw values ({after:g} follows {before:g})"
    if openness.min() < 0.0 or openness.max() > 1.0:
        return "must have an openness in [0, 1]"
    steps = np.diff(openness)
    falls = curve.polarity == "high_is_closed"
    if ((steps > 0) if falls else (steps < 0)).any():
        way = "fall" if falls else "rise"
        return f"must never turn back: with {curve.polarity} openness may only {way}"
    if not steps.any():
        return "must not be the same openness everywhere"
    return None


def openness_of(raw: Floats, curve: Curve) -> Floats:
    """Return the openness of raw pedal values: array (n,) in, array (n,) in [0, 1] out.

    Between two points of the curve the value is interpolated linearly.
    """
    points = np.asarray(curve.points, dtype=np.float64)
    result: Floats = np.interp(np.asarray(raw, dtype=np.float64), points[:, 0], points[:, 1])
    return result


def detect_polarity(
    closed: Floats,
    opened: Floats,
    *,
    closed_counts: Floats | None = None,
    opened_counts: Floats | None = None,
) -> PolarityFigures:
    """Tell from the raw values of closed and of open strokes which way the pedal value runs.

    Args:
        closed: raw values at closed hi-hat strokes, shape (n,).
        opened: raw values at open ones, shape (m,).
        closed_counts: how many strokes each closed value stands for, shape (n,); one by default.
        opened_counts: the same of the open values, shape (m,).
    """
    n_closed = np.ones(closed.size) if closed_counts is None else closed_counts
    n_open = np.ones(opened.size) if opened_counts is None else opened_counts
    total_closed, total_open = int(n_closed.sum()), int(n_open.sum())
    separation = None
    if total_closed and total_open:
        order = np.argsort(opened)
        ordered, through_n = opened[order], np.concatenate(([0.0], np.cumsum(n_open[order])))
        below = through_n[np.searchsorted(ordered, closed, side="left")]
        through = through_n[np.searchsorted(ordered, closed, side="right")]
        separation = float((n_closed * (below + through)).sum() / 2.0 / total_closed / total_open)
    polarity: Polarity | None = None
    if separation is not None and min(total_closed, total_open) >= MIN_STROKES:
        if separation >= _CLEAR:
            polarity = "high_is_closed"
        elif separation <= 1.0 - _CLEAR:
            polarity = "high_is_open"
    return PolarityFigures(
        n_closed=total_closed,
        n_open=total_open,
        separation=separation,
        polarity=polarity,
    )
