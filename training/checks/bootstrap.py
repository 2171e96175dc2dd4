"""The bootstrap check: a model's figures with intervals, and against an earlier model."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from training.checks import bootstrap_input as inputs
from training.checks import bootstrap_report as reporting
from training.checks.bootstrap_input import Clusters, Joined, Truth, Vocabulary
from training.checks.bootstrap_onsets import OnsetTotals, with_dynamics, with_onsets
from training.checks.calibration_file import CalibrationFile
from training.errors import DrumgateError
from training.gates import (
    GatesSource,
    Interval,
    Measurement,
    Report,
    Threshold,
    Verdict,
    judge,
    load_thresholds,
)
from training.manifest import Prediction, Records, read_records, reject_duplicates
from training.metrics.bootstrap import METRICS, Estimates, bootstrap, compare
from training.metrics.classification import BoolArray
from training.metrics.resampling import (
    Estimate,
    Method,
    Resampling,
    more_clusters_needed,
)
from training.metrics.scores import Clips

# The gates look at these whatever was asked for.
_GATED: Final = ("macro_f1", "openness_mae")
_UNDECIDABLE: Final = "undecidable"
_COMPARE_POINT: Final = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the bootstrap check reads, how it draws and how it judges."""

    ground_truth: Path
    predictions: Path
    baseline_predictions: Path | None = None
    calibration: Path | None = None
    """Of the candidate's scores."""
    baseline_calibration: Path | None = None
    metrics: tuple[str, ...] = ()
    """Names of figures; empty = all."""
    threshold: float = 0.5
    labels: tuple[str, ...] = ()
    components: Path | None = None
    cluster_field: str = "session_id"
    """Field that says which clips belong together; `none` = each clip on its own."""
    stratify_field: str | None = None
    iterations: int = 1000
    confidence: float = 0.95
    method: Method = "expanded"
    min_clusters: int = 5
    seed: int = 0
    min_macro_f1: float | None = None
    max_macro_f1_drop: float | None = None
    max_openness_mae_rise: float | None = None
    gates: GatesSource | None = None


def run(options: Options) -> Report:
    """Estimate the figures of a model, and what changed since the baseline, and judge both.

    A clip without a prediction counts as one where nothing was predicted, and is listed. The
    baseline gates are judged only where a baseline is given.

    Raises:
        DrumgateError: an option makes no sense.
        InputError: an input is missing or malformed, a `sample_id` stands twice, or a label is not
            one of the classes given.
    """
    settings, metrics = _settings(options)
    thresholds = _thresholds(options)
    field = None if options.cluster_field == "none" else options.cluster_field
    truth = inputs.read_truth(options.ground_truth, (field, options.stratify_field))
    predictions = _read_predictions(options)
    vocabulary = inputs.vocabulary(truth, predictions, options.labels, options.components)
    if options.baseline_calibration is not None and len(predictions) < 2:
        raise DrumgateError("--baseline-calibration: needs --baseline-predictions")
    calibrations = inputs.calibrations(options.calibration, options.baseline_calibration)
    models = [
        inputs.join(truth, each, vocabulary, options.threshold, calibration)
        for each, calibration in zip(predictions, calibrations, strict=False)
    ]
    models, onsets = _with_onsets(models, truth, predictions, vocabulary, calibrations, options)
    clusters = inputs.clusters(truth, field)
    strata = None
    if options.stratify_field is not None:
        strata = inputs.strata(truth, options.stratify_field, clusters)

    found = bootstrap(
        models[0].clips, clusters.index, settings=settings, metrics=metrics, strata=strata
    )
    found = _explained(found, clusters)
    verdicts = [_judge_macro_f1(found, models[0], thresholds["min_macro_f1"], settings)]
    report = reporting.figures(found, truth, vocabulary, models[0], clusters, options, onsets)
    warnings = reporting.warnings(found, truth, vocabulary, models)
    used = [each for each in calibrations if each]
    warnings += [text for each in used for text in each.warnings(vocabulary.classes)]
    if len(models) == 2:
        pair = _on_common_values(models[0].clips, models[1].clips)
        change = compare(*pair, clusters.index, settings=settings, metrics=metrics, strata=strata)
        change = _explained(change, clusters)
        judged = _judge_change(change, models, thresholds, settings)
        warnings += reporting.comparison_warnings(models)
        verdicts += judged
        warnings += [
            f"{verdict.name} passes on the bound of the interval only; {verdict.detail}"
            for verdict in judged
            if verdict.passed and verdict.detail.startswith(_UNDECIDABLE)
        ]
        report["comparison"] = reporting.comparison(change, models, truth, options)
    return Report(
        tool="bootstrap-eval",
        inputs=[truth.records.source, *(m.source for m in models), *(c.source for c in used)],
        parameters={**asdict(options), "metrics": options.metrics or METRICS},
        metrics=report,
        verdicts=verdicts,
        warnings=warnings,
        seed=options.seed,
    )


