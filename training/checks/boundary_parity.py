"""Streaming parity: what windows lose against the same model on the whole recordings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from training.checks.boundary_input import (
    BoundaryTruth,
    Joined,
    Rule,
    session_numbers,
)
from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.gates import Interval, Measurement
from training.manifest import Prediction, Records
from training.metrics import boundary
from training.metrics import boundary_overlap as overlap
from training.metrics import boundary_parity as parity
from training.metrics import classification as cl
from training.metrics.boundary_pack import EDGES, US_PER_MS, WindowLayout, windows_containing

GATE: Final = "max_recall_lost"
LISTED = 1000
"""How many event_ids a report lists; the totals are always whole."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How distances are binned and intervals drawn."""

    bins_ms: tuple[float, ...]
    min_classes: int
    iterations: int
    confidence: float
    seed: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """What came of the comparison."""

    metrics: dict[str, Any]
    measurement: Measurement
    warnings: list[str]


def compare(
    truth: Records[BoundaryTruth],
    joined: Joined,
    predictions: Records[Prediction],
    whole: Records[Prediction],
    rule: Rule,
    settings: Settings,
) -> Parity:
    """Compare the windows of a pack with the whole recordings.

    Rows whose event has no prediction in `whole` cannot be compared: they are listed and left
    out, and the gate is not measured.

    Raises:
        InputError: a row of the pack has no `event_id`, or scores have been through another
            calibration.
    """
    _require_events(truth)
    known = {row.sample_id for row in whole}
    events = [row.event_id or "" for row in joined.rows]
    kept = np.array([event in known for event in events], dtype=np.bool_)
    missing = sorted(set(events) - known)
    these = parity.cells(
        joined.reference[kept],
        rule.decide(whole, events, joined.classes)[kept],
        joined.predicted[kept],
        weights=joined.weights[kept],
        annotated=joined.annotated[kept],
    )
    rows = [row for row, each in zip(joined.rows, kept, strict=True) if each]
    windows = _windows(rows)
    distance = joined.distances_ms[kept]
    twice = None
    if windows is not None:
        twice = overlap.find_duplicates(
            these, windows.group, windows.index, distance, [row.edge for row in rows]
        )
    timing = _timing_errors(rows, predictions, whole)
    total = parity.loss(these, twice, timing)
    interval = _interval(these, rows, settings)
    metrics = {
        **asdict(total),
        "n_events": len({row.event_id for row in rows}),
        "missing_reference": missing[:LISTED],
        "missing_reference_total": len(missing),
        "macro_recall_lost_interval": asdict(interval),
        "per_class": {
            each.pop("label"): each
            for each in map(asdict, parity.class_losses(these, joined.classes, twice))
        },
        "per_edge": _by_edge(these, rows, distance, twice, timing, settings),
        "by_distance": _binned(
            parity.losses_by_distance(these, distance, settings.bins_ms, twice, timing)
        ),
        **_overlap(these, rows, distance),
        "windows_not_in_pack": None if windows is None else windows.absent,
        "merged": _merged(these, windows),
    }
    return Parity(
        metrics=metrics,
        measurement=_measurement(total, these, interval, len(missing), settings),
        warnings=_warnings(metrics),
    )


def _by_edge(
    these: parity.Cells,
    rows: Sequence[BoundaryTruth],
    distance_ms: cl.FloatArray,
    twice: cl.BoolArray | None,
    timing: cl.FloatArray,
    settings: Settings,
) -> dict[str, Any]:
    found = {}
    for edge in EDGES:
        near = np.array([row.edge == edge for row in rows], dtype=np.bool_)
        if near.any():
            bins = parity.losses_by_distance(
                these, distance_ms, settings.bins_ms, twice, timing, near
            )
            figures = asdict(parity.loss(these, twice, timing, near))
            found[edge] = {**figures, "by_distance": _binned(bins)}
    return found


def _require_events(truth: Records[BoundaryTruth]) -> None:
    problems = [
        Problem(truth.source.path, "is required with --reference-predictions", line, "event_id")
        for row, line in zip(truth.rows, truth.lines, strict=True)
        if row.event_id is None
    ]
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Windows:
    """Which window of which event each row is, and which windows the pack lacks."""

    group: np.ndarray[Any, np.dtype[np.int64]]
    index: np.ndarray[Any, np.dtype[np.int64]]
    complete: cl.BoolArray
    absent: int


def _windows(rows: Sequence[BoundaryTruth]) -> _Windows | None:
    """Number the (event, grid) pairs; None when a row does not say which window it lies in."""
    numbers: dict[tuple[object, ...], int] = {}
    seen: dict[int, set[int]] = {}
    held: dict[int, int] = {}
    group, index = [], []
    for row in rows:
        sizes = (row.window_size_ms, row.hop_size_ms, row.window_index, row.distance_ms)
        if row.edge is None or any(each is None for each in sizes):
            return None
        key = (row.event_id, row.offset_ms or 0.0, *sizes[:2])
        number = numbers.setdefault(key, len(numbers))
        group.append(number)
        index.append(row.window_index or 0)
        seen.setdefault(number, set()).add(index[-1])
        held.setdefault(number, _windows_that_hold(row))
    absent = {number: max(held[number] - len(windows), 0) for number, windows in seen.items()}
    return _Windows(
        group=np.array(group, dtype=np.int64),
        index=np.array(index, dtype=np.int64),
        complete=np.array([absent[number] == 0 for number in group], dtype=np.bool_),
        absent=sum(absent.values()),
    )


