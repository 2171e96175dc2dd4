"""The health of a dataset: every figure about a manifest, computed once.

`measure_health` runs the aggregates of the `health_*` modules over the frames of a manifest.
It reads no file and judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from training.metrics.health_cells import event_cells, hit_cells
from training.metrics.health_frames import Frame, HealthFrames, LabelNames
from training.metrics.health_labels import (
    LabelFigures,
    TechniqueFigures,
    annotation_coverage,
    dual_labels,
    label_codes,
    label_figures,
    technique_figures,
)
from training.metrics.health_outliers import (
    MAX_EVENTS_PER_SECOND,
    OUTLIER_KINDS,
    Outliers,
    outlier_figures,
)
from training.metrics.health_repeats import (
    MIN_PERFORMANCE_HITS,
    Isolation,
    Performances,
    Repeats,
    duplication_rate,
    repeated_ids,
    repeated_performances,
    repeated_places,
    split_isolation,
    take_rows,
)
from training.metrics.health_spread import (
    LoudnessFigures,
    SourceFigures,
    context_figures,
    entity_counts,
    loudness_figures,
    negative_figures,
    openness_histogram,
    source_figures,
    stated_counts,
    tempo_bins,
    unit_histogram,
)

__all__ = [
    "MAX_EVENTS_PER_SECOND",
    "OUTLIER_KINDS",
    "Frame",
    "HealthFigures",
    "HealthFrames",
    "LabelNames",
    "measure_health",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthFigures:
    """Every figure about a manifest; the parts are described where they are computed.

    `duplication_rate` is the share of events that repeat an earlier one (None without events).
    """

    sources: SourceFigures
    entities: dict[str, int]
    stated: dict[str, int]
    labels: LabelFigures
    dual_labels: dict[str, int]
    techniques: TechniqueFigures
    context: dict[str, dict[str, int]]
    negatives: dict[str, int]
    openness: dict[str, Any]
    velocity: dict[str, Any]
    tempo: dict[str, int]
    loudness: LoudnessFigures
    annotation: dict[str, Any]
    repeated_ids: Repeats
    repeated_places: Repeats
    performances: Performances
    duplication_rate: float | None
    isolation: dict[str, Isolation]
    outliers: dict[str, Outliers]

    def to_metrics(self) -> dict[str, Any]:
        """Give the figures under the names that they have in a report."""
        labels, techniques, sources = self.labels, self.techniques, self.sources
        crossing = self.performances.crossing_splits
        return {
            "events_total": sources.events_total,
            "hits_total": labels.hits_total,
            "entities": self.entities,
            "synthetic": sources.synthetic,
            "per_class_counts": labels.per_class_counts,
            "per_class_by_split": labels.per_class_by_split,
            "per_class_by_source": labels.per_class_by_source,
            "per_class_by_split_and_source": labels.per_class_by_split_and_source,
            "unknown_labels": labels.unknown_labels,
            "aliased_labels": labels.aliased_labels,
            "technique_counts": techniques.technique_counts,
            "real_technique_counts": techniques.real_technique_counts,
            "technique_by_split": techniques.technique_by_split,
            "unknown_techniques": techniques.unknown_techniques,
            "events_with_technique": techniques.events_with_technique,
            "dynamics": labels.dynamics,
            "dynamics_by_class": labels.dynamics_by_class,
            "instrument_variants": labels.instrument_variants,
            "crash_variants": labels.crash_variants,
            "dual_labels": self.dual_labels,
            **self.context,
            "negatives": self.negatives,
            "openness_histogram": self.openness,
            "velocity_histogram": self.velocity,
            "tempo_bins": self.tempo,
            "loudness": asdict(self.loudness),
            "by_source": sources.by_source,
            "by_split": sources.by_split,
            "stated_fields": self.stated,
            "annotated_labels": {
                **self.annotation,
                "hits_outside_annotated": labels.hits_outside_annotated,
            },
            "outliers": {kind: asdict(found) for kind, found in self.outliers.items()},
            "duplication_rate": self.duplication_rate,
            "duplicates": {
                "sample_id": asdict(self.repeated_ids),
                "audio_path_onset": asdict(self.repeated_places),
                "performance": {**asdict(self.performances), "min_hits": MIN_PERFORMANCE_HITS},
            },
            "split_isolation": {
                **{name: asdict(found) for name, found in self.isolation.items()},
                "performance": {
                    "values": self.performances.families,
                    "shared": crossing,
                    "offenders": [
                        {"value": ", ".join(family["sessions"]), "splits": family["splits"]}
                        for family in self.performances.examples[:crossing]
                    ],
                    "unstated": 0,
                },
            },
        }


def measure_health(
    frames: HealthFrames,
    names: LabelNames,
    *,
    technique: Callable[[str], str | None],
    separator: str,
    lengths_s: Mapping[str, float] | None = None,
    max_events_per_second: int = MAX_EVENTS_PER_SECOND,
) -> HealthFigures:
    """Compute every figure about a manifest.

    Args:
        frames: the manifest as lazy frames, on any engine that Narwhals knows.
        names: what the component taxonomy says about labels.
        technique: gives the catalogue's name of a technique or alias, None for an unknown one.
        separator: what joins the labels in the column `annotated_set`.
        lengths_s: the length of each audio file by `audio_path`, None when they are not known.
        max_events_per_second: how many events of one take may lie within a second.
    """
    events = frames.events
    event_counts, hit_counts = event_cells(events), hit_cells(frames.components)
    labels = label_codes(hit_counts)
    sources = source_figures(event_counts)
    total, stated = sources.events_total, stated_counts(events)
    ids = repeated_ids(events, total)
    places = repeated_places(events, stated["audio_path"])
    fingerprints = take_rows(events, frames.hits, frames.takes)
    return HealthFigures(
        sources=sources,
        entities=entity_counts(events),
        stated=stated,
        labels=label_figures(hit_counts, names, separator=separator),
        dual_labels=dual_labels(frames.hits, labels, names),
        techniques=technique_figures(frames.techniques, technique),
        context=context_figures(event_counts),
        negatives=negative_figures(event_counts),
        openness=openness_histogram(hit_counts),
        velocity=unit_histogram(hit_counts, "velocity"),
        tempo=tempo_bins(event_counts),
        loudness=loudness_figures(events, total),
        annotation=annotation_coverage(event_counts, names, separator=separator),
        repeated_ids=ids,
        repeated_places=places,
        performances=repeated_performances(fingerprints),
        duplication_rate=duplication_rate(total, [ids, places]),
        isolation=split_isolation(events),
        outliers=outlier_figures(
            frames,
            hit_cells=hit_counts,
            labels=labels,
            fingerprints=fingerprints,
            lengths_s=lengths_s,
            max_events_per_second=max_events_per_second,
        ),
    )
