"""What changed between two manifests of any size: `manifest_diff`, asked as SQL.

Both manifests are views with a row for each event (see `training.manifest.scan`). Ids that stand
once on both sides are joined, and of every event two fingerprints are compared: of its components
and techniques, whose order may differ without a change, and of all other fields but the onset. Only
pairs whose first fingerprint differs are looked at component by component, and only the changes
that are listed become Python objects. The events left over are read in the order of sessions and
onsets and paired by time, block by block.

For fingerprints see `manifest_diff_hash`. Ids are compared themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from training.manifest.fields import Event
from training.metrics.manifest_diff import KINDS, Change, Kind
from training.metrics.manifest_diff_hash import (
    fingerprint,
    list_fingerprint,
    probable_key,
    text_fingerprint,
    words_of,
)
from training.metrics.manifest_diff_listing import bit, list_first
from training.metrics.manifest_match import Hits, match_blocks

if TYPE_CHECKING:
    import duckdb

BATCH_ROWS: Final = 200_000
"""How many events wait for a partner in memory at a time."""

_LOOKED_AT: Final = ("components", "techniques")
_REST: Final = tuple(
    name for name in Event.__struct_fields__ if name not in ("sample_id", "onset_time", *_LOOKED_AT)
)

# Components in the order of `manifest_diff`, equal ones as they stand.
_PARTS: Final = """
    CASE WHEN len(components) > 1 THEN list_transform(list_sort(list_transform(components,
        lambda part, place: {
            'label': part."label", 'variant': coalesce(part.instrument_variant, ''),
            'velocity': coalesce(part.velocity, -1.0), 'place': place, 'part': part
        })), lambda sorted: sorted.part)
    ELSE components END"""

_LABELS: Final = list_fingerprint(
    """list_sort(list_transform(components, lambda part: part."label"))"""
)

_KEY: Final = probable_key("sample_id")


COLUMNS: Final = {name: f'"{name}"' for name in Event.__struct_fields__}
"""What a scan must hold to be compared; see `training.manifest.scan.Columns`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewDiff:
    """The differences of two manifests, counted; only some are listed.

    Attributes:
        counts, unchanged, paired_by_id, paired_by_time, ids_far_apart: see
            `manifest_diff.ManifestDiff`.
        listed: {kind: its first changes, by session, onset and ids}.
    """

    counts: dict[str, int]
    unchanged: int
    paired_by_id: int
    paired_by_time: int
    ids_far_apart: int
    listed: dict[Kind, tuple[Change, ...]]


def diff_views(
    connection: duckdb.DuckDBPyConnection,
    base: str,
    candidate: str,
    *,
    tolerance_s: float = 0.05,
    limit: int = 20,
    by_id: bool = True,
) -> ViewDiff:
    """Compare two manifests event by event.

    Temporary tables, all named `diff_…`, are left in the connection.

    Args:
        connection: where the views are.
        base: the view of the events as they were: `row` and the fields of `Event`.
        candidate: the view of the events as they are.
        tolerance_s: onsets further apart are never paired by time.
        limit: how many changes of each kind are listed.
        by_id: whether ids pair events; if not, all are paired by time.

    Raises:
        DrumgateError: see `manifest_match.assign`.
    """
    asked = _Question(connection, base, candidate)
    asked.number_sessions()
    shared = asked.join_by_id() if by_id else asked.leave_all_over()
    far = asked.far_apart(tolerance_s)
    by_time = asked.pair_by_time(tolerance_s)
    asked.look_closely()
    tally = (
        connection.execute(
            "SELECT count(*), count(*) FILTER (changed = 0), "
            + ", ".join(f"count(*) FILTER (changed & {bit(kind)} <> 0)" for kind in KINDS[2:])
            + " FROM diff_pairs"
        ).fetchone()
        or (0,) * 8
    )
    pairs, alike = tally[:2]
    # Pairs by id without any difference were never written down.
    equal = shared - (pairs - by_time)
    counts: dict[str, int] = {kind: asked.count(f"diff_{kind}") for kind in KINDS[:2]}
    counts |= zip(KINDS[2:], tally[2:], strict=True)
    return ViewDiff(
        counts=counts,
        unchanged=equal + alike,
        paired_by_id=shared,
        paired_by_time=by_time,
        ids_far_apart=far,
        listed=list_first(connection, base, candidate, limit),
    )


