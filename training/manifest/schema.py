"""The columns of a validated events manifest, and the slow, careful way to fill them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from training.errors import SHOWN_PROBLEMS, Problem
from training.manifest.diagnose import diagnose_value
from training.manifest.fields import Event
from training.manifest.lines import numbered_lines, packing_of
from training.manifest.read import parquet_rows
from training.manifest.validate import Checked

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 20_000


@cache
def arrow_schema() -> pa.Schema:
    """Return the columns: every field of `Event`, in its order and under its name.

    A `strike_position` is text, whether it was a name or a number.
    """
    import pyarrow as pa

    text, real, whole, flag = pa.string(), pa.float64(), pa.int64(), pa.bool_()
    component = pa.struct(
        {
            "label": text,
            "velocity": real,
            "dynamic_bucket": text,
            "openness": real,
            "openness_raw": real,
            "openness_curve_id": text,
            "strike_position": text,
            "choke": flag,
            "instrument_variant": text,
        }
    )
    kinds = {
        "onset_time": real,
        "components": pa.list_(component),
        "offset_time": real,
        "is_synthetic": flag,
        "sample_rate": whole,
        "channels": whole,
        "tempo_bpm": real,
        "bar_index": whole,
        "beat_index": real,
        "techniques": pa.list_(text),
        "negative_example": flag,
        "loudness": pa.struct({"LUFS_i": real, "peak_dbfs": real}),
        "context_ms": pa.struct({"pre": real, "post": real}),
        "annotated_labels": pa.list_(text),
    }
    return pa.schema({name: kinds.get(name, text) for name in Event.__struct_fields__})


def write_parquet(source: Path, target: Path, *, shown_as: str) -> Checked:
    """Validate the rows of a Parquet file, or the lines of a JSONL file, and write them as columns.

    Every row becomes a Python object on its way: some ten times slower than the engine, which is
    why this is only for what the engine cannot be trusted with.

    Raises:
        InputError: the file is damaged. Invalid rows do not raise: they are in the result.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = bad = 0
    bad_lines: list[int] = []
    problems: list[Problem] = []
    batch: list[dict[str, Any]] = []
    number = 0
    with pq.ParquetWriter(target, arrow_schema(), compression="lz4") as writer:

        def flush() -> None:
            nonlocal batch
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=arrow_schema()))
            batch = []

        for number, value in _values(source, shown_as):
            problem = diagnose_value(Path(shown_as), value, Event, number)
            if problem is not None:
                bad += 1
                bad_lines.append(number)
                if len(problems) < SHOWN_PROBLEMS:
                    problems.append(problem)
                continue
            rows += 1
            batch.append(_columnar(value))
            if len(batch) == BATCH_ROWS:
                flush()
        if batch:
            flush()
    return Checked(lines=number, records=rows, bad_lines=tuple(bad_lines), problems=tuple(problems))


def _values(source: Path, shown_as: str) -> Iterator[tuple[int, Any]]:
    if packing_of(source) == "parquet":
        yield from enumerate(parquet_rows(source, shown_as=shown_as), start=1)
    else:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for number, line in numbered_lines(source):
            yield number, decode(line)


def _columnar(value: dict[str, Any]) -> dict[str, Any]:
    """Return a valid event as the columns hold it."""
    parts = [
        {**part, "strike_position": str(part["strike_position"])}
        if part.get("strike_position") is not None
        else part
        for part in value["components"]
    ]
    return {**value, "components": parts}
