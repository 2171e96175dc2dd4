"""Reading onsets and dynamics for the bootstrap: what was heard when, and how hard it was hit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.checks.bootstrap_input import Joined, Truth
from training.manifest import GroundTruth, Prediction, Records
from training.metrics.classification import BoolArray
from training.metrics.onsets import onset_counts
from training.metrics.scores import BUCKETS, IndexArray

Recording = tuple[str | None, str | None]
Decide = Callable[[Sequence[Prediction]], BoolArray]


@dataclass(frozen=True, kw_only=True, slots=True)
class OnsetTotals:
    """What there was to match."""

    without_pred: int = 0
    """Clips with a reference onset whose prediction says no time: their onsets count as missed."""
    extra: int = 0
    """Predicted onsets of no clip, placed by their recording: false alarms unless one fits."""
    unplaced: int = 0
    """Predicted onsets of no clip in no known recording: left out."""


def with_dynamics(model: Joined, truth: Truth) -> Joined:
    """Add the dynamic bucket of each clip: that of its loudest component that has one."""
    bucket = np.array([_bucket(row) for row in truth.records], dtype=np.intp)
    return replace(model, clips=replace(model.clips, bucket=bucket))


def _bucket(row: GroundTruth) -> int:
    named = (part.dynamic_bucket for part in row.components or ())
    return max((BUCKETS.index(name) for name in named if name is not None), default=-1)


def with_onsets(
    model: Joined, truth: Truth, predictions: Records[Prediction], decide: Decide
) -> tuple[Joined, OnsetTotals | None]:
    """Add onset counts where the predictions give onsets, and None where they give none.

    A prediction belongs to the recording of its clip. One of no clip belongs to the recording that
    its own session_id and audio_path name, and is then no longer counted as left out.
    """
    clips, rows = model.clips, truth.records.rows
    if not any(each.onset_pred is not None for each in predictions):
        return model, None
    of_recording: dict[Recording, int] = {}
    keys = [_recording(row.session_id, row.audio_path, row.sample_id) for row in rows]
    recording = [of_recording.setdefault(key, len(of_recording)) for key in keys]
    clip_of = {row.sample_id: number for number, row in enumerate(rows)}

    timed = [each for each in predictions if each.onset_pred is not None]
    known = [each for each in timed if each.sample_id in clip_of]
    others = [each for each in timed if each.sample_id not in clip_of]
    first = {number: clip for clip, number in reversed(list(enumerate(recording)))}
    places = _places(of_recording)
    placed = [places.get((each.session_id, each.audio_path)) for each in others]
    extra = [each for each, place in zip(others, placed, strict=True) if place is not None]
    at_clip = np.array(
        [clip_of[each.sample_id] for each in known] + [first[p] for p in placed if p is not None],
        dtype=np.intp,
    )
    said = clips.predicted[at_clip[: len(known)]]
    if extra:
        said = np.concatenate([said, decide(extra)])
    row, label = np.nonzero(said & clips.annotated[at_clip])
    seconds = np.array([each.onset_pred for each in (*known, *extra)], dtype=np.float64)

    onset = np.array([np.nan if r.onset_time is None else r.onset_time for r in rows])
    clip, what = np.nonzero(clips.truth & clips.annotated & np.isfinite(onset)[:, None])
    counts: NDArray[np.int32] = onset_counts(
        (len(rows), len(clips.labels)),
        (clip, what, onset[clip]),
        (at_clip[row], label, seconds[row]),
        _index(recording),
    )
    silent = set(clip_of) - {each.sample_id for each in known}
    totals = OnsetTotals(
        without_pred=len(silent & {rows[number].sample_id for number in np.unique(clip)}),
        extra=len(extra),
        unplaced=len(others) - len(extra),
    )
    surplus = model.surplus - len(extra)
    return replace(model, clips=replace(clips, onsets=counts), surplus=surplus), totals


def _recording(session: str | None, path: str | None, sample: str) -> Recording:
    """Name a recording; a clip that names none is a recording of its own."""
    return (session, path) if session or path else (None, f"\0{sample}")


def _places(of_recording: dict[Recording, int]) -> dict[Recording, int]:
    """Find recordings also by their path or session alone, where only one has it."""
    places = dict(of_recording)
    for part in (0, 1):
        shared: dict[Recording, list[int]] = {}
        for key, number in of_recording.items():
            alone = (key[0], None) if part == 0 else (None, key[1])
            shared.setdefault(alone, []).append(number)
        for key, numbers in shared.items():
            if len(numbers) == 1 and key != (None, None):
                places.setdefault(key, numbers[0])
    return places


def _index(values: Sequence[int]) -> IndexArray:
    return np.array(values, dtype=np.intp)
