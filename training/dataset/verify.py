"""Check a store against what it says of itself: every byte, every row, every promise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.dataset import store as layout
from training.dataset.build import hash_file, output_names
from training.dataset.leakage import check_isolation
from training.dataset.metadata import content_hash
from training.dataset.select import UNNAMED_SOURCE, Track, label_columns
from training.dataset.store import ClipStore, StoreSplit
from training.errors import InputError
from training.manifest import Event, read_records
from training.taxonomy import load_components


@dataclass(frozen=True, kw_only=True, slots=True)
class Verified:
    """What was checked, and what is wrong: one sentence each, empty when the store is whole."""

    store: ClipStore
    files: int
    events: int
    problems: tuple[str, ...]


def verify_store(
    directory: Path,
    *,
    events_sha256: str | None = None,
    audio_root: Path | None = None,
    audio_roots: Mapping[str, Path] | None = None,
    track: Track,
) -> Verified:
    """Check a store: hashes, tables against manifests, silence in the guards, isolation.

    Args:
        directory: the store.
        events_sha256: hash of the manifest that it should have been built from.
        audio_root: when given, the recordings are hashed too and compared.
        audio_roots: another folder for the recordings of a source.
        track: wraps the loop over the files.

    Raises:
        InputError: it is no store, or so damaged that it cannot be opened.
    """
    store = ClipStore.open(directory)
    problems: list[str] = []
    outputs = store.metadata["outputs"]
    expected = output_names(store.split_names)
    if sorted(outputs) != expected:
        problems.append(f"metadata.json lists {sorted(outputs)} where {expected} belong")
    for name in track(sorted(outputs), "hashing the store"):
        if hash_file(store.directory / name) != outputs[name]["sha256"]:
            problems.append(f"{name} is not what was written: its hash differs")
    if content_hash(outputs) != store.metadata.get("content_sha256"):
        problems.append("content_sha256 does not follow from the hashes of the files")
    recorded = store.metadata.get("inputs", {}).get("events", {}).get("sha256")
    if events_sha256 is not None and recorded != events_sha256:
        problems.append("the events have changed since the store was built from them")
    if audio_root is not None:
        problems += _changed_audio(store, audio_root, audio_roots or {}, track)

    events = 0
    rows: dict[str, list[Event]] = {}
    for name in store.split_names:
        try:
            split = store.split(name)
            manifest = read_records(store.directory / layout.manifest_name(name), Event)
            problems += _compare(split, manifest.rows, manifest.lines, store)
        except InputError as error:
            problems.append(str(error))
            continue
        events += len(split)
        rows[name] = manifest.rows
    problems += _leaks(store, rows)
    return Verified(store=store, files=len(outputs), events=events, problems=tuple(problems))


def _compare(
    split: StoreSplit, events: Sequence[Event], lines: Sequence[int], store: ClipStore
) -> list[str]:
    """Compare a table with the manifest beside it, and look into the guards."""
    name = split.name
    if [event.sample_id for event in events] != split.sample_ids:
        return [f"the table of {name} does not list the events of its manifest"]
    problems = []
    if [event.session_id for event in events] != split.session_ids:
        problems.append(f"{name}: sessions differ between table and manifest")
    taxonomy = load_components(store.directory / layout.COMPONENTS)
    if taxonomy.targets != store.labels:
        problems.append("components.json does not name the labels of the store")
    else:
        source = layout.manifest_name(name)
        columns = label_columns(events, taxonomy, source=source, lines=lines)
        for field in ("labels", "annotated", "velocity", "openness", "is_background"):
            got, want = getattr(split, field), getattr(columns, field)
            if not np.array_equal(got, want, equal_nan=got.dtype.kind == "f"):
                problems.append(f"{name}: {field} differ between table and manifest")
    onsets = np.array([event.onset_time for event in events])
    offset = np.abs((split.onset - split.segment_start) - onsets * split.sample_rate)
    if len(onsets) and offset.max() > 1.0:
        problems.append(f"{name}: onsets differ between table and manifest")
    for stop, start in _gaps(split):
        gap = split.blob[stop:start]
        if len(gap) < split.guard:
            problems.append(f"{name}: recordings are less than the guard apart")
        elif gap.any():
            problems.append(f"{name}: samples {stop} to {start} should be silent")
    return problems


def _gaps(split: StoreSplit) -> list[tuple[int, int]]:
    """Where the blob should be silent: before, between and after the recordings."""
    bounds = sorted(
        set(zip(split.segment_start.tolist(), split.segment_stop.tolist(), strict=True))
    )
    starts = [start for start, _ in bounds] + [len(split.blob)]
    stops = [0] + [stop for _, stop in bounds]
    return list(zip(stops, starts, strict=True))


def _leaks(store: ClipStore, rows: Mapping[str, Sequence[Event]]) -> list[str]:
    """Look for what is shared between splits and not recorded as allowed."""
    splits = [name for name, events in rows.items() for _ in events]
    events = [event for name in rows for event in rows[name]]
    found = check_isolation(
        splits=splits,
        sessions=[event.session_id for event in events],
        recordings=[f"{event.source_set or UNNAMED_SOURCE}:{event.audio_path}" for event in events],
        drummers=[None] * len(events),
        kits=[None] * len(events),
    )
    policy = store.metadata.get("split_policy", {}).get("isolation", {})
    allowed = set(policy.get("offenders", {}).get("shared_sessions", {}))
    return [
        f"{leak.kind} {leak.key} is in {' and '.join(leak.splits)}"
        for leak in found.leaks
        if not (leak.kind == "session" and leak.key in allowed)
    ]


def recorded_audio(store: ClipStore) -> list[tuple[str, set[str], float]]:
    """Return the path, the sessions and the seconds of each recording in a store.

    Raises:
        InputError: the metadata do not list them, or a table is damaged.
    """
    found = []
    for name in store.split_names:
        split = store.split(name)
        sessions: dict[int, set[str]] = {}
        for start, session in zip(split.segment_start.tolist(), split.session_ids, strict=True):
            sessions.setdefault(start, set()).add(session)
        for each in _recordings(store, name):
            seconds = (each["stop"] - each["start"]) / store.sample_rate
            found.append((each["audio_path"], sessions.get(each["start"], set()), seconds))
    return found


def _recordings(store: ClipStore, split: str) -> list[dict[str, Any]]:
    """Return what the metadata say of the recordings of a split."""
    try:
        return [
            {
                **each,
                **{key: str(each[key]) for key in ("audio_path", "source", "sha256")},
                **{key: int(each[key]) for key in ("start", "stop")},
            }
            for each in store.metadata["recordings"][split]
        ]
    except (KeyError, TypeError, ValueError):
        path = store.directory / layout.METADATA
        why = "must list audio_path, source, sha256, start and stop of each recording"
        raise InputError.at(path, why, field=f"recordings.{split}") from None


def _changed_audio(
    store: ClipStore, audio_root: Path, audio_roots: Mapping[str, Path], track: Track
) -> list[str]:
    recordings = [each for name in store.split_names for each in _recordings(store, name)]
    problems = []
    for each in track(recordings, "hashing recordings"):
        path = audio_roots.get(each["source"], audio_root) / each["audio_path"]
        if not path.is_file():
            problems.append(f"{each['audio_path']} is no longer in {path.parent}")
        elif hash_file(path) != each["sha256"]:
            problems.append(f"{each['audio_path']} has changed since the store was built")
    return problems
