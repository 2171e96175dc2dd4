"""What one task does on a worker of a cluster: read a range of a file, validate it, type it.

No Spark in here: Arrow batches come out. Each block of lines gives a batch of its valid events and
one row that says what was found in it.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from training.errors import SHOWN_PROBLEMS, UNSET, InputError, Problem
from training.manifest.diagnose import diagnose_value
from training.manifest.fields import Component, Event
from training.manifest.lines import Packing, unpack
from training.manifest.read import parquet_rows
from training.manifest.schema import BATCH_ROWS, arrow_schema
from training.manifest.validate import Checked, blocks, check_data, read_block

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_A_TASK: Final = 2**33
"""Numbers that tell the events of one task apart; Spark's own row ids are made the same way."""

COLUMNS: Final = (
    *("sample_id", "session_id", "onset_time", "components", "track_id"),
    *("drummer_id", "kit_id", "room_id", "source_set", "is_synthetic", "audio_path", "tempo_bpm"),
    *("meter", "techniques", "bleed_level", "mix_context", "negative_example", "loudness"),
    *("device_vendor", "device_model", "split", "annotated_labels"),
)
"""The fields of `Event` that the frames are made of; only these leave the worker."""

PARTS: Final = (
    *("label", "velocity", "dynamic_bucket", "openness", "openness_raw", "instrument_variant"),
)
"""The same of `Component`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A range of a file for one worker.

    Attributes:
        source: the number of the input, from 0.
        path: where the file is, on every node.
        shown: the name under which problems are reported.
        packing: how it is packed.
        unpack: the whole file is this one task, because its lines do not stand in it as they are:
            it is packed, or begins with a byte order mark.
        start, end: the bytes in which its lines begin, of a plain file.
    """

    source: int
    path: str
    shown: str
    packing: Packing
    unpack: bool
    start: int
    end: int


class _Found(msgspec.Struct, frozen=True, omit_defaults=True):
    """A `Checked`, or (`fatal`) a file that cannot be read at all, on its way to the driver."""

    lines: int = 0
    records: int = 0
    bad_lines: tuple[int, ...] = ()
    problems: tuple[dict[str, object], ...] = ()
    fatal: bool = False


def run_task(number: int, task: Task) -> Iterator[pa.RecordBatch]:
    """Read, validate and type a range of a file.

    Yields batches of `task_schema()`: events, whose `found` is null, and after those of each block
    a row that has nothing but `source`, `row` (the place of the block among all) and `found`.
    """
    row = number * ROWS_A_TASK
    try:
        for lines, found in _blocks(task):
            if lines:
                yield _batch(lines, task.source, row)
            row += len(lines)
            yield _finding(task.source, row, _sent(found))
            row += 1
    except InputError as error:
        sent = _Found(problems=_plain(error.problems), fatal=True)
        yield _finding(task.source, row, sent)
    except OSError as error:
        problem = Problem(
            task.shown, f"cannot be read by a Spark worker: {error.strerror or error}"
        )
        yield _finding(task.source, row, _Found(problems=_plain([problem]), fatal=True))


def found_of(text: bytes) -> Checked | InputError:
    """Read what a task found; an `InputError` is for a file that cannot be read at all."""
    sent = msgspec.json.decode(text, type=_Found)
    problems = tuple(
        Problem(**{**each, "got": each.get("got", UNSET)})  # type: ignore[arg-type]
        for each in sent.problems
    )
    if sent.fatal:
        return InputError(problems)
    return Checked(
        lines=sent.lines, records=sent.records, bad_lines=sent.bad_lines, problems=problems
    )


@cache
def task_schema() -> pa.Schema:
    """Return the columns that a task yields: `source`, `row`, `found` and those of `COLUMNS`."""
    import pyarrow as pa

    own = [("source", pa.int64()), ("row", pa.int64()), ("found", pa.binary())]
    return pa.schema([*own, *_typed_schema()])


def ddl(schema: pa.Schema) -> str:
    """Return an Arrow schema in Spark's words."""
    return ", ".join(f"`{field.name}` {_ddl_type(field.type)}" for field in schema)


def _ddl_type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_list(kind):
        return f"ARRAY<{_ddl_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        fields = [kind.field(index) for index in range(kind.num_fields)]
        inner = ", ".join(f"`{field.name}`: {_ddl_type(field.type)}" for field in fields)
        return f"STRUCT<{inner}>"
    names = {"double": "DOUBLE", "int64": "BIGINT", "bool": "BOOLEAN", "binary": "BINARY"}
    return {"string": "STRING", **names}[str(kind)]


@cache
def _typed_schema() -> pa.Schema:
    import pyarrow as pa

    component = arrow_schema().field("components").type.value_type
    parts = pa.list_(pa.struct([component.field(name) for name in PARTS]))
    return pa.schema(
        [
            pa.field(name, parts) if name == "components" else arrow_schema().field(name)
            for name in COLUMNS
        ]
    )


