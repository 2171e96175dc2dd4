"""Comparing two health reports as a check: what the candidate lost against the baseline."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.checks import health_compare_bless as bless
from training.checks.health_compare_drift import distributions, dynamics_of
from training.checks.health_compare_input import (
    HealthReport,
    Metrics,
    nothing,
    read_health_report,
)
from training.errors import DrumgateError
from training.gates import (
    GatesSource,
    Measurement,
    Report,
    Threshold,
    Verdict,
    asked_gates,
    judge,
    load_thresholds,
)
from training.metrics import health_compare
from training.metrics.drift import Drift
from training.metrics.health_compare import CountChange, GateChange

SHOWN = 5
_DROP_GATES = ("max_drop", "max_drop_pct")


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which reports to compare, and how much a class may lose.

    Without `max_drop` and `max_drop_pct` (and without a table for either in the gates file) no
    class may lose anything. `ignore_labels` are compared and listed, and never block. Without
    `max_psi` (and a table that makes it required) drift warns and does not block.

    With `bless`, the candidate is also judged as the next baseline: none of its own gates may have
    failed but those that `allow_failing` names. `first_baseline` says that there is no baseline
    yet, and so nothing to compare with. `run` writes nothing: see `health_compare_bless.promoting`.
    """

    baseline: Path
    candidate: Path
    max_drop: int | None = None
    max_drop_pct: float | None = None
    max_psi: float | None = None
    ignore_labels: tuple[str, ...] = ()
    bless: bool = False
    first_baseline: bool = False
    allow_failing: tuple[str, ...] = ()
    blessed_by: str | None = None
    gates: GatesSource | None = None


def run(options: Options) -> Report:
    """Compare two reports of dataset-health and judge what the candidate lost.

    Raises:
        InputError: a report is missing, malformed, of another tool or of another report schema;
            or there is a baseline where a first one was announced.
        DrumgateError: an option is not a usable number, or does not fit the others.
    """
    _check_options(options)
    thresholds = _thresholds(options)
    baseline = nothing() if options.first_baseline else read_health_report(options.baseline)
    candidate = read_health_report(options.candidate)
    thresholds = _naming_manifests(thresholds, baseline.events, candidate.events)
    before, after = baseline.metrics, candidate.metrics
    classes = health_compare.count_changes(
        before.classes(), after.classes(), ignore=options.ignore_labels
    )
    unknown = health_compare.count_changes(before.unknown_labels, after.unknown_labels)
    techniques = health_compare.count_changes(before.technique_counts, after.technique_counts)
    gates = health_compare.gate_changes(baseline.gates, candidate.gates)
    drifts = distributions(before, after, ignore=options.ignore_labels)
    verdicts: list[Verdict] = []
    if not options.first_baseline:
        verdicts = [
            *_drop_verdicts(classes, thresholds, _drop_gates(options)),
            _regressions(gates, thresholds["max_newly_failing_gates"]),
            _rises(unknown, after, thresholds["max_unknown_label_rises"]),
            *_drift_verdicts(drifts, thresholds["max_psi"], options.ignore_labels),
        ]
    if options.bless:
        limit = thresholds["max_failing_gates_blessed"]
        verdicts.append(bless.judge_candidate(candidate, options.allow_failing, limit))
    return Report(
        tool="compare-health-reports",
        inputs=[report.file for report in (baseline, candidate) if report.file],
        parameters=asdict(options),
        metrics={
            **_totals(before, after),
            "classes": [asdict(change) for change in classes],
            "techniques": [asdict(change) for change in techniques],
            "unknown_labels": [asdict(change) for change in unknown],
            "gates": [asdict(change) for change in gates],
            "drift": [asdict(found) for found in drifts],
            "blessing": bless.summary(options, baseline, candidate),
        },
        verdicts=verdicts,
        warnings=_warnings(options, classes, gates, (baseline, candidate)),
    )


def _check_options(options: Options) -> None:
    for name in ("max_drop_pct", "max_psi"):
        value = getattr(options, name)
        # A NaN limit compares false with everything, and no report may hold one.
        if value is not None and not math.isfinite(value):
            flag = name.replace("_", "-")
            raise DrumgateError(f"--{flag}: must be a finite number (got {value})")
    bless.check_options(options)


def _thresholds(options: Options) -> dict[str, Threshold]:
    overrides = {name: getattr(options, name) for name in (*_DROP_GATES, "max_psi")}
    thresholds = load_thresholds("health_compare", overlay=options.gates, overrides=overrides)
    if options.max_psi is not None:
        # A limit that somebody typed is meant; the shipped one only advises.
        thresholds["max_psi"] = replace(thresholds["max_psi"], required=True)
    return thresholds


