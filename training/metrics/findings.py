"""Rules about all events of a manifest at once: what contradicts what.

Each function is one rule. It takes a DuckDB connection that has a view of events (see
`training.manifest.scan`) and adds what it found to a temporary table made by `create_table`, so
that no finding is a Python object until it is shown. A view without rows adds nothing.

The columns of that table:

`rule`
    the rule's id.
`row`
    the event that the finding is about: its position over all inputs, from 0.
`other`
    the event that it contradicts; null where there is none.
`field`, `got`
    the field, and what stands there as JSON text.
`why`
    what is wrong; where `other` is not null its place belongs behind it.
`events`
    how many events the finding concerns.
"""

from __future__ import annotations

import json
import posixpath
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from training.errors import shorten

if TYPE_CHECKING:
    import duckdb

TABLE = "findings"

Canonical = Callable[[str], str | None]
"""Returns the name that another one stands for; None when it is unknown."""

_BLOCK = 10_000


def create_table(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the empty table of findings."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {TABLE} (rule VARCHAR, row BIGINT, other BIGINT,"
        " field VARCHAR, got VARCHAR, why VARCHAR, events BIGINT)"
    )


def counts(connection: duckdb.DuckDBPyConnection) -> dict[str, tuple[int, int]]:
    """Return {rule: (findings, events that they concern)} of the rules that found something."""
    found = connection.execute(
        f"SELECT rule, count(*), sum(events) FROM {TABLE} GROUP BY rule ORDER BY rule"
    ).fetchall()
    return {rule: (int(findings), int(events)) for rule, findings, events in found}


def first_findings(
    connection: duckdb.DuckDBPyConnection, rule: str, limit: int
) -> list[tuple[Any, ...]]:
    """Return the first findings of a rule in file order: row, other, field, got, why, events."""
    return connection.execute(
        f"SELECT row, other, field, got, why, events FROM {TABLE}"
        " WHERE rule = ? ORDER BY row, field, got LIMIT ?",
        [rule, limit],
    ).fetchall()


def duplicate_ids(connection: duckdb.DuckDBPyConnection, view: str, rule: str) -> None:
    """Find events whose `sample_id` stands already before them.

    Ids are first grouped by a 64-bit hash, which takes a fraction of the memory that the ids would;
    only those whose hash stands twice are then compared in full.
    """
    connection.execute(
        f"""
        INSERT INTO {TABLE}
        WITH suspects AS (
            SELECT hash(sample_id) AS id_hash FROM {view} GROUP BY 1 HAVING count(*) > 1
        ), same AS (
            SELECT row, sample_id, min(row) OVER (PARTITION BY sample_id) AS other
            FROM {view} WHERE hash(sample_id) IN (SELECT id_hash FROM suspects)
        )
        SELECT ?, row, other, 'sample_id', to_json(sample_id), 'stands already in', 1
        FROM same WHERE row > other
        """,
        [rule],
    )


def conflicts(
    connection: duckdb.DuckDBPyConnection,
    view: str,
    rule: str,
    *,
    key: str,
    field: str,
    within: str = "0",
) -> None:
    """Find values of `key` under which `field` has more than one value, each `within` by itself.

    One finding for each value that differs from the first, where it stands first. Events that do
    not state both are passed over.
    """
    connection.execute(
        f"""
        INSERT INTO {TABLE}
        WITH stated AS (
            SELECT {key} AS key, {within} AS part, {field} AS value, min(row) AS row,
                count(*) AS events
            FROM {view} WHERE {key} IS NOT NULL AND {field} IS NOT NULL GROUP BY 1, 2, 3
        ), ranked AS (
            SELECT *, first_value(row) OVER w AS other, first_value(value) OVER w AS first
            FROM stated WINDOW w AS (PARTITION BY key, part ORDER BY row)
        )
        SELECT ?, row, other, '{field}', to_json(value),
            'differs from ' || to_json(first) || ', which {key} ' || to_json(key) || ' has in',
            events
        FROM ranked WHERE row > other
        """,
        [rule],
    )


