"""Scanning events manifests of any size: strictly validated, then a view that SQL can ask.

A manifest becomes a Parquet file that holds the fields of `Event`, and every question is asked of
that file. DuckDB makes it, at the speed of its JSON reader; but that reader takes `"0.5"` for a
number, a number for an id and NaN for JSON, and does not look at fields that it was not asked for.
So at the same time every line is validated strictly (`training.manifest.validate`), and only when
both have read the same number of records, and neither has complained, does the view exist.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import duckdb

from training.errors import InputError
from training.manifest.cache import Cache
from training.manifest.engine import Engine, literal
from training.manifest.fields import Event
from training.manifest.lines import (
    MAX_LINE_BYTES,
    limited_lines,
    packing_of,
    starts_with_bom,
    unpack,
)
from training.manifest.read import InputFile, describe_file
from training.manifest.schema import arrow_schema, write_parquet
from training.manifest.validate import Checked, check_file

if TYPE_CHECKING:
    import pyarrow as pa

STDIN: Final = Path("-")
"""The path that stands for standard input."""

LABEL_SEPARATOR: Final = "\x1f"
"""Joins the labels of an `annotated_labels` list into one value; it cannot occur in a label."""

DERIVED: Final = {
    "hits": "len(components)",
    "device": "nullif(concat_ws(' ', nullif(device_vendor, ''), nullif(device_model, '')), '')",
    "annotated_set": f"array_to_string(list_sort(list_distinct(annotated_labels)),"
    f" chr({ord(LABEL_SEPARATOR)}))",
}
"""Columns made of an event's fields once, because making them at every question costs more."""

Columns: TypeAlias = Mapping[str, str]
"""What a view is to hold: the names of its columns, and what each is in SQL, made of the fields of
`Event` and of `DERIVED`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One input, scanned: where its rows are, and how to find their lines again."""

    source: InputFile
    readable: Path
    parquet: Path
    rows: int
    bad_lines: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Scan:
    """One or several manifests, validated, as a view of an engine.

    Attributes:
        name: the view. It has a row for each event, in the order of the files: `row` (BIGINT, from
            0 over all inputs) and the columns that were asked for. By default these are every
            field of `Event` under its own name, null where the event does not state it, and
            `hits` (how many components), `device` ("vendor model") and `annotated_set` (the sorted
            annotated labels joined by `LABEL_SEPARATOR`).
        rows: the number of events.
        skipped: invalid lines left out, 0 unless that was asked for.
        sources: the inputs, with their hashes.
    """

    name: str
    rows: int
    skipped: int
    sources: tuple[InputFile, ...]
    _parts: tuple[_Part, ...]

    def place(self, row: int) -> tuple[str, int]:
        """Return the path and line of an event; reads the file again, so for messages only."""
        return self.places([row])[row]

    def places(self, rows: Iterable[int]) -> dict[int, tuple[str, int]]:
        """Return the path and line of each of some events, in one pass over the files."""
        wanted = sorted(set(rows))
        found: dict[int, tuple[str, int]] = {}
        first = 0
        for part in self._parts:
            here = [row for row in wanted if first <= row < first + part.rows]
            if here:
                lines = _lines_of(part, [row - first for row in here])
                found |= {
                    row: (part.source.path, line) for row, line in zip(here, lines, strict=True)
                }
            first += part.rows
        return found


