"""The blobs of a store while they are written: each recording decoded once, even over many tries.

A journal beside the blobs gets a line when a recording stands in its blob whole. A build that goes
on reads the blobs again, keeps what the journal names and what still hashes to what it says, cuts
off the rest, and decodes only what is missing. Recordings of a store that is there already are
taken from it, if they hash to what its metadata say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from training.audio.reading import read_audio
from training.dataset import store as layout
from training.dataset.divide import SPLITS, Division
from training.dataset.metadata import Segment
from training.dataset.select import Recording, Selection, Track
from training.errors import InputError

JOURNAL: Final = ".decoded.jsonl"
_UNREADABLE: Final = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    msgspec.MsgspecError,
)
_BLOCK: Final = 1 << 20


class Decoded(msgspec.Struct, frozen=True, kw_only=True):
    """A recording that stands in a blob: its file's hash, its samples' count and hash."""

    split: str
    recording: str
    samples: int
    clipped: int
    samples_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Blobs:
    """What was written: a segment for each recording, the SHA-256 of each blob by file name.

    `decoded` recordings were decoded, `kept` were found decoded.
    """

    segments: list[Segment]
    hashes: dict[str, str]
    guard: int
    decoded: int
    kept: int


class Stock:
    """Recordings that an earlier store holds decoded, by the hash of their files.

    Args:
        folder: the store, whole or not; nothing is believed that does not hash to what it should.
        sample_rate: samples a second that are wanted; a store of another rate is of no use.
    """

    def __init__(self, folder: Path, sample_rate: int) -> None:
        self._known: dict[str, tuple[Path, int, Decoded]] = {}
        for name, rows in _recorded(folder, sample_rate).items():
            for start, each in rows:
                self._known[each.recording] = (folder / layout.blob_name(name), start, each)

    def take(self, recording: str) -> tuple[NDArray[np.int16], int] | None:
        """Return the samples of a recording and how many were clipped; None if it is not there."""
        if recording not in self._known:
            return None
        path, start, each = self._known[recording]
        try:
            with path.open("rb") as file:
                file.seek(start * layout.SAMPLE.itemsize)
                data = file.read(each.samples * layout.SAMPLE.itemsize)
        except OSError:
            return None
        if hashlib.sha256(data).hexdigest() != each.samples_sha256:
            return None
        return np.frombuffer(data, dtype=layout.SAMPLE), each.clipped


def write_blobs(
    folder: Path,
    selection: Selection,
    division: Division,
    *,
    sample_rate: int,
    track: Track,
    stock: Stock | None = None,
) -> Blobs:
    """Decode the recordings into one blob a split, going on from what `folder` holds already.

    Raises:
        InputError: a recording cannot be decoded.
    """
    guard = round(layout.GUARD_S * sample_rate)
    first = np.unique(selection.recording, return_index=True)[1]
    split_of = [division.names[split] for split in division.split[first].tolist()]
    hashes = [recording.sha256 for recording in selection.recordings]
    found = _journal(folder, sample_rate)
    segments: list[Segment | None] = [None] * len(hashes)
    blobs: dict[str, _Blob] = {}
    decoded = 0
    try:
        for split, name in enumerate(division.names):
            mine = [index for index, each in enumerate(split_of) if each == name]
            blobs[name] = _Blob(folder / layout.blob_name(name), name, guard)
            before = [each for each in found if each.split == name]
            for index in blobs[name].recover(before, mine, hashes):
                segments[index] = blobs[name].segment(split)
        with _new_journal(folder, sample_rate, blobs.values()) as journal:
            todo = [index for index, segment in enumerate(segments) if segment is None]
            for index in track(todo, "decoding recordings"):
                blob = blobs[split_of[index]]
                taken = stock.take(hashes[index]) if stock else None
                if taken is None:
                    decoded += 1
                    taken = to_int16(_decode(selection.recordings[index], sample_rate))
                entry = blob.append(hashes[index], *taken)
                journal.write(msgspec.json.encode(entry) + b"\n")
                segments[index] = blob.segment(division.names.index(blob.split))
    finally:
        for blob in blobs.values():
            blob.close()
    return Blobs(
        segments=[segment for segment in segments if segment is not None],
        hashes={blob.path.name: blob.digest.hexdigest() for blob in blobs.values()},
        guard=guard,
        decoded=decoded,
        kept=len(hashes) - decoded,
    )


def to_int16(samples: NDArray[np.floating[Any]]) -> tuple[NDArray[np.int16], int]:
    """Return samples as 16-bit steps of 1/32768, and how many were cut off at full scale."""
    out = np.empty(len(samples), dtype=layout.SAMPLE)
    low, high, clipped = -layout.FULL_SCALE, layout.FULL_SCALE - 1, 0
    for first in range(0, len(samples), _BLOCK):
        scaled = np.rint(samples[first : first + _BLOCK] * np.float32(layout.FULL_SCALE))
        clipped += int(np.count_nonzero((scaled < low) | (scaled > high)))
        out[first : first + _BLOCK] = np.clip(scaled, low, high)
    return out, clipped


def _decode(recording: Recording, sample_rate: int) -> NDArray[np.floating[Any]]:
    samples, _ = read_audio(recording.path, sample_rate=sample_rate, mono=True)
    if not len(samples):
        raise InputError.at(recording.path, f"is too short to hold a sample at {sample_rate} Hz")
    return samples


class _Blob:
    """A blob that is being written; it starts with a guard, and each recording ends with one."""

    def __init__(self, path: Path, split: str, guard: int) -> None:
        self.path = path
        self.split = split
        self.digest = hashlib.sha256()
        self.entries: list[Decoded] = []
        self._silence = bytes(guard * layout.SAMPLE.itemsize)
        self._guard = guard
        self._file: IO[bytes] = path.open("r+b" if path.exists() else "w+b")
        self._length = 0

    def recover(
        self, found: Sequence[Decoded], wanted: Sequence[int], hashes: Sequence[str]
    ) -> Iterable[int]:
        """Keep what is whole and in the order wanted, cut off the rest; yield the numbers kept."""
        if self._file.read(len(self._silence)) == self._silence:
            self._take(self._silence)
            for entry, index in zip(found, wanted, strict=False):
                data = self._file.read(entry.samples * layout.SAMPLE.itemsize)
                whole = (
                    entry.recording == hashes[index]
                    and hashlib.sha256(data).hexdigest() == entry.samples_sha256
                    and self._file.read(len(self._silence)) == self._silence
                )
                if not whole:
                    break
                self._take(data)
                self._take(self._silence)
                self.entries.append(entry)
                yield index
        self._file.seek(self._length * layout.SAMPLE.itemsize)
        self._file.truncate()
        if not self._length:
            self._file.write(self._silence)
            self._take(self._silence)

    def append(self, recording: str, samples: NDArray[np.int16], clipped: int) -> Decoded:
        """Write a recording and hand it to the system whole, so that a killed process keeps it."""
        data = samples.tobytes()
        for each in (data, self._silence):
            self._file.write(each)
            self._take(each)
        self._file.flush()
        entry = Decoded(
            split=self.split,
            recording=recording,
            samples=len(samples),
            clipped=clipped,
            samples_sha256=hashlib.sha256(data).hexdigest(),
        )
        self.entries.append(entry)
        return entry

    def segment(self, split: int) -> Segment:
        """Return where the last recording lies."""
        last = self.entries[-1]
        stop = self._length - self._guard
        return Segment(
            split=split,
            start=stop - last.samples,
            stop=stop,
            clipped=last.clipped,
            samples_sha256=last.samples_sha256,
        )

    def close(self) -> None:
        self._file.close()

    def _take(self, data: bytes) -> None:
        self.digest.update(data)
        self._length += len(data) // layout.SAMPLE.itemsize


def _new_journal(folder: Path, sample_rate: int, blobs: Iterable[_Blob]) -> IO[bytes]:
    """Start the journal anew with what was kept; it takes its name whole, then grows by lines."""
    fresh = folder / f"{JOURNAL}.new"
    lines = [json.dumps(_head(sample_rate)).encode()]
    lines += [msgspec.json.encode(entry) for blob in blobs for entry in blob.entries]
    fresh.write_bytes(b"".join(line + b"\n" for line in lines))
    fresh.replace(folder / JOURNAL)
    return (folder / JOURNAL).open("ab", buffering=0)


def _head(sample_rate: int) -> dict[str, Any]:
    return {"format_version": layout.FORMAT_VERSION, "sample_rate": sample_rate}


def _journal(folder: Path, sample_rate: int) -> list[Decoded]:
    """Read what the journal names, up to a line that is not whole; nothing if it is of no use.

    A build that was done but for its last step has no journal any more: then its metadata tell.
    """
    if not (folder / JOURNAL).is_file():
        recorded = _recorded(folder, sample_rate)
        return [each for rows in recorded.values() for _, each in rows]
    lines = (folder / JOURNAL).read_bytes().splitlines(keepends=True)
    entries: list[Decoded] = []
    try:
        if not lines or json.loads(lines[0]) != _head(sample_rate):
            return []
        for line in lines[1:]:
            if not line.endswith(b"\n"):
                break
            entries.append(msgspec.json.decode(line, type=Decoded))
    except _UNREADABLE:
        return [each for each in entries if each.samples > 0]
    return [each for each in entries if each.samples > 0]


def _recorded(folder: Path, sample_rate: int) -> Mapping[str, list[tuple[int, Decoded]]]:
    """Return what the metadata of a store say of its recordings: start and facts, by split."""
    found: dict[str, list[tuple[int, Decoded]]] = {}
    try:
        metadata = json.loads((folder / layout.METADATA).read_bytes())
        if {key: metadata.get(key) for key in _head(sample_rate)} != _head(sample_rate):
            return {}
        for name in SPLITS:
            found[name] = [
                (
                    row["start"],
                    msgspec.convert(
                        {
                            "split": name,
                            "recording": row["sha256"],
                            "samples": row["stop"] - row["start"],
                            "clipped": row["clipped"],
                            "samples_sha256": row["samples_sha256"],
                        },
                        Decoded,
                    ),
                )
                for row in metadata["recordings"].get(name, [])
                if row["start"] >= 0 and row["stop"] > row["start"]
            ]
    except _UNREADABLE:
        return {}
    return found
