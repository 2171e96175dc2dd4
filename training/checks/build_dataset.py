"""Build a clip store from events and recordings, or verify one that is there; judge either."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.dataset.build import STORE, write_metadata, write_store
from training.dataset.divide import Division, SplitBy, divide
from training.dataset.select import Selection, Track, select
from training.dataset.verify import verify_store
from training.errors import InputError
from training.gates import Measurement, Report, Verdict, judge, load_thresholds, provenance
from training.manifest import Event, InputFile, describe_file, read_raw
from training.resources import config_path
from training.taxonomy import load_components

TOOL = "build-training-dataset"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a store is built from, and how.

    `audio_root` defaults to the folder of the manifest. `audio_roots` gives the events of a
    source (``source_set``) a folder of their own.
    """

    events: Path
    out: Path
    audio_root: Path | None = None
    audio_roots: Mapping[str, Path] = field(default_factory=dict)
    components: Path | None = None
    val_ratio: float = 0.1
    test_ratio: float = 0.1
    seed: int = 0
    split_by: SplitBy = "auto"
    allow_session_overlap: bool = False
    sample_rate: int = 44_100
    limit: int | None = None
    skip_missing_audio: bool = False
    force: bool = False
    verify_only: bool = False
    gates: Path | None = None


def quiet(items: Sequence[Any], description: str) -> Iterable[Any]:
    """Go through the items and show nothing."""
    return items


def run(options: Options, *, track: Track = quiet) -> Report:
    """Build the store (or verify it, with `verify_only`) and report on it.

    Args:
        options: inputs and parameters.
        track: wraps each loop that takes a while, to show how far it is.

    Raises:
        InputError: an input is wrong, or the splits cannot be made as asked; no store is left.
    """
    return _verify(options, track) if options.verify_only else _build(options, track)


def _build(options: Options, track: Track) -> Report:
    _require_ratios(options)
    STORE.require_replaceable(options.out, force=options.force)
    started = time.monotonic()
    records = read_raw(options.events, Event)
    components = options.components or config_path("components.json")
    taxonomy = load_components(components)
    selection = select(
        records,
        taxonomy,
        audio_root=options.audio_root or options.events.parent,
        audio_roots=options.audio_roots,
        skip_missing_audio=options.skip_missing_audio,
        limit=options.limit,
        track=track,
    )
    division = divide(
        selection,
        source=records.source.path,
        by=options.split_by,
        val_ratio=options.val_ratio,
        test_ratio=options.test_ratio,
        seed=options.seed,
        allow_session_overlap=options.allow_session_overlap,
    )
    chosen_s = time.monotonic() - started
    warnings = _warnings(selection, division)
    parameters = _parameters(options)
    taxonomy_file = describe_file(components)
    if options.components is None:  # where drumgate is installed says nothing of the data
        taxonomy_file = InputFile("components.json", taxonomy_file.sha256, taxonomy_file.bytes)
    with STORE.writing(options.out, force=options.force) as folder:
        metadata = write_store(
            folder,
            selection,
            division,
            source=records.source.path,
            sample_rate=options.sample_rate,
            components=components.read_bytes(),
            labels=taxonomy.targets,
            described={
                "inputs": {"events": asdict(records.source), "components": asdict(taxonomy_file)},
                "parameters": parameters,
                "warnings": warnings,
            },
            track=track,
        )
        audio_s = sum(split["duration_s"] for split in metadata["splits"].values())
        metadata["run_statistics"] = {
            **provenance(),
            "select_s": round(chosen_s, 3),
            "build_s": round(time.monotonic() - started, 3),
            "audio_s": audio_s,
            "peak_memory_mib": _peak_memory_mib(),
        }
        write_metadata(folder, metadata)
    shown = (
        "content_sha256",
        "splits",
        "durations_s",
        "label_counts",
        "split_policy",
        "statistics",
    )
    return Report(
        tool=TOOL,
        inputs=[records.source, taxonomy_file],
        parameters={**parameters, "out": options.out, "force": options.force, "verify_only": False},
        metrics={
            "events_total": len(records.rows),
            **{name: metadata[name] for name in shown},
            "split_isolation": metadata["split_policy"]["isolation"],
        },
        verdicts=_judge_build(options, division, metadata),
        warnings=warnings,
        seed=options.seed,
    )


