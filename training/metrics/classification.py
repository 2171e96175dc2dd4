"""Multi-label classification figures from additive per-clip counts.

Task:
    Each clip carries a set of reference labels and a set of predicted labels. A (clip, class)
    cell is a true positive, a false positive, a false negative or nothing.

Conventions:
    Arrays are ``(n_clips, n_classes)``; a class keeps its column everywhere. A cell whose label
    is not annotated in the clip's source is unknown: it is neither right nor wrong and counts
    nowhere. A clip's weight multiplies its counts. Counts are *additive*: the counts of a set
    of clips are the sum of the counts of its parts, so that any figure on any group (session,
    edge, bootstrap resample) needs sums only.

Averages:
    Macro: unweighted mean over the classes with reference events; those without are listed, not
    averaged. A class with reference events that was never predicted has precision 0 in the
    macro average (scikit-learn's ``zero_division=0``). Micro: figures of the pooled counts of
    all classes.

Empty input:
    A figure whose denominator is zero is NaN in arrays and ``None`` in summaries.

Sources:
    Mesaros, Heittola, Virtanen (2016), "Metrics for polyphonic sound event detection", Applied
    Sciences 6(6):162, for the intermediate statistics; Sokolova and Lapalme (2009) for the
    averages. Checked against ``sklearn.metrics.precision_recall_fscore_support``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.float64]
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Weighted true positives, false positives and misses, ``[shape=(..., n_classes)]`` each.

    The leading axes are whatever is being compared: clips, groups or resamples; none after
    `total`. All three arrays have the same shape.
    """

    tp: FloatArray
    """True positives: in the reference and predicted."""
    fp: FloatArray
    """False positives: predicted, not in the reference."""
    fn: FloatArray
    """Misses: in the reference, not predicted."""

    @property
    def n_ref(self) -> FloatArray:
        """Weighted reference events, ``tp + fn``."""
        return self.tp + self.fn

    @property
    def n_pred(self) -> FloatArray:
        """Weighted predictions, ``tp + fp``."""
        return self.tp + self.fp

    def total(self) -> Counts:
        """Sum over the first axis; zeros where it is empty."""
        return Counts(tp=self.tp.sum(axis=0), fp=self.fp.sum(axis=0), fn=self.fn.sum(axis=0))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Counts:
        """Take some rows of the first axis, by mask or by index."""
        return Counts(tp=self.tp[rows], fp=self.fp[rows], fn=self.fn[rows])

    def by_group(self, group_index: ArrayLike, n_groups: int) -> Counts:
        """Sum the clips of each group, ``(n_clips, n_classes) -> (n_groups, n_classes)``.

        Args:
            group_index: integers [shape=(n_clips,)] in ``0 .. n_groups - 1``.
            n_groups: number of groups; a group without clips gets zeros.
        """
        index = np.asarray(group_index, dtype=np.intp)
        if index.shape != self.tp.shape[:1]:
            raise ValueError(f"group_index {index.shape} for {self.tp.shape[0]} clips")
        return Counts(
            tp=_sum_groups(self.tp, index, n_groups),
            fp=_sum_groups(self.fp, index, n_groups),
            fn=_sum_groups(self.fn, index, n_groups),
        )

    def resampled(self, multiplicity: ArrayLike) -> Counts:
        """Count many resamples of the groups at once, one matrix product an array.

        Args:
            multiplicity: how often each group was drawn [shape=(n_resamples, n_groups)].
        """
        drawn = np.asarray(multiplicity, dtype=np.float64)
        return Counts(tp=drawn @ self.tp, fp=drawn @ self.fp, fn=drawn @ self.fn)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Precision, recall and F1, arrays of one shape; NaN where the denominator is zero."""

    precision: FloatArray
    recall: FloatArray
    f1: FloatArray


@dataclass(frozen=True, kw_only=True, slots=True)
class Averages:
    """Precision, recall and F1 as numbers; ``None`` where not defined."""

    precision: float | None
    recall: float | None
    f1: float | None

    def as_metrics(self) -> dict[str, float | None]:
        """Return the report form, ``{precision, recall, f1}``."""
        return {"precision": self.precision, "recall": self.recall, "f1": self.f1}


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFigures:
    """Counts and rates of one class; a rate is ``None`` where its denominator is zero."""

    label: str
    tp: float
    fp: float
    fn: float
    n_ref: float
    precision: float | None
    recall: float | None
    f1: float | None

    def as_metrics(self) -> dict[str, float | None]:
        """Return the report form, without the label (it is the key)."""
        return {
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
            "tp": self.tp,
            "fp": self.fp,
            "fn": self.fn,
            "n_ref": self.n_ref,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """All figures of one set of clips."""

    n_clips: int
    macro: Averages
    micro: Averages
    per_class: tuple[ClassFigures, ...]
    """One entry a class, in column order, those without reference events included."""
    classes_without_reference: tuple[str, ...]
    """Classes left out of the macro average because no reference event has them."""

    def as_metrics(self) -> dict[str, object]:
        """Return the report form: macro, micro, per_class {label: …}, the classes left out."""
        return {
            "n_clips": self.n_clips,
            "macro": self.macro.as_metrics(),
            "micro": self.micro.as_metrics(),
            "per_class": {entry.label: entry.as_metrics() for entry in self.per_class},
            "classes_without_reference": list(self.classes_without_reference),
        }


def label_matrix(rows: Sequence[Collection[str]], classes: Sequence[str]) -> BoolArray:
    """Label sets as a matrix [shape=(n_clips, n_classes)]; labels not in `classes` are left out."""
    column = _columns(classes)
    matrix = np.zeros((len(rows), len(classes)), dtype=np.bool_)
    for row, labels in enumerate(rows):
        for label in labels:
            if label in column:
                matrix[row, column[label]] = True
    return matrix


def score_matrix(
    rows: Sequence[Mapping[str, float] | None], classes: Sequence[str], *, missing: float = np.nan
) -> FloatArray:
    """Score maps as a matrix [shape=(n_clips, n_classes)]; labels not in `classes` are left out.

    A label without a score, and every label of a clip without a prediction (``None``), gets
    `missing`; NaN is never predicted by `decide`.
    """
    column = _columns(classes)
    matrix = np.full((len(rows), len(classes)), missing, dtype=np.float64)
    for row, scores in enumerate(rows):
        for label, score in (scores or {}).items():
            if label in column:
                matrix[row, column[label]] = score
    return matrix


def annotated_matrix(rows: Iterable[Collection[str] | None], classes: Sequence[str]) -> BoolArray:
    """Annotated labels as a mask [shape=(n_clips, n_classes)]; ``None`` = all are annotated."""
    names = tuple(classes)
    masks = [
        [True] * len(names) if labels is None else [name in labels for name in names]
        for labels in rows
    ]
    return np.array(masks, dtype=np.bool_).reshape(len(masks), len(names))


def decide(
    scores: ArrayLike, *, threshold: float | ArrayLike = 0.5, top_k: int | None = None
) -> BoolArray:
    """Turn scores into predictions.

    Args:
        scores: [shape=(n_clips, n_classes)], higher = more likely; NaN is never predicted.
        threshold: one number, or one a class [shape=(n_classes,)]; predicted where
            ``score >= threshold``.
        top_k: keep at most this many labels a clip, the highest scores first (ties: the lower
            column). ``threshold=0, top_k=k`` is a plain top-k rule for probabilities.
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"scores must be (n_clips, n_classes), got shape {values.shape}")
    predicted = values >= np.asarray(threshold, dtype=np.float64)
    if top_k is None:
        return np.asarray(predicted, dtype=np.bool_)
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    order = np.argsort(np.where(predicted, -values, np.inf), axis=1, kind="stable")
    kept = np.zeros_like(predicted)
    np.put_along_axis(kept, order[:, :top_k], True, axis=1)
    return np.asarray(predicted & kept, dtype=np.bool_)


