"""The clip store: recordings, not clips.

A store is a folder. For each split it holds one blob, ``<split>.pcm``: the split's recordings as
16-bit little-endian mono samples, one after another, with silence (the guard) before, between and
after them; and one table, ``<split>.index.parquet``: a row an event with the position of its onset
in the blob. Neighbouring clips overlap, so keeping recordings takes a fraction of the room that
clips would; and a batch is one gather from a memory-mapped file, with any window, any jitter.

``components.json`` is the taxonomy that the label columns follow, ``metadata.json`` says what the
store was made from and hashes every file, ``splits/<split>.jsonl`` are the events as manifests.
docs/data.md describes each field.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from training.errors import InputError
from training.manifest import read_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT: Final = "drumgate-clip-store"
FORMAT_VERSION: Final = 1
GUARD_S: Final = 1.5
"""Silence around each recording, in seconds: the longest window may reach this far past one."""
FULL_SCALE: Final = 32768
"""A sample divided by this is the amplitude that was decoded, within half a step."""
METADATA: Final = "metadata.json"
COMPONENTS: Final = "components.json"
SAMPLE: Final = np.dtype("<i2")


def blob_name(split: str) -> str:
    """Return the name of a split's blob within a store."""
    return f"{split}.pcm"


def index_name(split: str) -> str:
    """Return the name of a split's table within a store."""
    return f"{split}.index.parquet"


def manifest_name(split: str) -> str:
    """Return the name of a split's manifest within a store."""
    return f"splits/{split}.jsonl"


