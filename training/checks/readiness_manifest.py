"""Validation of a manifest as a gate: findings counted, judged, and put into a report."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from training.checks import validate
from training.checks.validate import Validation
from training.errors import InputError
from training.gates import (
    GatesSource,
    Measurement,
    Place,
    Report,
    Threshold,
    Verdict,
    judge,
    load_thresholds,
)
from training.manifest import describe_file
from training.metrics.finding_rules import RULES, Level

_SHOWN = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which events are checked, and whether against their audio (`audio_root`)."""

    events: tuple[Path, ...]
    audio_root: Path | None = None
    components: Path | None = None
    techniques: Path | None = None
    max_errors: int | None = None
    max_warnings: int | None = None
    gates: GatesSource | None = None


def run(options: Options) -> Report:
    """Check events against each other and their audio, and judge how much is wrong.

    Raises:
        InputError: a line is no valid event, or a file cannot be read: there is nothing to judge.
    """
    thresholds = load_thresholds(
        "manifest",
        overlay=options.gates,
        overrides={"max_errors": options.max_errors, "max_warnings": options.max_warnings},
    )
    found = validate.run(
        validate.Options(
            inputs=options.events,
            audio_root=options.audio_root,
            components=options.components,
            techniques=options.techniques,
        )
    )
    if found.total_schema:
        bad = [each.problem for each in found.findings if RULES[each.rule].schema]
        raise InputError(bad, found.total_schema)
    files = [*options.events, options.components, options.techniques]
    return Report(
        tool="validate-manifest",
        inputs=[describe_file(path) for path in files if path],
        parameters=asdict(options),
        metrics={
            "records": found.records,
            "audio_files": found.audio_files,
            "audio_headers": found.audio_headers,
            "findings": {
                rule: {
                    "level": RULES[rule].level,
                    "title": RULES[rule].title,
                    "findings": count.findings,
                    "events": count.events,
                }
                for rule, count in found.counts.items()
            },
            "examples": _examples(found),
        },
        verdicts=[
            _judged(found, "error", thresholds["max_errors"]),
            _judged(found, "warning", thresholds["max_warnings"]),
        ],
    )


def _judged(found: Validation, level: Level, threshold: Threshold) -> Verdict:
    kinds = [
        f"{rule} ({count.findings})"
        for rule, count in found.counts.items()
        if RULES[rule].level == level
    ]
    measured = Measurement(
        name=threshold.name, value=found.total(level), n=found.records, detail=", ".join(kinds)
    )
    problems = [each.problem for each in found.findings if each.level == level]
    places = [(each.path, each.line) for each in problems if each.line]
    path, line = min(places, default=("", 0))
    place = Place(path=path, line=line) if line else None
    return replace(judge(measured, threshold), place=place)


def _examples(found: Validation) -> list[dict[str, Any]]:
    """The first findings, with the place of each."""
    return [
        {
            "rule": each.rule,
            "level": each.level,
            "path": each.problem.path,
            "line": each.problem.line,
            "field": each.problem.field,
            "why": each.problem.why,
            "events": each.events,
        }
        for each in found.findings[:_SHOWN]
    ]
