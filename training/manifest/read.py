"""Reading manifests, strictly: all records, or an error that names every bad line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest.diagnose import diagnose_lines, diagnose_value, explain
from training.manifest.keys import KeyCheck, strict_loads
from training.manifest.lines import numbered_lines, packing_of

T = TypeVar("T")

PARQUET_ROWS = 4096
"""Rows of a Parquet file that are Python objects at a time."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file that a tool read: its path as given, its hash, and how many records it holds."""

    path: str
    sha256: str
    bytes: int
    records: int | None = None


@dataclass(frozen=True, slots=True)
class Records(Generic[T]):
    """The records of one manifest.

    `skipped` counts the lines left out, which is 0 unless skipping was asked for; `lines` gives the
    line number of each row, for messages.
    """

    rows: list[T]
    lines: list[int]
    source: InputFile
    skipped: int = 0

    def __iter__(self) -> Iterator[T]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)


def read_records(path: Path | str, record: type[T], *, skip_invalid: bool = False) -> Records[T]:
    """Read a manifest (.jsonl, .gz, .zst or .parquet, told by content) into validated records.

    Args:
        path: the file.
        record: the type of a line: `Event`, `GroundTruth`, `Prediction` or another msgspec type.
        skip_invalid: leave bad lines out and count them instead of raising.

    Raises:
        InputError: the file is missing, empty or damaged, or a line is not a valid `record`
            (every bad line is named, up to a cap).
    """
    path = Path(path)
    problems: InputError | None = None
    if packing_of(path) == "parquet":
        rows, lines, found = _from_parquet(path, record)
        problems = InputError(found[:SHOWN_PROBLEMS], len(found))
        bad = [problem.line or 0 for problem in found]
    else:
        rows, lines, bad = _from_lines(path, record)
    if bad and not skip_invalid:
        raise problems or diagnose_lines(path, record)
    if not rows:
        raise InputError.at(path, "holds no record" if not bad else "holds no valid record")
    return Records(rows, lines, describe_file(path, len(rows)), skipped=len(bad))


def iter_records(path: Path | str, record: type[T]) -> Iterator[tuple[int, T]]:
    """Yield (line number, record) one at a time, for tools that need no more than one in memory.

    Raises:
        InputError: as `read_records`; raised when the first bad line is met, naming every bad line,
            so a consumer must not publish anything before the end.
    """
    path = Path(path)
    count = 0
    if packing_of(path) == "parquet":
        for number, value in enumerate(parquet_rows(path), start=1):
            if diagnose_value(path, value, record, number) is not None:
                read_records(path, record)  # raises, naming every bad row
            count += 1
            yield number, msgspec.convert(value, record, strict=True)
    else:
        decode, check_keys = msgspec.json.Decoder(record, strict=True).decode, KeyCheck()
        for number, line in numbered_lines(path):
            try:
                decoded = decode(line)
                check_keys(line)
            except (ValueError, RecursionError):
                raise diagnose_lines(path, record) from None
            count += 1
            yield number, decoded
    if not count:
        raise InputError.at(path, "holds no record")


def read_raw(path: Path | str, record: type[T]) -> Records[tuple[T, dict[str, Any]]]:
    """Read a manifest as (record, JSON object) pairs, for tools that rewrite it.

    The object holds every field as it stood, also those that `record` does not know.

    Raises:
        InputError: as `read_records`.
    """
    path = Path(path)
    typed = read_records(path, record)
    if packing_of(path) == "parquet":
        objects = list(parquet_rows(path))
    else:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        objects = [decode(line) for _, line in numbered_lines(path)]
    pairs = list(zip(typed.rows, objects, strict=True))
    return Records(pairs, typed.lines, typed.source)


def read_json(path: Path | str, kind: type[T]) -> T:
    """Read one JSON file into a msgspec type (or a plain `dict[str, Any]`).

    Raises:
        InputError: the file is missing, empty, not JSON, or not a `kind`.
    """
    path = Path(path)
    packing_of(path)
    try:
        value = strict_loads(path.read_bytes())
    except ValueError as error:  # also UnicodeDecodeError and JSONDecodeError
        line = getattr(error, "lineno", None)
        raise InputError.at(path, f"is not valid JSON: {error}", line=line) from None
    except RecursionError:
        raise InputError.at(path, "is nested too deeply") from None
    try:
        return msgspec.convert(value, kind, strict=True)
    except msgspec.ValidationError as error:
        raise InputError([explain(path, str(error), value, None, kind)]) from None


def describe_file(path: Path | str, records: int | None = None) -> InputFile:
    """Hash a file, so that a report can say exactly what it was made from.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    path = Path(path)
    packing_of(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return InputFile(str(path), digest, path.stat().st_size, records)


def reject_duplicates(records: Records[Any], field: str = "sample_id") -> None:
    """Check that a field is unique over the records.

    Raises:
        InputError: some value stands twice; every later one is named with the line of the first.
    """
    first: dict[Any, int] = {}
    problems = []
    for line, row in zip(records.lines, records.rows, strict=True):
        value = getattr(row, field)
        if value in first:
            why = f"stands already in line {first[value]}"
            problems.append(Problem(records.source.path, why, line, field, value))
        else:
            first[value] = line
    if problems:
        raise InputError(problems)


def _from_lines(path: Path, record: type[T]) -> tuple[list[T], list[int], list[int]]:
    decode, check_keys = msgspec.json.Decoder(record, strict=True).decode, KeyCheck()
    rows, lines, bad = [], [], []
    for number, line in numbered_lines(path):
        try:
            decoded = decode(line)
            check_keys(line)
        except (ValueError, RecursionError):  # msgspec's errors and UnicodeDecodeError among them
            bad.append(number)
        else:
            rows.append(decoded)
            lines.append(number)
    return rows, lines, bad


def _from_parquet(path: Path, record: type[T]) -> tuple[list[T], list[int], list[Problem]]:
    rows, lines, bad = [], [], []
    for number, value in enumerate(parquet_rows(path), start=1):
        problem = diagnose_value(path, value, record, number)
        if problem is None:
            rows.append(msgspec.convert(value, record, strict=True))
            lines.append(number)
        else:
            bad.append(problem)
    return rows, lines, bad


def parquet_rows(path: Path, *, shown_as: Path | str | None = None) -> Iterator[Any]:
    """Yield the rows of a Parquet file as JSON objects, fields that a row does not have left out.

    `shown_as` names the file in messages.

    Raises:
        InputError: the file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, use_threads=False):
                yield from map(without_nulls, batch.to_pylist())
    except pa.ArrowException as error:
        raise InputError.at(shown_as or path, f"is not a readable Parquet file: {error}") from None


def without_nulls(value: Any) -> Any:
    """Drop the nulls with which Parquet fills the fields that a row does not have."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