def _windows_that_hold(row: BoundaryTruth) -> int:
    """How many windows of its grid contain the event of a row."""
    window, hop, offset, distance = (
        round((value or 0.0) * US_PER_MS)
        for value in (row.window_size_ms, row.hop_size_ms, row.offset_ms, row.distance_ms)
    )
    layout = WindowLayout(
        window_us=max(window, 1), hop_us=max(hop, 1), margin_us=0, offsets_us=(0,)
    )
    into = distance if row.edge == "start" else window - distance
    onset = offset + (row.window_index or 0) * layout.hop_us + into
    return len(windows_containing(onset, offset, layout))


def _timing_errors(
    rows: Sequence[BoundaryTruth],
    predictions: Records[Prediction],
    whole: Records[Prediction],
) -> cl.FloatArray:
    """Onset in the window minus onset in the whole recording, ms; NaN where one is not given."""
    in_window = {row.sample_id: row.onset_pred for row in predictions}
    in_whole = {row.sample_id: row.onset_pred for row in whole}
    pairs = [(in_window.get(row.sample_id), in_whole.get(row.event_id or "")) for row in rows]
    errors = [np.nan if a is None or b is None else round((a - b) * 1000.0, 6) for a, b in pairs]
    return np.array(errors, dtype=np.float64)


def _interval(
    these: parity.Cells, rows: Sequence[BoundaryTruth], settings: Settings
) -> boundary.RecallInterval:
    index, n_sessions, reason = session_numbers(rows)
    if index is None:
        return boundary.no_interval(
            reason,
            confidence=settings.confidence,
            n_sessions=n_sessions,
            iterations=settings.iterations,
        )
    return parity.lost_interval(
        these,
        index,
        iterations=settings.iterations,
        confidence=settings.confidence,
        seed=settings.seed,
    )


def _overlap(
    these: parity.Cells, rows: Sequence[BoundaryTruth], distance_ms: cl.FloatArray
) -> dict[str, Any]:
    """The guards and the smallest overlap, beside the overlap that the windows have."""
    layouts = {(row.window_size_ms, row.hop_size_ms) for row in rows}
    window, hop = next(iter(layouts)) if len(layouts) == 1 else (None, None)
    if window is None or hop is None:
        reason = "the rows are not all of windows of one size and one hop"
        smallest, guards, present = None, [], None
    else:
        edges = [row.edge for row in rows]
        guards = [
            overlap.guard(these, edge, edges, distance_ms, window)
            for edge in EDGES
            if edge in edges
        ]
        smallest, reason = overlap.smallest_overlap(guards, window)
        present = max(window - hop, 0.0)
    enough = None if smallest is None or present is None else present >= smallest
    return {
        "guards": {each.edge: asdict(each) for each in guards},
        "smallest_overlap_ms": smallest,
        "smallest_overlap_reason": reason,
        "overlap_ms": present,
        "overlap_loses_nothing": enough,
    }


def _merged(these: parity.Cells, windows: _Windows | None) -> dict[str, Any] | None:
    if windows is None:
        return None
    return asdict(overlap.merge_windows(these, windows.group, windows.complete))


def _binned(bins: Sequence[parity.DistanceLoss]) -> list[dict[str, Any]]:
    return [
        {"lower_ms": each.lower_ms, "upper_ms": each.upper_ms, **asdict(each.loss)} for each in bins
    ]


def _measurement(
    total: parity.Loss,
    these: parity.Cells,
    interval: boundary.RecallInterval,
    missing: int,
    settings: Settings,
) -> Measurement:
    value = total.macro_recall_lost
    present = int((these.whole_counts.total().n_ref > 0).sum())
    detail = f"{total.lost:g} lost and {total.gained:g} gained, of {total.n_ref:g}"
    if missing:
        value = None
        detail = f"{missing} events of the pack have no prediction on the whole recording"
    elif value is None:
        detail = "there is no reference event of any class"
    elif present < settings.min_classes:
        value = None
        detail = (
            f"reference events of {present} class only; a macro recall needs "
            f"{settings.min_classes} (--min-classes)"
        )
    bounds = None
    if interval.lower is not None and interval.upper is not None:
        bounds = Interval(
            lower=interval.lower, upper=interval.upper, confidence=interval.confidence
        )
    return Measurement(name=GATE, value=value, n=total.n_clips, ci=bounds, detail=detail)


def _warnings(metrics: dict[str, Any]) -> list[str]:
    said = []
    if total := metrics["missing_reference_total"]:
        shown = ", ".join(metrics["missing_reference"][:3]) + (" …" if total > 3 else "")
        said.append(
            f"{total} events have no prediction on the whole recording and are not compared: "
            f"{shown}"
        )
    if reason := metrics["smallest_overlap_reason"]:
        said.append(f"the smallest overlap that loses nothing is unknown: {reason}")
    if metrics["overlap_loses_nothing"] is False:
        said.append(
            f"windows overlap by {metrics['overlap_ms']:g} ms; to lose nothing at the seams they "
            f"need {metrics['smallest_overlap_ms']:g} ms"
        )
    if metrics["windows_not_in_pack"] is None:
        said.append("duplicates are not counted: not every row says which window it lies in")
    elif metrics["windows_not_in_pack"]:
        said.append(
            f"duplicates are a lower bound: {metrics['windows_not_in_pack']} windows that hold an "
            "event of the pack are not in it (a --margin-ms of half a window takes them all)"
        )
    if not metrics["timing"]["n"]:
        said.append("timing error is not measured: no row has onset_pred in both files")
    return said