@cache
def _wanted() -> Any:
    """Return the type of an event with nothing but `COLUMNS`; other fields are passed over."""
    component = _narrowed("Component", Component, PARTS)
    return _narrowed("Event", Event, COLUMNS, components=tuple[component, ...])  # type: ignore[valid-type]


def _narrowed(name: str, record: Any, columns: tuple[str, ...], **kinds: Any) -> Any:
    fields = [
        (field.name, kinds.get(field.name, field.type), field.default)
        for field in msgspec.structs.fields(record)
        if field.name in columns
    ]
    return msgspec.defstruct(f"Wanted{name}", fields, kw_only=True, frozen=True, omit_defaults=True)


def _blocks(task: Task) -> Iterator[tuple[list[bytes], Checked]]:
    """Yield the valid events of a task, each written again as JSON, block by block."""
    if task.packing == "parquet":
        yield from _parquet_blocks(task)
        return
    if not task.unpack:
        yield from _plain_blocks(Path(task.path), task.start, task.end, task.shown)
        return
    with tempfile.TemporaryDirectory(prefix="drumgate-") as scratch:
        plain = Path(scratch) / "plain.jsonl"
        unpack(Path(task.path), plain, shown_as=task.shown)
        yield from _plain_blocks(plain, 0, plain.stat().st_size, task.shown)


def _plain_blocks(
    path: Path, first: int, last: int, shown: str
) -> Iterator[tuple[list[bytes], Checked]]:
    decode = msgspec.json.Decoder(_wanted(), strict=True).decode
    encode = msgspec.json.Encoder().encode
    with path.open("rb") as file:
        for start, end in blocks(last - first):
            data = read_block(file, first + start, first + end)
            found = check_data(data, "event", True, shown)
            bad = frozenset(found.bad_lines)
            # Written again, a line holds what is wanted and nothing that readers differ about.
            lines = [
                encode(decode(line))
                for number, line in enumerate(data.split(b"\n"), start=1)
                if number not in bad and line.strip()
            ]
            if len(lines) != found.records:
                raise RuntimeError(f"{shown}: {found.records} validated, {len(lines)} read")
            yield lines, found


def _parquet_blocks(task: Task) -> Iterator[tuple[list[bytes], Checked]]:
    encode, wanted = msgspec.json.Encoder().encode, _wanted()
    lines: list[bytes] = []
    bad: list[int] = []
    problems: list[Problem] = []
    number = before = 0
    for number, value in enumerate(parquet_rows(Path(task.path)), start=1):
        problem = diagnose_value(Path(task.shown), value, Event, number - before)
        if problem is None:
            lines.append(encode(msgspec.convert(value, wanted, strict=True)))
        else:
            bad.append(number - before)
            problems += [problem] if len(problems) < SHOWN_PROBLEMS else []
        if number - before == BATCH_ROWS:
            yield lines, _checked(number - before, lines, bad, problems)
            lines, bad, problems, before = [], [], [], number
    if number > before:
        yield lines, _checked(number - before, lines, bad, problems)


def _checked(rows: int, lines: list[bytes], bad: list[int], problems: list[Problem]) -> Checked:
    return Checked(lines=rows, records=len(lines), bad_lines=tuple(bad), problems=tuple(problems))


def _batch(lines: list[bytes], source: int, row: int) -> pa.RecordBatch:
    import pyarrow as pa
    from pyarrow import json

    text = b"\n".join(lines)
    table = json.read_json(
        io.BytesIO(text),
        # One block, so that no record lies across two.
        read_options=json.ReadOptions(use_threads=False, block_size=len(text) + 1),
        parse_options=json.ParseOptions(
            explicit_schema=_typed_schema(), unexpected_field_behavior="ignore"
        ),
    )
    if table.num_rows != len(lines):
        raise RuntimeError(f"{len(lines)} events validated, {table.num_rows} read")
    (typed,) = table.combine_chunks().to_batches()
    rows = pa.array(range(row, row + len(lines)), pa.int64())
    sources = pa.repeat(pa.scalar(source, pa.int64()), len(lines))
    found = pa.nulls(len(lines), pa.binary())
    columns = [sources, rows, found, *(typed.column(name) for name in COLUMNS)]
    return pa.RecordBatch.from_arrays(columns, schema=task_schema())


def _finding(source: int, row: int, found: _Found) -> pa.RecordBatch:
    import pyarrow as pa

    said = {"source": source, "row": row, "found": msgspec.json.encode(found)}
    return pa.RecordBatch.from_pylist([said], schema=task_schema())


def _sent(found: Checked) -> _Found:
    return _Found(found.lines, found.records, found.bad_lines, _plain(found.problems))


def _plain(problems: object) -> tuple[dict[str, object], ...]:
    return tuple(
        {
            name: getattr(problem, name)
            for name in ("path", "why", "line", "field", "got")
            if getattr(problem, name) is not UNSET
        }
        for problem in problems  # type: ignore[attr-defined]
    )
