"""The health of a dataset: every figure about a manifest, computed once.

`measure_health` runs the aggregates of the `health_*` modules over the three frames of a manifest.
It reads no file and judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from training.metrics.health_frames import Frame, HealthFrames, LabelNames
from training.metrics.health_labels import (
    LabelFigures,
    TechniqueFigures,
    annotation_coverage,
    dual_labels,
    label_figures,
    technique_figures,
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
)
from training.metrics.health_spread import (
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

__all__ = ["Frame", "HealthFigures", "HealthFrames", "LabelNames", "measure_health"]


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
    loudness: dict[str, Any]
    annotation: dict[str, Any]
    repeated_ids: Repeats
    repeated_places: Repeats
    performances: Performances
    duplication_rate: float | None
    isolation: dict[str, Isolation]

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
            "dual_labels": self.dual_labels,
            **self.context,
            "negatives": self.negatives,
            "openness_histogram": self.openness,
            "velocity_histogram": self.velocity,
            "tempo_bins": self.tempo,
            "loudness": {
                name: value if isinstance(value, int) else asdict(value)
                for name, value in self.loudness.items()
            },
            "by_source": sources.by_source,
            "by_split": sources.by_split,
            "stated_fields": self.stated,
            "annotated_labels": {
                **self.annotation,
                "hits_outside_annotated": labels.hits_outside_annotated,
            },
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
) -> HealthFigures:
    """Compute every figure about a manifest.

    Args:
        frames: the manifest as three lazy frames, on any engine that Narwhals knows.
        names: what the component taxonomy says about labels.
        technique: gives the catalogue's name of a technique or alias, None for an unknown one.
        separator: what joins the labels in the column `annotated_set`.
    """
    events, components = frames.events, frames.components
    sources = source_figures(events)
    ids = repeated_ids(events)
    places = repeated_places(events)
    return HealthFigures(
        sources=sources,
        entities=entity_counts(events),
        stated=stated_counts(events),
        labels=label_figures(components, names, separator=separator),
        dual_labels=dual_labels(components, names),
        techniques=technique_figures(frames.techniques, technique),
        context=context_figures(events),
        negatives=negative_figures(events),
        openness=openness_histogram(components),
        velocity=unit_histogram(components, "velocity"),
        tempo=tempo_bins(events),
        loudness=loudness_figures(events),
        annotation=annotation_coverage(events, names, separator=separator),
        repeated_ids=ids,
        repeated_places=places,
        performances=repeated_performances(components),
        duplication_rate=duplication_rate(sources.events_total, [ids, places]),
        isolation=split_isolation(events),
    )
