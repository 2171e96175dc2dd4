"""Shared parts of the dataset-health aggregates.

Every aggregate is written once as a Narwhals expression over lazy frames, so that one text runs on
an Arrow table, on DuckDB and on a cluster engine. These rules keep the engines in agreement, and
the helpers here apply them:

* only elementary aggregations inside `group_by(...).agg(...)`; arithmetic happens before it;
* booleans are cast before they are summed, and sums come back as whole numbers;
* an aggregate over no rows may be 0 or null: read it with `or 0`;
* a number is rounded with `floor(x + 0.5)`, because engines round halves differently;
* rows are sorted here, never by the engine, because engines sort text and nulls differently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeAlias

import narwhals as nw

Frame: TypeAlias = "nw.LazyFrame[Any]"

UNSTATED = "(none)"
"""Stands for "the events do not say" wherever a figure is keyed by the value of a field."""

MAX_LISTED = 20
"""How many offenders a figure lists; the counts beside a list are always complete."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthFrames:
    """The lazy frames of a manifest, with the columns of `manifest.views.ManifestViews`.

    `hits` are the rows of `components` in numbers: what looks at each hit, and not at counts of
    hits, is asked of them.
    """

    events: Frame
    components: Frame
    hits: Frame
    takes: Frame
    techniques: Frame


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelNames:
    """What the component taxonomy says about labels.

    Attributes:
        targets: the labels a model predicts, in their order.
        known: every accepted canonical label (the targets and the background labels).
        canonical: gives the canonical label of a name or alias, or None for an unknown name.
    """

    targets: tuple[str, ...]
    known: frozenset[str]
    canonical: Callable[[str], str | None]


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) else value


def collect(frame: Frame) -> list[dict[str, Any]]:
    """Run a frame and give its rows as plain dictionaries, in no particular order."""
    rows = frame.collect(backend="pyarrow").rows(named=True)
    return [{name: _plain(value) for name, value in row.items()} for row in rows]


def collect_one(frame: Frame) -> dict[str, Any]:
    """Run a frame that holds exactly one row and give that row."""
    (row,) = collect(frame)
    return row


def held(frame: Frame) -> Frame:
    """Run a frame once and keep its rows, so that several figures can be taken from them.

    For grouped rows only: they stay in memory, as Arrow columns.
    """
    return frame.collect(backend="pyarrow").lazy()


def tally(
    frame: Frame, *columns: str, weight: str | None = None
) -> list[tuple[tuple[Any, ...], int]]:
    """Count the rows of each combination of values, null included, sorted by the values.

    `weight` names a column of counts that is summed instead, where rows have been counted before.
    """
    count = nw.len() if weight is None else nw.col(weight).sum()
    rows = collect(frame.group_by(*columns).agg(count.alias("tally")))
    cells = [(tuple(row[name] for name in columns), int(row["tally"])) for row in rows]
    return sorted(cells, key=lambda cell: sort_key(cell[0]))


def sort_key(values: Iterable[Any]) -> tuple[tuple[bool, Any], ...]:
    """Order values of one column with null first."""
    return tuple((value is not None, "" if value is None else value) for value in values)


def named(value: Any) -> str:
    """Give the text under which a value of a field is reported."""
    return UNSTATED if value is None else str(value)


def sorted_counts(counts: Mapping[str, int]) -> dict[str, int]:
    """Give the counts in the order of their names, zero counts left out."""
    return {name: counts[name] for name in sorted(counts) if counts[name]}


def field_counts(frame: Frame, column: str, *, weight: str | None = None) -> dict[str, int]:
    """Count the rows of each value of one column; rows without a value are under `UNSTATED`."""
    counts: Counter[str] = Counter()
    for (value,), rows in tally(frame, column, weight=weight):
        counts[named(value)] += rows
    return sorted_counts(counts)


def whole(expression: nw.Expr) -> nw.Expr:
    """Round to the nearest whole number, halves upward, the same on every engine."""
    return (expression + 0.5).floor().cast(nw.Int64)
