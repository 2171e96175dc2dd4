"""Merging manifests: one file with every event, each line as it stood, duplicates dealt with."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from training import __version__
from training.errors import InputError, Problem
from training.manifest import Event, InputFile, atomic_write, read_raw, read_records, write_json
from training.manifest.lines import numbered_lines, packing_of

OnDuplicate = Literal["error", "first", "last", "keep"]
Sort = Literal["none", "session", "sample_id"]

LISTED = 50
"""How many duplicate ids the sidecar lists; its counts are always complete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is merged, where it goes, and what happens to ids that stand more than once.

    Attributes:
        inputs: the manifests, in the order in which their events are to stand.
        output: the merged manifest, plain JSON Lines. Beside it goes `<output>.provenance.json`.
        on_duplicate: `error` refuses, `first` and `last` keep one, `keep` keeps all.
        sort: the order of the output; `session` is by session, onset and id.
        add_source: give events without `source_set` the name of their input file.
    """

    inputs: tuple[Path, ...]
    output: Path
    on_duplicate: OnDuplicate = "error"
    sort: Sort = "none"
    add_source: bool = False

    @property
    def sidecar(self) -> Path:
        """Where the provenance goes."""
        return self.output.with_name(self.output.name + ".provenance.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class Merged:
    """What a merge did.

    Attributes:
        events: lines written.
        identical: duplicates whose content equals that of the first event with the id.
        conflicts: duplicates with other content.
        dropped: events left out because of their id.
        sources_added: events that were given a `source_set`.
        provenance: the content of the sidecar.
        warnings: what a reader should know.
    """

    events: int
    identical: int
    conflicts: int
    dropped: int
    sources_added: int
    provenance: dict[str, Any]
    warnings: tuple[str, ...]


@dataclass(slots=True)
class _Row:
    """One event: what ordering needs, where it came from, and its line."""

    session_id: str
    onset_s: float
    sample_id: str
    source: str
    line: int
    text: bytes

    @property
    def place(self) -> str:
        return f"{self.source}:{self.line}"


@dataclass(slots=True)
class _Duplicates:
    identical: int = 0
    conflicts: int = 0
    listed: list[dict[str, Any]] = field(default_factory=list)


_ORDER: dict[Sort, Callable[[_Row], Any]] = {
    "session": lambda row: (row.session_id, row.onset_s, row.sample_id),
    "sample_id": lambda row: row.sample_id,
}


def run(options: Options) -> Merged:
    """Merge manifests and write the result with its provenance, both whole or not at all.

    Every line is written as it stood, byte for byte, so that fields that drumgate does not know
    survive exactly (rows of a Parquet input become JSON). Sorting keeps the order of the inputs
    among equals, so that the same inputs give the same file.

    Raises:
        InputError: an input is missing or malformed, or an id stands twice and `on_duplicate` is
            `error` (every later one is named with the place of the first).
    """
    rows: list[_Row] = []
    files: list[InputFile] = []
    added: Counter[str] = Counter()
    for path in options.inputs:
        found, file, count = _read(path, options.add_source)
        rows += found
        files.append(file)
        added[file.path] += count
    read = len(rows)
    duplicates = _duplicates(rows)
    if options.on_duplicate == "error":
        _refuse(rows)
    kept = _resolve(rows, options.on_duplicate)
    if options.sort in _ORDER:
        kept.sort(key=_ORDER[options.sort])
    digest = hashlib.sha256()
    with atomic_write(options.output, binary=True) as output:
        for row in kept:
            line = row.text + b"\n"
            digest.update(line)
            output.write(line)
    provenance = {
        "tool": "merge-manifests",
        "version": __version__,
        "parameters": {
            "on_duplicate": options.on_duplicate,
            "sort": options.sort,
            "add_source": options.add_source,
        },
        "inputs": [
            {**msgspec.to_builtins(file), "sources_added": added[file.path]} for file in files
        ],
        "output": {
            "path": str(options.output),
            "sha256": digest.hexdigest(),
            "records": len(kept),
        },
        "duplicates": {
            "identical": duplicates.identical,
            "conflicts": duplicates.conflicts,
            "dropped": read - len(kept),
            "listed": duplicates.listed,
        },
    }
    write_json(options.sidecar, provenance)
    return Merged(
        events=len(kept),
        identical=duplicates.identical,
        conflicts=duplicates.conflicts,
        dropped=read - len(kept),
        sources_added=sum(added.values()),
        provenance=provenance,
        warnings=_warnings(options, kept, duplicates),
    )


def _read(path: Path, add_source: bool) -> tuple[list[_Row], InputFile, int]:
    """The events of one input, and how many of them were given a source."""
    if packing_of(path) == "parquet":
        pairs = read_raw(path, Event)
        events = [event for event, _ in pairs.rows]
        texts = [msgspec.json.encode(value) for _, value in pairs.rows]
        numbers, file = pairs.lines, pairs.source
    else:
        records = read_records(path, Event)
        events, numbers, file = records.rows, records.lines, records.source
        texts = [line for _, line in numbered_lines(path)]
    name = path.name.partition(".")[0]
    rows, added = [], 0
    for event, number, text in zip(events, numbers, texts, strict=True):
        if add_source and event.source_set is None:
            text = _with_source(text, name)
            added += 1
        rows.append(
            _Row(event.session_id, event.onset_time, event.sample_id, file.path, number, text)
        )
    return rows, file, added


def _with_source(line: bytes, name: str) -> bytes:
    """Add `source_set` at the end of an object that does not state it, the rest as it stood."""
    content = msgspec.json.decode(line, type=dict[str, Any])
    if "source_set" in content:  # it is null; adding a second key would not be JSON any more
        return msgspec.json.encode({**content, "source_set": name})
    return line.removesuffix(b"}").rstrip() + b',"source_set":' + msgspec.json.encode(name) + b"}"


def _duplicates(rows: Sequence[_Row]) -> _Duplicates:
    """Compare every later event of an id with the first."""
    first: dict[str, _Row] = {}
    found = _Duplicates()
    for row in rows:
        earlier = first.setdefault(row.sample_id, row)
        if earlier is row:
            continue
        conflict = _content(earlier) != _content(row)
        found.conflicts += conflict
        found.identical += not conflict
        found.listed.append(
            {
                "sample_id": row.sample_id,
                "first": earlier.place,
                "again": row.place,
                "conflict": conflict,
            }
        )
    # Conflicts are what somebody must look at: they come first, each kind in the order met.
    found.listed.sort(key=lambda entry: not entry["conflict"])
    del found.listed[LISTED:]
    return found


def _content(row: _Row) -> Any:
    return msgspec.json.decode(row.text)


def _refuse(rows: Sequence[_Row]) -> None:
    first: dict[str, _Row] = {}
    problems = []
    for row in rows:
        earlier = first.setdefault(row.sample_id, row)
        if earlier is not row:
            kind = "other" if _content(earlier) != _content(row) else "the same"
            why = f"stands already in {earlier.place} with {kind} content"
            problems.append(Problem(row.source, why, row.line, "sample_id", row.sample_id))
    if problems:
        raise InputError(problems)


def _resolve(rows: list[_Row], policy: OnDuplicate) -> list[_Row]:
    if policy in ("error", "keep"):
        return rows
    # Of a repeated key a dictionary keeps the last value: read backwards, that is the first.
    order = rows if policy == "last" else reversed(rows)
    chosen = {row.sample_id: row for row in order}
    return [row for row in rows if chosen[row.sample_id] is row]


def _warnings(options: Options, kept: Sequence[_Row], duplicates: _Duplicates) -> tuple[str, ...]:
    warnings = []
    if duplicates.conflicts:
        warnings.append(
            f"{duplicates.conflicts} events repeat a sample_id with other content: "
            f"see duplicates in {options.sidecar}"
        )
    folders = {path.resolve().parent for path in options.inputs}
    moved = folders != {options.output.resolve().parent}
    if moved and any(b'"audio_path"' in row.text for row in kept):
        warnings.append(
            "audio paths are kept as they stand, and inputs and output lie in different folders: "
            "give --audio-root or --audio-root-map where the audio is read"
        )
    return tuple(warnings)
