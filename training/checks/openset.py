"""The open-set check: join truth and predictions, measure the separation, judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from training.checks import openset_input as inputs
from training.checks import openset_tables as tables
from training.checks.openset_input import EXPLICIT, Examples
from training.checks.openset_methods import METHODS, Scored, Statistics, score
from training.checks.sureness import unsure_passes
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
from training.metrics import openset
from training.metrics.openset_scores import Task
from training.metrics.resampling import Resampling

ALL: Final = "all"
LISTED: Final = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What the open-set check reads, which score it takes and how it judges."""

    ground_truth: Path
    predictions: Path
    method: str = EXPLICIT
    """`explicit` (the rejection field), a name out of `METHODS`, or `all`."""
    rejection_field: str = "unknown_score"
    higher_is: str = "unknown"
    """Whether the rejection field rises with how `unknown` or how `known` a sound seems."""
    task: Task = "multilabel"
    temperature: float = 1.0
    features: Path | None = None
    statistics: Path | None = None
    neighbours: int = 50
    calibration_ground_truth: Path | None = None
    calibration_predictions: Path | None = None
    calibration_tpr: float = 0.95
    min_examples: int = 10
    """With fewer known or fewer unknown examples no gate is measured."""
    cluster_field: str = "session_id"
    """`session_id`, or `none`: each clip on its own."""
    iterations: int = 1000
    confidence: float = 0.95
    min_clusters: int = 5
    seed: int = 0
    min_auroc: float | None = None
    max_fpr_at_95tpr: float | None = None
    min_calibrated_tpr: float | None = None
    max_calibrated_fpr: float | None = None
    gates: GatesSource | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Files:
    """The test file, and the calibration file where one was given; each with its scores."""

    test: Examples
    scored: Scored
    calibration: Examples | None
    calibration_scored: Scored | None
    judged: str
    """The method that the gates look at."""
    chosen_by: str


def run(options: Options) -> Report:
    """Measure and judge how well an unknown score tells unknown sounds from known ones.

    An example without a prediction cannot be ranked: the gates are then not measured, since a model
    may not choose which examples it is judged on. With a calibration file the threshold at its
    stated TPR, and with `all` the method too, is chosen there and reported on the test file.

    Raises:
        DrumgateError: an option makes no sense, or the method asked for cannot be computed.
        InputError: an input is missing or malformed, `is_known` is absent from a truth record,
            the rejection field from a prediction where it is asked for, or a `sample_id` stands
            twice.
    """
    settings = _settings(options)
    thresholds = load_thresholds(
        "openset",
        overlay=options.gates,
        overrides={
            "min_auroc": options.min_auroc,
            "max_fpr_at_95tpr": options.max_fpr_at_95tpr,
            "min_calibrated_tpr": options.min_calibrated_tpr,
            "max_calibrated_fpr": options.max_calibrated_fpr,
        },
    )
    statistics = Statistics.read(options.features, options.statistics)
    files = _read(options, statistics)
    found = tables.measure(files.test, files.scored.arrays[files.judged], settings, options)
    ranking = tables.ranking(files.test, files.scored, files.judged, found, settings, options)
    calibrated = None
    if files.calibration and files.calibration_scored:
        calibrated = tables.calibrated(
            files.calibration,
            files.calibration_scored.arrays[files.judged],
            files.test,
            files.scored.arrays[files.judged],
            settings,
            options,
        )
    verdicts = _verdicts(files.test, found, calibrated, thresholds, options)
    return Report(
        tool="openset-eval",
        inputs=[
            *files.test.sources,
            *(files.calibration.sources if files.calibration else ()),
            *statistics.sources,
        ],
        parameters=asdict(options),
        metrics={
            "method": files.judged,
            "method_chosen_by": files.chosen_by,
            **found.metrics,
            **tables.by_class(
                files.test, files.scored.arrays[files.judged], found, calibrated, settings, options
            ),
            "ranking": ranking,
            "methods_unavailable": files.scored.unavailable,
            "outputs": files.scored.outputs,
            "calibrated": None if calibrated is None else calibrated.metrics,
            "missing_predictions": list(files.test.missing[:LISTED]),
            "missing_predictions_total": len(files.test.missing),
        },
        verdicts=verdicts,
        warnings=[*_warnings(files, found, calibrated, options), *unsure_passes(verdicts)],
        seed=options.seed,
    )


