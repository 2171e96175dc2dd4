"""False alarms an hour, and what is found at a bearable number of them.

Task:
    On continuous audio a model is judged by what it says where nothing is, for as long as it
    listens. A predicted onset is a hit when it matches a reference onset of its class in its
    recording within the tolerance (`training.metrics.onsets.match_onsets`: as many pairs as
    possible, each onset in one), and a false alarm otherwise.

Conventions:
    Seconds from the start of a recording. ``fa_per_hour`` is false alarms over hours of audio, of
    one class or of all together. ``recall`` is hits over reference onsets. `recall_at` is the
    recall of the lowest score threshold at which the false alarms of all classes together stay
    within a limit: "FA/h, then recall".

Empty input:
    No predicted onset: no false alarms, recall 0. No reference onset: recall is None. No audio:
    ValueError.

Sources:
    False alarms per hour at a fixed recall, and the reverse, is how keyword spotting is judged;
    the matching is that of ``mir_eval.onset``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.metrics.classification import FloatArray
from training.metrics.onsets import match_onsets
from training.metrics.scores import IndexArray

__all__ = ["FalseAlarms", "Onsets", "false_alarms", "recall_at"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Onsets:
    """Onsets of several recordings and classes, in any order; arrays of one length."""

    recording: IndexArray
    label: IndexArray
    seconds: FloatArray
    score: FloatArray
    """How sure the model is; 1 for a reference."""

    def __post_init__(self) -> None:
        shapes = {each.shape for each in (self.recording, self.label, self.seconds, self.score)}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            raise ValueError(f"onsets need arrays of one length, got {sorted(shapes)}")

    def at_least(self, threshold: float) -> Onsets:
        """Return those whose score reaches a threshold."""
        kept = self.score >= threshold
        return Onsets(
            recording=self.recording[kept],
            label=self.label[kept],
            seconds=self.seconds[kept],
            score=self.score[kept],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class FalseAlarms:
    """Counts by class [shape=(n_classes,)] and the hours that they were made in."""

    hits: NDArray[np.int64]
    false_alarms: NDArray[np.int64]
    reference: NDArray[np.int64]
    hours: float

    @property
    def fa_per_hour(self) -> float:
        """Of all classes together."""
        return float(self.false_alarms.sum()) / self.hours

    @property
    def recall(self) -> float | None:
        """Of all classes together; None without a reference onset."""
        total = int(self.reference.sum())
        return float(self.hits.sum()) / total if total else None

    def as_metrics(self, labels: tuple[str, ...]) -> dict[str, object]:
        """Return the report form, with a row a class."""
        return {
            "fa_per_hour": self.fa_per_hour,
            "recall": self.recall,
            "hours": self.hours,
            "per_class": {
                label: {
                    "fa_per_hour": float(self.false_alarms[column]) / self.hours,
                    "recall": (
                        float(self.hits[column]) / float(self.reference[column])
                        if self.reference[column]
                        else None
                    ),
                    "hits": int(self.hits[column]),
                    "false_alarms": int(self.false_alarms[column]),
                    "n_ref": int(self.reference[column]),
                }
                for column, label in enumerate(labels)
            },
        }


def false_alarms(
    reference: Onsets,
    predicted: Onsets,
    *,
    n_classes: int,
    hours: float,
    tolerance_s: float = 0.05,
) -> FalseAlarms:
    """Count hits and false alarms by class.

    Args:
        reference: what was struck.
        predicted: what the model says was.
        n_classes: labels are ``0 .. n_classes - 1``.
        hours: of audio that was listened to, with and without events.
        tolerance_s: the largest distance of a match, included.

    Raises:
        ValueError: there is no audio, or the tolerance is negative.
    """
    if not hours > 0.0:
        raise ValueError(f"hours must be positive, got {hours}")
    if tolerance_s < 0.0:
        raise ValueError(f"tolerance_s must not be negative, got {tolerance_s}")
    hits = np.zeros(n_classes, dtype=np.int64)
    said = np.bincount(predicted.label, minlength=n_classes)
    there = np.bincount(reference.label, minlength=n_classes)
    own, theirs = _streams(reference, n_classes), _streams(predicted, n_classes)
    for stream, seconds in own.items():
        if stream in theirs:
            found = match_onsets(seconds, theirs[stream], tolerance_s)
            hits[stream % n_classes] += int(found.sum())
    return FalseAlarms(
        hits=hits,
        false_alarms=said.astype(np.int64) - hits,
        reference=there.astype(np.int64),
        hours=hours,
    )


def recall_at(
    reference: Onsets,
    predicted: Onsets,
    *,
    n_classes: int,
    hours: float,
    max_fa_per_hour: float,
    tolerance_s: float = 0.05,
    steps: int = 101,
) -> tuple[float | None, float, float]:
    """Return recall, false alarms an hour and score threshold at a bearable number of alarms.

    Of `steps` thresholds from 0 to 1 the one with the best recall within the limit is taken; of
    equals, the one with the fewest alarms. Where even the highest has too many, nothing may be
    said: recall 0 (None without a reference onset), no alarms, and the threshold is above 1.

    Arguments are those of `false_alarms`; `max_fa_per_hour` is the limit, included.
    """
    best: tuple[float | None, float, float] | None = None
    for threshold in np.linspace(0.0, 1.0, steps):
        found = false_alarms(
            reference,
            predicted.at_least(float(threshold)),
            n_classes=n_classes,
            hours=hours,
            tolerance_s=tolerance_s,
        )
        if found.fa_per_hour > max_fa_per_hour:
            continue
        each = (found.recall, found.fa_per_hour, float(threshold))
        if best is None or (each[0] or 0.0, -each[1]) > (best[0] or 0.0, -best[1]):
            best = each
    if best is None:
        return (0.0 if len(reference.seconds) else None), 0.0, float(np.nextafter(1.0, 2.0))
    return best


def _streams(onsets: Onsets, n_classes: int) -> dict[int, FloatArray]:
    """The onsets of each recording and class, ascending."""
    if not len(onsets.seconds):
        return {}
    stream = onsets.recording * n_classes + onsets.label
    order = np.lexsort((onsets.seconds, stream))
    names, starts = np.unique(stream[order], return_index=True)
    parts = np.split(onsets.seconds[order], starts[1:])
    return {int(name): part for name, part in zip(names, parts, strict=True)}
