"""What a manifest holds, at a glance: a handful of counts, each by one statement of SQL.

The statements run on a DuckDB connection that has a view of events (see `training.manifest.scan`).
A *hit* is one component of one event; a *take* is one track of one session. A field that an event
does not state is counted under `(none)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import duckdb

UNSTATED: Final = "(none)"

_DISTINCT: Final = {
    "sessions": "session_id",
    "tracks": "track_id",
    "audio_files": "audio_path",
    "drummers": "drummer_id",
    "kits": "kit_id",
    "rooms": "room_id",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a manifest holds.

    Attributes:
        events, hits: how many events, and components struck.
        empty_events: events without a component.
        entities: {name: distinct values} of sessions, tracks, audio files, drummers, kits, rooms.
        repeated_ids: events whose `sample_id` stands already before them; 0 where ids are unique.
        real, synthetic, unstated: events by `is_synthetic`.
        hits_by_label: {label as it is written: hits}, most frequent first.
        techniques: {technique as it is written: events}, most frequent first.
        splits: {split: {"events", "sessions"}}, by name.
        sources: {source_set: events}, most frequent first.
        first_onset_s, last_onset_s: the span of the onsets; None without events.
        covered_minutes: the sum of the last onset of each session, in minutes: what the
            recordings last at least, if each session is one recording.
        covered_minutes_by_take: the same by take, for sessions of several tracks one after the
            other; tracks recorded at the same time are then counted each.
    """

    events: int
    hits: int
    empty_events: int
    entities: dict[str, int]
    repeated_ids: int
    real: int
    synthetic: int
    unstated: int
    hits_by_label: dict[str, int]
    techniques: dict[str, int]
    splits: dict[str, dict[str, int]]
    sources: dict[str, int]
    first_onset_s: float | None
    last_onset_s: float | None
    covered_minutes: float
    covered_minutes_by_take: float


def summarize(connection: duckdb.DuckDBPyConnection, view: str) -> Summary:
    """Summarise a view of events; all counts are 0 when it has no rows."""

    def ask(statement: str) -> list[tuple[Any, ...]]:
        return connection.execute(statement.format(view=f'"{view}"')).fetchall()

    (totals,) = ask(
        "SELECT count(*), coalesce(sum(len(components)), 0), count(*) FILTER (len(components) = 0),"
        " count(*) FILTER (is_synthetic), count(*) FILTER (NOT is_synthetic),"
        " count(*) FILTER (is_synthetic IS NULL),"
        " min(onset_time), max(onset_time) FROM {view}"
    )
    events, hits, empty, synthetic, real, unstated, first, last = totals
    # Distinct values by grouping, which can spill to disk; count(DISTINCT …) cannot.
    distinct = ", ".join(
        f"(SELECT count(*) FROM (SELECT {field} FROM {{view}}"
        f" WHERE {field} IS NOT NULL GROUP BY 1))"
        for field in _DISTINCT.values()
    )
    (entities,) = ask(f"SELECT {distinct}")
    return Summary(
        events=events,
        hits=int(hits),
        empty_events=empty,
        entities=dict(zip(_DISTINCT, entities, strict=True)),
        repeated_ids=_repeated(ask),
        real=real,
        synthetic=synthetic,
        unstated=unstated,
        hits_by_label=_counted(
            ask(
                "SELECT part.label, count(*) FROM (SELECT unnest(components) AS part FROM {view})"
                " GROUP BY 1"
            )
        ),
        techniques=_counted(
            ask(
                "SELECT name, count(*) FROM (SELECT unnest(list_distinct(techniques)) AS name"
                " FROM {view}) GROUP BY 1"
            )
        ),
        splits=_splits(ask),
        sources=_counted(ask("SELECT source_set, count(*) FROM {view} GROUP BY 1")),
        first_onset_s=first,
        last_onset_s=last,
        covered_minutes=_minutes(ask, "session_id"),
        covered_minutes_by_take=_minutes(ask, "session_id, track_id"),
    )


def _repeated(ask: Any) -> int:
    """Count repeated ids: by a 64-bit hash first, in full only where that stands twice."""
    (found,) = ask(
        "WITH suspects AS (SELECT hash(sample_id) AS id_hash FROM {view} GROUP BY 1"
        " HAVING count(*) > 1), same AS (SELECT count(*) AS n FROM {view}"
        " WHERE hash(sample_id) IN (SELECT id_hash FROM suspects) GROUP BY sample_id)"
        " SELECT coalesce(sum(n - 1), 0) FROM same"
    )
    return int(found[0])


def _splits(ask: Any) -> dict[str, dict[str, int]]:
    rows = ask("SELECT split, count(*), count(DISTINCT session_id) FROM {view} GROUP BY 1")
    named = sorted((UNSTATED if name is None else name, *counts) for name, *counts in rows)
    return {name: {"events": events, "sessions": sessions} for name, events, sessions in named}


def _minutes(ask: Any, keys: str) -> float:
    # Whole microseconds: their sum does not depend on the order in which they are added.
    (found,) = ask(
        "SELECT coalesce(sum(last), 0) FROM (SELECT CAST(round(max(onset_time) * 1e6) AS HUGEINT)"
        f" AS last FROM {{view}} GROUP BY {keys})"
    )
    return round(int(found[0]) / 60e6, 6)


def _counted(rows: list[tuple[Any, int]]) -> dict[str, int]:
    """Sort counts: the most frequent first, equals by name."""
    named = [(UNSTATED if name is None else str(name), count) for name, count in rows]
    return dict(sorted(named, key=lambda row: (-row[1], row[0])))
