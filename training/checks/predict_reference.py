"""What was found in whole recordings, against what is annotated: false alarms and recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.manifest import InputFile, read_records, reject_duplicates
from training.manifest.fields import NonEmpty, Seconds
from training.metrics.false_alarms import Onsets, false_alarms, recall_at

TOLERANCE_S: Final = 0.05
LIMITS_PER_HOUR: Final = (6.0, 60.0, 600.0)
"""One false alarm in ten minutes, one a minute, ten a minute."""


class ReferenceComponent(msgspec.Struct, frozen=True, kw_only=True):
    """What judging needs of a component."""

    label: NonEmpty


class ReferenceRow(msgspec.Struct, frozen=True, kw_only=True):
    """What judging needs of an annotated event."""

    sample_id: NonEmpty
    onset_time: Seconds
    components: list[ReferenceComponent]
    session_id: NonEmpty | None = None
    audio_path: NonEmpty | None = None
    """Events without one belong to no recording that was listened to."""
    annotated_labels: list[NonEmpty] | None = None


@dataclass(kw_only=True, slots=True)
class Said:
    """Everything that was said of recordings, below the thresholds too, column by column."""

    recording: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    scores: list[Sequence[float]] = field(default_factory=list)
    chosen: list[Sequence[bool]] = field(default_factory=list)
    """Which classes reached their thresholds."""

    def add(
        self, recording: str, seconds: float, scores: Sequence[float], chosen: Sequence[bool]
    ) -> None:
        """Add one onset."""
        self.recording.append(recording)
        self.seconds.append(seconds)
        self.scores.append(scores)
        self.chosen.append(chosen)


def sessions_of(reference: Path) -> dict[str, str]:
    """Return the session that a manifest gives each of its recordings, by ``audio_path``.

    Recordings without one, or with several, are not there.

    Raises:
        InputError: the manifest is malformed.
    """
    found: dict[str, set[str]] = {}
    for row in read_records(reference, ReferenceRow).rows:
        if row.audio_path and row.session_id:
            found.setdefault(row.audio_path, set()).add(row.session_id)
    return {path: min(sessions) for path, sessions in found.items() if len(sessions) == 1}


def judge_recordings(
    reference: Path, said: Said, duration_s: Mapping[str, float], labels: tuple[str, ...]
) -> tuple[dict[str, Any], InputFile, list[str]]:
    """Match what was said with a manifest of the same recordings, by ``audio_path``.

    Args:
        reference: the annotated events.
        said: what the model said.
        duration_s: of each recording that was listened to, by its ``audio_path``.
        labels: of the model; annotated labels that it does not know are left out.

    Returns:
        The report's ``continuous``, the file that was read, and warnings. Recordings of which
        nothing is annotated are not judged; where none is left, the figures are None.

    Raises:
        InputError: the manifest is malformed, or an id stands in it twice.
    """
    records = read_records(reference, ReferenceRow)
    reject_duplicates(records)
    rows = [
        (row.audio_path, row)
        for row in records.rows
        if row.audio_path and row.audio_path in duration_s
    ]
    names = sorted({name for name, _ in rows})
    warnings = []
    if unjudged := sorted(set(duration_s) - set(names)):
        warnings.append(
            f"{len(unjudged)} recordings have no event in {reference} and were not judged: "
            f"{', '.join(unjudged[:5])}"
        )
    if not names:
        return {"fa_per_hour": None, "recall": None, "hours": 0.0}, records.source, warnings
    if other := {part.label for _, row in rows for part in row.components} - set(labels):
        warnings.append(f"labels that the model does not know: {', '.join(sorted(other))}")
    place = {name: number for number, name in enumerate(names)}
    wanted, known = _annotated(rows, place, labels)
    every = [
        (place[name], label, seconds, float(score), bool(chosen))
        for name, seconds, scores, picked in zip(
            said.recording, said.seconds, said.scores, said.chosen, strict=True
        )
        if name in place
        for label, (score, chosen) in enumerate(zip(scores, picked, strict=True))
        if known[place[name], label]
    ]
    settings: dict[str, Any] = {
        "n_classes": len(labels),
        "hours": sum(duration_s[name] for name in names) / 3600.0,
        "tolerance_s": TOLERANCE_S,
    }
    found = false_alarms(wanted, _onsets([row[:4] for row in every if row[4]]), **settings)
    judged = {
        **found.as_metrics(labels),
        "recordings": len(names),
        "tolerance_ms": 1000.0 * TOLERANCE_S,
        "at_limits": _at_limits(wanted, _onsets([row[:4] for row in every]), settings),
    }
    return judged, records.source, warnings


def _annotated(
    rows: Sequence[tuple[str, ReferenceRow]], place: Mapping[str, int], labels: tuple[str, ...]
) -> tuple[Onsets, NDArray[np.bool_]]:
    """Return the annotated onsets, and which labels each recording annotates at all.

    `rows` are annotated events with the recording that they lie in, `place` its number.
    """
    column = {label: number for number, label in enumerate(labels)}
    known = np.zeros((len(place), len(labels)), dtype=np.bool_)
    for name, row in rows:
        annotated = labels if row.annotated_labels is None else row.annotated_labels
        known[place[name], [column[x] for x in annotated if x in column]] = True
    there = {
        (place[name], column[part.label], row.onset_time)
        for name, row in rows
        for part in row.components
        if part.label in column
    }
    return _onsets([(*each, 1.0) for each in sorted(there) if known[each[0], each[1]]]), known


def _at_limits(wanted: Onsets, scored: Onsets, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the best recall at any one threshold within each limit of false alarms an hour."""
    limits = []
    for limit in LIMITS_PER_HOUR:
        recall, alarms, threshold = recall_at(wanted, scored, max_fa_per_hour=limit, **settings)
        limits.append(
            {
                "max_fa_per_hour": limit,
                "recall": recall,
                "fa_per_hour": alarms,
                "threshold": threshold,
            }
        )
    return limits


def _onsets(rows: Sequence[tuple[int, int, float, float]]) -> Onsets:
    return Onsets(
        recording=np.array([row[0] for row in rows], dtype=np.intp),
        label=np.array([row[1] for row in rows], dtype=np.intp),
        seconds=np.array([row[2] for row in rows], dtype=np.float64),
        score=np.array([row[3] for row in rows], dtype=np.float64),
    )