def _thresholds(options: Options) -> dict[str, Threshold]:
    return load_thresholds(
        "bootstrap",
        overlay=options.gates,
        overrides={
            "min_macro_f1": options.min_macro_f1,
            "max_macro_f1_drop": options.max_macro_f1_drop,
            "max_openness_mae_rise": options.max_openness_mae_rise,
        },
    )


def _read_predictions(options: Options) -> list[Records[Prediction]]:
    """Read the candidate's predictions, and the baseline's where there is one."""
    files = [options.predictions]
    if options.baseline_predictions is not None:
        files.append(options.baseline_predictions)
    predictions = [read_records(path, Prediction) for path in files]
    for records in predictions:
        reject_duplicates(records)
    return predictions


def _with_onsets(
    models: list[Joined],
    truth: Truth,
    predictions: list[Records[Prediction]],
    vocabulary: Vocabulary,
    calibrations: list[CalibrationFile | None],
    options: Options,
) -> tuple[list[Joined], OnsetTotals | None]:
    """Add dynamics and onsets to each model; the totals are the candidate's."""
    found = []
    for model, records, calibration in zip(models, predictions, calibrations, strict=False):

        def decide(
            rows: Sequence[Prediction],
            records: Records[Prediction] = records,
            calibration: CalibrationFile | None = calibration,
        ) -> BoolArray:
            return inputs.decisions(rows, records, vocabulary, options.threshold, calibration)[1]

        found.append(with_onsets(with_dynamics(model, truth), truth, records, decide))
    return [model for model, _ in found], found[0][1]


def _settings(options: Options) -> tuple[Resampling, tuple[str, ...]]:
    if unknown := [name for name in options.metrics if name not in METRICS]:
        raise DrumgateError(
            f"--metrics: {', '.join(unknown)} is not a figure; there are: {', '.join(METRICS)}"
        )
    try:
        settings = Resampling(
            iterations=options.iterations,
            confidence=options.confidence,
            method=options.method,
            seed=options.seed,
            min_clusters=options.min_clusters,
        )
    except ValueError as error:
        raise DrumgateError(str(error)) from None
    return settings, tuple(
        dict.fromkeys((*options.metrics, *_GATED))
    ) if options.metrics else METRICS


def _explained(found: Estimates, clusters: Clusters) -> Estimates:
    """Say why there is no interval where the clips could not be told apart by session."""
    if not clusters.reason:
        return found

    def explain(estimate: Estimate) -> Estimate:
        known = len(clusters.names)
        return replace(estimate, n_clusters=known, reason=clusters.reason, standard_error=None)

    return replace(
        found,
        n_clusters=len(clusters.names),
        overall={name: explain(each) for name, each in found.overall.items()},
        per_class={
            label: {name: explain(each) for name, each in figures.items()}
            for label, figures in found.per_class.items()
        },
    )


def _judge_macro_f1(
    found: Estimates, model: Joined, threshold: Threshold, settings: Resampling
) -> Verdict:
    estimate = found.overall["macro_f1"]
    unsure = _undecided(estimate, threshold, settings)
    if estimate.point is None:
        detail = "there is no reference event of any class"
    elif not _could_be_wrong(model.clips):
        detail = "no clip lacks a class that it annotates: a false alarm could not show"
        estimate, unsure = _without_figure(estimate), _Unsure()
    else:
        detail = unsure.detail or _weakest(found)
    return judge(_measurement("macro_f1", estimate, settings, detail, unsure), threshold)


def _judge_change(
    change: Estimates,
    models: list[Joined],
    thresholds: dict[str, Threshold],
    settings: Resampling,
) -> list[Verdict]:
    """Judge how much worse the candidate is; a drop is baseline - candidate."""
    drop, gate = _negated(change.overall["macro_f1"]), thresholds["max_macro_f1_drop"]
    unsure = _undecided(drop, gate, settings)
    detail = unsure.detail or _paired("baseline less candidate", drop)
    if models[1].missing:
        # Where the baseline says nothing it misses everything, and any candidate looks better.
        drop, unsure = _without_figure(drop), _Unsure()
        detail = f"{len(models[1].missing)} clips have no prediction from the baseline"
    verdicts = [judge(_measurement("macro_f1_drop", drop, settings, detail, unsure), gate)]

    predicted = [np.isfinite(model.clips.openness_pred) for model in models]
    expected = np.isfinite(models[0].clips.openness)
    if not (expected & (predicted[0] | predicted[1])).any():
        return verdicts
    rise, gate = change.overall["openness_mae"], thresholds["max_openness_mae_rise"]
    unsure = _undecided(rise, gate, settings)
    n_both = int((expected & predicted[0] & predicted[1]).sum())
    said = f"candidate less baseline, {n_both} of {int(expected.sum())} clips with an openness"
    detail = unsure.detail or _paired(said, rise)
    lost = int((expected & predicted[1] & ~predicted[0]).sum())
    if lost:
        # A model may not choose the clips on which its openness is compared.
        rise, unsure = _without_figure(rise), _Unsure()
        detail = f"{lost} clips have an openness from the baseline and none from the candidate"
    verdicts.append(judge(_measurement("openness_mae_rise", rise, settings, detail, unsure), gate))
    return verdicts


