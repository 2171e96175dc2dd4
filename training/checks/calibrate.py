"""The calibration check: fit on validation predictions, judge there across folds, or judge a test.

On the validation split the calibration is fitted and written; its gates look at figures that were
cross-fitted over sessions, never at those of the clips that it was fitted on. On the test split
nothing is fitted: the scores are judged as a calibration file makes them, or as they are.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from training import __version__
from training.checks import bootstrap_input as inputs
from training.checks import calibration_report as words
from training.checks.bootstrap_input import LISTED, Clusters, Truth
from training.checks.calibration_choice import Wanted, WantedObjective, choose
from training.checks.calibration_file import (
    SCHEMA_VERSION,
    CalibrationFile,
    CalibrationRecord,
    ClassCalibration,
    calibration_id,
    load_calibration,
)
from training.errors import SHOWN_PROBLEMS, DrumgateError, InputError, Problem
from training.gates import GatesSource, Report, load_thresholds, overall
from training.manifest import InputFile, Prediction, Records, read_records, reject_duplicates
from training.manifest import write_json as write
from training.metrics import calibration_fit as cf
from training.metrics.calibration import Scored
from training.metrics.operating_points import Goal

Split = Literal["validation", "test"]
_FEW_SESSIONS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is fitted or judged, on what."""

    ground_truth: Path
    predictions: Path
    output: Path | None = None
    split: Split = "validation"
    calibration: Path | None = None
    method: Wanted = "auto"
    objective: WantedObjective = "auto"
    false_alarm_cost: float | None = None
    """For the objective `cost`; 1 by default: as bad as a miss."""
    min_recall: float | None = None
    """For the objective `recall_floor`; 0.95 by default."""
    min_examples: int = 10
    folds: int = 5
    cluster_field: str = "session_id"
    """Field that says which clips stay in one fold; `none` = each clip on its own."""
    labels: tuple[str, ...] = ()
    components: Path | None = None
    max_ece: float | None = None
    max_brier: float | None = None
    min_brier_skill: float | None = None
    seed: int = 0
    gates: GatesSource | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Input:
    """Truth and predictions, clip by clip; clips without a prediction are left out."""

    truth: Truth
    predictions: Records[Prediction]
    scored: Scored
    rows: list[int]
    """Of the truth, those that have a prediction."""
    clusters: Clusters
    missing: list[str]
    surplus: int

    @property
    def sources(self) -> list[InputFile]:
        return [self.truth.records.source, self.predictions.source]


def run(options: Options) -> Report:
    """Fit and write a calibration (validation), or judge one (test).

    The calibration is written whatever the verdict; the file says how its gates came out. With a
    clip that has no prediction the gates are not measured: a model may not choose what it is judged
    on.

    Raises:
        DrumgateError: an option makes no sense, or does not go with the split.
        InputError: an input is missing or malformed, a `sample_id` stands twice, a prediction has
            no scores, or its scores have been through a calibration that they should not have.
    """
    recipe = _recipe(options)
    gates = ("max_ece", "max_brier", "min_brier_skill")
    given = {name: getattr(options, name) for name in gates}
    thresholds = load_thresholds(
        f"calibration_{options.split}", overlay=options.gates, overrides=given
    )
    found = _read(options)
    if options.split == "test":
        judged, sources, warnings = _judge_test(found, options)
    else:
        judged, sources, warnings, recipe = _fit_validation(found, recipe, options)
    verdicts = words.verdicts(judged, thresholds)
    if options.output is not None and judged.fit is not None:
        record = _record(found, judged, recipe, str(overall(verdicts)))
        write(options.output, _plain(record))
    return Report(
        tool="calibrate",
        inputs=sources,
        parameters={
            **asdict(options),
            "false_alarm_cost": recipe.goal.false_alarm_cost,
            "min_recall": recipe.goal.min_recall,
        },
        metrics={
            **words.metrics(judged),
            "n_clips": len(found.scored),
            "n_clusters": len(found.clusters.names),
            "missing_predictions": found.missing[:LISTED],
            "missing_predictions_total": len(found.missing),
            "surplus_predictions_total": found.surplus,
        },
        verdicts=verdicts,
        warnings=[*warnings, *_warnings(found)],
        seed=options.seed,
    )