def _naming_manifests(
    thresholds: Mapping[str, Threshold], before: str | None, after: str | None
) -> dict[str, Threshold]:
    """Put the manifests that the reports are about into the commands that are proposed."""
    if before is None or after is None:
        return dict(thresholds)
    named = shlex.join([before, after])
    return {
        name: replace(threshold, fix=threshold.fix.replace("OLD.jsonl NEW.jsonl", named))
        for name, threshold in thresholds.items()
    }


def _totals(before: Metrics, after: Metrics) -> dict[str, Any]:
    names = ("events_total", "hits_total", "duplication_rate")
    totals = {
        name: {"baseline": getattr(before, name), "candidate": getattr(after, name)}
        for name in names
    }
    return totals | {"sessions": {"baseline": before.sessions(), "candidate": after.sessions()}}


def _drop_gates(options: Options) -> Sequence[str]:
    """The drop gates that were asked for; both silent means the absolute one."""
    asked = {name for name in _DROP_GATES if getattr(options, name) is not None}
    asked |= set(_DROP_GATES) & asked_gates("health_compare", options.gates)
    return sorted(asked) or ["max_drop"]


def _drop_verdicts(
    classes: Sequence[CountChange], thresholds: Mapping[str, Threshold], gates: Sequence[str]
) -> list[Verdict]:
    verdicts = []
    for gate in gates:
        for change in classes:
            if change.ignored:
                continue
            relative = gate == "max_drop_pct"
            measured = Measurement(
                name=gate,
                value=change.drop_pct if relative else change.drop,
                n=change.baseline,
                detail=f"{change.baseline} → {change.candidate} hits",
            )
            verdicts.append(judge(measured, thresholds[gate], subject=change.name))
        if not any(not change.ignored for change in classes):
            nothing = Measurement(name=gate, value=None, detail="no class is left to compare")
            verdicts.append(judge(nothing, thresholds[gate]))
    return verdicts


def _regressions(gates: Sequence[GateChange], threshold: Threshold) -> Verdict:
    found = [change for change in gates if change.is_regression]
    detail = _listed([f"{change.name} ({change.fate.replace('_', ' ')})" for change in found])
    measured = Measurement(
        name="newly_failing_gates", value=len(found), n=len(gates), detail=detail
    )
    return judge(measured, threshold)


def _rises(unknown: Sequence[CountChange], candidate: Metrics, threshold: Threshold) -> Verdict:
    found = [change for change in unknown if change.candidate > change.baseline]
    detail = _listed(
        [f"{change.name} ({change.baseline} → {change.candidate} hits)" for change in found]
    )
    measured = Measurement(
        name="unknown_label_rises",
        value=len(found),
        n=len(candidate.unknown_labels),
        detail=detail,
    )
    return judge(measured, threshold)


def _drift_verdicts(
    drifts: Sequence[Drift], threshold: Threshold, ignore: Sequence[str]
) -> list[Verdict]:
    """Judge what moved; where the baseline holds nothing there is nothing to move from."""
    passed_over = {dynamics_of(label) for label in ignore}
    return [
        judge(
            Measurement(
                name="psi",
                value=row.psi_beyond_chance,
                n=row.candidate_n,
                detail=row.detail or _moved(row),
            ),
            threshold,
            subject=row.name,
        )
        for row in drifts
        if row.baseline_n and row.name not in passed_over
    ]


def _moved(row: Drift) -> str:
    """Say in a few words what moved most, such as "accent 31.0 → 48.0 %"."""
    shares = {value.value: value for value in row.values}
    if row.largest not in shares:
        return "no share changed"
    most = shares[row.largest]
    return f"{most.value} {100 * most.baseline:.1f} → {100 * most.candidate:.1f} %"


def _warnings(
    options: Options,
    classes: Sequence[CountChange],
    gates: Sequence[GateChange],
    reports: tuple[HealthReport, HealthReport],
) -> list[str]:
    baseline, candidate = reports
    first = options.first_baseline
    lost = [change.name for change in classes if change.ignored and change.drop]
    absent = sorted(set(options.ignore_labels) - {change.name for change in classes})
    still = [change.name for change in gates if change.fate == "still_failing"]
    loosened = [f"{change.name} ({change.loosened})" for change in gates if change.loosened]
    found = {
        f"ignored labels that lost hits: {_listed(lost)}": lost,
        f"ignored labels that neither report has: {_listed(absent)}": absent,
        f"gates that failed in the baseline and still do: {_listed(still)}": still,
        f"gates that ask for less than in the baseline: {_listed(loosened)}": loosened,
        "both reports were made from the same files: make the candidate's anew if its data"
        " changed": baseline.data and baseline.data == candidate.data,
        f"written by different versions of drumgate ({baseline.version}, {candidate.version}):"
        " figures may be defined differently": not first and baseline.version != candidate.version,
        "there is no baseline yet: nothing was compared": first,
        "the candidate judged no gate: as a baseline it cannot show one that newly fails": (
            options.bless and not candidate.gates
        ),
    }
    return [text for text, applies in found.items() if applies]


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