def clip_counts(
    reference: ArrayLike,
    predicted: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    annotated: ArrayLike | None = None,
) -> Counts:
    """Count each (clip, class) cell.

    Args:
        reference: booleans [shape=(n_clips, n_classes)].
        predicted: booleans of the same shape.
        weights: finite, >= 0, one a clip [shape=(n_clips,)]; default 1.
        annotated: booleans [shape=(n_clips, n_classes)]; False = unknown there, counted nowhere.

    Returns:
        Counts of shape ``(n_clips, n_classes)``; no clips give no rows, whose `total` is 0.

    Raises:
        ValueError: shapes differ, or a weight is negative or not finite.
    """
    truth = np.asarray(reference, dtype=np.bool_)
    guess = np.asarray(predicted, dtype=np.bool_)
    if truth.ndim != 2 or truth.shape != guess.shape:
        raise ValueError(
            f"reference {truth.shape} and predicted {guess.shape} must both be (n_clips, n_classes)"
        )
    known: BoolArray = np.ones_like(truth)
    if annotated is not None:
        known = np.asarray(annotated, dtype=np.bool_)
        if known.shape != truth.shape:
            raise ValueError(f"annotated {known.shape} must have shape {truth.shape}")
    weight = _weight_column(weights, truth.shape[0])
    return Counts(
        tp=(truth & guess & known) * weight,
        fp=(~truth & guess & known) * weight,
        fn=(truth & ~guess & known) * weight,
    )


