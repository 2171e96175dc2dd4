"""Dataset health as a check: read a manifest, compute its figures, judge what was asked for."""

from __future__ import annotations

import math
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import narwhals as nw

from training.checks.health_gates import ISOLATION, Asked, judge_health
from training.checks.health_names import Vocabulary, min_counts, required_names
from training.errors import DrumgateError, InputError, Problem
from training.gates import Report, load_thresholds, nearest
from training.manifest import InputFile, describe_file, read_json
from training.manifest.engine import Engine, open_engine
from training.manifest.scan import Scan, scan_events
from training.manifest.validate import Track
from training.manifest.views import LABEL_SEPARATOR, manifest_views
from training.metrics.health import (
    Frame,
    HealthFigures,
    HealthFrames,
    LabelNames,
    measure_health,
)
from training.taxonomy import load_components
from training.taxonomy.techniques import load_techniques

SHOWN = 5


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
    min_counts_json: Path | None = None
    max_unknown_labels: int | None = None
    require_techniques: tuple[str, ...] = ()
    require_techniques_files: tuple[Path, ...] = ()
    require_labels: tuple[str, ...] = ()
    require_labels_files: tuple[Path, ...] = ()
    max_synthetic_fraction: float | None = None
    min_drummers: int | None = None
    split_isolation: tuple[str, ...] = ()
    skip_invalid: bool = False
    memory_limit: str | None = None
    cache_dir: Path | None = None
    gates: Path | None = None


def run(options: Options, track: Track | None = None) -> Report:
    """Compute every figure about a manifest and judge the gates that were asked for.

    `track` shows the progress of the reading.

    Raises:
        InputError: an input is missing or malformed, or a list asks for a name that the taxonomy
            or the technique catalogue does not know.
        DrumgateError: an option is not a usable number or field name.
    """
    overrides = {
        "max_duplication_rate": options.max_duplication_rate,
        "min_class_count": options.min_class_count,
        "max_unknown_labels": options.max_unknown_labels,
        "max_synthetic_fraction": options.max_synthetic_fraction,
        "min_drummers": options.min_drummers,
    }
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
    asked = Asked(
        gates=_asked(options, overrides, bool(wanted_labels.names), bool(wanted_techniques.names)),
        targets=taxonomy.targets,
        min_counts=counts,
        techniques=wanted_techniques.names,
        labels=wanted_labels.names,
        isolation=options.split_isolation or ISOLATION[:1],
    )
    durations, metadata = _durations(options.dataset_metadata)
    with open_engine(options.memory_limit, track) as engine:
        scan = scan_events(
            engine,
            [options.events] if isinstance(options.events, Path) else options.events,
            skip_invalid=options.skip_invalid,
            cache_dir=options.cache_dir,
        )
        figures = _measure(
            engine,
            scan,
            LabelNames(
                targets=taxonomy.targets, known=taxonomy.known, canonical=taxonomy.canonical
            ),
            catalogue.canonical,
        )
    files = [options.components, options.min_counts_json]
    return Report(
        tool="dataset-health",
        inputs=[
            *scan.sources,
            *(describe_file(path) for path in files if path),
            *metadata,
            *wanted_labels.sources,
            *wanted_techniques.sources,
        ],
        parameters=asdict(options),
        metrics={**figures.to_metrics(), "durations": durations, "skipped_lines": scan.skipped},
        verdicts=judge_health(figures, thresholds, asked),
        warnings=_warnings(figures, scan.skipped, durations),
    )


def _check_options(options: Options, numbers: dict[str, float | None]) -> None:
    for name, value in numbers.items():
        # A NaN limit compares false with everything, and no report may hold one.
        if value is not None and not math.isfinite(value):
            raise DrumgateError(
                f"--{name.replace('_', '-')}: must be a finite number (got {value})"
            )
    for name in options.split_isolation:
        if name not in ISOLATION:
            known = ", ".join(ISOLATION)
            raise DrumgateError(
                f"--split-isolation: {name!r} is none of {known}{nearest(name, ISOLATION)}"
            )


def _asked(
    options: Options, overrides: dict[str, float | None], labels: bool, techniques: bool
) -> frozenset[str]:
    """The gates that a flag or a table of the gates file asks for."""
    flags = {
        **{name: value is not None for name, value in overrides.items()},
        "require_labels": labels,
        "require_techniques": techniques,
        "split_isolation": bool(options.split_isolation),
    }
    asked = {name for name, given in flags.items() if given}
    if options.gates:
        # load_thresholds has read and checked this file already.
        asked |= set(tomllib.loads(options.gates.read_text(encoding="utf-8")).get("health", {}))
    return frozenset(asked)


def _measure(
    engine: Engine, scan: Scan, names: LabelNames, technique: Callable[[str], str | None]
) -> HealthFigures:
    views = manifest_views(engine, scan)

    def frame(name: str) -> Frame:
        return nw.from_native(engine.connection.table(name))

    frames = HealthFrames(
        events=frame(views.events),
        components=frame(views.components),
        techniques=frame(views.techniques),
    )
    return measure_health(frames, names, technique=technique, separator=LABEL_SEPARATOR)


def _durations(path: Path | None) -> tuple[dict[str, Any], list[InputFile]]:
    """Seconds of audio by split and by source, or the reason why there are none.

    The metadata.json of a built dataset has `durations_s: {split: {source: seconds}}`; its other
    fields are left alone.
    """
    if path is None:
        return _no_durations("no --dataset-metadata was given"), []
    stated = read_json(path, dict[str, Any]).get("durations_s")
    if stated is None:
        return _no_durations(f"{path} has no durations_s"), [describe_file(path)]
    _check_durations(path, stated)
    by_source: Counter[str] = Counter()
    for sources in stated.values():
        by_source.update(sources)
    durations = {
        "total_s": round(sum(by_source.values()), 3),
        "by_split_s": {split: round(sum(row.values()), 3) for split, row in stated.items()},
        "by_source_s": {name: round(by_source[name], 3) for name in sorted(by_source)},
        "by_split_and_source_s": stated,
        "not_measured": None,
    }
    return durations, [describe_file(path)]


def _check_durations(path: Path, stated: Any) -> None:
    if not isinstance(stated, dict):
        why = "must be an object of split: {source: seconds}"
        raise InputError.at(path, why, field="durations_s", got=stated)
    problems = []
    for split, sources in stated.items():
        field = f"durations_s.{split}"
        if not isinstance(sources, dict):
            problems.append(Problem(str(path), "must be an object", field=field, got=sources))
            continue
        for source, seconds in sources.items():
            # To Python true is a number and 1e999 is infinity; neither is a duration.
            number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
            if not number or not 0 <= seconds < math.inf:
                why, where = "must be a number >= 0", f"{field}.{source}"
                problems.append(Problem(str(path), why, field=where, got=seconds))
    if problems:
        raise InputError(problems)


def _no_durations(reason: str) -> dict[str, Any]:
    return {
        "total_s": None,
        "by_split_s": {},
        "by_source_s": {},
        "by_split_and_source_s": {},
        "not_measured": reason,
    }


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
        f"{crossing} performances stand in sessions of different splits": crossing,
        f"durations were not measured: {durations['not_measured']}": durations["not_measured"],
    }
    return [text for text, applies in found.items() if applies]


def _some(names: dict[str, Any]) -> str:
    shown = ", ".join(list(names)[:SHOWN])
    more = len(names) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
