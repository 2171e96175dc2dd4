"""The events that a trainer draws from: filtered, without duplicates, by group and by kind.

Every question is asked in SQL of the view that `scan_events` makes. An event becomes three integers
(its row, its group, its kind); a kind is what events have in common that the preview of a draw
looks at: the labels and dynamics of their hits, their source, their techniques. There are far fewer
kinds than events, so names are looked at once a kind, and only counts come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest.engine import literal
from training.taxonomy import ComponentTaxonomy, load_components

if TYPE_CHECKING:
    import duckdb

    from training.manifest.scan import Scan

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

GroupField = Literal[
    "session_id", "audio_path", "track_id", "drummer_id", "kit_id", "room_id", "source_set"
]
"""Fields that events can be grouped by."""

NO_HIT: Final = "(no hit)"
UNKNOWN: Final = "unknown"

_NESTED: Final = ("components", "techniques", "annotated_labels", "loudness", "context_ms")
_TECHNIQUES: Final = "coalesce(techniques, [])"
_LABELS: Final = "list_sort(list_distinct(list_transform(components, lambda c: c.label)))"
_HITS: Final = (
    "list_transform(components, lambda c: struct_pack(label := c.label, "
    f"dynamics := coalesce(c.dynamic_bucket, {literal(UNKNOWN)})))"
)
_SOURCE: Final = (
    "coalesce(nullif(source_set, ''), "
    f"CASE WHEN is_synthetic THEN 'synthetic' ELSE {literal(UNKNOWN)} END)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which events are drawn, and what groups them."""

    group_field: GroupField
    dedupe_key: Sequence[str] = ()
    """Of events equal in these fields the first is drawn; `components` compares the set of labels,
    `onset_time` the exact number. Empty keeps all."""
    include_technique: Sequence[str] = ()
    """Only events that show one of these; empty = all."""
    exclude_technique: Sequence[str] = ()
    """No event that shows one of these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawn:
    """The chosen events. Temporary tables of the connection hold them; see the methods.

    Attributes:
        connection: where the tables are.
        view: the view of the manifest.
        groups: the values of the group field, sorted.
        group_count: events of each [shape=(n_groups,)].
        classes: the canonical labels that occur, sorted; `NO_HIT` stands for no hit.
        techniques: the techniques that occur, sorted.
        n_events: events chosen.
        n_kinds: kinds of events.
        filtered: events left out by their techniques.
        duplicates: events left out as duplicates.
        duplicates_elsewhere: how many of them name another track than the event that is kept.
        unmet: techniques that the filters name and no event of the manifest shows, sorted.
    """

    connection: duckdb.DuckDBPyConnection
    view: str
    groups: list[str]
    group_count: IntArray
    classes: list[str]
    techniques: list[str]
    n_events: int
    n_kinds: int
    filtered: int
    duplicates: int
    duplicates_elsewhere: int
    unmet: list[str]

    def rows(self) -> tuple[IntArray, IntArray, IntArray]:
        """Return row in the manifest, group and kind of each event [each shape=(n_events,)]."""
        found = self.numbers('SELECT "row", gid, kid FROM drawn ORDER BY "row"')
        return found[0], found[1], found[2]

    def kind_classes(self) -> tuple[IntArray, IntArray]:
        """Return (kind, class) pairs, each once."""
        found = self.numbers("SELECT kid, cid FROM kind_class")
        return found[0], found[1]

    def largest_of_kind(self, factor: FloatArray) -> FloatArray:
        """Return the largest factor among the classes of each kind [shape=(n_kinds,)].

        `factor` is that of each class, 0 or more [shape=(n_classes,)].
        """
        kind, of_class = self.kind_classes()
        found = np.zeros(self.n_kinds)
        np.maximum.at(found, kind, factor[of_class])
        return found

    def technique_totals(self) -> dict[str, int]:
        """Return the events that show each technique."""
        tid, count = self.numbers(
            "SELECT tid, count(*) FROM drawn JOIN kind_technique USING (kid) GROUP BY tid "
            "ORDER BY tid"
        )
        names = [self.techniques[index] for index in tid.tolist()]
        return dict(zip(names, count.tolist(), strict=True))

    def technique_counts(self, names: Sequence[str]) -> dict[str, IntArray]:
        """Return, for those names that occur, the events of each group that show the technique."""
        ids = [index for index, name in enumerate(self.techniques) if name in set(names)]
        wanted = ", ".join(map(str, ids)) or "NULL"
        gid, tid, count = self.numbers(
            "SELECT gid, tid, count(*) FROM drawn JOIN kind_technique USING (kid) "
            f"WHERE tid IN ({wanted}) GROUP BY gid, tid"
        )
        found = {}
        for index in ids:
            of_this = tid == index
            column = np.zeros(len(self.groups), dtype=np.int64)
            column[gid[of_this]] = count[of_this]
            found[self.techniques[index]] = column
        return found

    def class_counts(self, drawable: NDArray[np.bool_]) -> IntArray:
        """Return the events of drawable groups that hold each class [shape=(n_classes,)]."""
        self.register("drawable_groups", gid=np.flatnonzero(drawable))
        cid, count = self.numbers(
            "SELECT cid, count(*) FROM drawn SEMI JOIN drawable_groups USING (gid) "
            "JOIN kind_class USING (kid) GROUP BY cid"
        )
        found = np.zeros(len(self.classes), dtype=np.int64)
        found[cid] = count
        return found

    def numbers(self, query: str) -> list[IntArray]:
        """Run a query whose columns are all integers."""
        columns = self.connection.execute(query).fetchnumpy()
        return [np.asarray(column, dtype=np.int64) for column in columns.values()]

    def register(self, name: str, **columns: NDArray[Any]) -> None:
        """Make arrays a table that queries can name."""
        import pyarrow as pa

        self.connection.register(name, pa.table(columns))


def columns_of(choice: Choice) -> dict[str, str]:
    """Return the columns that a scan must hold for a choice; see `training.manifest.scan`."""
    always = ("sample_id", "track_id", "components", "techniques", "source_set", "is_synthetic")
    names = dict.fromkeys((*always, choice.group_field, *choice.dedupe_key))
    return {name: f'"{name}"' for name in names}


def choose_events(
    connection: duckdb.DuckDBPyConnection,
    scan: Scan,
    choice: Choice,
    taxonomy: ComponentTaxonomy | None = None,
) -> Drawn:
    """Filter events by technique, leave duplicates out, and number groups and kinds.

    Args:
        connection: the engine's connection, with the view of `scan`.
        scan: the manifest, with `columns_of(choice)` at least; `place` is asked for the lines in
            messages.
        choice: which events, grouped by what.
        taxonomy: what labels are called; the shipped one by default.

    Raises:
        InputError: a chosen event lacks the group field (the first are named, all are counted), or
            no event is chosen.
    """
    kept = _filter(choice)
    chosen = _count(connection, f'SELECT count(*) FROM "{scan.name}" WHERE {kept}')
    if not chosen:
        why = "holds no event that the technique filters let through"
        raise InputError.at(scan.sources[0].path, why)
    duplicates = _find_duplicates(connection, scan.name, kept, choice.dedupe_key)
    events = f'(SELECT * FROM "{scan.name}" WHERE {kept})'
    if duplicates:
        events = f'(SELECT * FROM {events} ANTI JOIN duplicates USING ("row"))'
    _require_group(connection, scan, events, choice.group_field)
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE groups AS SELECT name, count, "
        "(row_number() OVER (ORDER BY name) - 1)::INTEGER AS gid FROM "
        f'(SELECT "{choice.group_field}" AS name, count(*) AS count FROM {events} GROUP BY name)'
    )
    _number_kinds(connection, events, choice.group_field)
    classes = _number_classes(connection, taxonomy or load_components())
    names = connection.execute("SELECT name, count FROM groups ORDER BY gid").fetchnumpy()
    return Drawn(
        connection=connection,
        view=scan.name,
        groups=names["name"].tolist(),
        group_count=np.asarray(names["count"], dtype=np.int64),
        classes=classes,
        techniques=_number_techniques(connection),
        n_events=chosen - duplicates,
        n_kinds=_count(connection, "SELECT count(*) FROM kinds"),
        filtered=scan.rows - chosen,
        duplicates=duplicates,
        duplicates_elsewhere=_count(connection, "SELECT count(*) FROM duplicates WHERE elsewhere")
        if duplicates
        else 0,
        unmet=_unmet(connection, scan.name, choice),
    )


def _filter(choice: Choice) -> str:
    """Return the condition that a chosen event fulfils."""
    conditions = []
    for names, wanted in ((choice.include_technique, ""), (choice.exclude_technique, "NOT ")):
        if names:
            listed = ", ".join(map(literal, names))
            conditions.append(f"{wanted}list_has_any({_TECHNIQUES}, [{listed}])")
    return " AND ".join(conditions) or "true"


def _unmet(connection: duckdb.DuckDBPyConnection, view: str, choice: Choice) -> list[str]:
    named = {*choice.include_technique, *choice.exclude_technique}
    if not named:
        return []
    query = f'SELECT DISTINCT unnest(techniques) FROM "{view}"'
    return sorted(named.difference(name for (name,) in connection.execute(query).fetchall()))


def _find_duplicates(
    connection: duckdb.DuckDBPyConnection, view: str, kept: str, key: Sequence[str]
) -> int:
    """Put the rows that repeat an earlier one into the table `duplicates`; return how many.

    Whole keys are compared only where a hash of their plain fields occurs twice, which spares
    nearly all events the grouping by lists.
    """
    if not key:
        return 0
    exact = {"components": _LABELS, "techniques": _TECHNIQUES}
    keys = {f"k{at}": exact.get(name, f'"{name}"') for at, name in enumerate(key)}
    plain = [f'"{name}"' for name in key if name not in _NESTED] or list(keys.values())
    hashed = f"hash({', '.join(plain)})"
    named = ", ".join(f"{value} AS {name}" for name, value in keys.items())
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE duplicates AS
        WITH twice AS (
            SELECT {hashed} AS h FROM "{view}" WHERE {kept} GROUP BY h HAVING count(*) > 1),
        suspects AS MATERIALIZED (
            SELECT "row", track_id, {named} FROM "{view}"
            WHERE {kept} AND {hashed} IN (SELECT h FROM twice)),
        placed AS (
            SELECT "row", row_number() OVER w AS place,
                track_id IS DISTINCT FROM first_value(track_id) OVER w AS elsewhere
            FROM suspects WINDOW w AS (PARTITION BY {", ".join(keys)} ORDER BY "row"))
        SELECT "row", elsewhere FROM placed WHERE place > 1"""
    )
    return _count(connection, "SELECT count(*) FROM duplicates")


