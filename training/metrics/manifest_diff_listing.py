"""Which changes a comparison lists: the first of each kind, fetched and described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from training.manifest.fields import Event
from training.metrics.manifest_diff import KINDS, Change, Kind, alone, differences

if TYPE_CHECKING:
    import duckdb


def bit(kind: Kind) -> int:
    """Return the number that stands for a kind in the column `changed` of `diff_pairs`."""
    return 1 << KINDS.index(kind)


def list_first(
    connection: duckdb.DuckDBPyConnection, base: str, candidate: str, limit: int
) -> dict[Kind, tuple[Change, ...]]:
    """Fetch and describe the first changes of each kind, by session, onset and ids.

    Args:
        connection: where `manifest_diff_sql` has left `diff_pairs`, `diff_added` and
            `diff_removed`.
        base: the view of the events as they were.
        candidate: the view of the events as they are.
        limit: how many changes of each kind.
    """
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE diff_listed AS
        SELECT NULL::INTEGER AS kind, NULL::BIGINT AS base_row, NULL::BIGINT AS candidate_row,
               NULL::INTEGER AS session, NULL::DOUBLE AS onset WHERE false
        """,
    )
    for number, kind in enumerate(KINDS if limit else ()):
        rows = _rows_of(kind)
        last = connection.execute(
            f"SELECT session, onset FROM ({rows}) ORDER BY ALL LIMIT 1 OFFSET {limit - 1}"
        ).fetchone()
        # Of those at the same onset as the last the ids decide, which are joined below.
        bound = "WHERE session < $1 OR (session = $1 AND onset <= $2)" if last else ""
        connection.execute(
            f"INSERT INTO diff_listed SELECT {number}, * FROM ({rows}) {bound}", last
        )
    first = connection.execute(
        f"""
        SELECT kind, base_row, candidate_row FROM (
            SELECT *, row_number() OVER (
                PARTITION BY kind ORDER BY session, onset, coalesce(base_id, ''),
                coalesce(candidate_id, ''), base_row, candidate_row) AS place
            FROM diff_listed
            LEFT JOIN (
                SELECT "row" AS base_row, sample_id AS base_id FROM "{base}"
                WHERE "row" IN (SELECT base_row FROM diff_listed)) USING (base_row)
            LEFT JOIN (
                SELECT "row" AS candidate_row, sample_id AS candidate_id
                FROM "{candidate}"
                WHERE "row" IN (SELECT candidate_row FROM diff_listed)) USING (candidate_row))
        WHERE place <= {limit} ORDER BY kind, place
        """
    ).fetchall()
    befores = _events(connection, base, {row for _, row, _ in first if row is not None})
    afters = _events(connection, candidate, {row for _, _, row in first if row is not None})
    listed: dict[Kind, list[Change]] = {kind: [] for kind in KINDS}
    for number, before, after in first:
        kind = KINDS[number]
        listed[kind].append(_describe(kind, befores.get(before), afters.get(after)))
    return {kind: tuple(changes) for kind, changes in listed.items()}


def _rows_of(kind: Kind) -> str:
    """Ask for all changes of a kind: base_row, candidate_row, session, onset."""
    if kind == "added":
        return 'SELECT NULL AS base_row, "row" AS candidate_row, session, onset FROM diff_added'
    if kind == "removed":
        return 'SELECT "row" AS base_row, NULL AS candidate_row, session, onset FROM diff_removed'
    return (
        "SELECT base_row, candidate_row, session, onset FROM diff_pairs "
        f"WHERE changed & {bit(kind)} <> 0"
    )


def _events(connection: duckdb.DuckDBPyConnection, view: str, rows: set[int]) -> dict[int, Event]:
    import pyarrow as pa

    if not rows:
        return {}
    wanted = pa.table({"row": np.array(sorted(rows), np.int64)})
    connection.register("diff_wanted", wanted)
    found = connection.sql(
        f'SELECT * FROM "{view}" WHERE "row" IN (SELECT "row" FROM diff_wanted)'
    ).to_arrow_table()
    connection.unregister("diff_wanted")
    return {
        row.pop("row"): msgspec.convert(_stated(row), Event, strict=True)
        for row in found.to_pylist()
    }


def _stated(value: Any) -> Any:
    """Drop the nulls that stand for what an event does not state."""
    if isinstance(value, Mapping):
        return {name: _stated(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_stated(item) for item in value]
    return value


def _describe(kind: Kind, before: Event | None, after: Event | None) -> Change:
    if before is None and after is not None:
        return alone("added", after)
    if after is None and before is not None:
        return alone("removed", before)
    assert before is not None
    assert after is not None
    (change,) = [change for change in differences(before, after) if change.kind == kind]
    return change
