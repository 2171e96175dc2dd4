"""Which events go into a store, with which audio and which labels.

Everything that can be wrong with the events or with the headers of their recordings is found
here, before the first sample is decoded.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.audio.reading import AudioInfo, audio_info
from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest import Event, Records, reject_duplicates, resolve_inside
from training.taxonomy import ComponentTaxonomy

UNNAMED_SOURCE = "unspecified"
"""Source of events that name none."""

Track = Callable[[Sequence[Any], str], Iterable[Any]]
"""Wraps a loop that takes a while: ``track(items, description)`` yields the items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One audio file: where it is, what its header says, and what its bytes hash to."""

    path: Path
    audio_path: str
    source: str
    info: AudioInfo
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Omitted:
    """Events that were left out because they were asked to be, by source."""

    without_audio_path: Mapping[str, int]
    without_file: Mapping[str, int]
    by_limit: int


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelColumns:
    """What a model learns of each event; shapes and meaning as in `StoreSplit`."""

    labels: NDArray[np.uint8]
    annotated: NDArray[np.uint8]
    velocity: NDArray[np.float32]
    openness: NDArray[np.float32]
    is_background: NDArray[np.uint8]
    raw_openness_only: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The events of a store, in the order of the manifest, and the recordings they lie in.

    `recording` is int64 ``(n,)``, index into `recordings`, which stand in the order in which the
    events name them.
    """

    events: tuple[Event, ...]
    raw: tuple[dict[str, Any], ...]
    lines: tuple[int, ...]
    recording: NDArray[np.int64]
    recordings: tuple[Recording, ...]
    columns: LabelColumns
    omitted: Omitted

    @property
    def recording_hashes(self) -> list[str]:
        """What identifies the audio of each event: the hash of its file."""
        return [self.recordings[index].sha256 for index in self.recording.tolist()]

    @property
    def copied_recordings(self) -> int:
        """Files whose content is that of another file."""
        return len(self.recordings) - len({recording.sha256 for recording in self.recordings})


def select(
    records: Records[tuple[Event, dict[str, Any]]],
    taxonomy: ComponentTaxonomy,
    *,
    audio_root: Path,
    audio_roots: Mapping[str, Path],
    skip_missing_audio: bool = False,
    limit: int | None = None,
    track: Track,
) -> Selection:
    """Choose events, find and hash their recordings, and turn their labels into columns.

    Args:
        records: the manifest.
        taxonomy: the labels.
        audio_root: folder that ``audio_path`` is relative to.
        audio_roots: another folder for the events of a source, by ``source_set``.
        skip_missing_audio: leave out, and count, events whose audio is not there.
        limit: keep this many events, taken evenly from the sessions.
        track: wraps the loop over the recordings.

    Raises:
        InputError: a sample_id stands twice; a label is unknown; audio is missing, unreadable or
            outside its folder; an onset lies past the end of its recording; nothing is left.
    """
    source = records.source.path
    events = [event for event, _ in records.rows]
    reject_duplicates(Records(events, records.lines, records.source))
    _require_folders(source, events, audio_root, audio_roots)
    columns = label_columns(events, taxonomy, source=source, lines=records.lines)

    found = _Files(source, audio_root, audio_roots)
    paths = [found.path_of(event, line) for event, line in zip(events, records.lines, strict=True)]
    found.raise_problems(skip_missing_audio, len(events))
    with_audio = [row for row, path in enumerate(paths) if path is not None]
    if not with_audio:
        raise InputError.at(source, "no event has audio: nothing can be built")
    kept = with_audio
    if limit is not None and limit < len(kept):
        chosen = evenly([events[row].session_id for row in kept], limit)
        kept = [kept[index] for index in chosen.tolist()]

    number: dict[Path, int] = {}
    recording = np.array(
        [number.setdefault(path, len(number)) for row in kept if (path := paths[row])],
        dtype=np.int64,
    )
    _, firsts = np.unique(recording, return_index=True)
    named_by = [events[kept[first]] for first in firsts.tolist()]
    recordings = [
        Recording(
            path=path,
            audio_path=str(event.audio_path),
            source=event.source_set or UNNAMED_SOURCE,
            info=audio_info(path),
            sha256=_sha256(path),
        )
        for path, event in track(list(zip(number, named_by, strict=True)), "hashing recordings")
    ]
    rows = np.array(kept)
    selection = Selection(
        events=tuple(events[row] for row in kept),
        raw=tuple(records.rows[row][1] for row in kept),
        lines=tuple(records.lines[row] for row in kept),
        recording=recording,
        recordings=tuple(recordings),
        columns=replace(
            columns,
            labels=columns.labels[rows],
            annotated=columns.annotated[rows],
            velocity=columns.velocity[rows],
            openness=columns.openness[rows],
            is_background=columns.is_background[rows],
        ),
        omitted=Omitted(
            without_audio_path=dict(sorted(found.without_path.items())),
            without_file=dict(sorted(found.without_file.items())),
            by_limit=len(with_audio) - len(kept),
        ),
    )
    check_onsets(source, selection, [each.info.duration_s for each in recordings])
    return selection


