"""Run a trained model over whole recordings: find the onsets, say what is struck at each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from training.audio.onsets import DEFAULT_SENSITIVITY, detect_onsets
from training.audio.reading import audio_info, read_audio
from training.checks.calibration_file import CalibrationFile, load_calibration
from training.checks.predict_model import cut_clip, load_predictor, row_of
from training.checks.predict_reference import Said, judge_recordings, sessions_of
from training.dataset.blobs import to_int16
from training.errors import DrumgateError, InputError
from training.gates import Report, provenance
from training.manifest import describe_file, write_jsonl
from training.model.inference import UNKNOWN_SCORES, Predictor

TOOL: Final = "predict"
Track = Callable[[Sequence[Any], str], Iterable[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to listen to, with what.

    `audio_root` is the folder that the ``audio_path`` of each event is relative to; without it,
    that is the file's own name.
    """

    model: Path
    output: Path
    audio: tuple[Path, ...]
    audio_root: Path | None = None
    sensitivity: float = DEFAULT_SENSITIVITY
    device: str = "auto"
    batch_size: int = 64
    unknown_score: str = UNKNOWN_SCORES[0]
    calibration: Path | None = None
    preset: str | None = None
    write_logits: bool = False
    reference: Path | None = None
    """Annotated events of the recordings: gives false alarms an hour and recall."""


@dataclass
class _Tally:
    """What was heard and found so far."""

    seconds: float = 0.0
    onsets: int = 0
    events: int = 0
    duration_s: dict[str, float] = field(default_factory=dict)
    said: Said = field(default_factory=Said)


def run(options: Options, *, track: Track = lambda items, _: items) -> Report:
    """Find and name the events of recordings, and write one a line, recording by recording.

    A row is an event of a manifest (``sample_id``, ``session_id``, ``onset_time``,
    ``audio_path``, ``components`` with velocity and, for hi-hats, openness) with what `predict`
    writes beside it, and ``onset_pred``: here the onset, too, is predicted. Components are the
    classes whose score reaches its threshold; an onset at which none does is counted and left out.

    Args:
        options: inputs and parameters.
        track: wraps the loop over the recordings, to show how far it is.

    Raises:
        InputError: the model or some audio is not usable; nothing is written.
        DrumgateError: the device is not there, the model has not what was asked for, or two
            recordings would have one name.
    """
    started = time.monotonic()
    names = _names(options)
    for path in names:
        audio_info(path)
    calibration = None if options.calibration is None else load_calibration(options.calibration)
    predictor = load_predictor(
        options.model, options.device, options.unknown_score, calibration, options.preset
    )
    tally = _Tally()
    sessions: dict[str, str] = {}
    if options.reference is not None:
        sessions = sessions_of(options.reference)  # now, so that a bad one costs no time

    def rows() -> Iterator[dict[str, Any]]:
        for path in track(list(names), "predicting"):
            name = names[path]
            session = sessions.get(name, _stem(name))
            yield from _events(path, name, session, predictor, options, calibration, tally)

    write_jsonl(options.output, rows())
    return _report(options, names, predictor, calibration, tally, started)


def _report(
    options: Options,
    names: Mapping[Path, str],
    predictor: Predictor,
    calibration: CalibrationFile | None,
    tally: _Tally,
    started: float,
) -> Report:
    """Say what was heard and found, and how it stands beside the reference, if there is one."""
    elapsed = time.monotonic() - started
    warnings = [] if calibration is None else calibration.warnings(predictor.labels)
    judged: dict[str, Any] | None = None
    sources = [] if calibration is None else [calibration.source]
    if options.reference is not None:
        judged, source, notes = judge_recordings(
            options.reference, tally.said, tally.duration_s, predictor.labels
        )
        sources.append(source)
        warnings += notes
    if tally.events == 0:
        warnings.append("no event was found: is this drums, and is --sensitivity too low?")
    return Report(
        tool=TOOL,
        inputs=[
            describe_file(options.model),
            *(describe_file(path) for path in names),
            *sources,
        ],
        parameters={**asdict(options), "device": str(predictor.device)},
        metrics={
            "rows_predicted": tally.events,
            "onsets": tally.onsets,
            "onsets_without_a_class": tally.onsets - tally.events,
            "recordings": len(names),
            "audio_s": tally.seconds,
            "labels": list(predictor.labels),
            "unknown_score": options.unknown_score,
            "calibration": None if calibration is None else calibration.id,
            "continuous": judged,
        },
        warnings=warnings,
        provenance={**provenance(), "predict_s": elapsed, "rtf": elapsed / tally.seconds},
    )


