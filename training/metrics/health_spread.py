"""How values are spread: openness, velocity, tempo, meter, loudness, and what the events lack."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from training.metrics.health_cells import TEMPO_BIN_BPM, UNIT_BINS
from training.metrics.health_frames import (
    Frame,
    collect,
    collect_one,
    field_counts,
    named,
    tally,
    whole,
)

CLIPPING_DBFS = 0.0
"""A sample peak at or above this is counted as clipping."""

PERCENTILES = (5, 25, 75, 95)

# Sums are taken over whole ten-thousandths: unlike a sum of floats, theirs does not depend on the
# order in which an engine adds, so that a report is the same from run to run.
_PARTS = 10_000
_DECIMALS = 6
# Steps of the histogram that percentiles are found with: hundredths, as loudness is mostly written.
_STEPS = 100


def unit_edges() -> list[float]:
    """Give the bin edges of a histogram over [0, 1]: `UNIT_BINS` + 1 values."""
    return [round(index / UNIT_BINS, 6) for index in range(UNIT_BINS + 1)]


def _histogram(bins: dict[int, int]) -> list[int]:
    return [bins.get(index, 0) for index in range(UNIT_BINS)]


def unit_histogram(cells: Frame, field: str) -> dict[str, Any]:
    """Count the values of "velocity" or "openness" over ten equal bins of [0, 1], the last closed.

    `cells` are those of `hit_cells`. Returns `edges` (11), `counts` (10), `stated` and `unstated`.
    """
    counts = {value: hits for (value,), hits in tally(cells, f"{field}_bin", weight="hits")}
    unstated = counts.pop(None, 0)
    return {
        "edges": unit_edges(),
        "counts": _histogram(counts),
        "stated": sum(counts.values()),
        "unstated": unstated,
    }


def openness_histogram(cells: Frame) -> dict[str, Any]:
    """Count hits by hi-hat openness, overall and for each device.

    `cells` are those of `hit_cells`. Only hits that state `openness` are in the histogram.
    `raw_only` counts those that state only `openness_raw`: they need a calibration curve before
    they can be used. Per device, `counts` is the same histogram and `raw_only` the same count.
    """
    bins: Counter[int] = Counter()
    raw_only = 0
    devices: dict[str, Counter[int]] = defaultdict(Counter)
    device_raw: Counter[str] = Counter()
    for (device, index, raw), hits in tally(cells, "device", "openness_bin", "raw", weight="hits"):
        if index is not None:
            bins[index] += hits
            devices[named(device)][index] += hits
        elif raw:
            raw_only += hits
            device_raw[named(device)] += hits
    return {
        "edges": unit_edges(),
        "counts": _histogram(bins),
        "stated": sum(bins.values()),
        "raw_only": raw_only,
        "per_device": {
            name: {"counts": _histogram(devices[name]), "raw_only": device_raw[name]}
            for name in sorted({*devices, *device_raw})
        },
    }


def tempo_bins(cells: Frame) -> dict[str, int]:
    """Count events by tempo in bins of `TEMPO_BIN_BPM`, "100-120" meaning 100 ≤ BPM < 120."""
    counts = {}
    for (index,), events in tally(cells, "tempo_bin", weight="events"):
        if index is None:
            counts[named(None)] = events
        else:
            counts[f"{index * TEMPO_BIN_BPM}-{(index + 1) * TEMPO_BIN_BPM}"] = events
    return counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Spread:
    """Order statistics of one quantity; all None when nothing states it.

    Attributes:
        n: rows that state it.
        missing: rows that do not.
        percentiles: {"p05", "p25", "p75", "p95"}, linearly interpolated.
    """

    n: int
    missing: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    median: float | None
    percentiles: dict[str, float | None]


def _rounded(value: Any) -> float | None:
    return None if value is None else round(float(value), _DECIMALS)


def spread(frame: Frame, column: str, rows: int) -> Spread:
    """Describe the values of one numeric column of a frame of so many rows.

    Percentiles are linearly interpolated between the two nearest values, as NumPy's are. They are
    found without sorting: a histogram of hundredths says in which steps they lie, and only the
    values of those steps are fetched.
    """
    value = nw.col(column)
    stated = frame.filter(~value.is_null()).select(
        value.alias("value"),
        whole(value * _PARTS).alias("parts"),
        whole(value * _STEPS).alias("step"),
    )
    grouped = stated.group_by("step").agg(
        nw.len().alias("n"),
        nw.col("parts").sum(),
        nw.col("value").min().alias("low"),
        nw.col("value").max().alias("high"),
    )
    steps = sorted(collect(grouped), key=lambda row: int(row["step"]))
    n = sum(int(row["n"]) for row in steps)
    if not n:
        nothing: dict[str, float | None] = {f"p{percent:02}": None for percent in PERCENTILES}
        return Spread(
            n=0,
            missing=rows,
            minimum=None,
            maximum=None,
            mean=None,
            median=None,
            percentiles=nothing,
        )
    at = _order_statistics(
        stated, steps, {rank for p in (50, *PERCENTILES) for rank in _ranks(n, p)}
    )

    def percentile(percent: int) -> float | None:
        below, above = _ranks(n, percent)
        position = (n - 1) * percent / 100
        return _rounded(at[below] + (position - below) * (at[above] - at[below]))

    return Spread(
        n=n,
        missing=rows - n,
        minimum=_rounded(steps[0]["low"]),
        maximum=_rounded(steps[-1]["high"]),
        mean=_rounded(sum(int(row["parts"]) for row in steps) / n / _PARTS),
        median=percentile(50),
        percentiles={f"p{percent:02}": percentile(percent) for percent in PERCENTILES},
    )


def _ranks(n: int, percent: int) -> tuple[int, int]:
    """Give the two places, from 0, in n sorted values that a percentile lies between."""
    below = (n - 1) * percent // 100
    return below, min(below + 1, n - 1)


def _order_statistics(
    stated: Frame, steps: list[dict[str, Any]], ranks: set[int]
) -> dict[int, float]:
    """Give the values at some places of the sorted values."""
    found: dict[int, float] = {}
    mixed: dict[int, dict[int, int]] = {}  # step → {place within the step: place overall}
    seen = 0
    for row in steps:
        for rank in sorted(rank for rank in ranks if seen <= rank < seen + int(row["n"])):
            if row["low"] == row["high"]:
                found[rank] = float(row["low"])
            else:
                mixed.setdefault(int(row["step"]), {})[rank - seen] = rank
        seen += int(row["n"])
    if mixed:
        cells = stated.filter(nw.col("step").is_in(sorted(mixed)))
        places = dict.fromkeys(mixed, 0)
        for (step, value), count in tally(cells, "step", "value"):
            start = places[step]
            places[step] += count
            for place, rank in mixed[step].items():
                if start <= place < start + count:
                    found[rank] = float(value)
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class LoudnessFigures:
    """How loud the events are.

    Attributes:
        lufs_i: integrated loudness.
        peak_dbfs: sample peak.
        clipping: events whose peak is at or above `CLIPPING_DBFS`.
    """

    lufs_i: Spread
    peak_dbfs: Spread
    clipping: int


def loudness_figures(events: Frame, rows: int) -> LoudnessFigures:
    """Describe the loudness and the sample peak of the `rows` events."""
    clipping = events.filter(nw.col("peak_dbfs") >= CLIPPING_DBFS).select(nw.len().alias("events"))
    return LoudnessFigures(
        lufs_i=spread(events, "lufs_i", rows),
        peak_dbfs=spread(events, "peak_dbfs", rows),
        clipping=int(collect_one(clipping)["events"]),
    )


def context_figures(cells: Frame) -> dict[str, dict[str, int]]:
    """Count events by bleed level, mix context, meter and device; `cells` as of `event_cells`."""
    columns = {
        "bleed": "bleed_level",
        "mix_context": "mix_context",
        "meters": "meter",
        "devices": "device",
    }
    return {name: field_counts(cells, column, weight="events") for name, column in columns.items()}


def negative_figures(cells: Frame) -> dict[str, int]:
    """Count negative and silent examples; `cells` as of `event_cells`.

    Returns `marked` (events with `negative_example: true`), `without_components` (events whose
    component list is empty), `unmarked_empty` (empty, yet not marked as negative) and
    `marked_with_components` (marked, yet something is struck: near-misses).
    """
    counted = tally(cells, "empty", "negative_example", weight="events")
    return {
        "marked": sum(rows for (_, marked), rows in counted if marked),
        "without_components": sum(rows for (empty, _), rows in counted if empty),
        "unmarked_empty": sum(rows for (empty, marked), rows in counted if empty and not marked),
        "marked_with_components": sum(
            rows for (empty, marked), rows in counted if marked and not empty
        ),
    }


_ENTITIES = {
    "sessions": "session_id",
    "drummers": "drummer_id",
    "kits": "kit_id",
    "rooms": "room_id",
    "audio_files": "audio_path",
    "splits": "split",
    "sources": "source_set",
}


def entity_counts(events: Frame) -> dict[str, int]:
    """Count the distinct sessions, drummers, kits, rooms, audio files, splits and sources.

    Events that do not state one add nothing to its count.
    """
    # Engines count null as a value; take it off again where there is one.
    expressions = [
        expression
        for name, column in _ENTITIES.items()
        for expression in (
            nw.col(column).n_unique().alias(name),
            nw.col(column).is_null().cast(nw.Int64).max().alias(f"{name}_null"),
        )
    ]
    found = collect_one(events.select(*expressions))
    return {name: int(found[name] or 0) - int(found[f"{name}_null"] or 0) for name in _ENTITIES}


def stated_counts(events: Frame) -> dict[str, int]:
    """Count the events that state each of the fields that gates depend on."""
    columns = (
        "drummer_id",
        "kit_id",
        "room_id",
        "split",
        "source_set",
        "is_synthetic",
        "audio_path",
    )
    found = collect_one(events.select(*(nw.col(column).count() for column in columns)))
    return {column: int(found[column]) for column in columns}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFigures:
    """Events by where they come from.

    Attributes:
        events_total: all events.
        synthetic: {"real", "synthetic", "unstated"} events; unstated ones do not say.
        by_source: {source: {"events", "hits", "synthetic"}}.
        by_split: {split: {source: {"events", "hits", "synthetic"}}}.
    """

    events_total: int
    synthetic: dict[str, int]
    by_source: dict[str, dict[str, int]]
    by_split: dict[str, dict[str, dict[str, int]]]


def source_figures(cells: Frame) -> SourceFigures:
    """Count events and hits by split and source; `cells` as of `event_cells`."""
    counted = collect(
        cells.group_by("split", "source_set", "is_synthetic").agg(
            nw.col("events").sum(), nw.col("hits").sum()
        )
    )
    synthetic = {"real": 0, "synthetic": 0, "unstated": 0}
    by_source: dict[str, Counter[str]] = defaultdict(Counter)
    by_split: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for cell in counted:
        events_here = int(cell["events"])
        flag = cell["is_synthetic"]
        synthetic["unstated" if flag is None else "synthetic" if flag else "real"] += events_here
        source = named(cell["source_set"])
        for table in (by_source[source], by_split[named(cell["split"])][source]):
            table["events"] += events_here
            table["hits"] += int(cell["hits"])
            table["synthetic"] += events_here if flag else 0
    return SourceFigures(
        events_total=sum(synthetic.values()),
        synthetic=synthetic,
        by_source={name: dict(by_source[name]) for name in sorted(by_source)},
        by_split={
            split: {name: dict(by_split[split][name]) for name in sorted(by_split[split])}
            for split in sorted(by_split)
        },
    )
