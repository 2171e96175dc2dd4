"""Events and hits counted once for all figures that only ask how many.

A figure such as "hits by label and split" needs no row of its own: it is a sum over finer counts.
The two frames made here hold one row a *cell*, a combination of values that occurs, with the rows
of the manifest that it stands for; the figures are sums over cells. Reading a manifest and taking
its lists of components apart is most of the work, and so it happens once.
"""

from __future__ import annotations

import narwhals as nw

from training.metrics.health_frames import Frame, held

UNIT_BINS = 10
"""Bins of a histogram over [0, 1]: [0, 0.1), [0.1, 0.2), …, [0.9, 1]."""

TEMPO_BIN_BPM = 20
"""Width of a tempo bin: [100, 120) is reported as "100-120"."""

_OF_EVENTS = (
    "split",
    "source_set",
    "is_synthetic",
    "bleed_level",
    "mix_context",
    "meter",
    "device",
    "annotated_set",
    "negative_example",
)
_OF_HITS = (
    "label",
    "is_synthetic",
    "dynamic_bucket",
    "split",
    "source_set",
    "annotated_set",
    "instrument_variant",
    "device",
)


def _unit_bin(column: str) -> nw.Expr:
    scaled = (nw.col(column) * UNIT_BINS).floor()
    return scaled.clip(upper_bound=UNIT_BINS - 1).cast(nw.Int64)


def event_cells(events: Frame) -> Frame:
    """Count events by every field of few values.

    Columns: the fields of `_OF_EVENTS`, `empty` (no component), `tempo_bin` (tempo divided by
    `TEMPO_BIN_BPM`, rounded down, null when not stated), `events` and `hits`. No event gives no
    row.
    """
    tempo = (nw.col("tempo_bpm") / TEMPO_BIN_BPM).floor().cast(nw.Int64)
    keyed = events.select(
        *_OF_EVENTS, (nw.col("hits") == 0).alias("empty"), tempo.alias("tempo_bin"), "hits"
    )
    cells = keyed.group_by(*_OF_EVENTS, "empty", "tempo_bin").agg(
        nw.len().alias("events"), nw.col("hits").sum()
    )
    return held(cells.with_columns(nw.col("events", "hits").cast(nw.Int64)))


def hit_cells(components: Frame) -> Frame:
    """Count hits by label, dynamics, openness, velocity and where they come from.

    Columns: the fields of `_OF_HITS`, `velocity_bin` and `openness_bin` (0 to `UNIT_BINS` - 1,
    null when not stated), `raw` (the hit states `openness_raw`), `label_code`, `hits`, and the
    smallest and largest velocity and openness: `velocity_min`, `velocity_max`, `openness_min`,
    `openness_max`.
    No hit gives no row.
    """
    bins = {name: _unit_bin(name).alias(f"{name}_bin") for name in ("velocity", "openness")}
    raw = (~nw.col("openness_raw").is_null()).alias("raw")
    keyed = components.select(*_OF_HITS, *bins.values(), raw, "label_code", "velocity", "openness")
    cells = keyed.group_by(*_OF_HITS, "velocity_bin", "openness_bin", "raw").agg(
        nw.len().alias("hits"),
        nw.col("label_code").min(),  # one label has one code
        *(nw.col(name).min().alias(f"{name}_min") for name in bins),
        *(nw.col(name).max().alias(f"{name}_max") for name in bins),
    )
    return held(cells.with_columns(nw.col("hits").cast(nw.Int64)))
