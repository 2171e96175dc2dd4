"""Merging manifests: one file with every event, each line as it stood, duplicates dealt with.

Memory stays bounded, however large the manifests are: lines are streamed in blocks, and what must
be known of all of them (their ids, their order) is spilled to a scratch folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias

import msgspec

from training import __version__
from training.checks.merge_duplicates import IdSpill, same_content
from training.checks.merge_source import Drops, Source, Writer, open_sources
from training.errors import SHOWN_PROBLEMS, DrumgateError, InputError, Problem
from training.manifest import atomic_write, to_json
from training.manifest.diagnose import diagnose_line
from training.manifest.external import LineStore, SortedRuns
from training.manifest.fields import Event
from training.manifest.indexing import (
    BLOCK_BYTES,
    TAIL,
    Block,
    Indexed,
    IndexPool,
    Sort,
    lines_of,
    read_blocks,
    worker_count,
)
from training.manifest.lines import MAX_LINE_BYTES, TOO_LONG

OnDuplicate = Literal["error", "first", "last", "keep"]
Track: TypeAlias = Callable[[Iterable[Any], str, int | None], Iterable[Any]]
"""Shows how far a loop is: its items, what is done, and how many items there are if known."""

LISTED = 50
"""How many duplicate ids the sidecar lists; its counts are always complete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is merged, where it goes, and what happens to ids that stand more than once.

    Attributes:
        inputs: the manifests, in the order in which their events are to stand; `-` is stdin.
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
class _Duplicates:
    """Counts of the duplicates; the first of each kind as the sidecar lists them."""

    counts: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    kinds: dict[bool, list[dict[str, Any]]] = field(default_factory=lambda: {True: [], False: []})

    @property
    def listed(self) -> list[dict[str, Any]]:
        """Conflicts first, since somebody must look at them; each kind in the order met."""
        return [*self.kinds[True], *self.kinds[False]][:LISTED]

    def add(self, entry: dict[str, Any], conflict: bool) -> None:
        self.counts[conflict] += 1
        if len(self.kinds[conflict]) < LISTED:
            self.kinds[conflict].append({**entry, "conflict": conflict})


def quiet(items: Iterable[Any], what: str, total: int | None) -> Iterable[Any]:
    """Show nothing."""
    return items


def run(options: Options, *, track: Track = quiet) -> Merged:
    """Merge manifests and write the result with its provenance, both whole or not at all.

    Every line is written as it stood, byte for byte, so that fields that drumgate does not know
    survive exactly (rows of a Parquet input become JSON). Sorting keeps the order of the inputs
    among equals, so that the same inputs give the same file.

    Raises:
        InputError: an input is missing or malformed, or an id stands twice and `on_duplicate` is
            `error` (later ones are named with the place of the first, up to a cap).
        DrumgateError: there is no room for the output or the scratch files.
    """
    try:
        with (
            tempfile.TemporaryDirectory(prefix="drumgate-", ignore_cleanup_errors=True) as name,
            ExitStack() as stack,
        ):
            scratch = Path(name)
            sources = open_sources(options.inputs, scratch)
            store = stack.enter_context(LineStore([source.plain for source in sources]))
            return _Merge(options, sources, store, scratch, track).run()
    except OSError as error:
        raise DrumgateError(
            f"the merge could not be done: {error.strerror or error} "
            "(scratch files go to the folder that TMPDIR names)"
        ) from error


