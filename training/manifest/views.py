"""The three views of a scanned manifest that aggregates are computed over.

`events`
    one row an event;
`components`
    one row a struck component ("hit"), with the columns of its event that figures group by;
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
    "LABEL_SEPARATOR",
    "ManifestViews",
    "manifest_views",
]

# Columns of an event that stand beside each of its components and techniques, so that no aggregate
# needs a join.
CARRIED_BY_COMPONENTS: Final = (
    "session_id",
    "track_id",
    "onset_s",
    "source_set",
    "is_synthetic",
    "split",
    "device",
    "annotated_set",
    "hits",
)
CARRIED_BY_TECHNIQUES: Final = ("source_set", "is_synthetic", "split")


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestViews:
    """The names of the three views.

    Attributes:
        events: `row` (position in the manifest, from 0), `sample_id`, `session_id`, `onset_s`,
            `offset_s`, `track_id`, `drummer_id`, `kit_id`, `room_id`, `source_set`,
            `is_synthetic`, `audio_path`, `tempo_bpm`, `meter`, `bleed_level`, `mix_context`,
            `negative_example`, `lufs_i`, `peak_dbfs`, `device` ("vendor model"), `split`,
            `annotated_set` (the sorted annotated labels joined by `LABEL_SEPARATOR`), `hits`
            (how many components).
        components: `row`, `label`, `label_code` (a number that stands for the label inside this
            manifest), `velocity`, `dynamic_bucket`, `openness`, `openness_raw`,
            `instrument_variant`, and the columns of the event that figures group by.
        techniques: `row`, `technique`, `source_set`, `is_synthetic`, `split`.
    """

    events: str
    components: str
    techniques: str


def manifest_views(engine: Engine, scan: Scan) -> ManifestViews:
    """Make the three views of a scanned manifest."""
    names = ManifestViews(
        events=f"{scan.name}_flat",
        components=f"{scan.name}_components",
        techniques=f"{scan.name}_techniques",
    )
    run = engine.connection.execute
    run(f'CREATE OR REPLACE VIEW "{names.events}" AS {_EVENTS.format(source=scan.name)}')
    # Taking the lists apart costs more than any one aggregate over them: do it once.
    run(
        f'CREATE OR REPLACE TEMP TABLE "{names.components}" AS '
        + _COMPONENTS.format(source=names.events, carried=", ".join(CARRIED_BY_COMPONENTS))
    )
    run(
        f'CREATE OR REPLACE TEMP TABLE "{names.techniques}" AS '
        + _TECHNIQUES.format(source=names.events, carried=", ".join(CARRIED_BY_TECHNIQUES))
    )
    return names


_EVENTS: Final = """
SELECT
    "row", sample_id, session_id, onset_time AS onset_s, offset_time AS offset_s, track_id,
    drummer_id, kit_id, room_id, source_set, is_synthetic, audio_path, tempo_bpm, meter,
    bleed_level, mix_context, negative_example, loudness.LUFS_i AS lufs_i,
    loudness.peak_dbfs AS peak_dbfs,
    device, split, annotated_set, hits,
    components AS parts,
    techniques AS names
FROM "{source}"
"""

_COMPONENTS: Final = """
WITH hits AS (
    SELECT "row", unnest(parts) AS part, {carried} FROM "{source}"
), codes AS (
    SELECT label, row_number() OVER (ORDER BY label) - 1 AS label_code
    FROM (SELECT DISTINCT part.label AS label FROM hits)
)
SELECT
    "row", part.label AS label, label_code, part.velocity AS velocity,
    part.dynamic_bucket AS dynamic_bucket, part.openness AS openness,
    part.openness_raw AS openness_raw, part.instrument_variant AS instrument_variant, {carried}
FROM hits JOIN codes ON part.label = codes.label
"""

_TECHNIQUES: Final = """
SELECT "row", unnest(list_distinct(names)) AS technique, {carried}
FROM "{source}" WHERE len(names) > 0
"""