def _names(options: Options) -> dict[Path, str]:
    """The name of each recording in the output: its path below the root."""
    names: dict[Path, str] = {}
    for path in options.audio:
        if options.audio_root is None:
            name = path.name
        else:
            try:
                name = path.resolve().relative_to(options.audio_root.resolve()).as_posix()
            except ValueError:
                raise InputError.at(path, f"does not lie below {options.audio_root}") from None
        stem = _stem(name)
        if stem in {_stem(other) for other in names.values()}:
            raise DrumgateError(
                f"{path}: another recording is named {stem} as well; give --audio-root, so that "
                "their folders tell them apart"
            )
        names[path] = name
    return names


def _stem(name: str) -> str:
    return Path(name).with_suffix("").as_posix()


def _events(
    path: Path,
    name: str,
    session: str,
    predictor: Predictor,
    options: Options,
    calibration: CalibrationFile | None,
    tally: _Tally,
) -> Iterator[dict[str, Any]]:
    rate = predictor.features.sample_rate
    samples, _ = read_audio(path, sample_rate=rate, mono=True)
    onsets = detect_onsets(samples, rate, sensitivity=options.sensitivity)
    audio, _ = to_int16(samples)
    tally.seconds += len(audio) / rate
    tally.onsets += len(onsets)
    tally.duration_s[name] = len(audio) / rate
    thresholds = np.full(len(predictor.labels), 0.5)
    if calibration is not None:
        thresholds = calibration.thresholds(predictor.labels, 0.5)
    for first in range(0, len(onsets), options.batch_size):
        part = onsets[first : first + options.batch_size]
        clips = np.stack([cut_clip(audio, float(at), predictor.features) for at in part])
        said = predictor.predict(torch.from_numpy(clips), unknown_score=options.unknown_score)
        for number, onset in enumerate(part):
            identity = f"{_stem(name)}_{round(1000.0 * float(onset)):08d}"
            row = row_of(said, number, identity, predictor, calibration, options.write_logits)
            chosen = _chosen(row, predictor, thresholds)
            found = _components(row, predictor, chosen)
            if options.reference is not None:
                scores = list(row["scores"].values())
                picked = [column in chosen for column in range(len(scores))]
                tally.said.add(name, float(onset), scores, picked)
            if not found:
                continue
            tally.events += 1
            yield {
                "sample_id": identity,
                "session_id": session,
                "onset_time": round(float(onset), 6),
                "audio_path": name,
                "components": found,
                "onset_pred": round(float(onset), 6),
                **{key: value for key, value in row.items() if key != "sample_id"},
            }


def _chosen(
    row: dict[str, Any], predictor: Predictor, thresholds: NDArray[np.float64]
) -> list[int]:
    """The classes that reach their thresholds; of a softmax model, the highest."""
    scores = np.array([row["scores"][label] for label in predictor.labels])
    if predictor.task == "multiclass":
        return [int(scores.argmax())]
    return [int(column) for column in np.flatnonzero(scores >= thresholds)]


def _components(
    row: dict[str, Any], predictor: Predictor, chosen: Sequence[int]
) -> list[dict[str, Any]]:
    found = []
    for label in (predictor.labels[column] for column in chosen):
        component: dict[str, Any] = {"label": label}
        if "velocity_pred" in row:
            component["velocity"] = row["velocity_pred"]
        if "openness_pred" in row and label.startswith("hihat"):
            component["openness"] = row["openness_pred"]
        found.append(component)
    return found
