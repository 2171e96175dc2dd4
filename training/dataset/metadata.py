"""What ``metadata.json`` says of a store beside its files: counts, durations, split policy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.dataset.divide import Division
from training.dataset.select import Recording, Selection


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Where a recording came to lie: ``blob[start:stop]`` of its split.

    `clipped` counts the samples that went past full scale and were cut off there;
    `samples_sha256` is the hash of its samples as they lie there.
    """

    split: int
    start: int
    stop: int
    clipped: int
    samples_sha256: str


def content_hash(outputs: Mapping[str, Mapping[str, Any]]) -> str:
    """Return one hash for all files of a store: of the lines ``sha256  name``, sorted by name."""
    lines = "".join(f"{outputs[name]['sha256']}  {name}\n" for name in sorted(outputs))
    return hashlib.sha256(lines.encode()).hexdigest()


def facts(
    selection: Selection,
    division: Division,
    segments: Sequence[Segment],
    labels: Sequence[str],
    sample_rate: int,
) -> dict[str, Any]:
    """Return all that follows from the selection and its division, the same from run to run."""
    columns = selection.columns
    rows = _recording_rows(segments, selection.recordings)
    splits: dict[str, Any] = {}
    counts: dict[str, dict[str, int]] = {}
    durations: dict[str, dict[str, float]] = {}
    groups: dict[str, list[str]] = {}
    recordings: dict[str, list[dict[str, Any]]] = {}
    for index, name in enumerate(division.names):
        mine = division.split == index
        chosen = [selection.events[row] for row in np.flatnonzero(mine).tolist()]
        lying = [row for row, seg in zip(rows, segments, strict=True) if seg.split == index]
        durations[name] = _durations(lying, sample_rate)
        counts[name] = dict(zip(labels, columns.labels[mine].sum(axis=0).tolist(), strict=True))
        groups[name] = sorted({event.session_id for event in chosen})
        recordings[name] = lying
        splits[name] = {
            "events": len(chosen),
            "sessions": len(groups[name]),
            "recordings": len(lying),
            "duration_s": round(sum(durations[name].values()), 6),
            "negative_events": int((columns.labels[mine].sum(axis=1) == 0).sum()),
            "background_events": int(columns.is_background[mine].sum()),
        }
    omitted = selection.omitted
    return {
        "splits": splits,
        "durations_s": durations,
        "label_counts": counts,
        "split_policy": {
            "by": division.by,
            "statement": division.statement,
            "considered": [asdict(each) for each in division.considered],
            "isolation": isolation_facts(division),
            "sessions": groups,
        },
        "statistics": {
            "events_in_store": len(selection.events),
            "events_without_audio_path": dict(omitted.without_audio_path),
            "events_whose_audio_is_missing": dict(omitted.without_file),
            "events_left_out_by_limit": omitted.by_limit,
            "events_with_velocity": int(np.isfinite(columns.velocity).sum()),
            "events_with_openness": int(np.isfinite(columns.openness).sum()),
            "events_with_raw_openness_only": int(columns.raw_openness_only),
            "unannotated_cells": int((columns.annotated == 0).sum()),
            "clipped_samples": sum(segment.clipped for segment in segments),
            "recordings_copied": selection.copied_recordings,
            "recordings_resampled": sum(
                each.info.sample_rate != sample_rate for each in selection.recordings
            ),
        },
        "recordings": recordings,
    }


def isolation_facts(division: Division) -> dict[str, Any]:
    """Return what the splits share, as counts with the names of the offenders."""
    isolation = division.isolation
    shared = {
        "shared_sessions": isolation.sessions,
        "shared_recordings": isolation.recordings,
        "shared_drummer_kits": isolation.drummer_kits,
        "shared_drummers": isolation.drummers,
        "shared_kits": isolation.kits,
    }
    return {
        **{key: len(offenders) for key, offenders in shared.items()},
        "offenders": {
            key: {offender.key: list(offender.splits) for offender in offenders}
            for key, offenders in shared.items()
            if offenders
        },
        "events_without_drummer": isolation.events_without_drummer,
        "events_without_kit": isolation.events_without_kit,
    }


def _recording_rows(
    segments: Sequence[Segment], recordings: Sequence[Recording]
) -> list[dict[str, Any]]:
    """Return what the metadata say of each recording, less its split's name."""
    return [
        {
            "audio_path": recording.audio_path,
            "source": recording.source,
            "sha256": recording.sha256,
            **{key: value for key, value in asdict(segment).items() if key != "split"},
            "file_sample_rate": recording.info.sample_rate,
            "file_channels": recording.info.channels,
        }
        for segment, recording in zip(segments, recordings, strict=True)
    ]


def _durations(recordings: Sequence[Mapping[str, Any]], sample_rate: int) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for each in recordings:
        length = (each["stop"] - each["start"]) / sample_rate
        seconds[each["source"]] = seconds.get(each["source"], 0.0) + length
    return {source: round(value, 6) for source, value in sorted(seconds.items())}
