"""What the calibration check says: figures of scores before and after, gates, reliability."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from training.gates import Measurement, Threshold, Verdict, judge
from training.metrics import calibration as cal
from training.metrics import classification as cl
from training.metrics.calibration import CalibrationFigures, Scored
from training.metrics.calibration_fit import Fit
from training.metrics.scores import IndexArray


@dataclass(frozen=True, slots=True)
class View:
    """Scores at one stage, and the decisions made from them."""

    sample: str
    """What the figures stand for: as they are, in-sample, cross-fitted or held out."""
    stage: Literal["before", "after"]
    scored: Scored
    predicted: cl.BoolArray

    def figures(self) -> CalibrationFigures:
        """Return the calibration figures."""
        return cal.measure(self.scored)

    def summary(self) -> cl.Summary:
        """Return precision, recall and F1 of the decisions."""
        clips = self.scored
        counts = cl.clip_counts(
            clips.truth, self.predicted, weights=clips.weight, annotated=clips.annotated
        )
        return cl.summarise(counts, clips.labels)


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """All stages of one run; `decisive` is the one that the gates look at."""

    before: View | None
    after: View | None = None
    """In-sample: after the fit, on the clips that it was fitted on."""
    decisive: View | None
    fit: Fit | None = None
    folds_fitted: IndexArray | None = None
    n_folds: int = 0
    methods: Mapping[str, View] = field(default_factory=dict)
    """Every method, cross-fitted on the same folds."""
    chosen: Mapping[str, Any] = field(default_factory=dict)
    """The method and the objective that were fitted, and why where the run chose them."""
    reason: str = ""
    """Why the gates are not measured; empty where they are."""
    class_reasons: tuple[str, ...] = ()

    @property
    def views(self) -> dict[str, View]:
        """The stages by the name under which the report has them."""
        found: dict[str, View] = {}
        for view in (self.before, self.after, self.decisive):
            if view is not None:
                key: str = view.stage
                if view.stage == "after":
                    key += "_" + view.sample.replace("-", "_").replace(" ", "_")
                found.setdefault(key, view)
        return found


def at_bound(temperature: float) -> bool:
    """Say whether a temperature lies within one per cent of an end of its range."""
    low, high = cal.TEMPERATURES
    return temperature < low * 1.01 or temperature > high / 1.01


def verdicts(judged: Judged, thresholds: Mapping[str, Threshold]) -> list[Verdict]:
    """Judge the decisive figures; without them, or where the run has a reason, nothing passes."""
    view = judged.decisive
    figures = None if view is None else view.figures()
    found = [
        judge(
            Measurement(
                name=gate,
                value=None if judged.reason else value,
                n=None if view is None else len(view.scored),
                detail=judged.reason or _figures_of(view, gate, value),
            ),
            thresholds[gate],
        )
        for gate, value in (
            ("max_ece", None if figures is None else figures.ece),
            ("max_brier", None if figures is None else figures.brier),
            ("min_brier_skill", None if figures is None else figures.brier_skill),
        )
    ]
    if view is None or figures is None:
        return found
    reasons = judged.class_reasons or ("",) * len(view.scored.labels)
    for column, label in enumerate(view.scored.labels):
        known, truth, _ = view.scored.column(column)
        why = judged.reason or reasons[column]
        if not why and not truth.any():
            why = "no clip holds it"
        value = None if why else figures.class_ece[column]
        measurement = Measurement(name=label, value=value, n=int(known.size), detail=why)
        found.append(judge(measurement, thresholds["max_class_ece"], subject=label))
    return found


def _figures_of(view: View | None, gate: str, value: float | None) -> str:
    if view is None:
        return "no figure"
    if value is not None:
        return f"{view.sample} figures"
    if gate == "min_brier_skill":
        return "no class has both clips with it and clips without it"
    return "no clip counts"


def metrics(judged: Judged) -> dict[str, Any]:
    """Return the figures of all stages, per class, and what the diagrams draw."""
    views = judged.views
    measured = {name: view.figures() for name, view in views.items()}
    summaries = {name: view.summary() for name, view in views.items()}
    last = next(reversed(views.values()))
    found: dict[str, Any] = {
        "figures": {
            name: {
                "sample": view.sample,
                **_overall(measured[name]),
                "macro_f1": summaries[name].macro.f1,
                "micro_f1": summaries[name].micro.f1,
            }
            for name, view in views.items()
        },
        "judged_on": None if judged.decisive is None else judged.decisive.sample,
        "not_measured_because": judged.reason or None,
        "per_class": {
            label: _class_row(judged, column, label, measured, summaries)
            for column, label in enumerate(last.scored.labels)
        },
        "reliability": _diagrams(views),
    }
    if judged.fit is not None:
        found |= judged.chosen
        found["temperature"] = judged.fit.temperature
        found["folds"] = judged.n_folds
        found["methods_cross_fitted"] = {
            name: {**_overall(view.figures()), "macro_f1": view.summary().macro.f1}
            for name, view in judged.methods.items()
        }
    return found


def harm(judged: Judged, objective: str) -> list[str]:
    """Say where the fit made things worse on sessions that it was not fitted on."""
    before, after = judged.before, judged.decisive
    if before is None or after is None:
        return []
    said = []
    old, new = before.figures().nll, after.figures().nll
    if old is not None and new is not None and new > old:
        said.append(
            f"on sessions left out the scaling makes the scores worse (NLL {old:.4f} -> {new:.4f}):"
            " too few sessions for this method; see methods_cross_fitted"
        )
    f1 = [view.summary().macro.f1 for view in (before, after)]
    if objective == "f1" and f1[0] is not None and f1[1] is not None and f1[1] < f1[0]:
        said.append(
            f"on sessions left out the thresholds lower the macro F1 ({f1[0]:.4f} -> {f1[1]:.4f}): "
            "too few sessions to choose them on; --objective keep leaves decisions as they are"
        )
    return said


def _overall(figures: CalibrationFigures) -> dict[str, float | None]:
    known = [value for value in figures.class_ece if value is not None]
    return {
        "ece": figures.ece,
        "ece_classwise": float(np.mean(known)) if known else None,
        "brier": figures.brier,
        "brier_skill": figures.brier_skill,
        "nll": figures.nll,
    }


def _class_row(
    judged: Judged,
    column: int,
    label: str,
    measured: Mapping[str, CalibrationFigures],
    summaries: Mapping[str, cl.Summary],
) -> dict[str, Any]:
    scored = next(iter(judged.views.values())).scored
    _, truth, _ = scored.column(column)
    row: dict[str, Any] = {"n": int(truth.size), "n_positive": int(truth.sum())}
    if judged.fit is not None:
        row["slope"] = float(judged.fit.slope[column])
        row["intercept"] = float(judged.fit.intercept[column])
        row["threshold"] = float(judged.fit.threshold[column])
        row["reason"] = judged.fit.reasons[column] or None
    if judged.folds_fitted is not None:
        row["folds_fitted"] = int(judged.folds_fitted[column])
    for name, figures in measured.items():
        rates = next(each for each in summaries[name].per_class if each.label == label)
        row[name] = {
            "ece": figures.class_ece[column],
            "brier": figures.class_brier[column],
            "precision": rates.precision,
            "recall": rates.recall,
            "f1": rates.f1,
        }
    return row


def _diagrams(views: Mapping[str, View]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Points of the reliability diagrams, all classes pooled first; label → stage → bins."""
    sums = {name: cal.reliability(view.scored) for name, view in views.items()}
    labels = next(iter(views.values())).scored.labels
    found = {"all": {name: each.points() for name, each in sums.items()}}
    for label in labels:
        # A class may be called "all" only where it would not be taken for the pool.
        key = f"{label} (class)" if label == "all" else label
        found[key] = {name: each.points(label) for name, each in sums.items()}
    return found
