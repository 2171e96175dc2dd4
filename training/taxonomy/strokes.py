"""Strokes on single drums, in order of time: what rules about figures and runs look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from training.manifest import Event

__all__ = ["EPSILON_MS", "Stroke", "runs_of", "single_strokes", "strokes_on"]

EPSILON_MS: Final = 1e-6
"""A time that lies on a threshold must not fall on either side by its rounding."""


@dataclass(frozen=True, slots=True)
class Stroke:
    """One stroke: the place of its event, its time in ms, its velocity if stated."""

    index: int
    ms: float
    velocity: float | None


def strokes_on(events: Sequence[Event], *labels: str) -> dict[str, list[Stroke]]:
    """Return the strokes of each label, in order of time."""
    strokes: dict[str, list[Stroke]] = {label: [] for label in labels}
    for index, event in enumerate(events):
        for component in event.components:
            if component.label in strokes:
                stroke = Stroke(index, event.onset_time * 1000.0, component.velocity)
                strokes[component.label].append(stroke)
    return strokes


def single_strokes(strokes: Sequence[Stroke], same_ms: float) -> list[Stroke]:
    """Leave out strokes that follow the last one kept faster than `same_ms`."""
    kept: list[Stroke] = []
    for stroke in strokes:
        if not kept or stroke.ms - kept[-1].ms >= same_ms - EPSILON_MS:
            kept.append(stroke)
    return kept


def runs_of(strokes: Sequence[Stroke], gap_ms: float) -> list[list[Stroke]]:
    """Cut strokes into runs whose neighbours are at most `gap_ms` apart."""
    runs: list[list[Stroke]] = []
    for stroke in strokes:
        if runs and stroke.ms - runs[-1][-1].ms <= gap_ms + EPSILON_MS:
            runs[-1].append(stroke)
        else:
            runs.append([stroke])
    return runs