@dataclass(frozen=True, slots=True)
class _Question:
    """The steps of a comparison; each leaves tables for the next."""

    connection: duckdb.DuckDBPyConnection
    base: str
    candidate: str

    def count(self, table: str) -> int:
        (rows,) = self.connection.execute(f'SELECT count(*) FROM "{table}"').fetchone() or (0,)
        return int(rows)

    def make(self, table: str, query: str) -> None:
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS {query}")

    def number_sessions(self) -> None:
        """`diff_sessions`: session_id, and `session`, its place in the order of all ids."""
        self.make(
            "diff_sessions",
            f"""
            SELECT session_id, CAST(row_number() OVER (ORDER BY session_id) AS INTEGER) AS session
            FROM (SELECT session_id FROM "{self.base}" UNION SELECT session_id
                  FROM "{self.candidate}")
            """,
        )

    def join_by_id(self) -> int:
        """`diff_open`: pairs by id that may differ, and events left over on either side.

        base_row or candidate_row is null in an event left over. For a pair `look` and `rest` are 0
        where its fingerprints are equal; for a single event they are its fingerprints.

        Returns:
            The number of all pairs by id.
        """
        self._find_repeated_ids()
        unique = (
            "WHERE sample_id NOT IN (FROM diff_repeated)" if self.count("diff_repeated") else ""
        )
        sides = self._sides()
        columns = """
            before."row" AS base_row, after."row" AS candidate_row,
            coalesce(after.session, before.session) AS session,
            before.onset_time AS base_onset, after.onset_time AS candidate_onset,
            xor(coalesce(before.look, 0), coalesce(after.look, 0)) AS look,
            xor(coalesce(before.rest, 0), coalesce(after.rest, 0)) AS rest"""
        self.make(
            "diff_open",
            f"""
            SELECT {columns}
            FROM ({sides[0]} {unique}) AS before FULL JOIN ({sides[1]} {unique}) AS after
            USING (sample_id)
            WHERE before.look IS DISTINCT FROM after.look OR before.rest IS DISTINCT FROM after.rest
               OR before.onset_time <> after.onset_time
               OR before."row" IS NULL OR after."row" IS NULL
            """,
        )
        left = "SELECT count(base_row) FROM diff_open WHERE candidate_row IS NULL"
        (single,) = self.connection.execute(left).fetchone() or (0,)
        repeated = 0
        if unique:
            again = "WHERE sample_id IN (FROM diff_repeated)"
            self._leave_over(again)
            (repeated,) = self.connection.execute(
                f'SELECT count(*) FROM "{self.base}" {again}'
            ).fetchone() or (0,)
        return self.count(self.base) - int(single) - int(repeated)

    def leave_all_over(self) -> int:
        """`diff_open` as `join_by_id` makes it, with no pair at all; return 0, their number."""
        self.make(
            "diff_open",
            """
            SELECT NULL::BIGINT AS base_row, NULL::BIGINT AS candidate_row,
                NULL::INTEGER AS session, NULL::DOUBLE AS base_onset,
                NULL::DOUBLE AS candidate_onset, NULL::UBIGINT AS look, NULL::UBIGINT AS rest
            WHERE false
            """,
        )
        self._leave_over("")
        return 0

    def far_apart(self, tolerance_s: float) -> int:
        """Count the pairs of `diff_open` whose onsets lie further apart than the tolerance."""
        (pairs,) = self.connection.execute(
            "SELECT count(*) FROM diff_open WHERE base_row IS NOT NULL AND candidate_row IS NOT"
            " NULL AND abs(base_onset - candidate_onset) > $1",
            [tolerance_s],
        ).fetchone() or (0,)
        return int(pairs)

    def _sides(self) -> list[str]:
        """Ask for the events of each side, with their fingerprints."""
        return [
            f"""
            SELECT "row", sample_id, session, onset_time, {fingerprint(_LOOKED_AT)} AS look,
                   {fingerprint(_REST)} AS rest
            FROM "{view}" JOIN diff_sessions USING (session_id)
            """
            for view in (self.base, self.candidate)
        ]

    def _leave_over(self, which: str) -> None:
        """Add events of both sides to `diff_open`, alone; `which` is a WHERE clause, or nothing."""
        for known, side in zip(("base", "candidate"), self._sides(), strict=True):
            other = "candidate" if known == "base" else "base"
            self.connection.execute(
                f"""
                INSERT INTO diff_open BY NAME SELECT "row" AS {known}_row,
                    NULL AS {other}_row, session, onset_time AS {known}_onset, look, rest
                FROM ({side} {which})
                """
            )

    def _find_repeated_ids(self) -> None:
        """`diff_repeated`: ids that stand more than once on a side, which pair nothing."""
        self.make("diff_repeated", "SELECT NULL::VARCHAR AS sample_id WHERE false")
        for view in (self.base, self.candidate):
            # Sorting 8 bytes an event is much cheaper than grouping by text; only where hashes
            # repeat are the ids themselves counted.
            keys = self.connection.execute(f'SELECT {_KEY} AS key FROM "{view}"').fetchnumpy()[
                "key"
            ]
            keys.sort()
            suspects = pa.table({"key": np.unique(keys[1:][keys[1:] == keys[:-1]])})
            del keys
            if len(suspects):
                self.connection.register("diff_suspects", suspects)
                self.connection.execute(
                    f"""
                    INSERT INTO diff_repeated SELECT sample_id FROM "{view}"
                    WHERE {_KEY} IN (SELECT key FROM diff_suspects)
                    GROUP BY sample_id HAVING count(*) > 1
                    """
                )
                self.connection.unregister("diff_suspects")

    def pair_by_time(self, tolerance_s: float) -> int:
        """Pair who is left over within sessions and tracks.

        `diff_pairs` then holds all pairs that may differ, `diff_added` and `diff_removed` the rest.

        Returns:
            The number of pairs by time.
        """
        for name, known, other in (
            ("removed", "base", "candidate"),
            ("added", "candidate", "base"),
        ):
            self.make(
                f"diff_{name}",
                f"""
                SELECT {known}_row AS "row", session, {known}_onset AS onset, look, rest
                FROM diff_open WHERE {other}_row IS NULL
                """,
            )
        before, after = match_blocks(self._left_over(), tolerance_s)
        self.connection.execute(
            "DELETE FROM diff_open WHERE base_row IS NULL OR candidate_row IS NULL"
        )
        matched = pa.table({"base_row": before, "candidate_row": after})
        self.connection.register("diff_matched", matched)
        self.make(
            "diff_pairs",
            """
            SELECT base_row, candidate_row, session, base_onset, candidate_onset, look, rest
            FROM diff_open
            UNION ALL
            SELECT base_row, candidate_row, after.session, before.onset, after.onset,
                   xor(before.look, after.look), xor(before.rest, after.rest)
            FROM diff_matched
            JOIN diff_removed AS before ON before."row" = base_row
            JOIN diff_added AS after ON after."row" = candidate_row
            """,
        )
        if len(before):
            for name, known in (("removed", "base"), ("added", "candidate")):
                self.make(
                    f"diff_{name}",
                    f"""
                    SELECT "row", session, onset FROM diff_{name}
                    WHERE "row" NOT IN (SELECT {known}_row FROM diff_matched)
                    """,
                )
        self.connection.unregister("diff_matched")
        self.connection.execute("DROP TABLE diff_open")
        return len(before)

    def _left_over(self) -> Iterator[Hits]:
        """Events left over in sessions where both sides have some, in the order of matching."""
        both = "(SELECT session FROM diff_removed INTERSECT SELECT session FROM diff_added)"
        sides = [
            f"""
            SELECT session, {text_fingerprint("track_id")} AS track, onset_time, sample_id,
                   {side} AS side, "row", {_LABELS} AS labels
            FROM (SELECT session, "row", track_id, onset_time, sample_id, components
                  FROM "{view}" JOIN diff_{name} USING ("row") WHERE session IN {both})
            """
            for side, (view, name) in enumerate([(self.base, "removed"), (self.candidate, "added")])
        ]
        reader = self.connection.sql(
            f"""
            SELECT hash(session, track) AS take, onset_time, side, "row", labels
            FROM ({" UNION ALL ".join(sides)})
            ORDER BY session, track, onset_time, sample_id, side, "row"
            """
        ).to_arrow_reader(BATCH_ROWS)
        for batch in reader:
            yield Hits(*(column.to_numpy(zero_copy_only=False) for column in batch.columns))

    def look_closely(self) -> None:
        """Replace `look` and `rest` in `diff_pairs` by `changed`, the bits of the kinds."""
        kinds: dict[Kind, str] = {
            "relabelled": "before.labels <> after.labels",
            "velocity": "before.labels = after.labels AND before.velocity <> after.velocity",
            "openness": "before.labels = after.labels AND before.openness <> after.openness",
            "techniques": "before.techniques <> after.techniques",
            "fields": "before.labels = after.labels AND before.others <> after.others",
        }
        bits = " + ".join(f"CAST({test} AS INTEGER) * {bit(kind)}" for kind, test in kinds.items())
        plain = f"""
            CAST(abs(base_onset - candidate_onset) > 1e-6 AS INTEGER) * {bit("moved")}
            + CAST(rest <> 0 AS INTEGER) * {bit("fields")}"""
        columns = "base_row, candidate_row, session, candidate_onset AS onset"
        self.make(
            "diff_pairs",
            f"""
            SELECT {columns}, {plain} AS changed FROM diff_pairs WHERE look = 0
            UNION ALL
            SELECT {columns}, ({plain}) | ({bits}) AS changed
            FROM diff_pairs
            JOIN ({self._aspects(self.base, "base_row")}) AS before USING (base_row)
            JOIN ({self._aspects(self.candidate, "candidate_row")}) AS after USING (candidate_row)
            WHERE look <> 0
            """,
        )

    def _aspects(self, view: str, column: str) -> str:
        """Fingerprint what may differ of components and techniques, for pairs to look at."""
        labels = list_fingerprint("""list_transform(parts, lambda part: part."label")""")
        others = list_fingerprint(
            """
            list_transform(parts, lambda part: {
                'bucket': part.dynamic_bucket, 'curve': part.openness_curve_id,
                'strike': part.strike_position, 'choke': part.choke,
                'variant': part.instrument_variant})""",
            words_of("parts", ("openness_curve_id", "strike_position", "instrument_variant")),
        )
        return f"""
            SELECT {column}, {labels} AS labels, {others} AS others,
                hash(list_transform(parts, lambda part: part.velocity)) AS velocity,
                hash(list_transform(parts, lambda part:
                    {{'scaled': part.openness, 'raw': part.openness_raw}})) AS openness,
                {list_fingerprint("list_sort(list_distinct(techniques))")} AS techniques
            FROM (
                SELECT {column}, {_PARTS} AS parts, techniques
                FROM (SELECT "row" AS {column}, components, techniques FROM "{view}"
                      WHERE "row" IN (SELECT {column} FROM diff_pairs WHERE look <> 0)))
            """
