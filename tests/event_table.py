"""The frames of a manifest made plainly in Python, as Arrow tables.

The product makes them in SQL (`training.manifest.views`) and on Spark; these are what both must
equal, and the third engine that the aggregates must run on unchanged:

`events`
    one row an event;
`components`
    one row a struck component ("hit"), with the columns of its event that figures group by;
`hits`
    the same rows in numbers;
`takes`
    one row a take (one track of one session), with the number that stands for it in `hits`;
`techniques`
    one row an (event, technique) pair, a technique counted once an event.

Repeated text is dictionary-encoded, so that a table takes tens of bytes an event. A field that an
event does not state is null, never a made-up default.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from training.manifest.views import LABEL_SEPARATOR

if TYPE_CHECKING:
    from training.manifest import Event

# Columns of an event that are repeated beside each of its components and techniques, so that no
# aggregate needs a join.
_CARRIED_BY_COMPONENTS = ("source_set", "is_synthetic", "split", "device", "annotated_set")
_CARRIED_BY_TECHNIQUES = ("source_set", "is_synthetic", "split")


@dataclass(frozen=True, kw_only=True, slots=True)
class EventTable:
    """A manifest in columns.

    Attributes:
        events: `row` (position in the manifest, from 0), `sample_id`, `session_id`, `onset_s`,
            `track_id`, `drummer_id`, `kit_id`, `room_id`, `source_set`,
            `is_synthetic`, `audio_path`, `tempo_bpm`, `meter`, `bleed_level`, `mix_context`,
            `negative_example`, `lufs_i`, `peak_dbfs`, `device` ("vendor model"), `split`,
            `annotated_set` (the sorted annotated labels joined by `LABEL_SEPARATOR`), `hits`
            (how many components).
        components: `row`, `label`, `label_code` (a number that stands for the label inside this
            table), `velocity`, `dynamic_bucket`, `openness`, `openness_raw`,
            `instrument_variant`, and the columns of the event that figures group by.
        hits: `row`, `take`, `onset_s`, `label_code`, `velocity`, `openness`, `hits`.
        takes: `take`, `session_id`, `track` ("" where there is none); numbered in this order.
        techniques: `row`, `technique`, `source_set`, `is_synthetic`, `split`.
    """

    events: pa.Table
    components: pa.Table
    hits: pa.Table
    takes: pa.Table
    techniques: pa.Table


def _text(values: Sequence[str | None]) -> pa.Array:
    return pa.array(values, pa.string()).dictionary_encode()


def _real(values: Sequence[float | None]) -> pa.Array:
    return pa.array(values, pa.float64())


def _flag(values: Sequence[bool | None]) -> pa.Array:
    return pa.array(values, pa.bool_())


def _device(event: Event) -> str | None:
    named = [part for part in (event.device_vendor, event.device_model) if part]
    return " ".join(named) or None


def _annotated_set(event: Event) -> str | None:
    if event.annotated_labels is None:
        return None
    return LABEL_SEPARATOR.join(sorted(set(event.annotated_labels)))


def _events(rows: Sequence[Event]) -> pa.Table:
    loudness = [event.loudness for event in rows]
    return pa.table(
        {
            "row": pa.array(range(len(rows)), pa.int64()),
            "sample_id": pa.array([event.sample_id for event in rows], pa.string()),
            "session_id": _text([event.session_id for event in rows]),
            "onset_s": _real([event.onset_time for event in rows]),
            "track_id": _text([event.track_id for event in rows]),
            "drummer_id": _text([event.drummer_id for event in rows]),
            "kit_id": _text([event.kit_id for event in rows]),
            "room_id": _text([event.room_id for event in rows]),
            "source_set": _text([event.source_set for event in rows]),
            "is_synthetic": _flag([event.is_synthetic for event in rows]),
            "audio_path": _text([event.audio_path for event in rows]),
            "tempo_bpm": _real([event.tempo_bpm for event in rows]),
            "meter": _text([event.meter for event in rows]),
            "bleed_level": _text([event.bleed_level for event in rows]),
            "mix_context": _text([event.mix_context for event in rows]),
            "negative_example": _flag([event.negative_example for event in rows]),
            "lufs_i": _real([None if item is None else item.LUFS_i for item in loudness]),
            "peak_dbfs": _real([None if item is None else item.peak_dbfs for item in loudness]),
            "device": _text([_device(event) for event in rows]),
            "split": _text([event.split for event in rows]),
            "annotated_set": _text([_annotated_set(event) for event in rows]),
            "hits": pa.array([len(event.components) for event in rows], pa.int64()),
        }
    )


def _carry(events: pa.Table, row: pa.Array, names: Iterable[str]) -> dict[str, Any]:
    return {name: events.column(name).combine_chunks().take(row) for name in names}


def _components(rows: Sequence[Event], events: pa.Table) -> pa.Table:
    pairs = [(row, part) for row, event in enumerate(rows) for part in event.components]
    parts = [part for _, part in pairs]
    row = pa.array([row for row, _ in pairs], pa.int64())
    codes = {label: code for code, label in enumerate(sorted({part.label for part in parts}))}
    return pa.table(
        {
            "row": row,
            "label": _text([part.label for part in parts]),
            "label_code": pa.array([codes[part.label] for part in parts], pa.int64()),
            "velocity": _real([part.velocity for part in parts]),
            "dynamic_bucket": _text([part.dynamic_bucket for part in parts]),
            "openness": _real([part.openness for part in parts]),
            "openness_raw": _real([part.openness_raw for part in parts]),
            "instrument_variant": _text([part.instrument_variant for part in parts]),
            **_carry(events, row, _CARRIED_BY_COMPONENTS),
        }
    )


def _takes(rows: Sequence[Event]) -> pa.Table:
    names = sorted({(event.session_id, event.track_id or "") for event in rows})
    return pa.table(
        {
            "take": pa.array(range(len(names)), pa.int64()),
            "session_id": pa.array([session for session, _ in names], pa.string()),
            "track": pa.array([track for _, track in names], pa.string()),
        }
    )


def _hits(rows: Sequence[Event], components: pa.Table, takes: pa.Table) -> pa.Table:
    names = zip(takes["session_id"].to_pylist(), takes["track"].to_pylist(), strict=True)
    number = {name: take for take, name in enumerate(names)}
    struck = [rows[row] for row in components["row"].to_pylist()]
    taken = [number[event.session_id, event.track_id or ""] for event in struck]
    return pa.table(
        {
            "row": components["row"],
            "take": pa.array(taken, pa.int64()),
            "onset_s": _real([event.onset_time for event in struck]),
            **{name: components[name] for name in ("label_code", "velocity", "openness")},
            "hits": pa.array([len(event.components) for event in struck], pa.int64()),
        }
    )


def _techniques(rows: Sequence[Event], events: pa.Table) -> pa.Table:
    # dict.fromkeys: a technique written twice on one event is still one event that has it.
    pairs = [
        (row, name)
        for row, event in enumerate(rows)
        if event.techniques
        for name in dict.fromkeys(event.techniques)
    ]
    row = pa.array([row for row, _ in pairs], pa.int64())
    return pa.table(
        {
            "row": row,
            "technique": _text([name for _, name in pairs]),
            **_carry(events, row, _CARRIED_BY_TECHNIQUES),
        }
    )


def event_table(rows: Sequence[Event]) -> EventTable:
    """Put validated events into columns.

    An empty sequence gives tables without rows and with every column.
    """
    events = _events(rows)
    components = _components(rows, events)
    takes = _takes(rows)
    return EventTable(
        events=events,
        components=components,
        hits=_hits(rows, components, takes),
        takes=takes,
        techniques=_techniques(rows, events),
    )
