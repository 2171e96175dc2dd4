"""Dataset health as a check: read a manifest, compute its figures, judge what was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from training.checks.health_counts import counts_asked_for
from training.checks.health_engines import EngineOptions, measured_once, opened
from training.checks.health_gates import ISOLATION, NUMERIC_GATES, Asked, judge_health
from training.checks.health_metadata import audio_lengths
from training.checks.health_names import Vocabulary, min_counts, required_names
from training.checks.places import first_line, labelled, placed, played
from training.errors import DrumgateError, clip
from training.gates import (
    GatesSource,
    Place,
    Report,
    asked_gates,
    load_thresholds,
    nearest,
    provenance,
)
from training.manifest import describe_file
from training.manifest.validate import Track
from training.manifest.views import LABEL_SEPARATOR
from training.metrics.health import (
    MAX_EVENTS_PER_SECOND,
    OUTLIER_KINDS,
    HealthFigures,
    LabelNames,
    measure_health,
)
from training.taxonomy import load_components
from training.taxonomy.techniques import load_techniques

SHOWN = 5
_NO_PARAMETERS = ("engine", "spark_master", "memory_limit", "cache_dir")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the health check reads and which gates it judges.

    A gate is judged when its option is given, or when the gates file has a table for it.
    """

    events: Path | tuple[Path, ...]
    components: Path | None = None
    dataset_metadata: Path | None = None
    max_duplication_rate: float | None = None
    min_class_count: int | None = None
    min_split_class_count: int | None = None
    min_counts_json: Path | None = None
    max_unknown_labels: int | None = None
    require_techniques: tuple[str, ...] = ()
    require_techniques_files: tuple[Path, ...] = ()
    require_labels: tuple[str, ...] = ()
    require_labels_files: tuple[Path, ...] = ()
    require_counts: tuple[str, ...] = ()
    max_synthetic_fraction: float | None = None
    min_drummers: int | None = None
    min_sessions: int | None = None
    min_kits: int | None = None
    min_rooms: int | None = None
    min_duration_s: float | None = None
    min_negatives: int | None = None
    min_dynamic_count: int | None = None
    min_openness_hits: int | None = None
    min_annotated_share: float | None = None
    max_contradicted_hits: int | None = None
    max_unknown_techniques: int | None = None
    max_repeated_performances: int | None = None
    max_clipping_rate: float | None = None
    max_outlier_rate: float | None = None
    outlier_kinds: tuple[str, ...] = ()
    max_events_per_second: int = MAX_EVENTS_PER_SECOND
    split_isolation: tuple[str, ...] = ()
    skip_invalid: bool = False
    engine: str = "duckdb"
    spark_master: str | None = None
    memory_limit: str | None = None
    cache_dir: Path | None = None
    gates: GatesSource | None = None


def run(options: Options, track: Track | None = None) -> Report:
    """Compute every figure about a manifest and judge the gates that were asked for.

    `track` shows the progress of the reading.

    Raises:
        InputError: an input is missing or malformed, or a list asks for a name that the taxonomy
            or the technique catalogue does not know.
        DrumgateError: an option is not a usable number or field name.
    """
    overrides: dict[str, float | None] = {name: getattr(options, name) for name in NUMERIC_GATES}
    _check_options(options, overrides)
    thresholds = load_thresholds("health", overlay=options.gates, overrides=overrides)
    taxonomy = load_components(options.components)
    catalogue = load_techniques()
    labels = Vocabulary(what="label", known=taxonomy.known, canonical=taxonomy.canonical)
    techniques = Vocabulary(what="technique", known=catalogue.known, canonical=catalogue.canonical)
    wanted_labels = required_names(
        options.require_labels, options.require_labels_files, labels, flag="--require-label"
    )
    wanted_techniques = required_names(
        options.require_techniques,
        options.require_techniques_files,
        techniques,
        flag="--require-technique",
    )
    counts = min_counts(options.min_counts_json, labels) if options.min_counts_json else {}
    gates = _asked(options, overrides, bool(wanted_labels.names), bool(wanted_techniques.names))
    if options.outlier_kinds and "max_outlier_rate" not in gates:
        raise DrumgateError("--outlier-kinds: says what --max-outlier-rate judges; give that too")
    asked = Asked(
        gates=gates,
        targets=taxonomy.targets,
        min_counts=counts,
        techniques=wanted_techniques.names,
        labels=wanted_labels.names,
        isolation=options.split_isolation or ISOLATION[:1],
        outlier_kinds=options.outlier_kinds,
        counts=counts_asked_for(options.require_counts, labels=labels, techniques=techniques),
    )
    audio = audio_lengths(options.dataset_metadata)
    engine = EngineOptions(
        **{name: getattr(options, name) for name in EngineOptions.__dataclass_fields__}
    )
    inputs = [options.events] if isinstance(options.events, Path) else options.events
    with opened(inputs, engine, skip_invalid=options.skip_invalid, track=track) as manifest:
        figures = measured_once(
            manifest,
            engine,
            [taxonomy, catalogue, audio.lengths_s, options.max_events_per_second],
            lambda: measure_health(
                manifest.frames(),
                LabelNames(
                    targets=taxonomy.targets, known=taxonomy.known, canonical=taxonomy.canonical
                ),
                technique=catalogue.canonical,
                separator=LABEL_SEPARATOR,
                lengths_s=audio.lengths_s,
                max_events_per_second=options.max_events_per_second,
            ),
        )
    files = [options.components, options.min_counts_json]
    return Report(
        tool="dataset-health",
        inputs=[
            *manifest.sources,
            *(describe_file(path) for path in files if path),
            *audio.sources,
            *wanted_labels.sources,
            *wanted_techniques.sources,
        ],
        # Who computed the figures changes none of them.
        parameters={k: v for k, v in asdict(options).items() if k not in _NO_PARAMETERS},
        provenance=provenance() | {"engine": manifest.engine},
        metrics={
            **figures.to_metrics(),
            "durations": audio.durations,
            "skipped_lines": manifest.skipped,
        },
        verdicts=placed(
            judge_health(figures, audio.durations, thresholds, asked), _places(figures, inputs)
        ),
        warnings=_warnings(figures, manifest.skipped, audio.durations),
    )


