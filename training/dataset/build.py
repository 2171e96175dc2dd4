"""Write a clip store: blobs, tables, manifests and what the metadata say of them.

The store is written into a hidden folder beside its place and takes its name at the very end, so
that a build that fails, or is killed, leaves no half store behind under that name. Memory holds
one recording at a time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.dataset import store as layout
from training.dataset.blobs import JOURNAL, Stock, write_blobs
from training.dataset.divide import Division
from training.dataset.metadata import Segment, content_hash, facts
from training.dataset.select import Selection, Track, check_onsets
from training.manifest import FolderKind, write_json, write_jsonl

STORE: Final = FolderKind("store", lambda folder: (folder / layout.METADATA).is_file())


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
    stock: Stock | None = None,
) -> dict[str, Any]:
    """Write all files of a store but the metadata; return what the metadata say of them.

    Args:
        folder: where to write; it is there, and empty, or holds what an unfinished build left.
        selection: the events and recordings.
        division: their splits.
        source: the manifest, for messages.
        sample_rate: samples a second of the store.
        components: the taxonomy file, as it stands.
        labels: the target labels.
        described: what goes into the metadata besides (inputs, parameters, …).
        track: wraps the loop over the recordings.
        stock: recordings that are decoded already.

    Raises:
        InputError: a recording cannot be decoded, or an onset lies past its end.
    """
    started = time.monotonic()
    _tidy(folder, division.names)
    blobs = write_blobs(
        folder, selection, division, sample_rate=sample_rate, track=track, stock=stock
    )
    decode_s = time.monotonic() - started
    segments = blobs.segments
    position = onset_positions(selection, segments, sample_rate=sample_rate, source=source)
    (folder / layout.COMPONENTS).write_bytes(components)
    for index, name in enumerate(division.names):
        rows = np.flatnonzero(division.split == index)
        write_index(folder / layout.index_name(name), selection, rows, position, segments)
        write_manifest(folder / layout.manifest_name(name), selection, rows, name)
    outputs = _described_files(folder, division.names, blobs.hashes)
    return {
        "format": layout.FORMAT,
        "format_version": layout.FORMAT_VERSION,
        "content_sha256": content_hash(outputs),
        "sample_rate": sample_rate,
        "full_scale": layout.FULL_SCALE,
        "guard_samples": blobs.guard,
        "labels": list(labels),
        **described,
        **facts(selection, division, segments, labels, sample_rate),
        "outputs": outputs,
        "run_statistics": {
            "recordings_decoded": blobs.decoded,
            "recordings_kept": blobs.kept,
            "decode_s": round(decode_s, 3),
        },
    }


def _described_files(
    folder: Path, splits: Sequence[str], hashes: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Return hash and size of each file of a store; `hashes` are those known already."""
    return {
        name: {
            "sha256": hashes.get(name) or hash_file(folder / name),
            "bytes": (folder / name).stat().st_size,
        }
        for name in output_names(splits)
    }


def _tidy(folder: Path, splits: Sequence[str]) -> None:
    """Delete what an unfinished build left, but for what it had decoded."""
    kept = {JOURNAL, layout.METADATA, *(layout.blob_name(name) for name in splits)}
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in kept or path.is_symlink():
            path.unlink()


def write_metadata(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Write ``metadata.json``; then wait until every file of the store is on the disk.

    From here on the metadata say what is decoded, and the journal goes.
    """
    write_json(folder / layout.METADATA, metadata)
    (folder / JOURNAL).unlink(missing_ok=True)
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
