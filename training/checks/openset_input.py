"""Reading what the open-set check judges: truth and predictions side by side, and their scores."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.errors import DrumgateError, InputError, Problem
from training.manifest import (
    GroundTruth,
    InputFile,
    Prediction,
    Records,
    describe_file,
    read_raw,
    read_records,
    reject_duplicates,
)
from training.metrics.openset import Bools, Floats
from training.metrics.openset_scores import Outputs, Task, from_logits, from_probabilities

EXPLICIT: Final = "explicit"
SUM_TOLERANCE: Final = 0.01


@dataclass(frozen=True, kw_only=True, slots=True)
class Examples:
    """The examples of one file that have a prediction, in the order of the ground truth."""

    rows: Sequence[GroundTruth]
    predictions: Sequence[Prediction]
    given: Sequence[float | None]
    """The rejection field of each, higher = more unknown; None where a prediction lacks it."""
    is_unknown: Bools
    missing: Sequence[str]
    surplus: int
    truth_path: str
    sources: tuple[InputFile, InputFile]

    @property
    def ids(self) -> list[str]:
        """The sample_id of each example."""
        return [row.sample_id for row in self.rows]

    @property
    def groups(self) -> list[str]:
        """The unknown_group of each example."""
        return [row.unknown_group or "ungrouped" for row in self.rows]

    @property
    def sessions(self) -> list[str | None]:
        """The session_id of each example."""
        return [row.session_id for row in self.rows]


def read_examples(
    truth_path: Path, predictions_path: Path, *, field: str, required: bool, known_is_high: bool
) -> Examples:
    """Read and join truth and predictions.

    Args:
        truth_path: truth records; each needs `is_known`.
        predictions_path: predictions.
        field: the rejection field.
        required: whether every prediction must have it.
        known_is_high: the field rises with how *known* a sound seems; it is turned round.

    Raises:
        InputError: an input is missing or malformed, a `sample_id` stands twice, or a record lacks
            a field that it needs.
    """
    truth = read_records(truth_path, GroundTruth)
    reject_duplicates(truth)
    without = [
        Problem(
            truth.source.path,
            "is required (true or false, in the ground truth of an open-set pack)",
            line,
            "is_known",
        )
        for line, row in zip(truth.lines, truth.rows, strict=True)
        if row.is_known is None
    ]
    if without:
        raise InputError(without)
    if field in Prediction.__struct_fields__:
        predictions = read_records(predictions_path, Prediction)
        values: list[Any] = [getattr(row, field) for row in predictions.rows]
    else:
        pairs = read_raw(predictions_path, Prediction)
        predictions = Records([row for row, _ in pairs], pairs.lines, pairs.source)
        values = [raw.get(field) for _, raw in pairs]
    reject_duplicates(predictions)
    problems = []
    for line, value in zip(predictions.lines, values, strict=True):
        if value is None and required:
            why = "is required (higher = more unknown, as predict.py writes it), or give --method"
            problems.append(Problem(predictions.source.path, why, line, field))
        elif value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            problems.append(
                Problem(predictions.source.path, "must be a number", line, field, value)
            )
    if problems:
        raise InputError(problems)
    sign = -1.0 if known_is_high else 1.0
    by_id = {
        row.sample_id: (row, None if value is None else sign * float(value))
        for row, value in zip(predictions.rows, values, strict=True)
    }
    rows = [row for row in truth if row.sample_id in by_id]
    return Examples(
        rows=rows,
        predictions=[by_id[row.sample_id][0] for row in rows],
        given=[by_id[row.sample_id][1] for row in rows],
        is_unknown=np.array([not row.is_known for row in rows], dtype=bool),
        missing=[row.sample_id for row in truth if row.sample_id not in by_id],
        surplus=len(by_id.keys() - {row.sample_id for row in truth}),
        truth_path=truth.source.path,
        sources=(truth.source, predictions.source),
    )


def read_outputs(
    examples: Examples, *, task: Task, temperature: float
) -> tuple[Outputs, dict[str, Any]]:
    """Give the classifier's outputs as matrices, and say where they come from.

    Logits are used where every prediction has them, else scores; a label that a prediction does
    not score has score 0.

    Raises:
        DrumgateError: there is neither, predictions have logits of different labels, or scores of
            a multiclass model do not sum to 1.
    """
    path = examples.sources[1].path
    if not examples.predictions:
        raise DrumgateError("no example has a prediction")
    logits = [row.logits for row in examples.predictions]
    if all(logits):
        names = sorted(logits[0] or {})
        for row, each in zip(examples.predictions, logits, strict=True):
            if sorted(each or {}) != names:
                why = f"are of other labels than those of {examples.predictions[0].sample_id}"
                raise InputError.at(path, f"logits of {row.sample_id} {why}")
        matrix = np.array([[(each or {})[name] for name in names] for each in logits])
        found = from_logits(matrix, task=task, temperature=temperature)
        return found, {"outputs": "logits", "classes": names, "saturated": 0}
    without = sum(row.scores is None and row.probabilities is None for row in examples.predictions)
    if without:
        raise DrumgateError(f"{path}: {without} predictions have neither scores nor logits")
    scores = [row.label_scores for row in examples.predictions]
    names = sorted({name for each in scores for name in each})
    if not names:
        raise DrumgateError(f"{path}: the predictions score no label")
    matrix = np.array([[each.get(name, 0.0) for name in names] for each in scores])
    if task == "multiclass":
        off = np.flatnonzero(np.abs(matrix.sum(axis=1) - 1.0) > SUM_TOLERANCE)
        if off.size:
            which = examples.predictions[int(off[0])].sample_id
            total = float(matrix[off[0]].sum())
            why = f"scores of {which} sum to {total:.4g}, not 1, as those of --task multiclass must"
            raise InputError.at(path, why)
    saturated = sum(any(score in (0.0, 1.0) for score in each.values()) for each in scores)
    return from_probabilities(matrix, task=task), {
        "outputs": "scores",
        "classes": names,
        "saturated": saturated,
    }


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureFile:
    """A NumPy archive: arrays by name, none of them of Python objects."""

    path: Path
    arrays: Mapping[str, np.ndarray[Any, Any]]
    source: InputFile

    def numbers(self, name: str, *, ndim: int) -> Floats:
        """Return an array of finite numbers.

        Raises:
            InputError: it is missing, is not of numbers, or has another number of axes.
        """
        if name not in self.arrays:
            have = ", ".join(sorted(self.arrays)) or "none"
            raise InputError.at(self.path, f"is not there (arrays: {have})", field=name)
        array = self.arrays[name]
        if array.dtype.kind not in "fiub" or array.ndim != ndim:
            why = f"must hold numbers with {ndim} axes, found {array.dtype} {array.shape}"
            raise InputError.at(self.path, why, field=name)
        found = array.astype(np.float64)
        if not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).sum())
            raise InputError.at(self.path, f"holds {bad} values that are not finite", field=name)
        return found


def read_archive(path: Path) -> FeatureFile:
    """Read a NumPy archive (.npz) whole; pickled arrays are refused.

    Raises:
        InputError: the file is missing, is no archive, or holds Python objects.
    """
    source = describe_file(path)
    try:
        # Opened here, since NumPy leaves a damaged archive open.
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise InputError.at(path, "is a single array, not a NumPy archive (.npz)")
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        why = "is not a NumPy archive (.npz) of plain numbers and text"
        raise InputError.at(path, why) from error
    return FeatureFile(path=path, arrays=arrays, source=source)


def features_of(file: FeatureFile, ids: Sequence[str]) -> Floats:
    """Return the feature vectors of the examples, in their order, shape (n, n_features).

    Raises:
        InputError: `sample_id` or `features` is missing or malformed, an id stands twice, or an
            example has no row.
    """
    names = file.arrays.get("sample_id")
    if names is None or names.dtype.kind != "U" or names.ndim != 1:
        raise InputError.at(file.path, "must be a list of text", field="sample_id")
    features = file.numbers("features", ndim=2)
    if len(features) != len(names):
        why = f"has {len(features)} rows for {len(names)} sample_id"
        raise InputError.at(file.path, why, field="features")
    place = {name: index for index, name in enumerate(names.tolist())}
    if len(place) != len(names):
        raise InputError.at(file.path, "holds a sample_id twice", field="sample_id")
    absent = [name for name in ids if name not in place]
    if absent:
        raise InputError.at(
            file.path, f"has no row for {len(absent)} examples, such as {absent[0]!r}"
        )
    return features[[place[name] for name in ids]]


def explicit_scores(examples: Examples) -> Floats:
    """Return the rejection field as an array.

    Raises:
        DrumgateError: some predictions lack it.
    """
    without = sum(value is None for value in examples.given)
    if without:
        raise DrumgateError(f"{without} predictions lack the rejection field")
    return np.array([math.nan if v is None else v for v in examples.given], dtype=np.float64)