class _Merge:
    """One merge: the first pass over all lines, the duplicates, and the writing."""

    def __init__(
        self,
        options: Options,
        sources: Sequence[Source],
        store: LineStore,
        scratch: Path,
        track: Track,
    ) -> None:
        self._options, self._sources, self._store, self._track = options, sources, store, track
        self._ids = IdSpill(scratch)
        self._order = SortedRuns(scratch, "order")
        self._verbatim: list[bool] = []  # one a block: whether it may be copied as it is
        self._rows = 0
        # Nothing that stands in a later line can change what is written, unless it is refused.
        self._at_once = options.sort == "none" and options.on_duplicate in ("error", "keep")

    def run(self) -> Merged:
        options = self._options
        with _both(options) as (file, sidecar), Writer(file) as output:
            self._read(output)
            drops = Drops(self._rows)
            duplicates = self._duplicates(drops)
            if not self._at_once:
                self._write(output, drops)
            for source in self._sources:
                source.check_unchanged()
            events = sum(source.events for source in self._sources) - drops.count
            provenance = self._provenance(output, events, drops, duplicates)
            sidecar.write(to_json(provenance) + "\n")
            sidecar.flush()  # a disk that is full is to be noticed before the output is replaced
            os.fsync(sidecar.fileno())
        return Merged(
            events=events,
            identical=duplicates.counts[False],
            conflicts=duplicates.counts[True],
            dropped=drops.count,
            sources_added=self._added(),
            provenance=provenance,
            warnings=_warnings(options, output, duplicates),
        )

    def _read(self, output: Writer) -> None:
        """Check every line, note its id and its place in the order; write it where that is all."""
        size = sum(source.size for source in self._sources)
        problems: list[Problem] = []
        bad = 0
        with IndexPool(self._options.sort, worker_count(size)) as pool:
            for block, found in pool.map(self._blocks("checking", first=True)):
                source = self._sources[block.source]
                if bad and str(source.shown) != problems[0].path:
                    break  # an input with bad lines is read to its end, those behind it are not
                if found.bad:
                    bad += len(found.bad)
                    problems += _problems(block, found, source, SHOWN_PROBLEMS - len(problems))
                elif not bad:
                    self._take(block, found, source, output)
        if bad:
            raise InputError(problems, bad)
        for source in self._sources:
            if not source.events:
                raise InputError.at(source.shown, "holds no record")

    def _take(self, block: Block, found: Indexed, source: Source, output: Writer) -> None:
        source.events += len(found.entries)
        source.unsourced += found.unsourced
        self._rows = block.first_row + block.lines
        self._ids.add(found.entries)
        self._order.add(found.keys)
        as_is = found.verbatim and not (self._options.add_source and found.unsourced)
        if self._at_once:
            output.write(block.data or b"" if as_is else self._changed(block, Drops(0)))
        else:
            self._verbatim.append(as_is)

    def _blocks(self, what: str, *, first: bool = False) -> Iterator[Block]:
        total = sum(-(-source.size // BLOCK_BYTES) for source in self._sources)
        yield from self._track(self._all_blocks(first), what, total)

    def _all_blocks(self, first: bool) -> Iterator[Block]:
        row = 0
        for source in self._sources:
            source.first_row = row
            with source.plain.open("rb", buffering=0) as file:
                for block in read_blocks(file, source.plain, source.number, row):
                    if first:
                        source.take(block.data or b"")
                    row = block.first_row + block.lines
                    yield block

    def _duplicates(self, drops: Drops) -> _Duplicates:
        """Find the ids that stand more than once, and what is to be left out for it."""
        policy = self._options.on_duplicate
        found = _Duplicates()
        problems: list[Problem] = []
        for repeat in self._track(self._ids.repeats(self._store), "comparing duplicates", None):
            source = self._sources[repeat.again["source"]]
            origin = self._sources[repeat.first["source"]]
            first_place = f"{origin.shown}:{origin.line(repeat.first)}"
            line = source.line(repeat.again)
            conflict = not same_content(
                self._with_source(repeat.first_line, origin),
                self._with_source(repeat.again_line, source),
            )
            entry = {
                "sample_id": repeat.sample_id,
                "first": first_place,
                "again": f"{source.shown}:{line}",
            }
            found.add(entry, conflict)
            if policy == "error" and len(problems) < SHOWN_PROBLEMS:
                kind = "other" if conflict else "the same"
                why = f"stands already in {first_place} with {kind} content"
                where = str(source.shown)
                problems.append(Problem(where, why, line, "sample_id", repeat.sample_id))
            elif policy in ("first", "last"):
                drops.add(int(repeat.again["row"]) if policy == "first" else repeat.previous)
        if problems:
            raise InputError(problems, sum(found.counts.values()))
        return found

    def _write(self, output: Writer, drops: Drops) -> None:
        """Write all events but those that are to be left out, in the order asked for."""
        if self._options.sort == "none":
            blocks = self._blocks("writing")
            for block, as_is in zip(blocks, self._verbatim, strict=True):
                output.write(_without(block, drops) if as_is else self._changed(block, drops))
            return
        for keys in self._track(self._order, "writing", None):
            output.write(self._ordered(keys, drops))

    def _ordered(self, keys: Sequence[bytes], drops: Drops) -> bytes:
        import numpy as np

        tails = np.frombuffer(b"".join(key[-TAIL.itemsize :] for key in keys), dtype=TAIL)
        tails = tails[~drops.of(tails["row"])]
        lines = self._store.fetch(tails)
        sources = [self._sources[number] for number in tails["source"].tolist()]
        found = [
            self._with_source(line, source) + b"\n"
            for line, source in zip(lines, sources, strict=True)
        ]
        return b"".join(found)

    def _changed(self, block: Block, drops: Drops) -> bytes:
        """The events of a block, one a line, without those that are to be left out."""
        source = self._sources[block.source]
        lines = lines_of(block.data or b"", first=block.offset == 0)
        dropped = drops.among(block.first_row, block.lines)
        kept = (
            self._with_source(text, source) + b"\n"
            for number, line in enumerate(lines)
            if (text := line.strip()) and block.first_row + number not in dropped
        )
        return b"".join(kept)

    def _with_source(self, line: bytes, source: Source) -> bytes:
        return source.named(line) if self._options.add_source else line

    def _added(self) -> int:
        return sum(source.unsourced for source in self._sources) * self._options.add_source

    def _provenance(
        self, output: Writer, events: int, drops: Drops, duplicates: _Duplicates
    ) -> dict[str, Any]:
        options = self._options
        return {
            "tool": "merge-manifests",
            "version": __version__,
            "parameters": {
                "on_duplicate": options.on_duplicate,
                "sort": options.sort,
                "add_source": options.add_source,
            },
            "inputs": [
                {
                    **msgspec.to_builtins(source.described()),
                    "sources_added": source.unsourced * options.add_source,
                }
                for source in self._sources
            ],
            "output": {
                "path": str(options.output),
                "sha256": output.finish(),
                "records": events,
            },
            "duplicates": {
                "identical": duplicates.counts[False],
                "conflicts": duplicates.counts[True],
                "dropped": drops.count,
                "listed": duplicates.listed,
            },
        }


@contextmanager
def _both(options: Options) -> Iterator[tuple[IO[bytes], IO[str]]]:
    """Open output and sidecar; they take their names one right after the other, at the end."""
    made = [folder for folder in options.output.parents if not folder.exists()]
    try:
        with (
            atomic_write(options.sidecar) as sidecar,
            atomic_write(options.output, binary=True) as output,
        ):
            yield output, sidecar
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def _without(block: Block, drops: Drops) -> bytes:
    """The lines of a block that holds only events, but for those that are to be left out."""
    data = block.data or b""
    dropped = drops.among(block.first_row, block.lines)
    if not dropped:
        return data
    lines = data.split(b"\n")
    for row in sorted(dropped, reverse=True):
        del lines[row - block.first_row]
    return b"\n".join(lines)


def _problems(block: Block, found: Indexed, source: Source, most: int) -> list[Problem]:
    """What is wrong with the first bad lines of a block."""
    lines = lines_of(block.data or b"", first=block.offset == 0)
    problems = []
    for number in found.bad[:most]:
        place = block.first_row + number - source.first_row + 1
        if len(lines[number]) > MAX_LINE_BYTES:
            problems.append(Problem(str(source.shown), TOO_LONG, place))
        else:
            problems.append(diagnose_line(source.shown, lines[number].strip(), Event, place))
    return problems


def _warnings(options: Options, output: Writer, duplicates: _Duplicates) -> tuple[str, ...]:
    warnings = []
    if duplicates.counts[True]:
        warnings.append(
            f"{duplicates.counts[True]} events repeat a sample_id with other content: "
            f"see duplicates in {options.sidecar}"
        )
    folders = {path.resolve().parent for path in options.inputs if str(path) != "-"}
    if output.has_audio and folders != {options.output.resolve().parent}:
        warnings.append(
            "audio paths are kept as they stand, and inputs and output lie in different folders: "
            "give --audio-root or --audio-root-map where the audio is read"
        )
    return tuple(warnings)
