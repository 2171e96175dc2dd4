"""Rules about a manifest and its audio: what the headers of the files say against the events.

`create_files` lists the files; a caller reads their headers and hands them to `add_headers`; then
the rules compare. See `training.metrics.findings` for the table that findings go to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from training.manifest.engine import literal
from training.metrics.findings import TABLE, insert

if TYPE_CHECKING:
    import duckdb

FILES = "audio_files"
HEADERS = "audio_headers"
ROOTED = "rooted_events"


def root_events(
    connection: duckdb.DuckDBPyConnection, view: str, sources: Sequence[str] = ()
) -> str:
    """Make a view of the events that has `root`, the folder that each one's audio lies in.

    Events of `sources[i]` have i + 1, all others 0. Two events with one `audio_path` name one file
    only where their roots are the same.

    Returns:
        The name of the view, for the functions below.
    """
    cases = "".join(
        f" WHEN source_set = {literal(source)} THEN {number}"
        for number, source in enumerate(sources, start=1)
    )
    root = f"CASE{cases} ELSE 0 END" if cases else "0"
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {ROOTED} AS SELECT *, CAST({root} AS INTEGER) AS root"
        f" FROM {view}"
    )
    return ROOTED


def without_root(connection: duckdb.DuckDBPyConnection, view: str, rule: str) -> None:
    """Find sources whose events name audio and have root 0, one finding a source.

    For where there is no folder but those of single sources.
    """
    connection.execute(
        f"""
        INSERT INTO {TABLE}
        SELECT ?, min(row), NULL, 'source_set', to_json(source_set),
            'has no folder: give --audio-root, or --audio-root-map for it', count(*)
        FROM {view} WHERE audio_path IS NOT NULL AND root = 0 GROUP BY source_set
        """,
        [rule],
    )


def create_files(connection: duckdb.DuckDBPyConnection, view: str, *, least_root: int = 0) -> int:
    """Make the table of audio files, one row a file in the order of first use; return how many.

    Columns: `n` (from 0), `audio_path`, `root`, `row` (the first event that names it) and `events`.
    An empty table of headers goes with it.

    Args:
        connection: where `root_events` has left its view.
        view: its name.
        least_root: events of a lower root are left out.
    """
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE {FILES} AS
        SELECT row_number() OVER (ORDER BY min(row)) - 1 AS n, audio_path, root,
            min(row) AS row, count(*) AS events
        FROM {view} WHERE audio_path IS NOT NULL AND root >= {least_root}
        GROUP BY audio_path, root
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
) -> list[tuple[int, str, int, int, int]]:
    """Return (n, audio_path, root, row, events) of the files from `start` up to `stop`."""
    return connection.execute(
        f"SELECT n, audio_path, root, row, events FROM {FILES} WHERE n >= ? AND n < ? ORDER BY n",
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
        FROM {view} e JOIN {FILES} f USING (audio_path, root) JOIN {HEADERS} h USING (n)
        WHERE e.{field} != h.{field} GROUP BY f.n, f.audio_path, e.{field}
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
        FROM {view} e JOIN {FILES} f USING (audio_path, root) JOIN {HEADERS} h USING (n)
        WHERE {beyond}
        """,
        [rule],
    )
