"""The sums of two manifests side by side, for manifests of any size."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import duckdb

# Equal lists are common, so they are counted before they are taken apart.
_COUNTS: Final = {
    "components": """
        SELECT unnest(labels) AS name, sum(events) AS events FROM (
            SELECT list_transform(components, lambda part: part."label") AS labels,
                   count(*) AS events
            FROM "{view}" GROUP BY ALL)
        GROUP BY name""",
    "techniques": """
        SELECT unnest(list_distinct(techniques)) AS name, sum(events) AS events FROM (
            SELECT techniques, count(*) AS events FROM "{view}" GROUP BY ALL)
        GROUP BY name""",
    "sources": """
        SELECT coalesce(nullif(source_set, ''), '(none)') AS name, count(*) AS events
        FROM "{view}" GROUP BY name""",
    "splits": """
        SELECT coalesce(nullif(split, ''), '(none)') AS name, count(*) AS events
        FROM "{view}" GROUP BY name""",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Totals:
    """How often everything occurs in the base and in the candidate.

    Attributes:
        counts: {"components": hits by label, "techniques", "sources", "splits": events by name},
            each for the base and for the candidate, as `manifest_diff.summary_counts` has them.
        sessions: the number of sessions on each side.
        sessions_changed: the sessions whose numbers of events differ.
        worst_sessions: {session: its events on each side} of those that differ most, worst first,
            equal ones by name.
    """

    counts: dict[str, tuple[Counter[str], Counter[str]]]
    sessions: tuple[int, int]
    sessions_changed: int
    worst_sessions: dict[str, tuple[int, int]]


def total_views(
    connection: duckdb.DuckDBPyConnection, base: str, candidate: str, *, limit: int = 20
) -> Totals:
    """Count the events of two views by session, component, technique, source and split.

    Args:
        connection: where the views are; see `manifest_diff_sql.diff_views`.
        base: the view of the events as they were.
        candidate: the view of the events as they are.
        limit: how many sessions are named.
    """
    counts = {
        name: (_counts(connection, query, base), _counts(connection, query, candidate))
        for name, query in _COUNTS.items()
    }
    by_session = 'SELECT session_id, count(*) AS events FROM "{}" GROUP BY session_id'
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE diff_totals AS
        SELECT session_id, coalesce(before.events, 0) AS base,
               coalesce(after.events, 0) AS candidate
        FROM ({by_session.format(base)}) AS before
        FULL JOIN ({by_session.format(candidate)}) AS after USING (session_id)
        """
    )
    known, kept, changed = connection.execute(
        "SELECT count(*) FILTER (base > 0), count(*) FILTER (candidate > 0), "
        "count(*) FILTER (base <> candidate) FROM diff_totals"
    ).fetchone() or (0, 0, 0)
    worst = connection.execute(
        "SELECT session_id, base, candidate FROM diff_totals WHERE base <> candidate "
        f"ORDER BY abs(candidate - base) DESC, session_id LIMIT {limit}"
    ).fetchall()
    return Totals(
        counts=counts,
        sessions=(known, kept),
        sessions_changed=changed,
        worst_sessions={name: (before, after) for name, before, after in worst},
    )


def _counts(connection: duckdb.DuckDBPyConnection, query: str, view: str) -> Counter[str]:
    rows = connection.execute(query.format(view=view)).fetchall()
    return Counter({name: int(events) for name, events in rows})
