"""The views of a scanned manifest that aggregates are computed over.

`events`
    one row an event;
`components`
    one row a struck component ("hit"), with the columns of its event that figures group by;
`hits`
    the same rows in numbers, for figures that look at each hit;
`takes`
    one row a take (one track of one session), with the number that stands for it in `hits`;
`techniques`
    one row an (event, technique) pair, a technique counted once an event.

A field that an event does not state is null, never a made-up default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from training.manifest.engine import Engine
from training.manifest.scan import LABEL_SEPARATOR, Scan

__all__ = [
    "CARRIED_BY_COMPONENTS",
    "CARRIED_BY_TECHNIQUES",
    "COLUMNS",
    "LABEL_SEPARATOR",
    "ManifestViews",
    "manifest_views",
]

# Columns of an event that stand beside each of its components and techniques, so that no aggregate
# needs a join.
CARRIED_BY_COMPONENTS: Final = ("source_set", "is_synthetic", "split", "device", "annotated_set")
CARRIED_BY_TECHNIQUES: Final = ("source_set", "is_synthetic", "split")


COLUMNS: Final = {
    name: f'"{name}"'
    for name in (
        *("sample_id", "session_id", "onset_time", "components", "track_id", "drummer_id"),
        *("kit_id", "room_id", "source_set", "is_synthetic", "audio_path", "tempo_bpm", "meter"),
        *("techniques", "bleed_level", "mix_context", "negative_example", "loudness", "device"),
        *("split", "annotated_set", "hits"),
    )
}
"""What a scan must hold for the views to be made of it; see `training.manifest.scan.Columns`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestViews:
    """The names of the views.

    Attributes:
        events: `row` (position in the manifest, from 0), `sample_id`, `session_id`, `onset_s`,
            `track_id`, `drummer_id`, `kit_id`, `room_id`, `source_set`, `is_synthetic`,
            `audio_path`, `tempo_bpm`, `meter`, `bleed_level`, `mix_context`, `negative_example`,
            `lufs_i`, `peak_dbfs`, `device` ("vendor model"), `split`, `annotated_set` (the sorted
            annotated labels joined by `LABEL_SEPARATOR`), `hits` (how many components).
        components: `row`, `label`, `label_code` (a number that stands for the label inside this
            manifest), `velocity`, `dynamic_bucket`, `openness`, `openness_raw`,
            `instrument_variant`, and the columns of the event that figures group by.
        hits: `row`, `take`, `onset_s`, `label_code`, `velocity`, `openness`, `hits`.
        takes: `take`, `session_id`, `track` ("" where there is none); numbered in this order.
        techniques: `row`, `technique`, `source_set`, `is_synthetic`, `split`.
    """

    events: str
    components: str
    hits: str
    takes: str
    techniques: str


def manifest_views(engine: Engine, scan: Scan) -> ManifestViews:
    """Make the views of a scanned manifest, which holds `COLUMNS` at least.

    `components` is taken apart anew by every query that asks it; what is asked more than once
    should be asked of `hits`, which is kept.
    """
    names = ManifestViews(
        **{name: f"{scan.name}_{name}" for name in ("components", "hits", "takes", "techniques")},
        events=f"{scan.name}_flat",
    )
    made = {
        "source": scan.name,
        **{name: getattr(names, name) for name in ("events", "takes")},
        "codes": f"{scan.name}_labels",
        "of_event": ", ".join(CARRIED_BY_COMPONENTS),
        "of_technique": ", ".join(CARRIED_BY_TECHNIQUES),
    }

    def make(kind: str, name: str, query: str) -> None:
        engine.connection.execute(f'CREATE OR REPLACE {kind} "{name}" AS {query.format(**made)}')

    make("VIEW", names.events, _EVENTS)
    make("TEMP TABLE", made["codes"], _CODES)
    make("VIEW", names.components, _COMPONENTS)
    make("TEMP TABLE", names.takes, _TAKES)
    make("TEMP TABLE", names.hits, _HITS)
    make("TEMP TABLE", names.techniques, _TECHNIQUES)
    return names


_EVENTS: Final = """
SELECT
    "row", sample_id, session_id, onset_time AS onset_s, track_id,
    drummer_id, kit_id, room_id, source_set, is_synthetic, audio_path, tempo_bpm, meter,
    bleed_level, mix_context, negative_example, loudness.LUFS_i AS lufs_i,
    loudness.peak_dbfs AS peak_dbfs,
    device, split, annotated_set, hits,
    components AS parts,
    techniques AS names
FROM "{source}"
"""

_CODES: Final = """
SELECT label, CAST(row_number() OVER (ORDER BY label) - 1 AS INTEGER) AS label_code
FROM (SELECT DISTINCT part.label AS label FROM (SELECT unnest(parts) AS part FROM "{events}"))
"""

_COMPONENTS: Final = """
SELECT
    "row", part.label AS label, label_code, part.velocity AS velocity,
    part.dynamic_bucket AS dynamic_bucket, part.openness AS openness,
    part.openness_raw AS openness_raw, part.instrument_variant AS instrument_variant, {of_event}
FROM (SELECT "row", unnest(parts) AS part, {of_event} FROM "{events}") AS hits
JOIN "{codes}" AS codes ON part.label = codes.label
"""

_TAKES: Final = """
SELECT session_id, track,
    CAST(row_number() OVER (ORDER BY session_id, track) - 1 AS INTEGER) AS take
FROM (SELECT DISTINCT session_id, coalesce(track_id, '') AS track FROM "{events}")
"""

_HITS: Final = """
SELECT
    "row", take, onset_s, label_code, part.velocity AS velocity, part.openness AS openness, hits
FROM (
    SELECT "row", take, onset_s, hits, unnest(parts) AS part FROM "{events}" AS events
    JOIN "{takes}" AS takes
    ON takes.session_id = events.session_id AND track = coalesce(track_id, '')
) AS hits
JOIN "{codes}" AS codes ON part.label = codes.label
"""

_TECHNIQUES: Final = """
SELECT "row", unnest(list_distinct(names)) AS technique, {of_technique}
FROM "{events}" WHERE len(names) > 0
"""
