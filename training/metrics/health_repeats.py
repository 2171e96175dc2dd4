"""What stands in a dataset more than once, and what its splits share.

Three meanings of "duplicate", each with its own figure:

1. the same `sample_id` twice: a merge went wrong;
2. the same place in the same audio file twice (onsets equal to 0.1 ms): the same sound twice;
3. the same performance in two sessions: one take rendered on several kits, or recorded again
   under another name. Sessions that share a performance form a family. A family is no fault by
   itself, but a split that separates its members leaks the test set into training.

Figures 1 and 2 make the duplication rate; figure 3 is one of the things that splits may share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from training.metrics.health_frames import (
    MAX_LISTED,
    Frame,
    collect,
    collect_one,
    held,
    sort_key,
    whole,
)

ONSET_STEP_S = 1e-4
"""Two onsets in one audio file closer than this count as the same place."""

MIN_PERFORMANCE_HITS = 8
"""Takes with fewer hits are not compared: a few hits can be equal by chance."""

ISOLATION_FIELDS = {
    "session": "session_id",
    "drummer": "drummer_id",
    "kit": "kit_id",
    "room": "room_id",
}
"""What splits can be checked for sharing, and the column of each; "performance" is the fifth."""

# Each hit of a take becomes one whole number below the Mersenne prime 2^31 - 1, made of its time
# after the first hit in ms and its label. The count of a take's hits and the first three power
# sums of these numbers are its fingerprint: about 90 bits, the same in any order of the hits,
# exact in 64-bit integers on every engine, and a plain sum, so that engines can parallelise it.
_PRIME = 2_147_483_647
_LABEL_CODES = 512
# Rounds to whole ms with the cut away from the halves on which sequencer ticks fall, so that
# the same ticks counted from another start do not round to different sides.
_CUT = 0.537
# More repeated values than this are counted in a second pass instead of being fetched.
_FEW = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeats:
    """Rows that repeat an earlier row under one meaning of "the same".

    Attributes:
        groups: values that occur more than once.
        surplus: rows beyond the first of each group: what deleting duplicates would remove.
        compared: rows that could be compared, because they state what is compared.
        examples: up to `MAX_LISTED` of the values, sorted, each with its number of rows.
    """

    groups: int
    surplus: int
    compared: int
    examples: tuple[dict[str, Any], ...]


def _repeats(frame: Frame, keys: Sequence[str], compared: int) -> Repeats:
    groups = frame.group_by(*keys).agg(nw.len().alias("rows")).filter(nw.col("rows") > 1)
    # In a dataset in order there are few or none: what is fetched is then all there is, and the
    # grouping, which is the costly part, runs once.
    found = collect(groups.sort(*keys).head(_FEW))
    if len(found) < _FEW:
        count, rows = len(found), sum(int(row["rows"]) for row in found)
    else:
        total = collect_one(groups.select(nw.len().alias("groups"), nw.col("rows").sum()))
        count, rows = int(total["groups"]), int(total["rows"])
    found.sort(key=lambda row: sort_key(row[key] for key in keys))
    return Repeats(
        groups=count,
        surplus=rows - count,
        compared=compared,
        examples=tuple(found[:MAX_LISTED]),
    )


def repeated_ids(events: Frame, total: int) -> Repeats:
    """Find sample ids that stand on more than one of the `total` events."""
    return _repeats(events.select("sample_id"), ["sample_id"], total)


def repeated_places(events: Frame, stating: int) -> Repeats:
    """Find places in audio files that more than one event names.

    Events without `audio_path` are not compared; `stating` is the number of the others. An
    example gives `onset_s` rounded to 0.1 ms.
    """
    frame = events.filter(~nw.col("audio_path").is_null()).select(
        nw.col("audio_path").cast(nw.String),
        whole(nw.col("onset_s") / ONSET_STEP_S).alias("place"),
    )
    found = _repeats(frame, ["audio_path", "place"], stating)
    examples = tuple(
        {
            "audio_path": row["audio_path"],
            "onset_s": round(row["place"] * ONSET_STEP_S, 4),
            "rows": row["rows"],
        }
        for row in found.examples
    )
    return Repeats(
        groups=found.groups, surplus=found.surplus, compared=found.compared, examples=examples
    )


def duplication_rate(events_total: int, repeats: Sequence[Repeats]) -> float | None:
    """Give the share of events that repeat an earlier one, under the meaning that finds most.

    None when there is no event.
    """
    if not events_total:
        return None
    return max((found.surplus for found in repeats), default=0) / events_total


def take_rows(events: Frame, hits: Frame, takes: Frame) -> Frame:
    """Fingerprint every take (one track of one session) of at least `MIN_PERFORMANCE_HITS` hits.

    Columns: `take`, `session_id`, `track` ("" where there is none), `n` (hits), `p1`, `p2`, `p3`,
    `first_split`, `last_split`, and for velocity and openness `…_n` (hits that state it), `…_min`
    and `…_max`.
    """
    starts = hits.group_by("take").agg(nw.col("onset_s").min().alias("start_s"))
    milliseconds = ((nw.col("onset_s") - nw.col("start_s")) * 1000 + _CUT).floor().cast(nw.Int64)
    coded = (
        hits.join(starts, on="take", how="inner")
        .with_columns(
            p1=(milliseconds * _LABEL_CODES + nw.col("label_code") % _LABEL_CODES) % _PRIME
        )
        .with_columns(p2=(nw.col("p1") * nw.col("p1")) % _PRIME)
        .with_columns(p3=(nw.col("p2") * nw.col("p1")) % _PRIME)
    )
    stated = ("velocity", "openness")
    found = (
        coded.group_by("take")
        .agg(
            nw.len().alias("n"),
            nw.col("p1").sum(),
            nw.col("p2").sum(),
            nw.col("p3").sum(),
            *(nw.col(name).count().alias(f"{name}_n") for name in stated),
            *(nw.col(name).min().alias(f"{name}_min") for name in stated),
            *(nw.col(name).max().alias(f"{name}_max") for name in stated),
        )
        .filter(nw.col("n") >= MIN_PERFORMANCE_HITS)
        .with_columns(nw.col("n", "p1", "p2", "p3").cast(nw.Int64))
    )
    named = ("session_id", "track")
    splits = (
        events.filter(nw.col("hits") > 0)
        .select(
            nw.col("session_id").cast(nw.String),
            # A take without a track id is a whole session; joins drop nulls.
            nw.col("track_id").cast(nw.String).fill_null("").alias("track"),
            nw.col("split").cast(nw.String),
        )
        .group_by(*named)
        .agg(nw.col("split").min().alias("first_split"), nw.col("split").max().alias("last_split"))
    )
    # Takes are few: they are joined here, not by the engine.
    return held(found).join(held(takes), on="take").join(held(splits), on=list(named))


@dataclass(frozen=True, kw_only=True, slots=True)
class Performances:
    """Performances that stand in more than one session.

    Attributes:
        takes: takes that were long enough to compare.
        families: performances found in at least two sessions.
        repeated_takes: takes beyond the first of each family.
        crossing_splits: families whose members lie in different splits.
        examples: up to `MAX_LISTED` families: `sessions` (sorted, up to `MAX_LISTED`), `hits`, and
            `splits` (those that its members lie in).
    """

    takes: int
    families: int
    repeated_takes: int
    crossing_splits: int
    examples: tuple[dict[str, Any], ...]


def repeated_performances(takes: Frame) -> Performances:
    """Find takes of different sessions with the same labels at the same times after their start.

    `takes` are those of `take_rows`. Times are compared to the millisecond, and absolute position
    does not matter. Takes of one session are never compared with each other: they may be the mics
    of one performance.
    """
    fingerprint_of = ["n", "p1", "p2", "p3"]
    compared = int(collect_one(takes.select(nw.len().alias("takes")))["takes"])
    common = takes.group_by(*fingerprint_of).agg(nw.len().alias("alike"))
    shared = common.filter(nw.col("alike") > 1)
    members: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for take in collect(takes.join(shared, on=fingerprint_of, how="inner")):
        members.setdefault(tuple(take[name] for name in fingerprint_of), []).append(take)
    families: list[dict[str, Any]] = []
    for fingerprint, found in members.items():
        sessions = sorted({take["session_id"] for take in found})
        if len(sessions) > 1:
            sides = {take[side] for take in found for side in ("first_split", "last_split")}
            families.append(
                {
                    "sessions": sessions,
                    "takes": len(found),
                    "hits": fingerprint[0],
                    "splits": sorted(sides - {None}),
                }
            )
    families.sort(key=lambda family: (len(family["splits"]) < 2, family["sessions"]))
    return Performances(
        takes=compared,
        families=len(families),
        repeated_takes=sum(family["takes"] - 1 for family in families),
        crossing_splits=sum(len(family["splits"]) > 1 for family in families),
        examples=tuple(
            {**family, "sessions": family["sessions"][:MAX_LISTED]}
            for family in families[:MAX_LISTED]
        ),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Isolation:
    """Whether values of one field stay within one split.

    Attributes:
        values: distinct values among the events that state a split.
        shared: how many of them lie in more than one split.
        offenders: up to `MAX_LISTED` of the shared values with the splits that each lies in.
        unstated: events with a split that do not state the field, so that nothing is known of them.
    """

    values: int
    shared: int
    offenders: tuple[dict[str, Any], ...]
    unstated: int


def split_isolation(events: Frame) -> dict[str, Isolation]:
    """Find sessions, drummers, kits and rooms that lie in more than one split.

    Events without a split are left out: they are not yet on any side.
    """
    found = {}
    for name, column in ISOLATION_FIELDS.items():
        pairs = (
            events.filter(~nw.col("split").is_null())
            .group_by(column, "split")
            .agg(nw.len().alias("rows"))
        )
        splits: dict[str, set[str]] = {}
        unstated = 0
        for pair in collect(pairs):
            if pair[column] is None:
                unstated += int(pair["rows"])
            else:
                splits.setdefault(pair[column], set()).add(pair["split"])
        shared = sorted(value for value, sides in splits.items() if len(sides) > 1)
        found[name] = Isolation(
            values=len(splits),
            shared=len(shared),
            offenders=tuple(
                {"value": value, "splits": sorted(splits[value])} for value in shared[:MAX_LISTED]
            ),
            unstated=unstated,
        )
    return found