def unknown_labels(
    connection: duckdb.DuckDBPyConnection, view: str, rule: str, canonical: Canonical
) -> None:
    """Find component labels that the taxonomy does not know, one finding a label."""
    hits = (
        f"SELECT row, unnest(components).label AS name, unnest(range(len(components))) AS place"
        f" FROM {view}"
    )
    why = "is not a label of the taxonomy"
    _unknown_names(connection, rule, hits, canonical, ("components[", "].label", why))


def unknown_techniques(
    connection: duckdb.DuckDBPyConnection, view: str, rule: str, canonical: Canonical
) -> None:
    """Find techniques that the catalogue does not know, one finding a name."""
    shown = (
        f"SELECT row, unnest(techniques) AS name, unnest(range(len(techniques))) AS place"
        f" FROM {view} WHERE techniques IS NOT NULL"
    )
    why = "is not a technique of the catalogue"
    _unknown_names(connection, rule, shown, canonical, ("techniques[", "]", why))


def _unknown_names(
    connection: duckdb.DuckDBPyConnection,
    rule: str,
    named: str,
    canonical: Canonical,
    words: tuple[str, str, str],
) -> None:
    """Find names of a query (row, name, place) that `canonical` does not know.

    Events are counted only once it is clear which names are in question: mostly none.
    """
    names = connection.execute(f"SELECT DISTINCT name FROM ({named})")
    unknown = [name for (name,) in fetched(names) if canonical(name) is None]
    if not unknown:
        return
    import pyarrow as pa

    before, behind, why = words
    connection.register("unknown_names", pa.table({"name": pa.array(unknown, pa.string())}))
    rows = connection.execute(
        "SELECT name, min(row), arg_min(place, row), count(*) FROM ("
        # An event counts once; by grouping, which can spill to disk as count(DISTINCT …) cannot.
        f"SELECT name, row, min(place) AS place FROM ({named}) SEMI JOIN unknown_names USING (name)"
        " GROUP BY name, row) GROUP BY name"
    )
    found = [
        (row, None, f"{before}{place}{behind}", name, why, events)
        for name, row, place, events in fetched(rows)
    ]
    connection.unregister("unknown_names")
    insert(connection, rule, found)


def unannotated_labels(
    connection: duckdb.DuckDBPyConnection, view: str, rule: str, canonical: Canonical
) -> None:
    """Find labels that their own event declares as not annotated, one finding a label."""
    rows = connection.execute(
        f"""
        WITH hits AS (
            SELECT row, annotated_labels, unnest(components).label AS label,
                unnest(range(len(components))) AS place
            FROM {view} WHERE annotated_labels IS NOT NULL
        ), strange AS (
            SELECT label, annotated_labels, row, min(place) AS place
            FROM hits WHERE NOT list_contains(annotated_labels, label) GROUP BY ALL
        )
        SELECT label, annotated_labels, min(row), arg_min(place, row), count(*)
        FROM strange GROUP BY label, annotated_labels ORDER BY 3
        """
    )
    first: dict[str, tuple[int, int]] = {}
    events_of: dict[str, int] = {}
    for label, annotated, row, place, events in fetched(rows):
        names = {canonical(name) or name for name in annotated}
        if (canonical(label) or label) not in names:
            first.setdefault(label, (row, place))
            events_of[label] = events_of.get(label, 0) + events
    why = "is not among the annotated_labels of its own event"
    insert(
        connection,
        rule,
        [
            (row, None, f"components[{place}].label", label, why, events_of[label])
            for label, (row, place) in first.items()
        ],
    )


def lookalike_names(
    connection: duckdb.DuckDBPyConnection, view: str, rule: str, *, field: str
) -> None:
    """Find values of a field that differ only in case, spaces or Unicode form: one a spelling.

    The spelling that stands first is taken for the right one.
    """
    rows = connection.execute(
        f"SELECT {field}, min(row) AS first, count(*) FROM {view} WHERE {field} IS NOT NULL"
        " GROUP BY 1 ORDER BY first"
    )
    known: dict[str, tuple[int, str]] = {}
    found = []
    for name, row, events in fetched(rows):
        key = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        other, meant = known.setdefault(key, (row, name))
        if other != row:
            why = f"differs only in case, spaces or Unicode form from {shorten(meant)}, which is in"
            found.append((row, other, field, name, why, events))
    insert(connection, rule, found)