def _check_options(options: Options, numbers: dict[str, float | None]) -> None:
    for name, value in numbers.items():
        # A NaN limit compares false with everything, and no report may hold one.
        if value is not None and not math.isfinite(value):
            raise DrumgateError(
                f"--{name.replace('_', '-')}: must be a finite number (got {value})"
            )
    if options.max_events_per_second < 1:
        raise DrumgateError(
            f"--max-events-per-second: must be at least 1 (got {options.max_events_per_second})"
        )
    for flag, names, known in (
        ("--split-isolation", options.split_isolation, ISOLATION),
        ("--outlier-kinds", options.outlier_kinds, OUTLIER_KINDS),
    ):
        for name in names:
            if name not in known:
                raise DrumgateError(
                    f"{flag}: {name!r} is none of {', '.join(known)}{nearest(name, known)}"
                )


def _places(figures: HealthFigures, paths: Sequence[Path]) -> dict[str, Callable[[], Place | None]]:
    """What finds the first event that a gate complains of, for the gates that know it by a name."""
    labels, techniques = figures.labels.unknown_labels, figures.techniques.unknown_techniques
    return {
        "health.max_unknown_labels": lambda: first_line(paths, labels, labelled(labels)),
        "health.max_unknown_techniques": lambda: first_line(paths, techniques, played(techniques)),
    }


def _asked(
    options: Options, overrides: dict[str, float | None], labels: bool, techniques: bool
) -> frozenset[str]:
    """The gates that a flag or a table of the gates file asks for."""
    flags = {
        **{name: value is not None for name, value in overrides.items()},
        "require_labels": labels,
        "require_techniques": techniques,
        "require_counts": bool(options.require_counts),
        "split_isolation": bool(options.split_isolation),
    }
    asked = {name for name, given in flags.items() if given}
    return asked_gates("health", options.gates) | asked


def _warnings(figures: HealthFigures, skipped: int, durations: dict[str, Any]) -> list[str]:
    """What a reader should know even where no gate looks at it."""
    labels, techniques = figures.labels, figures.techniques
    crossing = figures.performances.crossing_splits
    ids, places = figures.repeated_ids.surplus, figures.repeated_places.surplus
    outside = sum(labels.hits_outside_annotated.values())
    found = {
        f"{skipped} invalid lines were skipped": skipped,
        f"labels that the taxonomy does not know: {_some(labels.unknown_labels)}": (
            labels.unknown_labels
        ),
        f"counted under the label that they stand for: {_some(labels.aliased_labels)}": (
            labels.aliased_labels
        ),
        f"techniques that the catalogue does not know: {_some(techniques.unknown_techniques)}": (
            techniques.unknown_techniques
        ),
        f"{outside} hits carry a label that their own annotated_labels leave out": outside,
        f"{ids} events repeat a sample_id": ids,
        f"{places} events repeat a place in an audio file": places,
        f"out of line: {_some(_outlying(figures))}": _outlying(figures),
        f"{crossing} performances stand in sessions of different splits": crossing,
        f"durations were not measured: {durations['not_measured']}": durations["not_measured"],
    }
    return [text for text, applies in found.items() if applies]


def _outlying(figures: HealthFigures) -> dict[str, int]:
    """The kinds of outliers that were found, worded with their counts."""
    return {
        f"{kind} ({row.count})": row.count for kind, row in figures.outliers.items() if row.count
    }


def _some(names: dict[str, Any]) -> str:
    shown = ", ".join(clip(name) for name in list(names)[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
