"""The figures of the open-set report: of a file, a method, a group, a class, a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import numpy as np

from training.checks.openset_input import Examples
from training.checks.openset_methods import Scored
from training.checks.openset_plots import plots
from training.metrics import openset
from training.metrics.openset import Bools, Floats, OpenSetFigures
from training.metrics.openset_intervals import FIGURES, Indices, estimate, estimate_rates
from training.metrics.resampling import Estimate, Resampling
from training.taxonomy import load_components

GROUP_FIGURES: Final = ("auroc", "aupr_out", "fpr_at_95tpr")
RANKED_FIGURES: Final = (
    "auroc",
    "aupr_out",
    "aupr_in",
    "fpr_at_95tpr",
    "fpr_at_95tpr_known_positive",
)


class TableOptions(Protocol):
    """What the tables need of the options."""

    @property
    def cluster_field(self) -> str: ...  # noqa: D102
    @property
    def calibration_tpr(self) -> float: ...  # noqa: D102
    @property
    def min_examples(self) -> int: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """The figures of one score on one file."""

    figures: OpenSetFigures
    estimates: Mapping[str, Estimate]
    no_interval: str
    """Why no figure at all has an interval; empty where they may."""
    metrics: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibrated:
    """A threshold from the calibration file, and what it does on the test file."""

    threshold: float | None
    rates: Mapping[str, Estimate]
    """Of the test file: tpr, fpr, tnr; empty where there is no threshold."""
    reason: str
    """Why the gates on it are not measured."""
    metrics: dict[str, Any]
    warnings: Sequence[str]


def measure(
    test: Examples, scores: Floats, settings: Resampling, options: TableOptions
) -> Measured:
    """Measure one score on the whole file."""
    figures = _figures(scores, test.is_unknown)
    cluster, no_interval = clusters(test, options)
    estimates = _estimates(figures, scores, test.is_unknown, cluster, no_interval, settings)
    metrics: dict[str, Any] = {
        "positive_class": "unknown",
        **{name: value for name, value in asdict(figures).items() if name != "reason"},
        "conventions": _conventions(figures),
        "intervals": {name: each.as_metrics() for name, each in estimates.items()},
        "cluster_field": options.cluster_field,
    }
    if figures.auroc is not None:
        metrics |= plots(test, scores)
    return Measured(figures=figures, estimates=estimates, no_interval=no_interval, metrics=metrics)


def ranking(
    test: Examples,
    scored: Scored,
    judged: str,
    measured: Measured,
    settings: Resampling,
    options: TableOptions,
) -> list[dict[str, Any]]:
    """Rank the methods by AUROC on the test file; those that could not be measured come last.

    `measured` are the figures of the method `judged`, which need not be had twice.
    """
    cluster, no_interval = clusters(test, options)
    rows = []
    for name, scores in scored.arrays.items():
        if name == judged:
            figures, found = measured.figures, measured.estimates
        else:
            figures = _figures(scores, test.is_unknown)
            found = _estimates(figures, scores, test.is_unknown, cluster, no_interval, settings)
        rows.append(
            {
                "method": name,
                "judged": name == judged,
                **{figure: getattr(figures, figure) for figure in RANKED_FIGURES},
                "reason": figures.reason,
                "intervals": {figure: found[figure].as_metrics() for figure in RANKED_FIGURES},
            }
        )
    rows.sort(key=lambda row: (row["auroc"] is None, -(row["auroc"] or 0.0)))
    return [{"rank": number, **row} for number, row in enumerate(rows, start=1)]


def calibrated(
    held: Examples,
    held_scores: Floats,
    test: Examples,
    scores: Floats,
    settings: Resampling,
    options: TableOptions,
) -> Calibrated:
    """Choose a threshold on the calibration file and report it on the test file.

    Not usable for a gate, and said so: a calibration file that lacks predictions, holds fewer
    unknown examples than `min_examples`, or shares examples with the test file.
    """
    target = options.calibration_tpr
    n_unknown = int(held.is_unknown.sum())
    shared = len(set(held.ids) & set(test.ids))
    reason = ""
    if not np.isfinite(held_scores).all() or not np.isfinite(scores).all():
        reason = "some scores are not finite"
    elif not n_unknown:
        reason = "the calibration file holds no unknown example"
    if reason:
        return Calibrated(
            threshold=None,
            rates={},
            reason=reason,
            metrics={"threshold": None, "tpr_target": target, "reason": reason},
            warnings=(f"no threshold: {reason}",),
        )
    threshold = openset.threshold_at(held_scores, held.is_unknown, target)
    if held.missing:
        reason = f"{len(held.missing)} examples of the calibration file have no prediction"
    elif shared:
        reason = f"{shared} examples stand in the calibration file and in the test file"
    elif n_unknown < options.min_examples:
        reason = (
            f"the calibration file holds {n_unknown} unknown examples, "
            f"a threshold needs {options.min_examples} (--min-examples)"
        )
    on_test = _rates(test, scores, threshold, settings, options)
    on_held = _rates(held, held_scores, threshold, settings, options)
    warnings = [f"the threshold is not judged: {reason}"] if reason else []
    sessions = set(held.sessions) & set(test.sessions) - {None}
    if sessions:
        warnings.append(
            f"{len(sessions)} sessions are in the calibration file and in the test file; the "
            "threshold will look better than it is"
        )
    return Calibrated(
        threshold=threshold,
        rates=on_test,
        reason=reason,
        metrics={
            "threshold": threshold,
            "tpr_target": target,
            "rule": "rejected as unknown where the score is at least the threshold",
            "calibration": _rate_metrics(on_held, held),
            "test": _rate_metrics(on_test, test),
            "reason": reason,
        },
        warnings=warnings,
    )


def by_class(
    test: Examples,
    scores: Floats,
    found: Measured,
    chosen: Calibrated | None,
    settings: Resampling,
    options: TableOptions,
) -> dict[str, Any]:
    """Tables a group and a class of unknown sounds, and which known classes are rejected.

    A group or class of unknown sounds is set against all known ones. `rejected` is the share of it
    that the threshold rejects: the calibrated one where there is one, else `threshold_at_95tpr`. An
    example of several labels is in several classes.
    """
    threshold, source = found.figures.threshold_at_95tpr, "test file"
    if chosen is not None and chosen.threshold is not None:
        threshold, source = chosen.threshold, "calibration file"
    cluster, no_interval = clusters(test, options)
    groups = np.array(test.groups, dtype=object)
    tables: dict[str, Any] = {
        "class_threshold": {"value": threshold, "chosen_on": source},
        "per_unknown_group": {},
        "per_unknown_class": {},
        "per_known_class": {},
    }
    members = {
        "per_unknown_group": {
            str(name): test.is_unknown & (groups == name)
            for name in sorted(set(groups[test.is_unknown]))
        },
        "per_unknown_class": _by_label(test, test.is_unknown),
    }
    for table, parts in members.items():
        for name, chosen_rows in parts.items():
            rows = ~test.is_unknown | chosen_rows
            figures = _figures(scores[rows], test.is_unknown[rows])
            estimates = _estimates(
                figures,
                scores[rows],
                test.is_unknown[rows],
                None if cluster is None else cluster[rows],
                no_interval,
                settings,
            )
            rejected = _rejected(scores, threshold, chosen_rows, cluster, no_interval, settings)
            tables[table][name] = {
                "n": int(chosen_rows.sum()),
                **{figure: getattr(figures, figure) for figure in GROUP_FIGURES},
                "rejected": rejected.point,
                "intervals": {
                    **{figure: estimates[figure].as_metrics() for figure in GROUP_FIGURES},
                    "rejected": rejected.as_metrics(),
                },
            }
    for name, chosen_rows in _by_label(test, ~test.is_unknown).items():
        rejected = _rejected(scores, threshold, chosen_rows, cluster, no_interval, settings)
        tables["per_known_class"][name] = {
            "n": int(chosen_rows.sum()),
            "rejected": rejected.point,
            "intervals": {"rejected": rejected.as_metrics()},
        }
    return tables


def clusters(examples: Examples, options: TableOptions) -> tuple[Indices | None, str]:
    """Number the sessions by sorted name, so that draws do not depend on the file's order.

    Returns:
        The number of each example's session, or None and why there is none.
    """
    names: Sequence[str | None] = examples.ids
    if options.cluster_field != "none":
        names = examples.sessions
        without = sum(name is None for name in names)
        if without:
            return None, (
                f"{without} of {len(names)} examples have no session_id "
                "(--cluster-field none takes each as independent)"
            )
    return np.unique(np.array(names, dtype=str), return_inverse=True)[1].astype(np.intp), ""


def _figures(scores: Floats, is_unknown: Bools) -> OpenSetFigures:
    bad = int((~np.isfinite(scores)).sum())
    if bad:
        n_unknown = int(is_unknown.sum())
        reason = f"{bad} of {scores.size} scores are not finite"
        return openset.not_measured(scores.size - n_unknown, n_unknown, reason)
    return openset.measure(scores, is_unknown)


def _estimates(
    figures: OpenSetFigures,
    scores: Floats,
    is_unknown: Bools,
    cluster: Indices | None,
    no_interval: str,
    settings: Resampling,
) -> Mapping[str, Estimate]:
    if figures.auroc is None or cluster is None:
        reason = figures.reason or no_interval
        return {name: _without(getattr(figures, name), reason) for name in FIGURES}
    return estimate(scores, is_unknown, cluster, settings=settings)


def _rejected(
    scores: Floats,
    threshold: float | None,
    rows: Bools,
    cluster: Indices | None,
    no_interval: str,
    settings: Resampling,
) -> Estimate:
    if threshold is None or not rows.any():
        return _without(None, "there is no threshold" if threshold is None else "no example")
    rejected = scores >= threshold
    if cluster is None:
        return _without(float(rejected[rows].mean()), no_interval)
    return estimate_rates(rejected, {"rejected": rows}, cluster, settings=settings)["rejected"]


def _rates(
    examples: Examples,
    scores: Floats,
    threshold: float,
    settings: Resampling,
    options: TableOptions,
) -> dict[str, Estimate]:
    cluster, no_interval = clusters(examples, options)
    known, unknown = ~examples.is_unknown, examples.is_unknown
    tpr = _rejected(scores, threshold, unknown, cluster, no_interval, settings)
    fpr = _rejected(scores, threshold, known, cluster, no_interval, settings)
    tnr = _kept(fpr)
    return {"tpr": tpr, "fpr": fpr, "tnr": tnr}


def _kept(fpr: Estimate) -> Estimate:
    def rest(value: float | None) -> float | None:
        return None if value is None else 1.0 - value

    return Estimate(
        point=rest(fpr.point),
        lower=rest(fpr.upper),
        upper=rest(fpr.lower),
        n_clusters=fpr.n_clusters,
        n_undefined=fpr.n_undefined,
        standard_error=fpr.standard_error,
        reason=fpr.reason,
    )


def _rate_metrics(rates: Mapping[str, Estimate], examples: Examples) -> dict[str, Any]:
    n_unknown = int(examples.is_unknown.sum())
    return {
        **{name: rate.point for name, rate in rates.items()},
        "n_known": len(examples.rows) - n_unknown,
        "n_unknown": n_unknown,
        "intervals": {name: rate.as_metrics() for name, rate in rates.items()},
    }


def _without(point: float | None, reason: str) -> Estimate:
    return Estimate(
        point=point,
        lower=None,
        upper=None,
        n_clusters=0,
        n_undefined=0,
        standard_error=None,
        reason=reason,
    )


def _conventions(figures: OpenSetFigures) -> dict[str, dict[str, float | None]]:
    """The same figures under either convention, by name; AUROC does not depend on it."""
    return {
        "unknown_positive": {
            "auroc": figures.auroc,
            "aupr": figures.aupr_out,
            "fpr_at_95tpr": figures.fpr_at_95tpr,
            "tnr_at_95tpr": figures.tnr_at_95tpr,
            "threshold_at_95tpr": figures.threshold_at_95tpr,
        },
        "known_positive": {
            "auroc": figures.auroc,
            "aupr": figures.aupr_in,
            "fpr_at_95tpr": figures.fpr_at_95tpr_known_positive,
            "tnr_at_95tpr": figures.tnr_at_95tpr_known_positive,
            "threshold_at_95tpr": figures.threshold_at_95tpr_known_positive,
        },
    }


def _by_label(test: Examples, among: Bools) -> dict[str, Bools]:
    taxonomy = load_components()
    # Sounds of no class keep their names: a clap tells more than aux_percussion.
    classes = {
        name: taxonomy.canonical(name) for name in {x for row in test.rows for x in row.label_set}
    }
    known = {name: label for name, label in classes.items() if label in taxonomy.targets}
    labels = [
        {known.get(name, name) or name for name in row.label_set} or {"(no label)"}
        for row in test.rows
    ]
    names = sorted({name for row, kept in zip(labels, among, strict=True) if kept for name in row})
    return {name: among & np.array([name in row for row in labels], dtype=bool) for name in names}
