"""What both ways of predicting share: loading a model, cutting a clip, writing a row."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.audio.logmel import FEATURE_PRESETS, FeatureConfig
from training.checks.calibration_file import CalibrationFile
from training.errors import DrumgateError, InputError
from training.gates import Report
from training.model.inference import ClipPredictions, Predictor, resolve_device


def load_predictor(
    model: Path,
    device: str,
    unknown_score: str,
    calibration: CalibrationFile | None,
    preset: str | None = None,
) -> Predictor:
    """Load a model, and see that it has what is asked of it.

    Args:
        model: the model file.
        device: ``auto``, ``cpu`` or ``cuda``.
        unknown_score: one of `UNKNOWN_SCORES`.
        calibration: must know every class of the model.
        preset: features that the model must have been trained with; None takes any.

    Raises:
        InputError: the file is not a model, was trained with other features than `preset`, or the
            calibration lacks a class.
        DrumgateError: the device is not there, or the model has no open-set statistics.
    """
    predictor = Predictor.load(model, resolve_device(device))
    if preset is not None:
        _require_features(model, predictor.features, preset)
    if unknown_score == "mahalanobis" and predictor.openset is None:
        raise DrumgateError(
            f"{model}: holds no open-set statistics (too few training clips); "
            "choose another --unknown-score"
        )
    if calibration is not None:
        missing = sorted(set(predictor.labels) - calibration.record.classes.keys())
        if missing:
            raise InputError.at(
                calibration.source.path,
                f"has no entry for {', '.join(missing)}, which the model predicts",
                field="classes",
            )
    return predictor


def cut_clip(
    audio: NDArray[np.int16],
    onset_s: float,
    features: FeatureConfig,
    *,
    audible_s: tuple[float, float] = (0.0, math.inf),
) -> NDArray[np.int16]:
    """Return what a model hears of an onset [shape=(read_samples,)].

    Silence stands beyond the recording [shape=(n,)] and where the clip may hear nothing.
    """
    rate, length = features.sample_rate, features.read_samples
    start = round(onset_s * rate) - features.read_before
    first, last = (bound * rate for bound in audible_s)
    low = max(start, _first_from(first), 0)
    high = min(start + length, len(audio), _first_from(min(last, len(audio))))
    clip = np.zeros(length, dtype=np.int16)
    if high > low:
        clip[low - start : high - start] = audio[low:high]
    return clip


def row_of(
    said: ClipPredictions,
    number: int,
    sample_id: str,
    predictor: Predictor,
    calibration: CalibrationFile | None,
    write_logits: bool,
) -> dict[str, Any]:
    """Return one clip's prediction as it is written; scores are calibrated where asked for."""
    scores: NDArray[Any] = said.scores[number]
    if calibration is not None:
        # Calibrations are fitted on scores as they are written, with six digits.
        plain = scores.astype(np.float64).round(6)[None]
        scores = calibration.scaled(plain, predictor.labels)[0]
    row: dict[str, Any] = {
        "sample_id": sample_id,
        "scores": {
            label: round(float(score), 6)
            for label, score in zip(predictor.labels, scores, strict=True)
        },
        "unknown_score": float(said.unknown[number]),
    }
    if write_logits:
        logits = zip(predictor.labels, said.logits[number], strict=True)
        row["logits"] = {label: float(logit) for label, logit in logits}
    if calibration is not None:
        row["calibration"] = calibration.id
    if said.openness is not None:
        row["openness_pred"] = round(float(said.openness[number]), 6)
    if said.velocity is not None:
        row["velocity_pred"] = round(float(said.velocity[number]), 6)
    return row


def summary(report: Report, output: Path) -> str:
    """Return what was predicted, and how long it took, as one line or two for a person."""
    found = report.metrics
    said = (
        f"{found['rows_predicted']} rows of {found['recordings']} recordings "
        f"({found['audio_s']:.1f} s of audio) -> {output}; "
        f"real-time factor {report.provenance['rtf']:.4f}"
    )
    judged = found.get("continuous")
    if judged and judged["recall"] is not None:
        said += (
            f"\n{judged['fa_per_hour']:.1f} false alarms an hour, recall {judged['recall']:.3f} "
            f"({judged['recordings']} recordings, {judged['hours']:.3f} h)"
        )
    return said


def _require_features(model: Path, features: FeatureConfig, preset: str) -> None:
    wanted = FEATURE_PRESETS[preset]
    theirs, ours = features.as_dict(), wanted.as_dict()
    differing = [
        f"{name} {theirs[name]} (not {ours[name]})" for name in ours if theirs[name] != ours[name]
    ]
    if differing:
        raise InputError.at(
            model,
            f"was trained with other features than --preset {preset}: {', '.join(differing)}",
            field="features",
        )


def _first_from(place: float) -> int:
    """The first sample at or after a place; floating point may put a whole number a bit late."""
    return math.ceil(place - 1e-6)