def label_columns(
    events: Sequence[Event],
    taxonomy: ComponentTaxonomy,
    *,
    source: str,
    lines: Sequence[int],
) -> LabelColumns:
    """Turn components into columns; aliases count as the label that they stand for.

    A label that an event has is annotated there, whatever its ``annotated_labels`` say.
    No events: arrays of length 0.

    Raises:
        InputError: a component, or an annotated label, is not in the taxonomy.
    """
    at = {label: index for index, label in enumerate(taxonomy.targets)}
    n = len(events)
    labels = np.zeros((n, len(at)), dtype=np.uint8)
    annotated = np.ones((n, len(at)), dtype=np.uint8)
    velocity = np.full(n, np.nan, dtype=np.float32)
    openness = np.full(n, np.nan, dtype=np.float32)
    background = np.zeros(n, dtype=np.uint8)
    raw_only = 0
    names: dict[str, str | None] = {}
    problems: list[Problem] = []

    def canonical(name: str, line: int, field: str) -> str | None:
        if name not in names:
            names[name] = taxonomy.canonical(name)
        if names[name] is None:
            problems.append(Problem(source, "is not in the taxonomy", line, field, name))
        return names[name]

    for row, (event, line) in enumerate(zip(events, lines, strict=True)):
        if event.annotated_labels is not None:
            annotated[row] = 0
            for index, name in enumerate(event.annotated_labels):
                label = canonical(name, line, f"annotated_labels[{index}]")
                if label in at:
                    annotated[row, at[label]] = 1
        for index, component in enumerate(event.components):
            label = canonical(component.label, line, f"components[{index}].label")
            if label in at:
                labels[row, at[label]] = annotated[row, at[label]] = 1
            elif label is not None:
                background[row] = 1
        velocities = [c.velocity for c in event.components if c.velocity is not None]
        if velocities:
            velocity[row] = max(velocities)
        opened = [c.openness for c in event.components if c.openness is not None]
        if opened:
            openness[row] = max(opened)
        elif any(c.openness_raw is not None for c in event.components):
            raw_only += 1
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))
    return LabelColumns(
        labels=labels,
        annotated=annotated,
        velocity=velocity,
        openness=openness,
        is_background=background,
        raw_openness_only=raw_only,
    )


def check_onsets(source: str, selection: Selection, durations_s: Sequence[float]) -> None:
    """Check that every onset lies within its recording.

    Raises:
        InputError: some do not; each is named with the duration of its recording.
    """
    onsets = np.array([event.onset_time for event in selection.events])
    ends = np.asarray(durations_s)[selection.recording]
    late = np.flatnonzero(onsets >= ends)
    if len(late):
        problems = []
        for row in late[:SHOWN_PROBLEMS].tolist():
            recording = selection.recordings[int(selection.recording[row])]
            why = f"lies past the end of {recording.audio_path} ({ends[row]:.3f} s)"
            event = selection.events[row]
            line = selection.lines[row]
            problems.append(Problem(source, why, line, "onset_time", event.onset_time))
        raise InputError(problems, len(late))


def evenly(sessions: Sequence[str], limit: int) -> NDArray[np.int64]:
    """Choose ``limit`` events, as evenly from the sessions as can be, earliest lines first.

    Returns the chosen row numbers, ascending.
    """
    met: Counter[str] = Counter()
    rank = np.empty(len(sessions), dtype=np.int64)
    for row, session in enumerate(sessions):
        rank[row] = met[session]
        met[session] += 1
    return np.sort(np.argsort(rank, kind="stable")[:limit])


class _Files:
    """Finds each event's audio; remembers what is missing, by source and by file."""

    def __init__(self, source: str, audio_root: Path, audio_roots: Mapping[str, Path]) -> None:
        self.source = source
        self.audio_root = audio_root
        self.audio_roots = audio_roots
        self.without_path: Counter[str] = Counter()
        self.without_file: Counter[str] = Counter()
        self._first_without_path = 0
        self._known: dict[tuple[str, str], Path | None] = {}
        self._missing: dict[tuple[str, str], Problem] = {}
        self._outside: list[Problem] = []

    def path_of(self, event: Event, line: int) -> Path | None:
        source = event.source_set or UNNAMED_SOURCE
        if event.audio_path is None:
            self._first_without_path = self._first_without_path or line
            self.without_path[source] += 1
            return None
        key = (source, event.audio_path)
        if key not in self._known:
            self._known[key] = self._resolve(key, line)
        if self._known[key] is None:
            self.without_file[source] += 1
        return self._known[key]

    def _resolve(self, key: tuple[str, str], line: int) -> Path | None:
        root = self.audio_roots.get(key[0], self.audio_root)
        try:
            path = resolve_inside(root, key[1], source=self.source, line=line)
        except InputError as error:
            self._outside += error.problems
            return None
        if path.exists():
            return path
        why = f"no such file in {root}"
        self._missing[key] = Problem(self.source, why, line, "audio_path", key[1])
        return None

    def raise_problems(self, skip_missing: bool, total: int) -> None:
        problems = list(self._outside)
        if not skip_missing:
            if self.without_path:
                count = sum(self.without_path.values())
                by_source = ", ".join(f"{k}: {v}" for k, v in sorted(self.without_path.items()))
                why = (
                    f"missing in {count} of {total} events, here first ({by_source}); "
                    "--skip-missing-audio leaves them out and counts them"
                )
                problems.append(Problem(self.source, why, self._first_without_path, "audio_path"))
            problems += self._missing.values()
        if problems:
            raise InputError(problems[:SHOWN_PROBLEMS], len(problems))


def _require_folders(
    source: str, events: Sequence[Event], audio_root: Path, audio_roots: Mapping[str, Path]
) -> None:
    for folder in (audio_root, *audio_roots.values()):
        if not folder.is_dir():
            raise InputError.at(folder, "no such folder")
    strangers = set(audio_roots) - {event.source_set for event in events}
    if strangers:
        why = "no event is of the source that a folder was given for"
        raise InputError.at(source, why, field="source_set", got=sorted(strangers)[0])


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError.at(path, f"cannot be read: {error.strerror}") from None
