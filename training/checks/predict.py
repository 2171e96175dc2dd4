"""Run a trained model over the events of a manifest, or over a boundary pack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from training.audio.reading import audio_info, read_audio
from training.checks.calibration_file import CalibrationFile, load_calibration
from training.checks.predict_features import write_features
from training.checks.predict_model import cut_clip, load_predictor, row_of
from training.dataset.blobs import to_int16
from training.errors import SHOWN_PROBLEMS, DrumgateError, InputError, Problem
from training.gates import Report, provenance
from training.manifest import (
    InputFile,
    Records,
    describe_file,
    read_records,
    reject_duplicates,
    resolve_inside,
    write_jsonl,
)
from training.manifest.fields import NonEmpty, Positive, Seconds
from training.model.inference import UNKNOWN_SCORES, Predictor

TOOL = "predict"
Track = Callable[[Sequence[Any], str], Iterable[Any]]
Clip = tuple[int, NDArray[np.int16]]
Said = tuple[int, dict[str, Any], NDArray[np.float32]]
"""Place of the row, what is written of it, its features [shape=(n_features,)]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to predict, with what.

    Exactly one of `events` and `pack` is given. `audio_root` defaults to the manifest's folder;
    `audio_roots` gives the rows of a source (``source_set``) a folder of their own.
    """

    model: Path
    output: Path
    events: Path | None = None
    pack: Path | None = None
    audio_root: Path | None = None
    audio_roots: Mapping[str, Path] = field(default_factory=dict)
    device: str = "auto"
    batch_size: int = 64
    unknown_score: str = UNKNOWN_SCORES[0]
    calibration: Path | None = None
    """A file of `calibrate`, for calibrated scores."""
    preset: str | None = None
    """Features that the model must have been trained with; None takes any."""
    write_logits: bool = False
    write_features: Path | None = None
    """Where the clips' features go, with the model's statistics (NumPy archive)."""
    skip_missing_audio: bool = False


class EventRow(msgspec.Struct, frozen=True, kw_only=True):
    """What predicting needs of an event."""

    sample_id: NonEmpty
    onset_time: Seconds
    audio_path: NonEmpty | None = None
    source_set: str | None = None


class PackRow(msgspec.Struct, frozen=True, kw_only=True):
    """What predicting needs of a row of a boundary pack: a window, and the onset within it."""

    sample_id: NonEmpty
    window_start_s: Seconds
    window_size_ms: Positive
    onset_ms: Seconds
    audio_path: NonEmpty | None = None
    source_set: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """Where a model listens: the onset, and the stretch that it may hear; seconds.

    `line` is the row's line in the manifest.
    """

    sample_id: str
    line: int
    onset_s: float
    audible_s: tuple[float, float]
    audio_path: str | None
    source: str | None


def run(options: Options, *, track: Track = lambda items, _: items) -> Report:
    """Predict every row and write one prediction a line, in the order of the manifest.

    Args:
        options: inputs and parameters.
        track: wraps the loop over the recordings, to show how far it is.

    Raises:
        InputError: the model, the manifest or some audio is not usable; nothing is written.
        DrumgateError: the device is not there, or the model has not what `unknown_score` needs.
    """
    started = time.monotonic()
    targets, source = _targets(options)
    recordings, skipped = _recordings(options, targets, source)
    if not recordings:
        raise InputError.at(source.path, "no row has audio: nothing can be predicted")
    _check_headers(recordings, source)
    calibration = None if options.calibration is None else load_calibration(options.calibration)
    predictor = load_predictor(
        options.model, options.device, options.unknown_score, calibration, options.preset
    )
    heard = _Heard()
    clips = _clips(predictor, recordings, heard, track)
    features: dict[int, NDArray[np.float32]] = {}
    rows = {}
    for index, row, felt in _predict(predictor, clips, targets, options, calibration):
        rows[index] = row
        if options.write_features:
            features[index] = felt
    if options.write_features:
        names = [target.sample_id for target in targets]
        write_features(options.write_features, features, names, predictor)
    write_jsonl(options.output, (rows[index] for index in sorted(rows)))

    elapsed = time.monotonic() - started
    warnings = []
    if skipped:
        warnings.append(f"{skipped} rows have no audio and were left out (--skip-missing-audio)")
    if calibration is not None:
        warnings += calibration.warnings(predictor.labels)
    return Report(
        tool=TOOL,
        inputs=[
            describe_file(options.model),
            source,
            *([] if calibration is None else [calibration.source]),
        ],
        parameters={**asdict(options), "device": str(predictor.device)},
        metrics={
            "rows_predicted": len(rows),
            "rows_without_audio": skipped,
            "recordings": len(recordings),
            "audio_s": heard.seconds,
            "labels": list(predictor.labels),
            "unknown_score": options.unknown_score,
            "calibration": None if calibration is None else calibration.id,
        },
        warnings=warnings,
        provenance={**provenance(), "predict_s": elapsed, "rtf": elapsed / heard.seconds},
    )


def _targets(options: Options) -> tuple[list[Target], InputFile]:
    if (options.events is None) == (options.pack is None):
        raise DrumgateError("give either --events or --pack")
    if options.events is not None:
        events = read_records(options.events, EventRow)
        reject_duplicates(events)
        return [
            Target(
                sample_id=row.sample_id,
                line=line,
                onset_s=row.onset_time,
                audible_s=(0.0, float("inf")),
                audio_path=row.audio_path,
                source=row.source_set,
            )
            for row, line in zip(events.rows, events.lines, strict=True)
        ], events.source
    pack: Records[PackRow] = read_records(options.pack or Path(), PackRow)
    reject_duplicates(pack)
    _require_onsets_in_windows(pack)
    return [
        Target(
            sample_id=row.sample_id,
            line=line,
            onset_s=row.window_start_s + row.onset_ms / 1000.0,
            audible_s=(row.window_start_s, row.window_start_s + row.window_size_ms / 1000.0),
            audio_path=row.audio_path,
            source=row.source_set,
        )
        for row, line in zip(pack.rows, pack.lines, strict=True)
    ], pack.source


def _require_onsets_in_windows(pack: Records[PackRow]) -> None:
    problems = [
        Problem(
            pack.source.path,
            f"lies outside its window of {row.window_size_ms} ms",
            line,
            "onset_ms",
            row.onset_ms,
        )
        for row, line in zip(pack.rows, pack.lines, strict=True)
        if row.onset_ms >= row.window_size_ms  # the right end is no part of a window
    ]
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))


def _recordings(
    options: Options, targets: Sequence[Target], source: InputFile
) -> tuple[dict[Path, list[tuple[int, Target]]], int]:
    """Group the rows by the file that they lie in; count those without one."""
    manifest = Path(source.path)
    base = options.audio_root or manifest.parent
    groups: dict[Path, list[tuple[int, Target]]] = {}
    found: dict[tuple[str | None, str], Path] = {}
    problems: list[Problem] = []
    skipped = 0
    for index, target in enumerate(targets):
        if target.audio_path is None:
            skipped += 1
            problems.append(Problem(source.path, "is missing", target.line, "audio_path"))
            continue
        key = (target.source, target.audio_path)
        if key not in found:
            root = options.audio_roots.get(target.source or "", base)
            found[key] = resolve_inside(root, target.audio_path, source=manifest, line=target.line)
        if found[key].exists():
            groups.setdefault(found[key], []).append((index, target))
        else:
            skipped += 1
            why = f"no such file below {options.audio_roots.get(target.source or '', base)}"
            problems.append(Problem(source.path, why, target.line, "audio_path", target.audio_path))
    if problems and not options.skip_missing_audio:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))
    return groups, skipped


def _check_headers(recordings: Mapping[Path, list[tuple[int, Target]]], source: InputFile) -> None:
    """Check what the headers of the recordings tell, before a sample is decoded."""
    problems: list[Problem] = []
    for path, rows in recordings.items():
        try:
            duration_s = audio_info(path).duration_s
        except InputError as error:
            problems += error.problems
            continue
        problems += [
            Problem(
                source.path,
                f"lies past the end of {target.audio_path} ({duration_s:.3f} s)",
                target.line,
                "onset_time",
                target.onset_s,
            )
            for _, target in rows
            if target.onset_s >= duration_s
        ]
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))


@dataclass
class _Heard:
    """How much audio has been read."""

    seconds: float = 0.0


def _clips(
    predictor: Predictor,
    recordings: Mapping[Path, list[tuple[int, Target]]],
    heard: _Heard,
    track: Track,
) -> Iterator[Clip]:
    """Read each recording once and cut its clips; silence where a clip may hear nothing."""
    rate = predictor.features.sample_rate
    for path, rows in track(list(recordings.items()), "predicting"):
        samples, _ = read_audio(path, sample_rate=rate, mono=True)
        audio, _ = to_int16(samples)
        heard.seconds += len(audio) / rate
        for index, target in rows:
            yield (
                index,
                cut_clip(audio, target.onset_s, predictor.features, audible_s=target.audible_s),
            )


def _predict(
    predictor: Predictor,
    clips: Iterator[Clip],
    targets: Sequence[Target],
    options: Options,
    calibration: CalibrationFile | None,
) -> Iterator[Said]:
    batch: list[Clip] = []
    for clip in clips:
        batch.append(clip)
        if len(batch) == options.batch_size:
            yield from _predict_batch(predictor, batch, targets, options, calibration)
            batch = []
    if batch:
        yield from _predict_batch(predictor, batch, targets, options, calibration)


def _predict_batch(
    predictor: Predictor,
    batch: list[Clip],
    targets: Sequence[Target],
    options: Options,
    calibration: CalibrationFile | None,
) -> Iterator[Said]:
    audio = torch.from_numpy(np.stack([clip for _, clip in batch]))
    said = predictor.predict(audio, unknown_score=options.unknown_score)
    for number, (index, _) in enumerate(batch):
        name = targets[index].sample_id
        row = row_of(said, number, name, predictor, calibration, options.write_logits)
        yield index, row, said.features[number]