def _verify(options: Options, track: Track) -> Report:
    source = describe_file(options.events)
    found = verify_store(
        options.out,
        events_sha256=source.sha256,
        audio_root=options.audio_root,
        audio_roots=options.audio_roots,
        track=track,
    )
    threshold = load_thresholds("dataset", overlay=options.gates)["max_store_problems"]
    measured = Measurement(
        name="max_store_problems",
        value=len(found.problems),
        n=found.files,
        detail="; ".join(found.problems[:3]),
    )
    return Report(
        tool=TOOL,
        inputs=[source],
        parameters=asdict(options),
        metrics={
            "content_sha256": found.store.metadata.get("content_sha256"),
            "files_checked": found.files,
            "events_checked": found.events,
            "audio_checked": options.audio_root is not None,
            "problems": list(found.problems),
        },
        verdicts=[judge(measured, threshold)],
    )


def _judge_build(
    options: Options, division: Division, metadata: Mapping[str, Any]
) -> list[Verdict]:
    shared = len(division.isolation.sessions)
    thresholds = load_thresholds(
        "dataset",
        overlay=options.gates,
        overrides={"max_shared_sessions": shared if options.allow_session_overlap else None},
    )
    counts: Mapping[str, Mapping[str, int]] = metadata["label_counts"]
    labels = list(metadata["labels"])
    untrained = [label for label in labels if not counts["train"][label]]
    judged_on = next((name for name in ("test", "val") if name in counts), None)
    unjudged = [label for label in labels if counts["train"][label]]
    unjudged = [label for label in unjudged if not (judged_on and counts[judged_on][label])]
    measured = (
        Measurement(name="max_shared_sessions", value=shared, n=len(division.split)),
        Measurement(
            name="max_untrained_labels",
            value=len(untrained),
            n=len(labels),
            detail=", ".join(untrained),
        ),
        Measurement(
            name="max_unjudged_labels",
            value=len(unjudged),
            n=len(labels),
            detail=", ".join(unjudged),
        ),
    )
    return [judge(each, thresholds[each.name]) for each in measured]


def _parameters(options: Options) -> dict[str, Any]:
    """Return what decides the content of the store, as plain JSON; where it goes does not."""
    return {
        "audio_root": str(options.audio_root or options.events.parent),
        "audio_root_map": {source: str(root) for source, root in options.audio_roots.items()},
        "val_ratio": options.val_ratio,
        "test_ratio": options.test_ratio,
        "seed": options.seed,
        "split_by": options.split_by,
        "allow_session_overlap": options.allow_session_overlap,
        "sample_rate": options.sample_rate,
        "limit": options.limit,
        "skip_missing_audio": options.skip_missing_audio,
    }


def _warnings(selection: Selection, division: Division) -> list[str]:
    omitted, columns = selection.omitted, selection.columns
    warnings = list(division.warnings)
    for count, what in (
        (omitted.without_audio_path, "have no audio_path"),
        (omitted.without_file, "name a file that is not there"),
    ):
        if count:
            by_source = ", ".join(f"{source}: {n}" for source, n in count.items())
            warnings.append(f"{sum(count.values())} events {what} and were left out ({by_source})")
    if omitted.by_limit:
        warnings.append(f"{omitted.by_limit} events were left out by --limit")
    if selection.copied_recordings:
        warnings.append(
            f"{selection.copied_recordings} recordings have the same content as another; "
            "copies were kept in one split"
        )
    if columns.raw_openness_only:
        warnings.append(
            f"{columns.raw_openness_only} events have openness_raw but no openness: "
            "normalize-openness turns one into the other"
        )
    for kind, offenders in (
        ("session", division.isolation.sessions),
        ("drummer x kit pair", division.isolation.drummer_kits),
    ):
        if offenders:
            names = ", ".join(offender.key for offender in offenders[:5])
            warnings.append(f"{len(offenders)} {kind}s are in more than one split ({names})")
    return warnings


def _require_ratios(options: Options) -> None:
    """Check what click cannot: both ratios together.

    Raises:
        InputError: nothing would be left to learn from.
    """
    if not options.val_ratio + options.test_ratio < 1:
        why = f"leave nothing to train on (got {options.val_ratio:g} and {options.test_ratio:g})"
        raise InputError.at("--val-ratio and --test-ratio", why)


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