def rates(counts: Counts) -> Rates:
    """Precision ``tp/(tp+fp)``, recall ``tp/(tp+fn)``, F1 ``2tp/(2tp+fp+fn)``, cell by cell.

    NaN where a denominator is zero. F1 is also NaN for a class without reference events, where
    it could only be zero or undefined and would say nothing of the class.
    """
    f1 = _ratio(2.0 * counts.tp, 2.0 * counts.tp + counts.fp + counts.fn)
    return Rates(
        precision=_ratio(counts.tp, counts.n_pred),
        recall=_ratio(counts.tp, counts.n_ref),
        f1=np.where(counts.n_ref > 0, f1, np.nan),
    )


def macro(counts: Counts) -> Rates:
    """Unweighted class means, ``(..., n_classes) -> (...)``; NaN where no class has a reference.

    Only classes with reference events take part; one of them that was never predicted has
    precision 0.
    """
    figures = rates(counts)
    present = counts.n_ref > 0
    n_present = present.sum(axis=-1).astype(np.float64)

    def mean(values: FloatArray) -> FloatArray:
        return _ratio(np.where(present, np.nan_to_num(values, nan=0.0), 0.0).sum(-1), n_present)

    return Rates(
        precision=mean(figures.precision), recall=mean(figures.recall), f1=mean(figures.f1)
    )


def micro(counts: Counts) -> Rates:
    """Figures of the counts pooled over all classes, ``(..., n_classes) -> (...)``.

    False positives of classes without reference events count here.
    """
    tp, fp, fn = counts.tp.sum(-1), counts.fp.sum(-1), counts.fn.sum(-1)
    return rates(Counts(tp=np.asarray(tp), fp=np.asarray(fp), fn=np.asarray(fn)))


def summarise(counts: Counts, classes: Sequence[str]) -> Summary:
    """All figures of a set of clips.

    Args:
        counts: per clip or per group [shape=(n_clips, n_classes)].
        classes: names of the columns.
    """
    if counts.tp.ndim != 2 or counts.tp.shape[1] != len(classes):
        raise ValueError(
            f"counts {counts.tp.shape} must be (n_clips, n_classes) with {len(classes)} classes"
        )
    total = counts.total()
    figures = rates(total)
    per_class = tuple(
        ClassFigures(
            label=label,
            tp=float(total.tp[column]),
            fp=float(total.fp[column]),
            fn=float(total.fn[column]),
            n_ref=float(total.n_ref[column]),
            precision=finite_or_none(figures.precision[column]),
            recall=finite_or_none(figures.recall[column]),
            f1=finite_or_none(figures.f1[column]),
        )
        for column, label in enumerate(classes)
    )
    return Summary(
        n_clips=counts.tp.shape[0],
        macro=averages(macro(total)),
        micro=averages(micro(total)),
        per_class=per_class,
        classes_without_reference=tuple(c.label for c in per_class if not c.n_ref > 0),
    )


def averages(figures: Rates) -> Averages:
    """Scalar `Rates` as numbers, NaN as ``None``."""
    return Averages(
        precision=finite_or_none(figures.precision),
        recall=finite_or_none(figures.recall),
        f1=finite_or_none(figures.f1),
    )


def finite_or_none(value: float | np.floating | FloatArray) -> float | None:
    """Return a finite number as float, anything else as ``None`` (a report's "undefined")."""
    number = float(value)
    return number if np.isfinite(number) else None


def _columns(classes: Sequence[str]) -> dict[str, int]:
    column = {label: index for index, label in enumerate(classes)}
    if len(column) != len(classes):
        raise ValueError("class names must be distinct")
    return column


def _weight_column(weights: ArrayLike | None, n_clips: int) -> FloatArray:
    if weights is None:
        return np.ones((n_clips, 1), dtype=np.float64)
    weight = np.asarray(weights, dtype=np.float64)
    if weight.shape != (n_clips,):
        raise ValueError(f"weights {weight.shape} must have shape ({n_clips},)")
    if not np.all(np.isfinite(weight)) or np.any(weight < 0):
        raise ValueError("weights must be finite and not negative")
    return weight[:, None]


def _sum_groups(values: FloatArray, index: NDArray[np.intp], n_groups: int) -> FloatArray:
    columns = [
        np.bincount(index, weights=values[:, column], minlength=n_groups)
        for column in range(values.shape[1])
    ]
    if any(column.shape[0] != n_groups for column in columns):
        raise ValueError(f"group_index must lie in 0 .. {n_groups - 1}")
    return np.stack(columns, axis=1) if columns else np.zeros((n_groups, 0))


def _ratio(numerator: ArrayLike, denominator: ArrayLike) -> FloatArray:
    top = np.asarray(numerator, dtype=np.float64)
    bottom = np.asarray(denominator, dtype=np.float64)
    result: FloatArray = np.full(np.broadcast_shapes(top.shape, bottom.shape), np.nan)
    np.divide(top, bottom, out=result, where=bottom > 0)
    return result
