"""What a stream of windows loses against the same model on the whole recording.

Task:
    Each clip is one event heard inside one window, near a seam of it. The same model has also heard
    the event in the whole recording. Say, against the distance to the seam, which events only the
    whole recording gives away (recall lost), and how far the two place an onset apart (timing
    error). Duplicates and overlap are in `training.metrics.boundary_overlap`.

Conventions:
    Matrices are ``(n_clips, n_classes)``. A cell counts where its label is annotated, with the
    clip's weight; a clip of weight 0 counts nowhere. Of the cells whose label is in the reference:

    - *lost*: found in the whole recording, not in the window;
    - *gained*: found in the window, not in the whole recording;
    - *recall lost*: recall of the whole recording - recall of the windows. Micro, it equals
      ``(lost - gained) / n_ref``; macro, it is the mean over the classes with reference events;
    - *added false alarms*: not in the reference, and predicted in the window only.

    Timing error: onset placed in the window - onset placed in the whole recording, ms; positive =
    the window is late.

Empty input:
    No clip gives ``None`` for every rate and timing figure.

Sources:
    Counts and averages as in `training.metrics.classification`; the interval as in
    `training.metrics.boundary`, of a paired difference. Checked against loops over single cells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.boundary import RecallInterval, draws, interval_of, sessions_heard
from training.metrics.classification import (
    Averages,
    BoolArray,
    Counts,
    FloatArray,
    averages,
    clip_counts,
    finite_or_none,
    macro,
    micro,
    rates,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cells:
    """The same clips three times: what is true, what the whole recording and the window gave.

    Raises:
        ValueError: shapes differ, or a weight is negative or not finite.
    """

    truth: BoolArray
    whole: BoolArray
    window: BoolArray
    known: BoolArray
    """Annotated labels, in clips that have a weight."""
    weight: FloatArray
    """``[shape=(n_clips,)]``."""
    whole_counts: Counts
    window_counts: Counts

    @property
    def common(self) -> BoolArray:
        """Cells that both have found."""
        return np.asarray(self.truth & self.known & self.whole & self.window)

    @property
    def lost(self) -> BoolArray:
        """Cells that only the whole recording gives away."""
        return np.asarray(self.truth & self.known & self.whole & ~self.window)

    @property
    def gained(self) -> BoolArray:
        """Cells that only the window gives away."""
        return np.asarray(self.truth & self.known & ~self.whole & self.window)

    @property
    def alarms(self) -> BoolArray:
        """False alarms that only the window raises."""
        return np.asarray(~self.truth & self.known & ~self.whole & self.window)


def cells(
    truth: ArrayLike,
    whole: ArrayLike,
    window: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    annotated: ArrayLike | None = None,
) -> Cells:
    """Put truth and both decisions side by side.

    Args:
        truth: booleans [shape=(n_clips, n_classes)].
        whole: decisions on the whole recording, of each clip's event, of the same shape.
        window: decisions inside the clip's window, of the same shape.
        weights: finite, >= 0 [shape=(n_clips,)]; default 1.
        annotated: False = unknown there, counted nowhere; of the same shape.
    """
    there = np.asarray(truth, dtype=np.bool_)
    weight = np.ones(len(there)) if weights is None else np.asarray(weights, dtype=np.float64)
    counted = np.ones_like(there) if annotated is None else np.asarray(annotated, dtype=np.bool_)
    whole_counts = clip_counts(there, whole, weights=weight, annotated=counted)
    window_counts = clip_counts(there, window, weights=weight, annotated=counted)
    return Cells(
        truth=there,
        whole=np.asarray(whole, dtype=np.bool_),
        window=np.asarray(window, dtype=np.bool_),
        known=counted & (weight > 0)[:, None],
        weight=weight,
        whole_counts=whole_counts,
        window_counts=window_counts,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Timing:
    """How far windows place onsets from where the whole recording does, ms; late = positive."""

    n: int
    median_ms: float | None
    median_abs_ms: float | None
    p95_abs_ms: float | None
    max_abs_ms: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """Parity of one set of clips; counts are weighted, recalls ``None`` without reference."""

    n_clips: int
    n_ref: float
    whole_macro: Averages
    whole_micro: Averages
    window_macro: Averages
    window_micro: Averages
    macro_recall_lost: float | None
    micro_recall_lost: float | None
    lost: float
    gained: float
    added_false_alarms: float
    duplicates: float | None
    """``None`` where the clips do not say which window they lie in."""
    duplicate_rate: float | None
    """Duplicates over all finds; ``None`` without a find."""
    timing: Timing


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassLoss:
    """Parity of one class; counts are weighted."""

    label: str
    n_ref: float
    whole_recall: float | None
    window_recall: float | None
    recall_lost: float | None
    lost: float
    gained: float
    added_false_alarms: float
    duplicates: float | None


def loss(
    these: Cells,
    duplicates: BoolArray | None = None,
    timing_error_ms: ArrayLike | None = None,
    rows: BoolArray | None = None,
) -> Loss:
    """Figures of all clips, or of the `rows` marked.

    Args:
        these: the clips.
        duplicates: from `find_duplicates` [shape=(n_clips, n_classes)].
        timing_error_ms: NaN where it is not given [shape=(n_clips,)].
        rows: mask [shape=(n_clips,)].
    """
    mask = np.ones(len(these.weight), dtype=np.bool_) if rows is None else rows
    whole, window = these.whole_counts.take(mask).total(), these.window_counts.take(mask).total()
    whole_macro, window_macro = averages(macro(whole)), averages(macro(window))
    whole_micro, window_micro = averages(micro(whole)), averages(micro(window))
    twice = None if duplicates is None else _sum(duplicates, these.weight, mask)
    found = float(window.tp.sum())
    errors = np.zeros(0) if timing_error_ms is None else np.asarray(timing_error_ms)[mask]
    return Loss(
        n_clips=int(mask.sum()),
        n_ref=float(whole.n_ref.sum()),
        whole_macro=whole_macro,
        whole_micro=whole_micro,
        window_macro=window_macro,
        window_micro=window_micro,
        macro_recall_lost=_less(whole_macro.recall, window_macro.recall),
        micro_recall_lost=_less(whole_micro.recall, window_micro.recall),
        lost=_sum(these.lost, these.weight, mask),
        gained=_sum(these.gained, these.weight, mask),
        added_false_alarms=_sum(these.alarms, these.weight, mask),
        duplicates=twice,
        duplicate_rate=twice / found if twice is not None and found > 0 else None,
        timing=timing(errors),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class DistanceLoss:
    """Parity of the clips whose distance to the seam lies in ``(lower_ms, upper_ms]``."""

    lower_ms: float
    upper_ms: float | None
    """``None`` for the open bin that takes everything farther away."""
    loss: Loss


def losses_by_distance(
    these: Cells,
    distance_ms: ArrayLike,
    bins_ms: Sequence[float],
    duplicates: BoolArray | None = None,
    timing_error_ms: ArrayLike | None = None,
    rows: BoolArray | None = None,
) -> tuple[DistanceLoss, ...]:
    """Figures of each distance bin that holds clips, nearest first.

    Args:
        these: the clips.
        distance_ms: to the seam; clips with NaN are in no bin [shape=(n_clips,)].
        bins_ms: upper bounds, rising; the first bin also holds 0.
        duplicates: as for `loss`.
        timing_error_ms: as for `loss`.
        rows: mask [shape=(n_clips,)].
    """
    distance, bounds = np.asarray(distance_ms, dtype=np.float64), tuple(bins_ms)
    mask = np.isfinite(distance) if rows is None else np.isfinite(distance) & rows
    which = np.searchsorted(np.asarray(bounds), distance, side="left")
    return tuple(
        DistanceLoss(
            lower_ms=lower,
            upper_ms=bounds[number] if number < len(bounds) else None,
            loss=loss(these, duplicates, timing_error_ms, here),
        )
        for number, lower in enumerate((0.0, *bounds))
        if (here := mask & (which == number)).any()
    )


def class_losses(
    these: Cells, classes: Sequence[str], duplicates: BoolArray | None = None
) -> tuple[ClassLoss, ...]:
    """Figures a class, in column order, those without reference events included."""
    whole, window = these.whole_counts.total(), these.window_counts.total()
    recalls = rates(whole).recall, rates(window).recall
    made = []
    for column, label in enumerate(classes):
        before, after = (finite_or_none(each[column]) for each in recalls)
        made.append(
            ClassLoss(
                label=label,
                n_ref=float(whole.n_ref[column]),
                whole_recall=before,
                window_recall=after,
                recall_lost=_less(before, after),
                lost=float(these.lost[:, column] @ these.weight),
                gained=float(these.gained[:, column] @ these.weight),
                added_false_alarms=float(these.alarms[:, column] @ these.weight),
                duplicates=(
                    None if duplicates is None else float(duplicates[:, column] @ these.weight)
                ),
            )
        )
    return tuple(made)


def lost_interval(
    these: Cells,
    session_index: ArrayLike,
    *,
    iterations: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RecallInterval:
    """Bootstrap interval of the macro recall lost, drawing whole sessions.

    A draw takes the whole recording and the windows of a session together: the interval is that
    of a paired difference.

    Args:
        these: the clips.
        session_index: session of each clip, ``0 .. n_sessions - 1`` [shape=(n_clips,)].
        iterations: number of resamples.
        confidence: share of the resamples inside the interval, 0 to 1.
        seed: of the draws.
    """
    index = np.asarray(session_index, dtype=np.intp)
    n_sessions = int(index.max()) + 1 if index.size else 0
    whole = these.whole_counts.by_group(index, n_sessions)
    window = these.window_counts.by_group(index, n_sessions)
    differences = [
        macro(whole.resampled(drawn)).recall - macro(window.resampled(drawn)).recall
        for drawn in draws(n_sessions, iterations, seed)
    ]
    points = [macro(each.total()).recall for each in (whole, window)]
    return interval_of(
        float(points[0] - points[1]),
        np.concatenate(differences) if differences else np.zeros(0),
        confidence=confidence,
        n_sessions=sessions_heard(whole),
    )


def timing(errors_ms: ArrayLike) -> Timing:
    """Summarise timing errors; NaN entries are left out."""
    errors = np.asarray(errors_ms, dtype=np.float64)
    errors = errors[np.isfinite(errors)]
    if not errors.size:
        return Timing(n=0, median_ms=None, median_abs_ms=None, p95_abs_ms=None, max_abs_ms=None)
    size = np.abs(errors)
    return Timing(
        n=int(errors.size),
        median_ms=float(np.median(errors)),
        median_abs_ms=float(np.median(size)),
        p95_abs_ms=float(np.quantile(size, 0.95)),
        max_abs_ms=float(size.max()),
    )


def _sum(marked: BoolArray, weight: FloatArray, rows: BoolArray) -> float:
    return float(marked[rows].sum(axis=1) @ weight[rows])


def _less(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after