def _settings(options: Options) -> Resampling:
    if options.method not in (EXPLICIT, ALL, *METHODS):
        known = ", ".join((EXPLICIT, *METHODS, ALL))
        raise DrumgateError(f"--method {options.method}: is not a score; there are: {known}")
    if (options.calibration_ground_truth is None) != (options.calibration_predictions is None):
        raise DrumgateError(
            "give both --calibration-ground-truth and --calibration-predictions, or neither"
        )
    if (options.features is None) != (options.statistics is None):
        raise DrumgateError("give both --features and --statistics, or neither")
    for name, allowed in (
        ("higher_is", ("unknown", "known")),
        ("task", ("multilabel", "multiclass")),
        ("cluster_field", ("session_id", "none")),
    ):
        if getattr(options, name) not in allowed:
            raise DrumgateError(f"--{name.replace('_', '-')} must be {' or '.join(allowed)}")
    if not 0.0 < options.calibration_tpr <= 1.0:
        raise DrumgateError("--calibration-tpr must lie above 0 and at most at 1")
    try:
        return Resampling(
            iterations=options.iterations,
            confidence=options.confidence,
            seed=options.seed,
            min_clusters=options.min_clusters,
        )
    except ValueError as error:
        raise DrumgateError(str(error)) from None


def _read(options: Options, statistics: Statistics) -> _Files:
    def examples(truth: Path, predictions: Path) -> Examples:
        return inputs.read_examples(
            truth,
            predictions,
            field=options.rejection_field,
            required=options.method == EXPLICIT,
            known_is_high=options.higher_is == "known",
        )

    test = examples(options.ground_truth, options.predictions)
    wanted = (EXPLICIT, *METHODS) if options.method == ALL else (options.method,)
    every = options.method == ALL
    scored = score(test, wanted, statistics, options, tolerant=every)
    if options.calibration_ground_truth is None or options.calibration_predictions is None:
        judged, why = _without_calibration(scored, options)
        return _Files(
            test=test,
            scored=scored,
            calibration=None,
            calibration_scored=None,
            judged=judged,
            chosen_by=why,
        )
    held = examples(options.calibration_ground_truth, options.calibration_predictions)
    held_scored = score(held, wanted, statistics, options, tolerant=every)
    judged, why = options.method, "asked for"
    if every:
        judged, why = _best(held, held_scored, scored)
    return _Files(
        test=test,
        scored=scored,
        calibration=held,
        calibration_scored=held_scored,
        judged=judged,
        chosen_by=why,
    )


def _without_calibration(scored: Scored, options: Options) -> tuple[str, str]:
    """Pick what the gates look at without a look at the test file's figures."""
    if options.method != ALL:
        return options.method, "asked for"
    first = next(iter(scored.arrays), None)
    if first is None:
        reasons = "; ".join(f"{name}: {why}" for name, why in scored.unavailable.items())
        raise DrumgateError(f"no score can be computed ({reasons})")
    return first, "the first that can be computed; give a calibration file to choose the best"


def _best(held: Examples, held_scored: Scored, scored: Scored) -> tuple[str, str]:
    """Pick the method with the best AUROC on the calibration file."""
    shared = [name for name in held_scored.arrays if name in scored.arrays]
    if not shared:
        raise DrumgateError("no score can be computed on both the calibration and the test file")
    best: tuple[float, str] | None = None
    for name in shared:
        values = held_scored.arrays[name]
        if not np.isfinite(values).all():
            continue
        auroc = openset.measure(values, held.is_unknown).auroc
        if auroc is not None and (best is None or auroc > best[0]):
            best = (auroc, name)
    if best is None:
        return shared[0], "the first that can be computed; the calibration file ranks none"
    return best[1], f"the best AUROC on the calibration file ({best[0]:.4f})"