def scan_events(
    engine: Engine,
    inputs: Sequence[Path | str],
    *,
    name: str = "events",
    columns: Columns | None = None,
    skip_invalid: bool = False,
    cache_dir: Path | None = None,
) -> Scan:
    """Validate manifests and make a view of them.

    Args:
        engine: where the view is made.
        inputs: the files (.jsonl, .gz, .zst or .parquet, told by content), or "-" for standard
            input.
        name: what to call the view.
        columns: what the view holds beside `row`; None is everything. Writing columns is a good
            part of the work, so who needs few should say so.
        skip_invalid: leave invalid lines out and count them, instead of raising.
        cache_dir: keep what was validated here, and use what is there for the same content.

    Raises:
        InputError: an input is missing, empty, damaged, changes while it is read or, unless they
            are skipped, has invalid lines: the first are named, all are counted.
    """
    cache = Cache(cache_dir) if cache_dir else None
    # What is cached has everything, for whoever comes next.
    written = None if cache else columns
    parts = []
    for number, path in enumerate(inputs):
        target = engine.scratch / f"{name}-{number}.parquet"
        parts.append(_scan_one(engine, Path(path), target, written, skip_invalid, cache))
    if columns is None:
        columns = {column: f'"{column}"' for column in (*arrow_schema().names, *DERIVED)}
    made = {column: f'"{column}"' for column in columns} if written else columns
    listed = ", ".join(f'{expression} AS "{column}"' for column, expression in made.items())
    selects, first = [], 0
    for part in parts:
        rows = f"read_parquet({literal(str(part.parquet))}, file_row_number = true)"
        selects.append(f'SELECT file_row_number + {first} AS "row", {listed} FROM {rows}')
        first += part.rows
    engine.connection.execute(f'CREATE OR REPLACE VIEW "{name}" AS {" UNION ALL ".join(selects)}')
    return Scan(
        name=name,
        rows=first,
        skipped=sum(len(part.bad_lines) for part in parts),
        sources=tuple(part.source for part in parts),
        _parts=tuple(parts),
    )


def _scan_one(
    engine: Engine,
    path: Path,
    target: Path,
    columns: Columns | None,
    skip_invalid: bool,
    cache: Cache | None,
) -> _Part:
    shown = str(path)
    if path == STDIN:
        path = target.with_suffix(".stdin")
        _spool(path)
    packing = packing_of(path, shown_as=shown)
    if cache and (kept := cache.find(path)):
        source = InputFile(shown, kept.sha256, path.stat().st_size, kept.records)
        return _Part(source=source, readable=path, parquet=kept.parquet, rows=kept.records)
    before = path.stat()
    if packing == "parquet":
        source = describe_file(path)
        checked = _slowly(engine.connection, path, target, columns, shown)
    else:
        readable = path
        if packing != "plain" or starts_with_bom(path):
            readable = target.with_suffix(".jsonl")
            unpack(path, readable, shown_as=shown)
        source, checked = _read_lines(engine, path, readable, target, columns, shown, skip_invalid)
    if checked.bad_lines and not skip_invalid:
        raise InputError(checked.problems, len(checked.bad_lines))
    if not checked.records:
        raise InputError.at(
            shown, "holds no record" if not checked.bad_lines else "holds no valid record"
        )
    after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InputError.at(shown, "has changed while it was read")
    if cache and not checked.bad_lines:
        target = cache.keep(path, source.sha256, target, checked.records)
    return _Part(
        source=InputFile(shown, source.sha256, source.bytes, checked.records),
        readable=path,
        parquet=target,
        rows=checked.records,
        bad_lines=checked.bad_lines,
    )


def _read_lines(
    engine: Engine,
    path: Path,
    readable: Path,
    target: Path,
    columns: Columns | None,
    shown: str,
    skip_invalid: bool,
) -> tuple[InputFile, Checked]:
    """Validate a plain file while the engine turns it into Parquet and its hash is taken."""
    cursor = engine.connection.cursor()
    with ThreadPoolExecutor(2) as threads:
        hashing = threads.submit(describe_file, path)
        copying = threads.submit(_copy, cursor, readable, target, columns)
        try:
            # Keys that stand twice are the one thing in which the engine is the stricter reader.
            checked = check_file(readable, every_key=False, shown_as=shown, track=engine.track)
            if checked.bad_lines:
                cursor.interrupt()
            copied = copying.result()
        except BaseException:
            cursor.interrupt()
            raise
        source = hashing.result()
    if copied is not None and not checked.bad_lines:
        if copied != checked.records:
            raise RuntimeError(f"{shown}: {checked.records} records validated, {copied} scanned")
        return source, checked
    # Something is wrong: look again at everything, now also for keys that the engine has refused.
    checked = check_file(readable, shown_as=shown, track=engine.track)
    if checked.bad_lines and not skip_invalid:
        return source, checked
    valid = target.with_suffix(".valid.jsonl")
    _without(readable, valid, checked.bad_lines)
    if checked.records and _copy(cursor, valid, target, columns) != checked.records:
        # The engine refuses what is valid: rare enough for the slow way.
        _slowly(cursor, valid, target, columns, shown)
    valid.unlink()
    return source, checked