@dataclass(frozen=True, slots=True)
class _Unsure:
    """Why a gate cannot be decided and what would; empty where it can be."""

    detail: str = ""
    fix: str = ""


def _measurement(
    name: str, estimate: Estimate, settings: Resampling, detail: str, unsure: _Unsure
) -> Measurement:
    bounds = None
    if estimate.lower is not None and estimate.upper is not None:
        bounds = Interval(
            lower=estimate.lower, upper=estimate.upper, confidence=settings.confidence
        )
    return Measurement(
        name=name,
        value=estimate.point,
        n=estimate.n_clusters,
        ci=bounds,
        detail=detail,
        fix=unsure.fix,
    )


def _undecided(estimate: Estimate, threshold: Threshold, settings: Resampling) -> _Unsure:
    """Say how many more sessions are needed where no interval clears the threshold."""
    if estimate.point is None:
        return _Unsure()
    if estimate.lower is not None and estimate.upper is not None:
        if not estimate.lower <= threshold.value <= estimate.upper:
            return _Unsure()
        why = (
            f"{estimate.point:.3f} with interval {estimate.lower:.3f}…{estimate.upper:.3f}, "
            "which holds the threshold"
        )
    else:
        why = estimate.reason
    needed = more_clusters_needed(estimate, threshold.value, settings=settings)
    if not needed:
        strata = " strata" in estimate.reason
        fix = (
            "Stratify by a field with fewer values, or leave --stratify-field out."
            if strata
            else ""
        )
        return _Unsure(f"{_UNDECIDABLE}: {why}", fix)
    more = f"about {needed} more session{'' if needed == 1 else 's'} needed"
    reads = f"{_UNDECIDABLE}: {more} ({why})"
    fix = f"{more[0].upper()}{more[1:]} in the test set to tell on which side of the limit it lies."
    missed = not _COMPARE_POINT[threshold.comparator](estimate.point, threshold.value)
    return _Unsure(reads, f"{fix} {threshold.fix}" if missed else fix)


def _paired(said: str, change: Estimate) -> str:
    itself = "" if change.point is None else f": {change.point:.4f} itself"
    return f"{said}, on the same clips{itself}"


def _weakest(found: Estimates) -> str:
    scores = {
        label: figures["f1"].point
        for label, figures in found.per_class.items()
        if figures["f1"].point is not None
    }
    lowest = sorted(scores.items(), key=lambda item: (item[1] or 0.0, item[0]))[:3]
    named = ", ".join(f"{label} {value:.3f}" for label, value in lowest if (value or 0.0) < 1.0)
    macro = found.overall["macro_f1"].point
    stands = "" if macro is None else f"macro F1 itself {macro:.4f}"
    return "; ".join(filter(None, [stands, f"lowest F1: {named}" if named else ""]))


def _could_be_wrong(clips: Clips) -> bool:
    """Whether some clip lacks a class that it annotates, so that a false alarm could show."""
    return bool((clips.annotated & ~clips.truth & (clips.weight > 0)[:, None]).any())


def _without_figure(estimate: Estimate) -> Estimate:
    return replace(estimate, point=None, lower=None, upper=None)


def _negated(estimate: Estimate) -> Estimate:
    def minus(value: float | None) -> float | None:
        return None if value is None else 0.0 - value

    return replace(
        estimate,
        point=minus(estimate.point),
        lower=minus(estimate.upper),
        upper=minus(estimate.lower),
    )


def _on_common_values(candidate: Clips, baseline: Clips) -> tuple[Clips, Clips]:
    """Keep openness and velocity only where both models give one."""

    def keep(mine: Clips, theirs: Clips) -> Clips:
        return replace(
            mine,
            openness_pred=np.where(np.isfinite(theirs.openness_pred), mine.openness_pred, np.nan),
            velocity_pred=np.where(np.isfinite(theirs.velocity_pred), mine.velocity_pred, np.nan),
        )

    return keep(candidate, baseline), keep(baseline, candidate)
