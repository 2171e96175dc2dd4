"""Build a clip store from events and recordings, or verify one that is there; judge either."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from training.checks.build_dataset_report import (
    check_durations,
    judge_build,
    judge_durations,
    parameters_of,
    warnings_of,
)
from training.dataset.blobs import Stock
from training.dataset.build import STORE, write_metadata, write_store
from training.dataset.divide import Division, SplitBy, divide
from training.dataset.durations import read_expected_durations
from training.dataset.export import EXPORT, ContextWindows, export_wavs, load_windows
from training.dataset.resume import Standing, made_from, put_in_place, standing_store
from training.dataset.select import Selection, Track, select
from training.dataset.store import ClipStore
from training.dataset.verify import verify_store
from training.dataset.workplace import work_folder, workplace
from training.errors import InputError
from training.gates import GatesSource, Measurement, Report, judge, load_thresholds, provenance
from training.manifest import Event, InputFile, describe_file, read_raw
from training.resources import config_path
from training.taxonomy import load_components

TOOL = "build-training-dataset"
SHOWN = (
    "content_sha256",
    "splits",
    "durations_s",
    "label_counts",
    "split_policy",
    "statistics",
)
"""What of the metadata goes into the report."""
OUTCOMES = (
    "out",
    "force",
    "verify_only",
    "resume",
    "expected_duration_csv",
    "duration_tolerance_ms",
    "export_wavs",
    "clip_windows",
)
"""Options that the store's own parameters do not hold: they do not decide its content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What a store is built from, and how.

    `audio_root` defaults to the folder of the manifest. `audio_roots` gives the events of a
    source (``source_set``) a folder of their own. With `resume` what an unfinished build, or a
    damaged store, holds already is taken over, and an interruption keeps what is done.
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
    resume: bool = False
    expected_duration_csv: Path | None = None
    duration_tolerance_ms: float = 100.0
    export_wavs: Path | None = None
    clip_windows: Path | None = None
    gates: GatesSource | None = None


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
    plan = _plan(options, track)
    metadata, resumed, warnings = _make(plan, track)
    store = ClipStore.open(options.out)
    durations = check_durations(options, store)
    exported = None
    if options.export_wavs is not None:
        exported = export_wavs(
            store, options.export_wavs, plan.windows, force=options.force, track=track
        )
    return Report(
        tool=TOOL,
        inputs=[*plan.inputs, *_further_inputs(options)],
        parameters={
            **parameters_of(options),
            **{name: getattr(options, name) for name in OUTCOMES},
        },
        metrics={
            "events_total": plan.inputs[0].records,
            **{name: metadata[name] for name in SHOWN},
            "split_isolation": metadata["split_policy"]["isolation"],
            "resumed": resumed,
            "expected_durations": durations.facts() if durations else None,
            "exported_wavs": exported,
        },
        verdicts=[
            *judge_build(options, plan.division, metadata),
            *judge_durations(options.gates, durations),
        ],
        warnings=warnings,
        seed=options.seed,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """All that is known before the first sample is decoded."""

    options: Options
    inputs: tuple[InputFile, ...]
    selection: Selection
    division: Division
    windows: ContextWindows
    components: bytes
    labels: Sequence[str]
    described: Mapping[str, Any]
    started: float
    selected: float


def _plan(options: Options, track: Track) -> _Plan:
    """Read and check everything but the audio itself, and divide the events."""
    require_sensible(options)
    if not options.resume:
        STORE.require_replaceable(options.out, force=options.force)
    started = time.monotonic()
    records = read_raw(options.events, Event)
    components = options.components or config_path("components.json")
    taxonomy = load_components(components)
    windows = load_windows(options.clip_windows, taxonomy)
    if options.expected_duration_csv is not None:
        read_expected_durations(options.expected_duration_csv)  # what is wrong, before the work
    if options.export_wavs is not None:
        EXPORT.require_replaceable(options.export_wavs, force=options.force)
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
    taxonomy_file = describe_file(components)
    if options.components is None:  # where drumgate is installed says nothing of the data
        taxonomy_file = InputFile("components.json", taxonomy_file.sha256, taxonomy_file.bytes)
    return _Plan(
        options=options,
        inputs=(records.source, taxonomy_file),
        selection=selection,
        division=division,
        windows=windows,
        components=components.read_bytes(),
        labels=taxonomy.targets,
        described={
            "inputs": {"events": asdict(records.source), "components": asdict(taxonomy_file)},
            "parameters": parameters_of(options),
            "warnings": warnings_of(selection, division),
        },
        started=started,
        selected=time.monotonic(),
    )


def _make(plan: _Plan, track: Track) -> tuple[Mapping[str, Any], dict[str, Any] | None, list[str]]:
    """Write the store, or what is missing of it.

    Returns its metadata, what was taken over (None unless asked for), and the warnings.
    """
    options, described = plan.options, plan.described
    warnings = list(described["warnings"])
    standing = Standing(metadata=None)
    if options.resume:
        wanted = made_from(described["inputs"], described["parameters"], plan.selection)
        standing = standing_store(options.out, wanted, force=options.force, track=track)
    elif work_folder(options.out).is_dir():
        warnings.append("an unfinished build was thrown away; --resume would have gone on with it")
    if standing.metadata is not None and standing.whole:
        kept = len(plan.selection.recordings)
        resumed = {"recordings_decoded": 0, "recordings_kept": kept, "files_mended": []}
        return standing.metadata, resumed, warnings
    with workplace(options.out, resume=options.resume) as folder:
        metadata = write_store(
            folder,
            plan.selection,
            plan.division,
            source=described["inputs"]["events"]["path"],
            sample_rate=options.sample_rate,
            components=plan.components,
            labels=plan.labels,
            described=described,
            track=track,
            stock=Stock(options.out, options.sample_rate) if options.resume else None,
        )
        audio_s = sum(split["duration_s"] for split in metadata["splits"].values())
        metadata["run_statistics"] |= {
            **provenance(),
            "select_s": round(plan.selected - plan.started, 3),
            "build_s": round(time.monotonic() - plan.started, 3),
            "audio_s": audio_s,
            "peak_memory_mib": _peak_memory_mib(),
            "warnings": len(warnings),
        }
        write_metadata(folder, metadata)
        put_in_place(folder, options.out, metadata, standing)
    if not options.resume:
        return metadata, None, warnings
    counts = metadata["run_statistics"]
    resumed = {name: counts[name] for name in ("recordings_decoded", "recordings_kept")}
    return metadata, {**resumed, "files_mended": list(standing.damaged)}, warnings


def _verify(options: Options, track: Track) -> Report:
    require_sensible(options)
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
    durations = check_durations(options, found.store)
    return Report(
        tool=TOOL,
        inputs=[source, *_further_inputs(options)],
        parameters=asdict(options),
        metrics={
            "content_sha256": found.store.metadata.get("content_sha256"),
            "files_checked": found.files,
            "events_checked": found.events,
            "audio_checked": options.audio_root is not None,
            "problems": list(found.problems),
            "expected_durations": durations.facts() if durations else None,
        },
        verdicts=[judge(measured, threshold), *judge_durations(options.gates, durations)],
    )


def _further_inputs(options: Options) -> list[InputFile]:
    given = (options.expected_duration_csv, options.clip_windows)
    return [describe_file(path) for path in given if path is not None]


def require_sensible(options: Options) -> None:
    """Check what click cannot: options that do not go together.

    Raises:
        InputError: nothing would be left to learn from; or a flag has nothing to act on.
    """
    if not options.val_ratio + options.test_ratio < 1:
        why = f"leave nothing to train on (got {options.val_ratio:g} and {options.test_ratio:g})"
        raise InputError.at("--val-ratio and --test-ratio", why)
    if options.export_wavs is not None:
        places = (options.out.resolve(), options.export_wavs.resolve())
        if any(a.is_relative_to(b) for a, b in (places, places[::-1])):
            why = f"must not lie in the store, nor the store in it ({options.out})"
            raise InputError.at("--export-wavs", why, got=str(options.export_wavs))
    if options.verify_only:
        for name in ("resume", "export_wavs"):
            if getattr(options, name):
                flag = "--" + name.replace("_", "-")
                raise InputError.at(flag, "does not go with --verify-only, which writes nothing")


def _peak_memory_mib() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10), 1)