def _recipe(options: Options) -> cf.Recipe:
    """Check what goes with what, and fill in what was not given."""
    if options.split == "test":
        if options.output is not None:
            raise DrumgateError(
                "--output: nothing is fitted on the test split; fit on --split validation, and "
                "judge that file here with --calibration"
            )
    elif options.calibration is not None:
        raise DrumgateError("--calibration: is judged on --split test; validation fits a new one")
    for given, objective, flag in (
        (options.false_alarm_cost, "cost", "--false-alarm-cost"),
        (options.min_recall, "recall_floor", "--min-recall"),
    ):
        if given is not None and options.objective != objective:
            raise DrumgateError(f"{flag}: needs --objective {objective}")
    if options.folds < 2:
        raise DrumgateError("--folds: cross-fitting needs at least 2")
    try:
        goal = Goal(
            objective="keep" if options.objective == "auto" else options.objective,
            false_alarm_cost=1.0 if options.false_alarm_cost is None else options.false_alarm_cost,
            min_recall=0.95 if options.min_recall is None else options.min_recall,
        )
        method: cf.Method = "none" if options.method == "auto" else options.method
        return cf.Recipe(method=method, goal=goal, min_examples=options.min_examples)
    except ValueError as error:
        raise DrumgateError(str(error)) from None


def _read(options: Options) -> _Input:
    field = None if options.cluster_field == "none" else options.cluster_field
    truth = inputs.read_truth(options.ground_truth, (field,))
    predictions = read_records(options.predictions, Prediction)
    reject_duplicates(predictions)
    _require_scores(predictions)
    vocabulary = inputs.vocabulary(truth, [predictions], options.labels, options.components)
    joined = inputs.join(truth, predictions, vocabulary, cf.PLAIN_THRESHOLD)
    absent = set(joined.missing)
    kept = [n for n, row in enumerate(truth.records) if row.sample_id not in absent]
    if not kept:
        raise InputError.at(options.predictions, "holds no prediction of any clip in the truth")
    clips = joined.clips
    return _Input(
        truth=truth,
        predictions=predictions,
        scored=Scored(
            labels=clips.labels,
            scores=clips.scores[kept],
            truth=clips.truth[kept],
            annotated=clips.annotated[kept],
            weight=clips.weight[kept],
        ),
        rows=kept,
        clusters=inputs.clusters(truth, field),
        missing=joined.missing,
        surplus=joined.surplus,
    )


def _require_scores(predictions: Records[Prediction]) -> None:
    problems = [
        Problem(predictions.source.path, "is required: labels alone say nothing", line, "scores")
        for row, line in zip(predictions.rows, predictions.lines, strict=True)
        if row.scores is None and row.probabilities is None
    ]
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))


def _fit_validation(
    found: _Input, recipe: cf.Recipe, options: Options
) -> tuple[words.Judged, list[InputFile], list[str], cf.Recipe]:
    problems = [
        Problem(
            found.predictions.source.path,
            "says that the scores are calibrated already; fit on those of predict without "
            "--calibration",
            line,
            "calibration",
            row.calibration,
        )
        for row, line in zip(found.predictions.rows, found.predictions.lines, strict=True)
        if row.calibration is not None
    ]
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))
    scored = found.scored
    reason = _no_folds(found)
    n_sessions, fold = 0, None
    if not reason:
        distinct, cluster = np.unique(found.clusters.index[found.rows], return_inverse=True)
        n_sessions = len(distinct)
        fold = cf.folds(cluster.astype(np.intp), n_sessions, options.folds, options.seed)
    choice = choose(
        scored,
        fold,
        n_sessions,
        method=options.method,
        objective=options.objective,
        recipe=recipe,
    )
    recipe, crossed = choice.recipe, choice.crossed
    fit = cf.fit(scored, recipe)
    fitted = cf.apply(scored, fit.slope, fit.intercept)
    judged = words.Judged(
        before=words.View("as they are", "before", scored, scored.scores >= cf.PLAIN_THRESHOLD),
        after=words.View("in-sample", "after", fitted, fitted.scores >= fit.threshold),
        decisive=None
        if crossed is None
        else words.View("cross-fitted", "after", crossed.scored, crossed.predicted),
        fit=fit,
        folds_fitted=None if crossed is None else crossed.folds_fitted,
        n_folds=0 if crossed is None else crossed.n_folds,
        methods=choice.methods,
        chosen={
            "method": recipe.method,
            "objective": recipe.goal.objective,
            "chosen_because": dict(choice.why),
        },
        reason=reason or _incomplete(found),
        class_reasons=fit.reasons,
    )
    warnings = [
        f"{label} is left as it is: {why}"
        for label, why in zip(scored.labels, fit.reasons, strict=True)
        if why
    ]
    if crossed is not None and len(found.clusters.names) < _FEW_SESSIONS:
        warnings.append(
            f"the cross-fitted figures rest on {len(found.clusters.names)} sessions only"
        )
    warnings += words.harm(judged, recipe.goal.objective)
    if fit.temperature is not None and words.at_bound(fit.temperature):
        warnings.append(
            f"the temperature ({fit.temperature:.3g}) stopped at the end of its range: the scores "
            "hardly say anything, or never err"
        )
    return judged, found.sources, warnings, recipe


