"""Rules about a manifest and its audio: what the headers of the files say against the events.

`create_files` lists the files; a caller reads their headers and hands them to `add_headers`; then
the rules compare. See `training.metrics.findings` for the table that findings go to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from training.metrics.findings import TABLE, insert

if TYPE_CHECKING:
    import duckdb

FILES = "audio_files"
HEADERS = "audio_headers"


def create_files(connection: duckdb.DuckDBPyConnection, view: str) -> int:
    """Make the table of audio files, one row a path in the order of first use; return how many.

    Columns: `n` (from 0), `audio_path`, `row` (the first event that names it), `events`, and what
    reading the header gave, null until `add_headers`: `sample_rate`, `channels`, `duration_s`.
    """
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE {FILES} AS
        SELECT row_number() OVER (ORDER BY min(row)) - 1 AS n, audio_path,
            min(row) AS row, count(*) AS events
        FROM {view} WHERE audio_path IS NOT NULL GROUP BY audio_path
        """
    )
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {HEADERS}"
        " (n BIGINT, sample_rate BIGINT, channels BIGINT, duration_s DOUBLE)"
    )
    found = connection.execute(f"SELECT count(*) FROM {FILES}").fetchall()
    return int(found[0][0])


def files(
    connection: duckdb.DuckDBPyConnection, start: int, stop: int
) -> list[tuple[int, str, int, int]]:
    """Return (n, audio_path, row, events) of the files from `start` up to `stop`."""
    return connection.execute(
        f"SELECT n, audio_path, row, events FROM {FILES} WHERE n >= ? AND n < ? ORDER BY n",
        [start, stop],
    ).fetchall()


def add_headers(
    connection: duckdb.DuckDBPyConnection, headers: list[tuple[int, int, int, float]]
) -> None:
    """Keep what headers say: (n, sample rate in Hz, channels, duration in s) each."""
    import pyarrow as pa

    columns = zip(*headers, strict=True) if headers else ((), (), (), ())
    kinds = (pa.int64(), pa.int64(), pa.int64(), pa.float64())
    names = ("n", "sample_rate", "channels", "duration_s")
    block = pa.table(
        {
            name: pa.array(column, kind)
            for name, column, kind in zip(names, columns, kinds, strict=True)
        }
    )
    connection.register("header_block", block)
    connection.execute(f"INSERT INTO {HEADERS} SELECT * FROM header_block")
    connection.unregister("header_block")


def add_file_findings(
    connection: duckdb.DuckDBPyConnection, rule: str, found: Iterable[tuple[int, str, str, int]]
) -> None:
    """Add findings about whole files: (row, audio_path, why, events) each."""
    insert(
        connection,
        rule,
        [(row, None, "audio_path", path, why, events) for row, path, why, events in found],
    )


def header_mismatches(
    connection: duckdb.DuckDBPyConnection, view: str, rule: str, *, field: str, unit: str
) -> None:
    """Find files whose header says another `sample_rate` or `channels` than their events.

    One finding for each path and value stated.
    """
    connection.execute(
        f"""
        INSERT INTO {TABLE}
        SELECT ?, min(e.row), NULL, '{field}', to_json(e.{field}),
            'differs from ' || to_json(f.audio_path) || ', which has '
                || any_value(h.{field}) || '{unit}',
            count(*)
        FROM {view} e JOIN {FILES} f USING (audio_path) JOIN {HEADERS} h USING (n)
        WHERE e.{field} != h.{field} GROUP BY f.audio_path, e.{field}
        """,
        [rule],
    )


def beyond_the_end(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    rule: str,
    *,
    field: str,
    tolerance_s: float = 0.0,
) -> None:
    """Find events whose `onset_time` or `offset_time` lies beyond the end of their audio.

    An onset at the very end counts, since nothing can sound there; an offset may be later than the
    end by `tolerance_s`, since times are often written rounded.
    """
    beyond = "e.onset_time >= h.duration_s"
    if field != "onset_time":
        beyond = f"e.{field} > h.duration_s + {float(tolerance_s)!r}"
    connection.execute(
        f"""
        INSERT INTO {TABLE}
        SELECT ?, e.row, NULL, '{field}', to_json(e.{field}),
            'lies beyond the audio: ' || to_json(f.audio_path) || ' ends at '
            || round(h.duration_s, 6) || ' s', 1
        FROM {view} e JOIN {FILES} f USING (audio_path) JOIN {HEADERS} h USING (n)
        WHERE {beyond}
        """,
        [rule],
    )