def _copy(
    cursor: duckdb.DuckDBPyConnection, source: Path, target: Path, columns: Columns | None
) -> int | None:
    """Turn a JSONL file into Parquet; return the rows, or None where the engine refused a line."""
    fields = ", ".join(f"'{name}': '{sql_type(kind)}'" for name, kind in _fields())
    reader = (
        f"read_json({literal(str(source))}, format = 'newline_delimited', compression = 'none', "
        f"maximum_object_size = {MAX_LINE_BYTES}, columns = {{{fields}}})"
    )
    try:
        return _keep(cursor, reader, target, columns)
    except (duckdb.InvalidInputException, duckdb.ConversionException, duckdb.InterruptException):
        return None


def _keep(
    cursor: duckdb.DuckDBPyConnection, reader: str, target: Path, columns: Columns | None
) -> int:
    """Write columns of what a table function gives as Parquet; return the rows."""
    derived = ", ".join(f'{expression} AS "{name}"' for name, expression in DERIVED.items())
    query = f"SELECT *, {derived} FROM {reader}"
    if columns is not None:
        listed = ", ".join(f'{expression} AS "{name}"' for name, expression in columns.items())
        query = f"SELECT {listed} FROM ({query}){_reading_the_rest(columns)}"
    (rows,) = cursor.execute(
        f"COPY ({query}) TO {literal(str(target))} "
        "(FORMAT parquet, COMPRESSION lz4_raw, WRITE_BLOOM_FILTER false)"
    ).fetchone() or (0,)
    return int(rows)


def _reading_the_rest(columns: Columns) -> str:
    """Give a condition that always holds, and makes the engine read what it would pass over.

    A key that stands twice is refused by the engine only where it reads the field.
    """
    named = set(re.findall(r"\w+", " ".join(columns.values())))
    for name in named & DERIVED.keys():
        named |= set(re.findall(r"\w+", DERIVED[name]))
    rest = [f'"{name}"' for name, _ in _fields() if name not in named]
    return f" WHERE hash({', '.join(rest)}) IS NOT NULL" if rest else ""


def _slowly(
    cursor: duckdb.DuckDBPyConnection,
    source: Path,
    target: Path,
    columns: Columns | None,
    shown: str,
) -> Checked:
    """Validate rows or lines as Python objects and write them as Parquet: see `write_parquet`."""
    plain = target.with_suffix(".rows")
    checked = write_parquet(source, plain, shown_as=shown)
    _keep(cursor, f"read_parquet({literal(str(plain))})", target, columns)
    plain.unlink()
    return checked


def sql_type(kind: pa.DataType) -> str:
    """Return the engine's name of an Arrow type."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return f"{sql_type(kind.value_type)}[]"
    if pa.types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        inner = ", ".join(f'"{field.name}" {sql_type(field.type)}' for field in fields)
        return f"STRUCT({inner})"
    return {"string": "VARCHAR", "double": "DOUBLE", "int64": "BIGINT", "bool": "BOOLEAN"}[
        str(kind)
    ]


def _fields() -> list[tuple[str, Any]]:
    return [(field.name, field.type) for field in arrow_schema()]


def _spool(target: Path) -> None:
    """Put standard input into a file: it is read more than once."""
    with target.open("wb") as file:
        while block := sys.stdin.buffer.read(2**20):
            file.write(block)


def _without(source: Path, target: Path, bad_lines: Sequence[int]) -> None:
    """Copy a plain file without some of its lines."""
    left_out = frozenset(bad_lines)
    with source.open("rb") as file, target.open("wb") as kept:
        for number, line in enumerate(_limited_lines(file.readline), start=1):
            if number not in left_out:
                kept.write(line)


def _limited_lines(readline: Callable[[int], bytes]) -> Iterator[bytes]:
    """Yield lines, of those that are too long only the beginning."""
    while line := readline(MAX_LINE_BYTES):
        yield line
        while not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
            line = readline(MAX_LINE_BYTES)


def _lines_of(part: _Part, rows: list[int]) -> list[int]:
    """Return the line of each row, given in rising order."""
    if packing_of(part.readable) == "parquet":
        return [row + 1 for row in rows]
    bad = frozenset(part.bad_lines)
    found: list[int] = []
    valid = (line for line, _ in limited_lines(part.readable) if line not in bad)
    for row, line in enumerate(valid):
        if row == rows[len(found)]:
            found.append(line)
            if len(found) == len(rows):
                break
    return found


__all__ = ["STDIN", "Event", "Scan", "scan_events"]