def index_schema(n_labels: int) -> pa.Schema:
    """Return the columns of an index table."""
    import pyarrow as pa

    vector = pa.list_(pa.uint8(), n_labels)
    return pa.schema(
        [
            pa.field("sample_id", pa.string(), nullable=False),
            pa.field("session_id", pa.string(), nullable=False),
            pa.field("source", pa.string(), nullable=False),
            pa.field("recording", pa.int32(), nullable=False),
            pa.field("onset", pa.int64(), nullable=False),
            pa.field("segment_start", pa.int64(), nullable=False),
            pa.field("segment_stop", pa.int64(), nullable=False),
            pa.field("labels", vector, nullable=False),
            pa.field("annotated", vector, nullable=False),
            pa.field("velocity", pa.float32()),
            pa.field("openness", pa.float32()),
            pa.field("is_background", pa.uint8(), nullable=False),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class StoreSplit:
    """One split of a store: its audio and a row for each event.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        sample_rate: samples a second.
        guard: samples of silence before and after each recording.
        blob: int16 ``(n_samples,)``, memory-mapped, read only.
        sample_ids: the events' ids, in the order of ``splits/<name>.jsonl``.
        session_ids: session of each event.
        sources: source of each event.
        onset: int64 ``(n,)``, position of the onset in the blob, in samples.
        segment_start: int64 ``(n,)``, where the recording that the onset lies in begins.
        segment_stop: int64 ``(n,)``, where it ends (exclusive).
        labels: uint8 ``(n, n_labels)``, 1 where the event has the label.
        annotated: uint8 ``(n, n_labels)``, 0 where the source does not annotate the label: there
            its absence says nothing, and loss and metrics leave it out.
        velocity: float32 ``(n,)``, the loudest component's, 0..1; NaN unknown.
        openness: float32 ``(n,)``, 0..1, 1 = open; NaN unknown.
        is_background: uint8 ``(n,)``, 1 where something was struck that is no class of the model.
    """

    name: str
    sample_rate: int
    guard: int
    blob: NDArray[np.int16]
    sample_ids: list[str]
    session_ids: list[str]
    sources: list[str]
    onset: NDArray[np.int64]
    segment_start: NDArray[np.int64]
    segment_stop: NDArray[np.int64]
    labels: NDArray[np.uint8]
    annotated: NDArray[np.uint8]
    velocity: NDArray[np.float32]
    openness: NDArray[np.float32]
    is_background: NDArray[np.uint8]

    def __len__(self) -> int:
        """Events in the split."""
        return len(self.onset)

    def gather(
        self,
        rows: NDArray[np.int64],
        *,
        pre: int,
        length: int,
        jitter: NDArray[np.int64] | None = None,
        out: NDArray[np.int16] | None = None,
    ) -> NDArray[np.int16]:
        """Cut a batch of clips out of the blob.

        Clip ``i`` is ``blob[onset - pre + jitter : onset - pre + jitter + length]`` of row
        ``rows[i]``. Past the ends of its recording it holds silence, never another recording.

        Args:
            rows: int64 ``(b,)``, row numbers; repeats are fine.
            pre: samples before the onset, >= 0.
            length: samples a clip, >= 1.
            jitter: int64 ``(b,)``, moves each window; positive = the window starts later.
            out: int16 ``(b, length)``, C-contiguous, to write into instead of a new array.

        Raises:
            ValueError: a window could reach further past a recording than its guard, or an
                argument has another shape.
            IndexError: a row number is not in ``0..len - 1``.
        """
        starts = self.starts(rows, pre=pre, length=length, jitter=jitter)
        if out is None:
            out = np.empty((len(starts), length), dtype=np.int16)
        elif out.shape != (len(starts), length) or out.dtype != np.int16:
            raise ValueError(f"out must be int16 of shape {(len(starts), length)}")
        # a plain view: slicing np.memmap itself costs several microseconds a clip
        samples = np.asarray(self.blob).view(np.ndarray)
        for clip, start in enumerate(starts.tolist()):
            out[clip] = samples[start : start + length]
        return out

    def starts(
        self,
        rows: NDArray[np.int64],
        *,
        pre: int,
        length: int,
        jitter: NDArray[np.int64] | None = None,
    ) -> NDArray[np.int64]:
        """Return where the windows of `gather` start in the blob, int64 ``(b,)``.

        Raises:
            ValueError: see `gather`.
            IndexError: see `gather`.
        """
        rows = np.asarray(rows, dtype=np.int64)
        if rows.ndim != 1:
            raise ValueError(f"rows must have one dimension (got shape {rows.shape})")
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows must lie within 0..{len(self) - 1} of split {self.name}")
        early, late = 0, 0
        starts = np.asarray(self.onset[rows] - pre, dtype=np.int64)
        if jitter is not None:
            jitter = np.asarray(jitter, dtype=np.int64)
            if jitter.shape != rows.shape:
                raise ValueError(f"jitter has shape {jitter.shape}, rows {rows.shape}")
            if len(rows):
                early, late = int(jitter.min()), int(jitter.max())
            starts = starts + jitter
        self._check_window(pre, length, early, late)
        return starts

    def _check_window(self, pre: int, length: int, early: int, late: int) -> None:
        """Refuse windows that could reach past the guard, whichever rows are asked for."""
        if pre < 0 or length < 1:
            raise ValueError(f"pre must be >= 0 and length >= 1 (got {pre} and {length})")
        before, after = pre - early, length - pre + late
        if before > self.guard or after > self.guard:
            raise ValueError(
                f"the window reaches {max(before, 0)} samples before and {max(after, 0)} after "
                f"the onset; recordings are kept apart by {self.guard} samples "
                f"({self.guard / self.sample_rate:g} s), and no window may reach further"
            )


@dataclass(frozen=True, kw_only=True)
class ClipStore:
    """A store on disk.

    Attributes:
        directory: the folder.
        labels: the target labels, the order of the label columns.
        sample_rate: samples a second.
        metadata: what ``metadata.json`` holds.
        split_names: the splits, in the order train, val, test.
    """

    directory: Path
    labels: tuple[str, ...]
    sample_rate: int
    metadata: dict[str, Any]
    split_names: tuple[str, ...]

    @classmethod
    def open(cls, directory: Path) -> ClipStore:
        """Open a store: its metadata is read, and its files are there in the recorded sizes.

        Hashes are not computed (``build_training_dataset --verify-only`` does that).

        Raises:
            InputError: the folder is not a store, is of another format version, or is damaged.
        """
        directory = Path(directory)
        path = directory / METADATA
        if not directory.is_dir():
            raise InputError.at(directory, "no such folder")
        if not path.is_file():
            raise InputError.at(directory, f"is not a clip store: it has no {METADATA}")
        metadata = read_json(path, dict[str, Any])
        if metadata.get("format") != FORMAT:
            why = "is not the metadata of a clip store"
            raise InputError.at(path, why, field="format", got=metadata.get("format"))
        if metadata.get("format_version") != FORMAT_VERSION:
            why = f"is a version that this drumgate does not read (it reads {FORMAT_VERSION})"
            got = metadata.get("format_version")
            raise InputError.at(path, why, field="format_version", got=got)
        labels = _field(path, metadata, "labels", list)
        if not labels or not all(isinstance(label, str) for label in labels):
            raise InputError.at(path, "must be a list of strings", field="labels", got=labels)
        rate = _field(path, metadata, "sample_rate", int)
        guard = _field(path, metadata, "guard_samples", int)
        if rate <= 0 or guard <= 0:
            field = "sample_rate" if rate <= 0 else "guard_samples"
            raise InputError.at(path, "must be positive", field=field, got=metadata[field])
        splits = _field(path, metadata, "splits", dict)
        for name, recorded in _field(path, metadata, "outputs", dict).items():
            size = recorded.get("bytes") if isinstance(recorded, dict) else None
            file = directory / name
            if not file.is_file():
                raise InputError.at(file, "is missing from the store")
            if file.stat().st_size != size:
                why = f"is damaged: {file.stat().st_size} bytes where {size} were written"
                raise InputError.at(file, why)
        return cls(
            directory=directory,
            labels=tuple(labels),
            sample_rate=rate,
            metadata=metadata,
            split_names=tuple(splits),
        )

    def split(self, name: str) -> StoreSplit:
        """Load the table of a split and map its blob.

        Raises:
            InputError: the store has no such split, or its table is damaged.
        """
        if name not in self.split_names:
            why = f"has no split {name!r} (it has {', '.join(self.split_names)})"
            raise InputError.at(self.directory, why)
        path = self.directory / index_name(name)
        table = _read_index(path, len(self.labels))
        blob = _map_blob(self.directory / blob_name(name))
        guard = int(self.metadata["guard_samples"])
        vectors = {
            column: np.ascontiguousarray(
                table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            ).reshape(-1, len(self.labels))
            for column in ("labels", "annotated")
        }
        split = StoreSplit(
            name=name,
            sample_rate=self.sample_rate,
            guard=guard,
            blob=blob,
            sample_ids=table["sample_id"].to_pylist(),
            session_ids=table["session_id"].to_pylist(),
            sources=table["source"].to_pylist(),
            onset=table["onset"].to_numpy(),
            segment_start=table["segment_start"].to_numpy(),
            segment_stop=table["segment_stop"].to_numpy(),
            labels=vectors["labels"],
            annotated=vectors["annotated"],
            velocity=_floats(table, "velocity"),
            openness=_floats(table, "openness"),
            is_background=table["is_background"].to_numpy(),
        )
        within = (
            (split.segment_start >= guard)
            & (split.segment_start <= split.onset)
            & (split.onset < split.segment_stop)
            & (split.segment_stop <= len(blob) - guard)
        )
        if not within.all():
            row = int(np.argmin(within))
            why = f"is damaged: the onset of row {row} lies outside its recording"
            raise InputError.at(path, why)
        return split


def _field(path: Path, metadata: dict[str, Any], name: str, kind: type) -> Any:
    value = metadata.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        why = "is missing" if value is None else f"must be of type {kind.__name__}"
        raise InputError.at(path, why, field=name)
    return value


def _read_index(path: Path, n_labels: int) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError.at(path, f"is not a readable index: {error}") from None
    schema = index_schema(n_labels)
    for field in schema:
        at = table.schema.get_field_index(field.name)
        if at < 0 or table.schema.field(at).type != field.type:
            raise InputError.at(path, f"is damaged: column {field.name} must be {field.type}")
        if not field.nullable and table[field.name].null_count:
            raise InputError.at(path, f"is damaged: column {field.name} has empty cells")
    return table


def _floats(table: pa.Table, column: str) -> NDArray[np.float32]:
    return np.asarray(table[column].to_numpy(), dtype=np.float32)  # empty cells become NaN


def _map_blob(path: Path) -> NDArray[np.int16]:
    try:
        return np.memmap(path, dtype=SAMPLE, mode="r")
    except (OSError, ValueError) as error:
        raise InputError.at(path, f"is not a readable blob: {error}") from None
