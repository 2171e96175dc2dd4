"""Comparing two health reports as a check: what the candidate lost against the baseline."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from training.errors import DrumgateError, InputError
from training.gates import Measurement, Report, Threshold, Verdict, judge, load_thresholds
from training.manifest import InputFile, describe_file, read_json
from training.metrics import health_compare
from training.metrics.health_compare import CountChange, Drift, GateChange, GateRow

TOOL = "dataset-health"
SHOWN = 5

Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which reports to compare, and how much a class may lose.

    Without `max_drop` and `max_drop_pct` (and without a table for either in the gates file) no
    class may lose anything. `ignore_labels` are compared and listed, and never block.
    """

    baseline: Path
    candidate: Path
    max_drop: int | None = None
    max_drop_pct: float | None = None
    ignore_labels: tuple[str, ...] = ()
    gates: Path | None = None


class _ClassCount(msgspec.Struct, frozen=True, kw_only=True):
    total: Count


class _Histogram(msgspec.Struct, frozen=True, kw_only=True):
    counts: list[Count]
    edges: list[float]


class _Events(msgspec.Struct, frozen=True, kw_only=True):
    events: Count


class _Metrics(msgspec.Struct, frozen=True, kw_only=True):
    events_total: Count
    per_class_counts: dict[str, _ClassCount]
    technique_counts: dict[str, Count]
    unknown_labels: dict[str, Count]
    dynamics: dict[str, Count]
    openness_histogram: _Histogram
    by_source: dict[str, _Events]
    duplication_rate: float | None = None


class _Gate(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    status: str
    passed: bool


class _HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    tool: str
    metrics: _Metrics
    gating_results: list[_Gate]


def run(options: Options) -> Report:
    """Compare two reports of dataset-health and judge what the candidate lost.

    Raises:
        InputError: a report is missing, malformed, or of another tool.
        DrumgateError: an option is not a usable number.
    """
    if options.max_drop_pct is not None and not math.isfinite(options.max_drop_pct):
        raise DrumgateError(f"--max-drop-pct: must be a finite number (got {options.max_drop_pct})")
    overrides = {"max_drop": options.max_drop, "max_drop_pct": options.max_drop_pct}
    thresholds = load_thresholds("health_compare", overlay=options.gates, overrides=overrides)
    baseline, baseline_file = _read(options.baseline)
    candidate, candidate_file = _read(options.candidate)
    classes = health_compare.count_changes(
        _totals(baseline), _totals(candidate), ignore=options.ignore_labels
    )
    unknown = health_compare.count_changes(
        baseline.metrics.unknown_labels, candidate.metrics.unknown_labels
    )
    gates = health_compare.gate_changes(_rows(baseline), _rows(candidate))
    verdicts = [
        *_drop_verdicts(classes, thresholds, _drop_gates(options)),
        _regressions(gates, thresholds["max_newly_failing_gates"]),
        _rises(unknown, candidate, thresholds["max_unknown_label_rises"]),
    ]
    return Report(
        tool="compare-health-reports",
        inputs=[baseline_file, candidate_file],
        parameters=asdict(options),
        metrics={
            "events_total": {
                "baseline": baseline.metrics.events_total,
                "candidate": candidate.metrics.events_total,
            },
            "duplication_rate": {
                "baseline": baseline.metrics.duplication_rate,
                "candidate": candidate.metrics.duplication_rate,
            },
            "classes": [asdict(change) for change in classes],
            "techniques": [
                asdict(change)
                for change in health_compare.count_changes(
                    baseline.metrics.technique_counts, candidate.metrics.technique_counts
                )
            ],
            "unknown_labels": [asdict(change) for change in unknown],
            "gates": [asdict(change) for change in gates],
            "drift": [asdict(found) for found in _drifts(baseline.metrics, candidate.metrics)],
        },
        verdicts=verdicts,
        warnings=_warnings(options, classes, gates),
    )


def _read(path: Path) -> tuple[_HealthReport, InputFile]:
    tool = read_json(path, dict[str, Any]).get("tool")
    if tool != TOOL:
        raise InputError.at(
            path, f"must be {TOOL}: this is no health report", field="tool", got=tool
        )
    return read_json(path, _HealthReport), describe_file(path)


def _totals(report: _HealthReport) -> dict[str, int]:
    return {label: row.total for label, row in report.metrics.per_class_counts.items()}


def _rows(report: _HealthReport) -> list[GateRow]:
    return [
        GateRow(name=row.name, status=row.status, passed=row.passed)
        for row in report.gating_results
    ]


def _drop_gates(options: Options) -> Sequence[str]:
    """The drop gates that were asked for; both silent means the absolute one."""
    asked = {
        name
        for name, value in (
            ("max_drop", options.max_drop),
            ("max_drop_pct", options.max_drop_pct),
        )
        if value is not None
    }
    if options.gates:
        # load_thresholds has read and checked this file already.
        table = tomllib.loads(options.gates.read_text(encoding="utf-8"))
        asked |= {"max_drop", "max_drop_pct"} & set(table.get("health_compare", {}))
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


def _rises(
    unknown: Sequence[CountChange], candidate: _HealthReport, threshold: Threshold
) -> Verdict:
    found = [change for change in unknown if change.candidate > change.baseline]
    detail = _listed(
        [f"{change.name} ({change.baseline} → {change.candidate} hits)" for change in found]
    )
    measured = Measurement(
        name="unknown_label_rises",
        value=len(found),
        n=len(candidate.metrics.unknown_labels),
        detail=detail,
    )
    return judge(measured, threshold)


def _drifts(baseline: _Metrics, candidate: _Metrics) -> list[Drift]:
    return [
        health_compare.drift(name, of(baseline), of(candidate))
        for name, of in (
            ("classes", _classes),
            ("dynamics", lambda metrics: metrics.dynamics),
            ("openness", _openness),
            ("techniques", lambda metrics: metrics.technique_counts),
            ("sources", _sources),
        )
    ]


def _classes(metrics: _Metrics) -> dict[str, int]:
    return {label: row.total for label, row in metrics.per_class_counts.items()}


def _openness(metrics: _Metrics) -> dict[str, int]:
    histogram = metrics.openness_histogram
    # Zip to the shorter: there is one edge more than there are bins.
    bins = zip(histogram.edges, histogram.edges[1:], histogram.counts, strict=False)
    return {f"{low:g}-{high:g}": hits for low, high, hits in bins}


def _sources(metrics: _Metrics) -> dict[str, int]:
    return {name: row.events for name, row in metrics.by_source.items()}


def _warnings(
    options: Options, classes: Sequence[CountChange], gates: Sequence[GateChange]
) -> list[str]:
    warnings = []
    lost = [change.name for change in classes if change.ignored and change.drop]
    if lost:
        warnings.append(f"ignored labels that lost hits: {_listed(lost)}")
    absent = sorted(set(options.ignore_labels) - {change.name for change in classes})
    if absent:
        warnings.append(f"ignored labels that neither report has: {_listed(absent)}")
    still = [change.name for change in gates if change.fate == "still_failing"]
    if still:
        warnings.append(f"gates that failed in the baseline and still do: {_listed(still)}")
    return warnings


def _listed(names: Sequence[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