def _require_group(
    connection: duckdb.DuckDBPyConnection, scan: Scan, events: str, field: str
) -> None:
    missing = f'FROM {events} WHERE "{field}" IS NULL'
    total = _count(connection, f"SELECT count(*) {missing}")
    if total:
        first = f'SELECT "row" {missing} ORDER BY "row" LIMIT {SHOWN_PROBLEMS}'
        places = scan.places([row for (row,) in connection.execute(first).fetchall()])
        raise InputError(
            [
                Problem(path, "is required to group by", line, field)
                for _, (path, line) in sorted(places.items())
            ],
            total,
        )


def _number_kinds(connection: duckdb.DuckDBPyConnection, events: str, field: str) -> None:
    """Make `kinds` (kid, hits, source, techniques) and `drawn` (row, gid, kid)."""
    kind = f"{_HITS} AS hits, {_SOURCE} AS source, {_TECHNIQUES} AS techniques"
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kinds AS SELECT *, "
        "(row_number() OVER () - 1)::INTEGER AS kid FROM "
        f"(SELECT DISTINCT {kind} FROM {events})"
    )
    connection.execute(
        'CREATE OR REPLACE TEMP TABLE drawn AS SELECT e."row", g.gid, k.kid FROM '
        f'(SELECT "row", "{field}" AS name, {kind} FROM {events}) e JOIN groups g USING (name) '
        "JOIN kinds k ON k.hits = e.hits AND k.source = e.source AND k.techniques = e.techniques"
    )