def _judge_test(found: _Input, options: Options) -> tuple[words.Judged, list[InputFile], list[str]]:
    scored = found.scored
    marks = [row.calibration for row in found.predictions]
    if options.calibration is None:
        how = "as they are" if not any(marks) else "as predict --calibration made them"
        view = words.View(how, "before", scored, scored.scores >= cf.PLAIN_THRESHOLD)
        judged = words.Judged(before=view, decisive=view, reason=_incomplete(found))
        return judged, found.sources, []
    calibration = load_calibration(options.calibration)
    by_id = calibration.done(found.predictions)
    done = np.array([by_id[found.truth.records.rows[n].sample_id] for n in found.rows])
    after = Scored(
        labels=scored.labels,
        scores=calibration.scaled(scored.scores, scored.labels, done),
        truth=scored.truth,
        annotated=scored.annotated,
        weight=scored.weight,
    )
    threshold = calibration.thresholds(scored.labels, cf.PLAIN_THRESHOLD)
    leak = _seen_before(found, calibration)
    judged = words.Judged(
        before=None
        if done.any()
        else words.View("as they are", "before", scored, scored.scores >= cf.PLAIN_THRESHOLD),
        decisive=words.View(
            "in-sample" if leak else "held out", "after", after, after.scores >= threshold
        ),
        reason=leak or _incomplete(found),
    )
    return (
        judged,
        [*found.sources, calibration.source],
        calibration.warnings(scored.labels),
    )


def _seen_before(found: _Input, calibration: CalibrationFile) -> str:
    """Say why a test is none: the calibration was fitted on some of it."""
    hashes = {each.get("sha256") for each in calibration.record.inputs}
    if found.truth.records.source.sha256 in hashes:
        return f"{calibration.source.path} was fitted on this very ground truth"
    names = {row.session_id for row in found.truth.records if row.session_id is not None}
    shared = sorted(names.intersection(calibration.record.sessions))
    if shared:
        return (
            f"{calibration.source.path} was fitted on {len(shared)} of these sessions "
            f"({', '.join(shared[:3])}{' …' if len(shared) > 3 else ''})"
        )
    return ""


def _no_folds(found: _Input) -> str:
    """Say why the clips cannot be divided into folds; nothing where they can."""
    if found.clusters.reason:
        return found.clusters.reason
    n = len(set(found.clusters.index[found.rows].tolist()))
    return "" if n >= 2 else f"{n} session: none can be left out to judge the fit of the others"


def _incomplete(found: _Input) -> str:
    return f"{len(found.missing)} clips have no prediction" if found.missing else ""


def _warnings(found: _Input) -> list[str]:
    said = []
    if found.missing:
        total = len(found.truth.records)
        said.append(f"{len(found.missing)} of {total} clips have no prediction; left out")
    if found.surplus:
        said.append(f"{found.surplus} predictions are of no clip in the ground truth; left out")
    return said


def _record(
    found: _Input, judged: words.Judged, recipe: cf.Recipe, status: str
) -> CalibrationRecord:
    fit, scored = judged.fit, found.scored
    assert fit is not None
    classes = {}
    for column, label in enumerate(scored.labels):
        _, truth, _ = scored.column(column)
        classes[label] = ClassCalibration(
            slope=float(fit.slope[column]),
            intercept=float(fit.intercept[column]),
            threshold=float(fit.threshold[column]),
            n=int(truth.size),
            n_positive=int(truth.sum()),
            reason=fit.reasons[column] or None,
        )
    names = {found.truth.records.rows[n].session_id for n in found.rows}
    return CalibrationRecord(
        schema_version=SCHEMA_VERSION,
        tool="calibrate",
        version=__version__,
        calibration_id=calibration_id(classes),
        method=recipe.method,
        temperature=fit.temperature,
        objective=asdict(recipe.goal),
        n_clips=len(scored),
        sessions=tuple(sorted(name for name in names if name is not None)),
        classes=classes,
        figures=words.metrics(judged)["figures"],
        inputs=tuple(asdict(source) for source in found.sources),
        status=status,
    )


def _plain(record: CalibrationRecord) -> dict[str, Any]:
    from msgspec import to_builtins

    plain: dict[str, Any] = to_builtins(record)
    return plain
