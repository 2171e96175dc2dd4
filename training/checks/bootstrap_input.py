"""Reading what the bootstrap resamples: truth and predictions side by side, and their clusters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.checks.calibration_file import CalibrationFile, load_calibration
from training.errors import InputError, Problem
from training.manifest import (
    GroundTruth,
    InputFile,
    Prediction,
    Records,
    read_raw,
    read_records,
    reject_duplicates,
)
from training.metrics import classification as cl
from training.metrics.scores import Clips, IndexArray
from training.taxonomy import ComponentTaxonomy, load_components

LISTED: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Truth:
    """The reference, as rows and as matrices."""

    records: Records[GroundTruth]
    raw: Sequence[Mapping[str, Any]] | None
    """The JSON objects, read only where a field is needed that `GroundTruth` does not know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Which labels are classes, and what every other name stands for."""

    classes: tuple[str, ...]
    closed: bool
    """True where the user named the classes: any other label is then an error."""
    taxonomy: ComponentTaxonomy

    def canonical(self, label: str) -> str:
        """Return the class or background label that a name stands for, or the name itself."""
        return label if label in self.classes else self.taxonomy.canonical(label) or label

    @property
    def background(self) -> frozenset[str]:
        """Labels that may stand in the data and are no class."""
        return self.taxonomy.known - set(self.taxonomy.targets) - set(self.classes)


@dataclass(frozen=True, kw_only=True, slots=True)
class Joined:
    """One model's predictions beside the reference."""

    clips: Clips
    source: InputFile
    missing: list[str]
    """Clips without a prediction: nothing was predicted there."""
    surplus: int
    """Predictions of clips that are not in the reference."""
    labels_only: int
    """Predictions that give labels without scores."""
    without_value: dict[str, int]
    """Openness and velocity: clips with a reference value and no predicted one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clusters:
    """The cluster of each clip."""

    index: IndexArray
    names: tuple[str, ...]
    reason: str = ""
    """Why the clips cannot be clustered; `index` is then all zero."""


def read_truth(path: Path, fields: Iterable[str | None]) -> Truth:
    """Read the ground truth, with the raw objects where a field asks for them."""
    if all(field is None or field in GroundTruth.__struct_fields__ for field in fields):
        truth = Truth(records=read_records(path, GroundTruth), raw=None)
    else:
        pairs = read_raw(path, GroundTruth)
        records = Records([row for row, _ in pairs], pairs.lines, pairs.source)
        truth = Truth(records=records, raw=[raw for _, raw in pairs])
    reject_duplicates(truth.records)
    return truth


def vocabulary(
    truth: Truth,
    predictions: Sequence[Records[Prediction]],
    labels: tuple[str, ...],
    components: Path | None,
) -> Vocabulary:
    """Say which labels are classes: those given, or else every one that occurs, targets first.

    Raises:
        InputError: a label occurs that is neither one of the classes given nor background.
    """
    taxonomy = load_components(components)
    given = labels or (taxonomy.targets if components else ())
    if given:
        found = Vocabulary(classes=given, closed=True, taxonomy=taxonomy)
        _reject_strangers(truth, predictions, found)
        return found
    open_ended = Vocabulary(classes=(), closed=False, taxonomy=taxonomy)
    named = {open_ended.canonical(label) for row in truth.records for label in row.label_set}
    for records in predictions:
        named |= {open_ended.canonical(label) for row in records for label in row.label_scores}
    classes = [label for label in taxonomy.targets if label in named]
    classes += sorted(named - taxonomy.known)
    if not classes:
        why = "names no class of the taxonomy in any record"
        raise InputError.at(truth.records.source.path, why)
    return Vocabulary(classes=tuple(classes), closed=False, taxonomy=taxonomy)


def _reject_strangers(
    truth: Truth, predictions: Sequence[Records[Prediction]], vocabulary: Vocabulary
) -> None:
    allowed = set(vocabulary.classes) | vocabulary.background
    why = f"is none of the classes ({', '.join(vocabulary.classes)})"

    def strangers(
        records: Records[Any], field: str, names: Iterable[Iterable[str]]
    ) -> list[Problem]:
        return [
            Problem(records.source.path, why, line, field, name)
            for line, named in zip(records.lines, names, strict=True)
            for name in sorted(named)
            if vocabulary.canonical(name) not in allowed
        ]

    problems = strangers(truth.records, "labels", (row.label_set for row in truth.records))
    for records in predictions:
        problems += strangers(records, "scores", (row.label_scores for row in records))
    if problems:
        raise InputError(problems)


def decisions(
    found: Sequence[Prediction | None],
    predictions: Records[Prediction],
    vocabulary: Vocabulary,
    threshold: float,
    calibration: CalibrationFile | None = None,
) -> tuple[cl.FloatArray, cl.BoolArray]:
    """Scores and decisions of some predictions out of a file [shape=(n_found, n_classes)].

    None stands for a clip without a prediction, for which nothing is predicted.
    """
    classes = vocabulary.classes
    scores = cl.score_matrix(
        [
            None if each is None else merged(each.label_scores, vocabulary.canonical)
            for each in found
        ],
        classes,
        missing=0.0,
    )
    cuts: float | cl.FloatArray = threshold
    if calibration is not None:
        stays = calibration.done(predictions)
        kept = np.array([each is None or stays[each.sample_id] for each in found])
        scores = calibration.scaled(scores, classes, kept)
        cuts = calibration.thresholds(classes, threshold)
    predicted = cl.decide(scores, threshold=cuts)
    # With a threshold of 0 an absent prediction would otherwise be a prediction of everything.
    predicted[[each is None for each in found]] = False
    return scores, predicted


def join(
    truth: Truth,
    predictions: Records[Prediction],
    vocabulary: Vocabulary,
    threshold: float,
    calibration: CalibrationFile | None = None,
) -> Joined:
    """Put one model's predictions beside the reference, clip by clip, calibrated where asked for.

    Raises:
        InputError: some scores have been through another calibration than `calibration`.
    """
    rows, classes = truth.records.rows, vocabulary.classes
    by_id = {row.sample_id: row for row in predictions}
    found = [by_id.get(row.sample_id) for row in rows]
    scores, predicted = decisions(found, predictions, vocabulary, threshold, calibration)
    canonical = vocabulary.canonical
    values = {
        "openness": _column(_openness(row) for row in rows),
        "velocity": _column(_velocity(row) for row in rows),
        "openness_pred": _column(each.openness_pred if each else None for each in found),
        "velocity_pred": _column(each.velocity_pred if each else None for each in found),
    }
    clips = Clips(
        labels=classes,
        truth=cl.label_matrix(
            [{canonical(name) for name in row.label_set} for row in rows], classes
        ),
        scores=scores,
        predicted=predicted,
        annotated=cl.annotated_matrix(
            [
                None if row.annotated_labels is None else set(map(canonical, row.annotated_labels))
                for row in rows
            ],
            classes,
        ),
        weight=np.array([row.weight for row in rows], dtype=np.float64),
        openness=values["openness"],
        openness_pred=values["openness_pred"],
        velocity=values["velocity"],
        velocity_pred=values["velocity_pred"],
    )
    return Joined(
        clips=clips,
        source=predictions.source,
        missing=[row.sample_id for row, each in zip(rows, found, strict=True) if each is None],
        surplus=len(by_id.keys() - {row.sample_id for row in rows}),
        labels_only=sum(
            each is not None and each.scores is None and each.probabilities is None
            for each in found
        ),
        without_value={
            name: int((np.isfinite(values[name]) & np.isnan(values[f"{name}_pred"])).sum())
            for name in ("openness", "velocity")
        },
    )


def calibrations(*paths: Path | None) -> list[CalibrationFile | None]:
    """Read calibration files where they are given."""
    return [None if path is None else load_calibration(path) for path in paths]


def clusters(truth: Truth, field: str | None) -> Clusters:
    """Number the clusters by their sorted names, so that draws do not depend on the file's order.

    With `field` None each clip is its own cluster. Where some clips lack the field, nothing can be
    said of their independence and `Clusters.reason` tells so.

    Raises:
        InputError: a value of the field is not text.
    """
    rows = truth.records.rows
    if field is None:
        names: list[Any] = [row.sample_id for row in rows]
    else:
        names = _field_values(truth, field)
        without = sum(name is None for name in names)
        if without:
            return Clusters(
                index=np.zeros(len(rows), dtype=np.intp),
                names=tuple(sorted(set(names) - {None})),
                reason=f"{without} of {len(rows)} clips have no {field} "
                "(--cluster-field none takes each clip as independent)",
            )
    distinct, index = np.unique(np.array(names, dtype=str), return_inverse=True)
    return Clusters(index=index.astype(np.intp), names=tuple(distinct.tolist()))


def strata(truth: Truth, field: str, found: Clusters) -> IndexArray:
    """Give the stratum of each cluster, numbered by sorted name.

    Raises:
        InputError: a clip lacks the field, or a cluster lies in two strata.
    """
    values = _field_values(truth, field)
    of_cluster: dict[int, str] = {}
    problems = []
    path = truth.records.source.path
    for line, value, cluster in zip(truth.records.lines, values, found.index, strict=True):
        if value is None:
            problems.append(Problem(path, "is required to stratify by", line, field))
        elif of_cluster.setdefault(int(cluster), value) != value:
            why = f"differs within one cluster, which is {of_cluster[int(cluster)]!r} elsewhere"
            problems.append(Problem(path, why, line, field, value))
    if problems:
        raise InputError(problems)
    names = [of_cluster[cluster] for cluster in range(len(of_cluster))]
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.intp)


def background_events(truth: Truth, vocabulary: Vocabulary) -> dict[str, int]:
    """Count the clips of each label that is no class."""
    counts = Counter(
        name for row in truth.records for name in {vocabulary.canonical(n) for n in row.label_set}
    )
    return {name: counts[name] for name in sorted(counts) if name in vocabulary.background}


def _field_values(truth: Truth, field: str) -> list[Any]:
    rows = truth.raw or [
        {field: getattr(row, field)} if field in GroundTruth.__struct_fields__ else {}
        for row in truth.records
    ]
    values = [row.get(field) for row in rows]
    problems = [
        Problem(truth.records.source.path, "must be text", line, field, value)
        for line, value in zip(truth.records.lines, values, strict=True)
        if value is not None and not isinstance(value, str)
    ]
    if problems:
        raise InputError(problems)
    return values


def merged(scores: Mapping[str, float], canonical: Callable[[str], str]) -> dict[str, float]:
    """Scores by class; where two names stand for one class the higher score counts."""
    found: dict[str, float] = {}
    for name, score in scores.items():
        label = canonical(name)
        found[label] = max(score, found.get(label, score))
    return found


def _openness(row: GroundTruth) -> float | None:
    """Openness of the clip: its own field, else that of the first component that has one."""
    if row.openness is not None:
        return row.openness
    found = (part.openness for part in row.components or () if part.openness is not None)
    return next(found, None)


def _velocity(row: GroundTruth) -> float | None:
    """Velocity of the clip: its own field, else that of the hardest component."""
    if row.velocity is not None:
        return row.velocity
    found = [part.velocity for part in row.components or () if part.velocity is not None]
    return max(found, default=None)


def _column(values: Iterable[float | None]) -> cl.FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
