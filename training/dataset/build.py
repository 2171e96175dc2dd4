"""Write a clip store: decode each recording once, stream it into its split's blob.

The store is written into a hidden folder beside its place and takes its name at the very end, so
that a build that fails, or is killed, leaves no half store behind under that name. Memory holds
one recording at a time.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray

from training.audio.reading import read_audio
from training.dataset import store as layout
from training.dataset.divide import Division
from training.dataset.metadata import Segment, content_hash, facts
from training.dataset.select import Recording, Selection, Track, check_onsets
from training.errors import InputError
from training.manifest import FolderKind, write_json, write_jsonl

_BLOCK = 1 << 20


STORE: Final = FolderKind("store", lambda folder: (folder / layout.METADATA).is_file())


def write_blobs(
    folder: Path, selection: Selection, division: Division, *, sample_rate: int, track: Track
) -> tuple[list[Segment], dict[str, str], int]:
    """Decode the recordings into one blob a split.

    Returns the segment of each recording, the SHA-256 of each blob by file name, and the guard in
    samples.

    Raises:
        InputError: a recording cannot be decoded.
    """
    guard = round(layout.GUARD_S * sample_rate)
    first = np.unique(selection.recording, return_index=True)[1]
    split_of = division.split[first].tolist()
    segments: list[Segment | None] = [None] * len(selection.recordings)
    blobs = [_Blob(folder / layout.blob_name(name), guard) for name in division.names]
    try:
        todo = list(zip(range(len(split_of)), selection.recordings, split_of, strict=True))
        for index, recording, split in track(todo, "decoding recordings"):
            samples = _decode(recording, sample_rate)
            start, stop, clipped = blobs[split].append(samples)
            segments[index] = Segment(split=split, start=start, stop=stop, clipped=clipped)
    finally:
        for blob in blobs:
            blob.close()
    hashes = {blob.path.name: blob.digest.hexdigest() for blob in blobs}
    return [segment for segment in segments if segment is not None], hashes, guard


def onset_positions(
    selection: Selection, segments: Sequence[Segment], *, sample_rate: int, source: str
) -> NDArray[np.int64]:
    """Return the position of each onset in its split's blob, int64 ``(n,)``.

    Raises:
        InputError: an onset lies past the end of its decoded recording.
    """
    lengths = np.array([segment.stop - segment.start for segment in segments])
    check_onsets(source, selection, (lengths / sample_rate).tolist())
    starts = np.array([segment.start for segment in segments])
    onsets = np.array([event.onset_time for event in selection.events])
    within = np.rint(onsets * sample_rate).astype(np.int64)
    # the last half sample rounds up to the end
    within = np.minimum(within, lengths[selection.recording] - 1)
    return np.asarray(starts[selection.recording] + within, dtype=np.int64)


def write_index(
    path: Path, selection: Selection, rows: NDArray[np.int64], position: NDArray[np.int64],
    segments: Sequence[Segment],
) -> None:  # fmt: skip
    """Write the table of a split: one row an event, in the order of the manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = selection.columns
    n_labels = columns.labels.shape[1]
    chosen = [selection.events[row] for row in rows.tolist()]
    recording = selection.recording[rows]
    schema = layout.index_schema(n_labels)

    def vectors(values: NDArray[np.uint8]) -> Any:
        flat = pa.array(np.ascontiguousarray(values[rows]).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(flat, n_labels)

    def optional(values: NDArray[np.float32]) -> Any:
        return pa.array(values[rows], from_pandas=True)

    table = pa.table(
        [
            pa.array([event.sample_id for event in chosen], pa.string()),
            pa.array([event.session_id for event in chosen], pa.string()),
            pa.array([selection.recordings[i].source for i in recording.tolist()], pa.string()),
            pa.array(recording.astype(np.int32)),
            pa.array(position[rows]),
            pa.array(np.array([s.start for s in segments], dtype=np.int64)[recording]),
            pa.array(np.array([s.stop for s in segments], dtype=np.int64)[recording]),
            vectors(columns.labels),
            vectors(columns.annotated),
            optional(columns.velocity),
            optional(columns.openness),
            pa.array(columns.is_background[rows]),
        ],
        schema=schema,
    )
    pq.write_table(table, path, compression="zstd")


def write_manifest(path: Path, selection: Selection, rows: NDArray[np.int64], split: str) -> None:
    """Write the events of a split as a manifest: as they stood, with ``split`` set."""
    write_jsonl(path, ({**selection.raw[row], "split": split} for row in rows.tolist()))


def write_store(
    folder: Path,
    selection: Selection,
    division: Division,
    *,
    source: str,
    sample_rate: int,
    components: bytes,
    labels: Sequence[str],
    described: Mapping[str, Any],
    track: Track,
) -> dict[str, Any]:
    """Write all files of a store but the metadata; return what the metadata say of them.

    Args:
        folder: where to write; it is there, and empty.
        selection: the events and recordings.
        division: their splits.
        source: the manifest, for messages.
        sample_rate: samples a second of the store.
        components: the taxonomy file, as it stands.
        labels: the target labels.
        described: what goes into the metadata besides (inputs, parameters, …).
        track: wraps the loop over the recordings.

    Raises:
        InputError: a recording cannot be decoded, or an onset lies past its end.
    """
    segments, hashes, guard = write_blobs(
        folder, selection, division, sample_rate=sample_rate, track=track
    )
    position = onset_positions(selection, segments, sample_rate=sample_rate, source=source)
    (folder / layout.COMPONENTS).write_bytes(components)
    for index, name in enumerate(division.names):
        rows = np.flatnonzero(division.split == index)
        write_index(folder / layout.index_name(name), selection, rows, position, segments)
        write_manifest(folder / layout.manifest_name(name), selection, rows, name)
    outputs = {
        name: {
            "sha256": hashes.get(name) or hash_file(folder / name),
            "bytes": (folder / name).stat().st_size,
        }
        for name in output_names(division.names)
    }
    return {
        "format": layout.FORMAT,
        "format_version": layout.FORMAT_VERSION,
        "content_sha256": content_hash(outputs),
        "sample_rate": sample_rate,
        "full_scale": layout.FULL_SCALE,
        "guard_samples": guard,
        "labels": list(labels),
        **described,
        **facts(selection, division, segments, labels, sample_rate),
        "outputs": outputs,
    }


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write ``metadata.json``; then wait until every file of the store is on the disk."""
    write_json(folder / layout.METADATA, metadata)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def output_names(splits: Sequence[str]) -> list[str]:
    """Return the files of a store but its metadata, sorted."""
    names = [layout.COMPONENTS]
    for split in splits:
        names += [layout.blob_name(split), layout.index_name(split), layout.manifest_name(split)]
    return sorted(names)


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_int16(samples: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int16], int]:
    """Return samples as 16-bit steps of 1/32768, and how many were cut off at full scale."""
    scaled = np.rint(samples * np.float32(layout.FULL_SCALE))
    low, high = -layout.FULL_SCALE, layout.FULL_SCALE - 1
    clipped = int(np.count_nonzero((scaled < low) | (scaled > high)))
    return np.clip(scaled, low, high).astype(layout.SAMPLE), clipped


def _decode(recording: Recording, sample_rate: int) -> NDArray[np.floating[Any]]:
    samples, _ = read_audio(recording.path, sample_rate=sample_rate, mono=True)
    if not len(samples):
        raise InputError.at(recording.path, f"is too short to hold a sample at {sample_rate} Hz")
    return samples


class _Blob:
    """A blob that is being written; it starts with a guard, and each recording ends with one."""

    def __init__(self, path: Path, guard: int) -> None:
        self.path = path
        self.digest = hashlib.sha256()
        self._silence = bytes(guard * layout.SAMPLE.itemsize)
        self._file: IO[bytes] = path.open("wb")
        self._length = 0
        self._put(self._silence)

    def append(self, samples: NDArray[np.floating[Any]]) -> tuple[int, int, int]:
        """Write a recording; return where it starts and stops, and its clipped samples."""
        start, clipped = self._length, 0
        for first in range(0, len(samples), _BLOCK):
            block, cut = to_int16(samples[first : first + _BLOCK])
            clipped += cut
            self._put(block.tobytes())
        stop = self._length
        self._put(self._silence)
        return start, stop, clipped

    def close(self) -> None:
        self._file.close()

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self.digest.update(data)
        self._length += len(data) // layout.SAMPLE.itemsize
