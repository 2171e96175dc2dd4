"""A boundary pack and the predictions for it, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from training.checks.bootstrap_input import merged
from training.checks.calibration_file import CalibrationFile, load_calibration
from training.errors import DrumgateError, InputError
from training.manifest import GroundTruth, InputFile, Prediction, Records, describe_file, read_json
from training.manifest.fields import NonEmpty, Positive, Unit
from training.metrics import classification as cl
from training.taxonomy import ComponentTaxonomy, load_components

NotNegative = Annotated[float, Meta(ge=0, le=1e12)]


class BoundaryTruth(GroundTruth, frozen=True, kw_only=True, omit_defaults=True):
    """A row of a boundary pack; any other truth record will do, without edges and distances."""

    event_id: NonEmpty | None = None
    edge: Literal["start", "end"] | None = None
    distance_ms: NotNegative | None = None
    window_index: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    window_size_ms: Annotated[Positive, Meta(le=1e12)] | None = None
    hop_size_ms: Annotated[Positive, Meta(le=1e12)] | None = None
    offset_ms: NotNegative | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """When a score is a prediction: one threshold, one a class, or a calibration and its own."""

    threshold: float
    top_k: int | None = None
    thresholds: Mapping[str, float] | None = None
    calibration: CalibrationFile | None = None
    sources: tuple[InputFile, ...] = ()

    def decide(
        self,
        predictions: Records[Prediction],
        sample_ids: Sequence[str],
        classes: Sequence[str],
    ) -> cl.BoolArray:
        """Return what is predicted [shape=(n, n_classes)]; nothing where there is no prediction.

        Raises:
            InputError: some scores have been through another calibration.
        """
        by_id = {row.sample_id: merged(row.label_scores, canonical) for row in predictions}
        scores = cl.score_matrix([by_id.get(each) for each in sample_ids], classes)
        limits: float | cl.FloatArray = self.threshold
        if self.thresholds is not None:
            limits = np.array([self.thresholds.get(name, self.threshold) for name in classes])
        if self.calibration is not None:
            stays = self.calibration.done(predictions)
            done = np.array([stays.get(each, True) for each in sample_ids], dtype=np.bool_)
            scores = self.calibration.scaled(scores, classes, done)
            limits = self.calibration.thresholds(classes, self.threshold)
        return cl.decide(scores, threshold=limits, top_k=self.top_k)

    def warnings(self, classes: Sequence[str]) -> list[str]:
        """Say which classes fall back to the common threshold, and which names fit no class."""
        if self.calibration is not None:
            return self.calibration.warnings(classes)
        if self.thresholds is None:
            return []
        said = []
        (source,) = self.sources
        if missing := sorted(set(classes) - self.thresholds.keys()):
            said.append(
                f"{source.path} has no threshold for {', '.join(missing)}: {self.threshold:g}"
            )
        if strange := sorted(self.thresholds.keys() - set(classes)):
            said.append(f"{source.path}: no row or prediction has {', '.join(strange)}")
        return said


def load_rule(
    *, threshold: float, top_k: int | None, thresholds: Path | None, calibration: Path | None
) -> Rule:
    """Read the files that say from which score on a label is predicted.

    Raises:
        DrumgateError: both files are given.
        InputError: a file is missing or malformed.
    """
    if thresholds is not None and calibration is not None:
        raise DrumgateError(
            "give either --thresholds or --calibration: a calibration has thresholds of its own"
        )
    if calibration is not None:
        found = load_calibration(calibration)
        return Rule(threshold=threshold, top_k=top_k, calibration=found, sources=(found.source,))
    if thresholds is None:
        return Rule(threshold=threshold, top_k=top_k)
    if "classes" in read_json(thresholds, dict[str, Any]):
        raise InputError.at(thresholds, "is a calibration; give it as --calibration")
    given = read_json(thresholds, dict[NonEmpty, Unit])
    if not given:
        raise InputError.at(thresholds, "holds no threshold")
    values = {canonical(name): value for name, value in given.items()}
    if len(values) < len(given):
        raise InputError.at(thresholds, "names one class twice, by two of its names")
    return Rule(
        threshold=threshold, top_k=top_k, thresholds=values, sources=(describe_file(thresholds),)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """Truth and predictions side by side, as matrices over the same rows and classes."""

    rows: list[BoundaryTruth]
    classes: tuple[str, ...]
    reference: cl.BoolArray
    predicted: cl.BoolArray
    annotated: cl.BoolArray
    counts: cl.Counts
    distances_ms: cl.FloatArray
    """NaN where a row has none."""
    missing: list[str]
    surplus: int
    background: dict[str, int]

    @property
    def edges(self) -> list[str | None]:
        """The edge that each row is near."""
        return [row.edge for row in self.rows]

    @property
    def weights(self) -> cl.FloatArray:
        """Of each row."""
        return np.array([row.weight for row in self.rows], dtype=np.float64)


@cache
def canonical(name: str) -> str:
    """Return the class of the shipped taxonomy that a name stands for, or the name itself."""
    return _taxonomy().canonical(name) or name


@cache
def _taxonomy() -> ComponentTaxonomy:
    return load_components()


def join(
    truth: Records[BoundaryTruth],
    predictions: Records[Prediction],
    rule: Rule,
    *more: Records[Prediction],
) -> Joined:
    """Put the predictions beside the rows of the pack.

    The classes are those that some row, prediction, or prediction of `more` names, without those
    of background role; a name that stands for a class of the taxonomy counts as that class.

    Raises:
        InputError: some scores have been through another calibration.
    """
    taxonomy = _taxonomy()
    background = taxonomy.known - set(taxonomy.targets)
    rows = list(truth)
    ids = [row.sample_id for row in rows]
    wanted, predicted_ids = set(ids), {row.sample_id for row in predictions}
    labels = [frozenset(map(canonical, row.label_set)) for row in rows]
    named = {label for each in labels for label in each}
    for row in predictions:
        if row.sample_id in wanted:
            named |= set(map(canonical, row.label_scores))
    events = {row.event_id for row in rows}
    for records in more:
        named |= {
            canonical(name)
            for row in records
            if row.sample_id in events
            for name in row.label_scores
        }
    classes = tuple(label for label in taxonomy.targets if label in named)
    classes += tuple(sorted(named - set(taxonomy.targets) - background))
    reference = cl.label_matrix(labels, classes)
    predicted = rule.decide(predictions, ids, classes)
    annotated = cl.annotated_matrix(
        [
            None if row.annotated_labels is None else set(map(canonical, row.annotated_labels))
            for row in rows
        ],
        classes,
    )
    distances = [np.nan if row.distance_ms is None else row.distance_ms for row in rows]
    return Joined(
        rows=rows,
        classes=classes,
        reference=reference,
        predicted=predicted,
        annotated=annotated,
        counts=cl.clip_counts(
            reference, predicted, weights=[row.weight for row in rows], annotated=annotated
        ),
        distances_ms=np.array(distances, dtype=np.float64),
        missing=[each for each in ids if each not in predicted_ids],
        surplus=len(predicted_ids - wanted),
        background={
            label: count
            for label in sorted(background)
            if (count := sum(label in each for each in labels))
        },
    )


def session_numbers(rows: Sequence[BoundaryTruth]) -> tuple[NDArray[np.intp] | None, int, str]:
    """Return the session of each row by its sorted name, how many there are, and why not.

    Sorted, a draw does not depend on the order of the file.
    """
    sessions = [row.session_id for row in rows]
    without = sum(session is None for session in sessions)
    if without:
        return None, len(set(sessions) - {None}), f"{without} rows have no session_id"
    names, index = np.unique(np.array(sessions, dtype=str), return_inverse=True)
    return index.astype(np.intp), len(names), ""
