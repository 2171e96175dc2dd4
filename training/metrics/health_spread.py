"""How values are spread: openness, velocity, tempo, meter, loudness, and what the events lack."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import narwhals as nw

from training.metrics.health_frames import (
    Frame,
    collect,
    collect_one,
    field_counts,
    named,
    tally,
    whole,
)

UNIT_BINS = 10
"""Bins of a histogram over [0, 1]: [0, 0.1), [0.1, 0.2), …, [0.9, 1]."""

TEMPO_BIN_BPM = 20
"""Width of a tempo bin: [100, 120) is reported as "100-120"."""

CLIPPING_DBFS = 0.0
"""A sample peak at or above this is counted as clipping."""

PERCENTILES = (5, 25, 75, 95)

# Sums are taken over whole ten-thousandths: unlike a sum of floats, theirs does not depend on the
# order in which an engine adds, so that a report is the same from run to run.
_PARTS = 10_000
_DECIMALS = 6


def unit_edges() -> list[float]:
    """Give the bin edges of a histogram over [0, 1]: `UNIT_BINS` + 1 values."""
    return [round(index / UNIT_BINS, 6) for index in range(UNIT_BINS + 1)]


def _unit_bin(column: str) -> nw.Expr:
    scaled = (nw.col(column) * UNIT_BINS).floor()
    return scaled.clip(upper_bound=UNIT_BINS - 1).cast(nw.Int64)


def _histogram(bins: dict[int, int]) -> list[int]:
    return [bins.get(index, 0) for index in range(UNIT_BINS)]


def unit_histogram(frame: Frame, column: str) -> dict[str, Any]:
    """Count the values of a column over ten equal bins of [0, 1], the last one closed.

    Returns `edges` (11), `counts` (10), `stated` and `unstated`.
    """
    counts = {
        value: rows for (value,), rows in tally(frame.select(_unit_bin(column).alias("bin")), "bin")
    }
    unstated = counts.pop(None, 0)
    return {
        "edges": unit_edges(),
        "counts": _histogram(counts),
        "stated": sum(counts.values()),
        "unstated": unstated,
    }


def openness_histogram(components: Frame) -> dict[str, Any]:
    """Count hits by hi-hat openness, overall and for each device.

    Only hits that state `openness` are in the histogram. `raw_only` counts those that state only
    `openness_raw`: they need a calibration curve before they can be used. Per device, `counts` is
    the same histogram and `raw_only` the same count.
    """
    bins: Counter[int] = Counter()
    raw_only = 0
    devices: dict[str, Counter[int]] = defaultdict(Counter)
    device_raw: Counter[str] = Counter()
    frame = components.filter(
        ~nw.col("openness").is_null() | ~nw.col("openness_raw").is_null()
    ).select(_unit_bin("openness").alias("bin"), "device")
    for (device, index), hits in tally(frame, "device", "bin"):
        if index is None:
            raw_only += hits
            device_raw[named(device)] += hits
        else:
            bins[index] += hits
            devices[named(device)][index] += hits
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


def tempo_bins(events: Frame) -> dict[str, int]:
    """Count events by tempo in bins of `TEMPO_BIN_BPM`, "100-120" meaning 100 ≤ BPM < 120."""
    frame = events.select((nw.col("tempo_bpm") / TEMPO_BIN_BPM).floor().cast(nw.Int64).alias("bin"))
    counts = {}
    for (index,), rows in tally(frame, "bin"):
        if index is None:
            counts[named(None)] = rows
        else:
            counts[f"{index * TEMPO_BIN_BPM}-{(index + 1) * TEMPO_BIN_BPM}"] = rows
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


def spread(frame: Frame, column: str) -> Spread:
    """Describe the values of one numeric column."""
    stated = frame.filter(~nw.col(column).is_null()).select(
        column, whole(nw.col(column) * _PARTS).alias("parts")
    )
    rows = int(collect_one(frame.select(nw.len().alias("rows")))["rows"])
    value = nw.col(column)
    # "linear" is the definition that NumPy uses as well.
    found = collect_one(
        stated.select(
            nw.len().alias("n"),
            value.min().alias("minimum"),
            value.max().alias("maximum"),
            nw.col("parts").sum().alias("parts"),
            value.median().alias("median"),
            *(
                value.quantile(percent / 100, interpolation="linear").alias(f"p{percent:02}")
                for percent in PERCENTILES
            ),
        )
    )
    n = int(found["n"])
    return Spread(
        n=n,
        missing=rows - n,
        minimum=_rounded(found["minimum"]),
        maximum=_rounded(found["maximum"]),
        mean=_rounded(found["parts"] / n / _PARTS) if n else None,
        median=_rounded(found["median"]),
        percentiles={
            f"p{percent:02}": _rounded(found[f"p{percent:02}"]) for percent in PERCENTILES
        },
    )


def loudness_figures(events: Frame) -> dict[str, Any]:
    """Describe integrated loudness and sample peak, and count the events that clip.

    Returns `lufs_i` and `peak_dbfs` (`Spread` each) and `clipping`, the number of events whose
    peak is at or above `CLIPPING_DBFS`.
    """
    clipping = events.filter(nw.col("peak_dbfs") >= CLIPPING_DBFS).select(nw.len().alias("events"))
    return {
        "lufs_i": spread(events, "lufs_i"),
        "peak_dbfs": spread(events, "peak_dbfs"),
        "clipping": int(collect_one(clipping)["events"]),
    }


def context_figures(events: Frame) -> dict[str, dict[str, int]]:
    """Count events by bleed level, mix context, meter and device."""
    return {
        "bleed": field_counts(events, "bleed_level"),
        "mix_context": field_counts(events, "mix_context"),
        "meters": field_counts(events, "meter"),
        "devices": field_counts(events, "device"),
    }


def negative_figures(events: Frame) -> dict[str, int]:
    """Count negative and silent examples.

    Returns `marked` (events with `negative_example: true`), `without_components` (events whose
    component list is empty), `unmarked_empty` (empty, yet not marked as negative) and
    `marked_with_components` (marked, yet something is struck: near-misses).
    """
    frame = events.select(
        (nw.col("hits") == 0).alias("empty"), nw.col("negative_example").alias("marked")
    )
    cells = tally(frame, "empty", "marked")
    return {
        "marked": sum(rows for (_, marked), rows in cells if marked),
        "without_components": sum(rows for (empty, _), rows in cells if empty),
        "unmarked_empty": sum(rows for (empty, marked), rows in cells if empty and not marked),
        "marked_with_components": sum(
            rows for (empty, marked), rows in cells if marked and not empty
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


def source_figures(events: Frame) -> SourceFigures:
    """Count events and hits by split and source."""
    cells = collect(
        events.group_by("split", "source_set", "is_synthetic").agg(
            nw.len().alias("events"), nw.col("hits").sum()
        )
    )
    synthetic = {"real": 0, "synthetic": 0, "unstated": 0}
    by_source: dict[str, Counter[str]] = defaultdict(Counter)
    by_split: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for cell in cells:
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