def _verdicts(
    test: Examples,
    found: tables.Measured,
    calibrated: tables.Calibrated | None,
    thresholds: Mapping[str, Threshold],
    options: Options,
) -> list[Verdict]:
    n_unknown = int(test.is_unknown.sum())
    n_known = len(test.is_unknown) - n_unknown
    few = min(n_known, n_unknown)
    reason = found.figures.reason
    if test.missing:
        reason = f"{len(test.missing)} examples have no prediction"
    elif not reason and few < options.min_examples:
        kind = "known" if n_known == few else "unknown"
        need = f"a gate needs {options.min_examples} (--min-examples)"
        reason = f"there are {few} {kind} examples, {need}"
    measured: dict[str, tuple[float | None, Any, str]] = {
        "min_auroc": (found.figures.auroc, found.estimates.get("auroc"), reason),
        "max_fpr_at_95tpr": (
            found.figures.fpr_at_95tpr,
            found.estimates.get("fpr_at_95tpr"),
            reason,
        ),
    }
    if calibrated is not None:
        why = reason or calibrated.reason
        for gate, rate in (("min_calibrated_tpr", "tpr"), ("max_calibrated_fpr", "fpr")):
            estimate = calibrated.rates.get(rate)
            measured[gate] = (estimate.point if estimate else None, estimate, why)
    verdicts = []
    for gate, (value, estimate, why) in measured.items():
        bounds = None
        if estimate is not None and estimate.lower is not None and estimate.upper is not None:
            bounds = Interval(
                lower=estimate.lower, upper=estimate.upper, confidence=options.confidence
            )
        detail = why
        if not detail and thresholds[gate].decide_on != "point" and bounds is None:
            detail = "no interval" if estimate is None else estimate.reason
        measurement = Measurement(
            name=gate,
            value=None if why else value,
            n=n_known + n_unknown,
            ci=None if why else bounds,
            detail=detail,
        )
        verdicts.append(judge(measurement, thresholds[gate]))
    return verdicts


def _warnings(
    files: _Files,
    found: tables.Measured,
    calibrated: tables.Calibrated | None,
    options: Options,
) -> list[str]:
    test = files.test
    warnings = []
    if test.missing:
        total = len(test.missing) + len(test.rows)
        warnings.append(f"{len(test.missing)} of {total} examples have no prediction")
    if test.surplus:
        warnings.append(
            f"{test.surplus} predictions are of no example in the ground truth; left out"
        )
    if any(row.weight != 1.0 for row in test.rows):
        warnings.append("the ground truth has weights, which no open-set figure uses")
    auroc = found.estimates.get("auroc")
    if found.figures.auroc is not None and found.figures.auroc < 0.5:
        warnings.append(
            "AUROC lies below 0.5: known sounds look more unknown than unknown ones; does the "
            "score rise the other way (--higher-is known)?"
        )
    if auroc is not None and auroc.reason:
        warnings.append(f"no interval: {auroc.reason}")
    elif found.no_interval:
        warnings.append(f"no interval: {found.no_interval}")
    elif auroc is not None and auroc.lower == auroc.upper:
        warnings.append(
            "the interval of AUROC has no width: these clips hold no error to resample, which does "
            "not mean that there is none"
        )
    saturated = files.scored.outputs.get("saturated", 0) if files.scored.outputs else 0
    if saturated and set(files.scored.arrays) & {"energy", "max_logit"}:
        warnings.append(
            f"{saturated} predictions have scores of exactly 0 or 1, whose logits are cut off; "
            "predict --write-logits keeps them"
        )
    if options.method == ALL and files.calibration is None and len(files.scored.arrays) > 1:
        warnings.append(
            f"the gates judge {files.judged}; the ranking is of this test file, and the best of it "
            "would flatter itself: give a calibration file to choose by"
        )
    return [*warnings, *(calibrated.warnings if calibrated else ())]
