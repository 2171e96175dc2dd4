"""Events that can hardly be right, although every field of theirs is within its range.

Strict reading refuses what is impossible in itself (a velocity of 1.5, an onset below zero). What
is left are values that only other values give away; each kind has its own figure:

`onset_beyond_audio`
    the onset lies at or past the end of its audio file;
`velocity_stuck_take`, `openness_stuck_take`
    many hits of one take (one track of one session) that all have the same value. An openness of
    0 or 1 is not counted: a hi-hat may well stay closed or open;
`velocity_stuck_device`, `openness_stuck_device`
    the same over all hits of one device, 0 and 1 included;
`overfull_second`
    events that begin a second in which their take has more events than anybody plays;
`near_repeat`
    times, rounded to 5 ms, at which several events of one take strike the same label;
`tempo_out_of_range`, `peak_above_full_scale`, `loudness_below_gate`
    values that no music has: a tempo outside 20..400 BPM, a sample peak above 0 dBFS, an integrated
    loudness below -70 LUFS, under which ITU-R BS.1770 measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import numpy as np

from training.metrics.health_frames import (
    MAX_LISTED,
    Frame,
    HealthFrames,
    collect,
    collect_one,
    named,
    sort_key,
    tally,
    whole,
)

OUTLIER_KINDS = (
    "onset_beyond_audio",
    "velocity_stuck_take",
    "velocity_stuck_device",
    "openness_stuck_take",
    "openness_stuck_device",
    "overfull_second",
    "near_repeat",
    "tempo_out_of_range",
    "peak_above_full_scale",
    "loudness_below_gate",
)

STUCK_HITS = 50
"""So many hits with one value are a value that nobody set."""

MAX_EVENTS_PER_SECOND = 40
TEMPO_BPM = (20, 400)
PEAK_DBFS = 0.0
LOUDNESS_LUFS = -70.0
NEAR_STEPS_PER_S = 200

# How many suspect sessions and files have their onsets fetched in one go.
_BLOCK_SESSIONS = 200
_BLOCK_FILES = 1_000
# More repeats than this are counted in a second pass instead of being fetched.
_FEW = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Outliers:
    """How much of a manifest is out of line in one way.

    Attributes:
        count: the events, hits or times found; None when it could not be measured.
        of: the events or hits that state what is looked at.
        share: count / of; None when that is 0 / 0 or not measured.
        not_measured: why there is no count; None when there is one.
        examples: up to `MAX_LISTED` of them, in a fixed order.
    """

    count: int | None
    of: int
    share: float | None
    not_measured: str | None = None
    examples: tuple[dict[str, Any], ...] = ()


def _found(count: int, of: int, examples: Iterable[dict[str, Any]] = ()) -> Outliers:
    share = count / of if of else None
    return Outliers(count=count, of=of, share=share, examples=tuple(examples)[:MAX_LISTED])


def outlier_figures(
    frames: HealthFrames,
    *,
    hit_cells: Frame,
    labels: Mapping[int, str],
    fingerprints: Frame,
    lengths_s: Mapping[str, float] | None = None,
    max_events_per_second: int = MAX_EVENTS_PER_SECOND,
) -> dict[str, Outliers]:
    """Look for every kind of outlier.

    Args:
        frames: the manifest.
        hit_cells: as made by `health_cells.hit_cells`.
        labels: as made by `health_labels.label_codes`.
        fingerprints: as made by `health_repeats.take_rows`.
        lengths_s: the length of each audio file by `audio_path`; None when they are not known.
        max_events_per_second: more events of one take within a second are too many.

    Returns:
        {kind: figures}, in the order of `OUTLIER_KINDS`. No event gives counts of 0 of 0.
    """
    found = {
        "onset_beyond_audio": _beyond_audio(frames.events, lengths_s),
        "overfull_second": _overfull(frames.events, max_events_per_second),
        "near_repeat": _near_repeats(frames, hit_cells, labels),
        **_stuck_takes(fingerprints, hit_cells),
        **_stuck_devices(hit_cells),
        **_out_of_range(frames.events),
    }
    return {kind: found[kind] for kind in OUTLIER_KINDS}


def _blocks(names: Sequence[str], size: int) -> Iterable[Sequence[str]]:
    return (names[first : first + size] for first in range(0, len(names), size))


def _beyond_audio(events: Frame, lengths_s: Mapping[str, float] | None) -> Outliers:
    if lengths_s is None:
        why = "the lengths of the audio files are not known"
        return Outliers(count=None, of=0, share=None, not_measured=why)
    placed = events.filter(~nw.col("audio_path").is_null()).select(
        nw.col("audio_path").cast(nw.String), "onset_s"
    )
    per_file = placed.group_by("audio_path").agg(
        nw.len().alias("events"), nw.col("onset_s").max().alias("last_s")
    )
    of = 0
    late: dict[str, float] = {}
    for row in collect(per_file):
        length = lengths_s.get(row["audio_path"])
        if length is not None:
            of += int(row["events"])
            if row["last_s"] >= length:
                late[row["audio_path"]] = float(row["last_s"])
    if not of:
        why = "no event names an audio file whose length is known"
        return Outliers(count=None, of=0, share=None, not_measured=why)
    beyond: dict[str, int] = {}
    for paths in _blocks(sorted(late), _BLOCK_FILES):
        suspect = placed.filter(nw.col("audio_path").is_in(list(paths)))
        onsets = suspect.collect(backend="pyarrow").to_native()
        path_of, onset = onsets["audio_path"].to_pylist(), onsets["onset_s"].to_pylist()
        for path, onset_s in zip(path_of, onset, strict=True):
            beyond[path] = beyond.get(path, 0) + (onset_s >= lengths_s[path])
    examples = [
        {"audio_path": path, "length_s": lengths_s[path], "last_onset_s": late[path], "events": n}
        for path, n in sorted(beyond.items())[:MAX_LISTED]
    ]
    return _found(sum(beyond.values()), of, examples)


def _overfull(events: Frame, limit: int) -> Outliers:
    total = int(collect_one(events.select(nw.len().alias("events")))["events"])
    timed = events.select(
        nw.col("session_id").cast(nw.String),
        nw.col("track_id").cast(nw.String).fill_null("").alias("take"),
        "onset_s",
    )
    # A second with more than n events lies in two whole seconds: one of them has more than n / 2.
    seconds = (
        timed.select("session_id", "take", nw.col("onset_s").floor().alias("second"))
        .group_by("session_id", "take", "second")
        .agg(nw.len().alias("events"))
        .filter(nw.col("events") > limit // 2)
    )
    suspects = tally(seconds, "session_id")
    if not suspects:
        return _found(0, total)
    count = 0
    examples: list[dict[str, Any]] = []
    sessions = [session for (session,), _ in suspects]
    for block in _blocks(sessions, _BLOCK_SESSIONS):
        more, shown = _windows(timed.filter(nw.col("session_id").is_in(list(block))), limit)
        count += more
        examples += shown[: MAX_LISTED - len(examples)]
    return _found(count, total, examples)


def _windows(timed: Frame, limit: int) -> tuple[int, list[dict[str, Any]]]:
    """Count the events with more than `limit` events of their take in [onset, onset + 1 s)."""
    keys = ("session_id", "take")
    order = [(name, "ascending") for name in (*keys, "onset_s")]
    rows = timed.collect(backend="pyarrow").to_native().sort_by(order)
    onsets = np.asarray(rows["onset_s"].to_numpy())
    names = [rows[name].combine_chunks().dictionary_encode() for name in keys]
    codes = np.stack([np.asarray(each.indices) for each in names])
    first = np.ones(len(onsets), dtype=bool)
    first[1:] = (codes[:, 1:] != codes[:, :-1]).any(axis=0)
    starts = np.flatnonzero(first).tolist()
    count = 0
    examples: list[dict[str, Any]] = []
    for start, stop in zip(starts, [*starts[1:], len(onsets)], strict=True):
        mine = onsets[start:stop]
        within = np.searchsorted(mine, mine + 1.0) - np.searchsorted(mine, mine)
        over = np.flatnonzero(within > limit)
        count += len(over)
        if len(over) and len(examples) < MAX_LISTED:
            worst = int(over[np.argmax(within[over])])
            examples.append(
                {
                    "session_id": names[0][start].as_py(),
                    "track_id": names[1][start].as_py() or None,
                    "onset_s": float(mine[worst]),
                    "events": int(within[worst]),
                }
            )
    return count, examples


def _near_repeats(frames: HealthFrames, hit_cells: Frame, labels: Mapping[int, str]) -> Outliers:
    hits = int(collect_one(hit_cells.select(nw.col("hits").sum()))["hits"] or 0)
    keys = ("take", "label_code", "step")
    steps = (
        frames.hits.select(
            "take", "label_code", whole(nw.col("onset_s") * NEAR_STEPS_PER_S).alias("step"), "row"
        )
        .group_by(*keys)
        .agg(nw.col("row").min().alias("first"), nw.col("row").max().alias("last"))
        # Two of a label in one event are no repeat: `dual_labels` counts them.
        .filter(nw.col("first") != nw.col("last"))
    )
    rows = collect(steps.sort(*keys).head(_FEW))
    count = len(rows)
    if count == _FEW:
        count = int(collect_one(steps.select(nw.len().alias("steps")))["steps"])
    # Takes and labels are numbered in the order of their names.
    shown = sorted(rows, key=lambda row: tuple(row[key] for key in keys))[:MAX_LISTED]
    mine = nw.col("take").is_in([row["take"] for row in shown])
    takes = {row["take"]: row for row in collect(frames.takes.filter(mine))} if shown else {}
    examples = [
        {
            "session_id": takes[row["take"]]["session_id"],
            "track_id": takes[row["take"]]["track"] or None,
            "label": labels[row["label_code"]],
            "onset_s": row["step"] / NEAR_STEPS_PER_S,
        }
        for row in shown
    ]
    return _found(count, hits, examples)


def _stated_hits(hit_cells: Frame, field: str) -> int:
    stated = hit_cells.filter(~nw.col(f"{field}_bin").is_null())
    return int(collect_one(stated.select(nw.col("hits").sum()))["hits"] or 0)


def _stuck_takes(fingerprints: Frame, hit_cells: Frame) -> dict[str, Outliers]:
    found = {}
    for field in ("velocity", "openness"):
        low, n = nw.col(f"{field}_min"), nw.col(f"{field}_n")
        stuck = fingerprints.filter((n >= STUCK_HITS) & (low == nw.col(f"{field}_max")))
        if field == "openness":
            stuck = stuck.filter((low > 0) & (low < 1))
        rows = sorted(
            collect(stuck.select("session_id", "track", low.alias("value"), n.alias("hits"))),
            key=lambda row: (row["session_id"], row["track"]),
        )
        examples = [
            {
                "session_id": row["session_id"],
                "track_id": row["track"] or None,
                field: float(row["value"]),
                "hits": int(row["hits"]),
            }
            for row in rows[:MAX_LISTED]
        ]
        count = sum(int(row["hits"]) for row in rows)
        found[f"{field}_stuck_take"] = _found(count, _stated_hits(hit_cells, field), examples)
    return found


def _stuck_devices(hit_cells: Frame) -> dict[str, Outliers]:
    found = {}
    for field in ("velocity", "openness"):
        stated = hit_cells.filter(
            ~nw.col(f"{field}_bin").is_null() & ~nw.col("device").is_null()
        ).select("device", "hits", f"{field}_min", f"{field}_max")
        devices = stated.group_by("device").agg(
            nw.col("hits").sum(), nw.col(f"{field}_min").min(), nw.col(f"{field}_max").max()
        )
        of = 0
        stuck: list[dict[str, Any]] = []
        for row in collect(devices):
            of += int(row["hits"])
            if int(row["hits"]) >= STUCK_HITS and row[f"{field}_min"] == row[f"{field}_max"]:
                stuck.append(
                    {
                        "device": named(row["device"]),
                        field: float(row[f"{field}_min"]),
                        "hits": int(row["hits"]),
                    }
                )
        stuck.sort(key=lambda row: row["device"])
        found[f"{field}_stuck_device"] = _found(sum(row["hits"] for row in stuck), of, stuck)
    return found


def _out_of_range(events: Frame) -> dict[str, Outliers]:
    low, high = TEMPO_BPM
    kinds: dict[str, tuple[str, nw.Expr]] = {
        "tempo_out_of_range": (
            "tempo_bpm",
            (nw.col("tempo_bpm") < low) | (nw.col("tempo_bpm") > high),
        ),
        "peak_above_full_scale": ("peak_dbfs", nw.col("peak_dbfs") > PEAK_DBFS),
        "loudness_below_gate": ("lufs_i", nw.col("lufs_i") < LOUDNESS_LUFS),
    }
    asked = events.select(
        *(nw.col(column).alias(f"{kind}_of") for kind, (column, _) in kinds.items()),
        *(out.cast(nw.Int64).alias(kind) for kind, (_, out) in kinds.items()),
    )
    counts = collect_one(
        asked.select(*(nw.col(f"{k}_of").count() for k in kinds), *(nw.col(k).sum() for k in kinds))
    )
    found = {}
    for kind, (column, out) in kinds.items():
        count = int(counts[kind] or 0)
        examples: list[dict[str, Any]] = []
        if count:
            keys = ("sample_id", "session_id", column)
            rows = collect(events.filter(out).select(*keys).sort(*keys).head(MAX_LISTED))
            examples = sorted(rows, key=lambda row: sort_key(row[key] for key in keys))
        found[kind] = _found(count, int(counts[f"{kind}_of"] or 0), examples)
    return found