def _number_classes(
    connection: duckdb.DuckDBPyConnection, taxonomy: ComponentTaxonomy
) -> list[str]:
    """Make `kind_hit` (kid, cid, dynamics) and `kind_class` (kid, cid), each pair once."""
    import pyarrow as pa

    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kind_label AS "
        "SELECT kid, hit.label AS label, hit.dynamics AS dynamics "
        "FROM (SELECT kid, unnest(list_distinct(hits)) AS hit FROM kinds) UNION ALL "
        f"SELECT kid, NULL, {literal(UNKNOWN)} FROM kinds WHERE len(hits) = 0"
    )
    labels = connection.execute("SELECT DISTINCT label FROM kind_label").fetchall()
    class_of: Mapping[str | None, str] = {
        label: NO_HIT if label is None else taxonomy.canonical(label) or label
        for (label,) in labels
    }
    classes = sorted(set(class_of.values()))
    number = {name: index for index, name in enumerate(classes)}
    connection.register(
        "labels",
        pa.table(
            {
                "label": pa.array(list(class_of), pa.string()),
                "cid": pa.array([number[name] for name in class_of.values()], pa.int32()),
            }
        ),
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kind_hit AS SELECT DISTINCT kid, cid, dynamics "
        "FROM kind_label JOIN labels ON labels.label IS NOT DISTINCT FROM kind_label.label"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kind_class AS SELECT DISTINCT kid, cid FROM kind_hit"
    )
    return classes


def _number_techniques(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Make `kind_technique` (kid, tid), each pair once."""
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kind_technique_name AS "
        "SELECT kid, unnest(list_distinct(techniques)) AS name FROM kinds"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE techniques AS SELECT name, "
        "(row_number() OVER (ORDER BY name) - 1)::INTEGER AS tid "
        "FROM (SELECT DISTINCT name FROM kind_technique_name)"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE kind_technique AS "
        "SELECT kid, tid FROM kind_technique_name JOIN techniques USING (name)"
    )
    return [
        name
        for (name,) in connection.execute("SELECT name FROM techniques ORDER BY tid").fetchall()
    ]


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int((connection.execute(query).fetchone() or (0,))[0])