def paths_outside(connection: duckdb.DuckDBPyConnection, view: str, rule: str) -> None:
    """Find `audio_path`s that are absolute or climb out of their root, one finding a path.

    This looks at how they are spelled; whether a link leads out is seen where files are opened.
    """
    rows = connection.execute(
        f"""
        SELECT audio_path, min(row), count(*) FROM {view}
        WHERE audio_path LIKE '/%' OR audio_path LIKE '%..%' OR audio_path LIKE '%:%'
            OR audio_path LIKE '\\%' OR contains(audio_path, chr(0))
        GROUP BY audio_path ORDER BY 2
        """
    )
    found = []
    for path, row, events in fetched(rows):
        if why := why_outside(path):
            found.append((row, None, "audio_path", path, why, events))
    insert(connection, rule, found)


def why_outside(path: str) -> str | None:
    """Say why a path cannot lie inside any root; None when it can."""
    # Backslashes are looked at as well: on Windows they are what the slash is elsewhere.
    slashed = path.replace("\\", "/")
    if posixpath.isabs(slashed) or re.match("[A-Za-z]:", path) or "\0" in path:
        return "must be a relative path"
    climbed = posixpath.normpath(slashed)
    return "leads outside its root" if climbed == ".." or climbed.startswith("../") else None


def without_audio(connection: duckdb.DuckDBPyConnection, view: str, rule: str) -> None:
    """Find events that name no audio: one finding for all of them, at the first."""
    connection.execute(
        f"""
        INSERT INTO {TABLE}
        SELECT ?, min(row), NULL, 'audio_path', NULL,
            'is not stated, so that nothing was compared with audio', count(*)
        FROM {view} WHERE audio_path IS NULL HAVING count(*) > 0
        """,
        [rule],
    )


def fair_shares(wanted: dict[str, int], limit: int) -> dict[str, int]:
    """Divide `limit` places among rules so that none is crowded out.

    Each gets what it wants as long as an equal share allows; what small ones leave goes to the
    large ones, the first in order when it does not divide. The shares sum to `limit`, or to all
    that is wanted if that is less.
    """
    shares = dict.fromkeys(wanted, 0)
    left = limit
    hungry = [rule for rule, count in wanted.items() if count]
    while left and hungry:
        each = max(left // len(hungry), 1)
        for rule in hungry[:left]:
            taken = min(each, wanted[rule] - shares[rule], left)
            shares[rule] += taken
            left -= taken
        hungry = [rule for rule in hungry if shares[rule] < wanted[rule]]
    return shares


def fetched(result: Any) -> Iterable[tuple[Any, ...]]:
    """Yield the rows of a result, fetched in blocks."""
    while rows := result.fetchmany(_BLOCK):
        yield from rows


def insert(connection: duckdb.DuckDBPyConnection, rule: str, found: list[tuple[Any, ...]]) -> None:
    """Add findings that were made in Python: row, other, field, got, why, events each."""
    import pyarrow as pa

    if not found:
        return
    row, other, field, got, why, events = zip(*found, strict=True)
    block = pa.table(
        {
            "row": pa.array(row, pa.int64()),
            "other": pa.array(other, pa.int64()),
            "field": pa.array(field, pa.string()),
            "got": pa.array([json.dumps(value, ensure_ascii=False) for value in got], pa.string()),
            "why": pa.array(why, pa.string()),
            "events": pa.array(events, pa.int64()),
        }
    )
    connection.register("finding_block", block)
    connection.execute(f"INSERT INTO {TABLE} SELECT ?, * FROM finding_block", [rule])
    connection.unregister("finding_block")
