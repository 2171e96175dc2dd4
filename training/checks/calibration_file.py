"""The calibration file: what `calibrate` writes, and what every tool that takes one reads.

A JSON object. Only `schema_version` and `classes` are required, so that a file with thresholds
alone can be written by hand: `{"schema_version": 1, "classes": {"kick": {"threshold": 0.4}}}`.

Calibrated scores carry the `calibration_id` of the scaling that made them (field `calibration` of a
prediction), so that no score is ever scaled twice, or compared with another scaling's thresholds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from msgspec import Meta

from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest import InputFile, Prediction, Records, describe_file, read_json
from training.metrics.calibration import scale
from training.metrics.classification import BoolArray, FloatArray, score_matrix

SCHEMA_VERSION: Final = 1
Slope = Annotated[float, Meta(gt=0, le=1e6)]
Intercept = Annotated[float, Meta(ge=-1e6, le=1e6)]
Share = Annotated[float, Meta(ge=0, le=1)]


class ClassCalibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One class: `sigmoid(slope · logit(score) + intercept)`, and from where on it is predicted."""

    slope: Slope = 1.0
    intercept: Intercept = 0.0
    threshold: Share = 0.5
    n: int | None = None
    """Annotated clips that it was fitted on."""
    n_positive: int | None = None
    reason: str | None = None
    """Why the class was left as it is."""


class CalibrationRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of the file; `docs/tools/calibrate.md` describes each field."""

    schema_version: Literal[1]
    classes: dict[Annotated[str, Meta(min_length=1)], ClassCalibration]
    tool: str = "by hand"
    version: str | None = None
    calibration_id: str | None = None
    method: str = "none"
    temperature: float | None = None
    objective: dict[str, Any] | None = None
    n_clips: int | None = None
    sessions: tuple[str, ...] = ()
    figures: dict[str, Any] | None = None
    inputs: tuple[dict[str, Any], ...] = ()
    status: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationFile:
    """A calibration that was read."""

    record: CalibrationRecord
    source: InputFile

    @property
    def id(self) -> str:
        """The identity of the scaling; thresholds are no part of it."""
        return calibration_id(self.record.classes)

    def thresholds(self, classes: Sequence[str], default: float) -> FloatArray:
        """Return the threshold of each class; `default` where the file has none."""
        known = self.record.classes
        return np.array(
            [known[name].threshold if name in known else default for name in classes],
            dtype=np.float64,
        )

    def scaled(
        self, scores: FloatArray, classes: Sequence[str], done: BoolArray | None = None
    ) -> FloatArray:
        """Calibrate scores in [0, 1]; classes that are not in the file stay as they are.

        Args:
            scores: NaN stays NaN [shape=(n, n_classes)].
            classes: names of the columns.
            done: rows that are calibrated already [shape=(n,)].
        """
        found = [self.record.classes.get(name, _AS_IT_IS) for name in classes]
        slope = np.array([each.slope for each in found], dtype=np.float64)
        intercept = np.array([each.intercept for each in found], dtype=np.float64)
        made = scale(scores, slope, intercept)
        return made if done is None else np.where(done[:, None], scores, made)

    def done(self, predictions: Records[Prediction]) -> dict[str, bool]:
        """Say of each `sample_id` whether its scores are to stay as they are.

        They stay where this very scaling has made them, and where there are none: a label without
        a score counts as 1.

        Raises:
            InputError: some have been calibrated by another one.
        """
        problems = [
            Problem(
                predictions.source.path,
                f"names another calibration than {self.source.path} ({self.id})",
                line,
                "calibration",
                row.calibration,
            )
            for row, line in zip(predictions.rows, predictions.lines, strict=True)
            if row.calibration not in (None, self.id)
        ]
        if problems:
            raise InputError(problems[:SHOWN_PROBLEMS], len(problems))
        return {
            row.sample_id: row.calibration is not None
            or (row.scores is None and row.probabilities is None)
            for row in predictions
        }

    def score_maps(self, predictions: Records[Prediction]) -> dict[str, dict[str, float]]:
        """Return the calibrated scores of each `sample_id` by label, for tools that want no matrix.

        Raises:
            InputError: some have been calibrated by another scaling.
        """
        stays = self.done(predictions)
        names = sorted({label for row in predictions for label in row.label_scores})
        rows = predictions.rows
        matrix = self.scaled(
            score_matrix([row.label_scores for row in rows], names),
            names,
            np.array([stays[row.sample_id] for row in rows], dtype=np.bool_),
        )
        column = {name: number for number, name in enumerate(names)}
        return {
            row.sample_id: {label: float(made[column[label]]) for label in row.label_scores}
            for row, made in zip(rows, matrix, strict=True)
        }

    def warnings(self, classes: Iterable[str]) -> list[str]:
        """Say what a user of the file should know."""
        said = []
        if missing := sorted(set(classes) - self.record.classes.keys()):
            said.append(
                f"{self.source.path} has no entry for {', '.join(missing)}: scores as they are"
            )
        if self.record.status not in (None, "pass", "warn"):
            said.append(
                f"{self.source.path}: its own gates came out as {self.record.status} when it was "
                "fitted"
            )
        return said


_AS_IT_IS = ClassCalibration()


def load_calibration(path: Path) -> CalibrationFile:
    """Read a calibration file.

    Raises:
        InputError: it is missing, malformed or of another version, or its `calibration_id` is not
            that of its slopes and intercepts: someone changed those by hand.
    """
    record = read_json(path, CalibrationRecord)
    if not record.classes:
        raise InputError.at(path, "must name a class", field="classes")
    found = CalibrationFile(record=record, source=describe_file(path))
    if record.calibration_id not in (None, found.id):
        raise InputError.at(
            path,
            f"is not that of the slopes and intercepts below it ({found.id}); leave it out of a "
            "file that you changed by hand",
            field="calibration_id",
            got=record.calibration_id,
        )
    return found


def calibration_id(classes: dict[str, ClassCalibration]) -> str:
    """Return 16 hex digits that stand for the slopes and intercepts of all classes."""
    plain = [(name, each.slope, each.intercept) for name, each in sorted(classes.items())]
    return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()[:16]
