"""Readiness: run the checks, gather their verdicts, and block what is not ready.

A check that was selected and has no input is `not_measured`, and so is one in which no gate was
asked for; one that crashes is `error`; both block, and the other checks still run. Input that is
there but malformed ends the run instead, since a verdict on it would be a guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

from training.checks.readiness_checks import CHECKS as _CHECKS
from training.checks.readiness_plan import Options, Plan, Planned, make_plan
from training.checks.readiness_run import Outcome, Track, run_all
from training.checks.waivers import Waivers, read_waivers
from training.errors import DrumgateError, InputError
from training.gates import Report, Verdict
from training.manifest import InputFile, describe_file

__all__ = ["CHECKS", "Options", "Outcome", "make_plan", "run"]

CHECKS: Final = tuple(_CHECKS)
"""The names of all checks; those that are run when nobody chooses are fewer."""


def run(
    options: Options, *, track: Track = lambda items, total: items
) -> tuple[Report, Sequence[Outcome]]:
    """Run the selected checks in process; return the report on all of them and each outcome.

    Args:
        options: what to run.
        track: shows how many checks are done.

    Raises:
        InputError: the configuration, the waivers or some input is malformed, or was named by a
            flag and is not there; every fault of every check is in it, and nothing was judged.
        DrumgateError: an option of a check makes no sense.
    """
    plan = make_plan(options)
    today = options.today or date.today()
    waivers = read_waivers(plan.waivers) if plan.waivers else None
    outcomes = run_all(
        plan.checks,
        jobs=options.jobs,
        halt=options.halt_on_first_failure,
        excuse=lambda verdicts: waivers.excuse(verdicts, today) if waivers else verdicts,
        track=track,
    )
    _raise_problems(outcomes)
    judged = _Judged.of(plan, outcomes, waivers, today)
    return _summary(options, plan, judged), outcomes


@dataclass(frozen=True, kw_only=True, slots=True)
class _Judged:
    """The outcomes, and what became of the waivers."""

    outcomes: Sequence[Outcome]
    waivers: Waivers | None
    fates: Sequence[dict[str, Any]]
    verdicts: Sequence[Verdict]

    @classmethod
    def of(
        cls, plan: Plan, outcomes: Sequence[Outcome], waivers: Waivers | None, today: date
    ) -> _Judged:
        verdicts = [verdict for outcome in outcomes for verdict in outcome.verdicts]
        fates: list[dict[str, Any]] = []
        if waivers:
            reported = {outcome.check for outcome in outcomes if outcome.report}
            fates = waivers.fates(verdicts, today, judged=lambda gate: _was_judged(gate, reported))
            verdicts += waivers.rows(fates, [verdict.name for verdict in verdicts])
        return cls(outcomes=outcomes, waivers=waivers, fates=fates, verdicts=verdicts)


def _was_judged(gate: str, reported: set[str]) -> bool | None:
    """Whether the check of a gate gave a report; None for a gate that no check has."""
    table, _, name = gate.partition("[")[0].partition(".")
    for check in _CHECKS.values():
        if gate == check.name or (table == check.table and name in check.thresholds):
            return check.name in reported
    return None


def _raise_problems(outcomes: Sequence[Outcome]) -> None:
    """Raise what was wrong with the inputs of all checks as one error."""
    problems = [outcome for outcome in outcomes if outcome.problem]
    if not problems:
        return
    others = [each for each in problems if not isinstance(each.problem, InputError)]
    if others:
        said = [
            str(each.problem) if each not in others else f"{each.check}: {each.problem}"
            for each in problems
        ]
        raise DrumgateError("\n".join(said))
    errors = [each.problem for each in problems if isinstance(each.problem, InputError)]
    # Two checks that read the same file find the same faults in it.
    found = list(dict.fromkeys(problem for error in errors for problem in error.problems))
    hidden = max(error.total - len(error.problems) for error in errors)
    raise InputError(found, len(found) + hidden)


def _summary(options: Options, plan: Plan, judged: _Judged) -> Report:
    inputs: dict[tuple[str, str], InputFile] = {}
    own = [plan.config.source] if plan.config else []
    own += [judged.waivers.source] if judged.waivers else []
    own += [describe_file(options.gates)] if options.gates else []
    reports = [outcome.report for outcome in judged.outcomes if outcome.report]
    for file in (*(file for report in reports for file in report.inputs), *own):
        inputs.setdefault((file.path, file.sha256), file)
    return Report(
        tool="run-readiness-checks",
        inputs=list(inputs.values()),
        parameters={
            "checks": [each.check.name for each in plan.checks],
            "halt_on_first_failure": options.halt_on_first_failure,
            "gates": options.gates,
            "config": options.config,
            "root": plan.config.root if plan.config else None,
            "waivers": plan.waivers,
            "allow_missing": options.allow_missing,
            "today": options.today.isoformat() if options.today else None,
            **{
                planned.check.name: outcome.report.parameters if outcome.report else planned.given
                for planned, outcome in zip(plan.checks, judged.outcomes, strict=True)
            },
        },
        metrics={
            "checks": {
                planned.check.name: _row(planned, outcome)
                for planned, outcome in zip(plan.checks, judged.outcomes, strict=True)
            },
            "waivers": list(judged.fates),
        },
        verdicts=judged.verdicts,
        warnings=_warnings(options, judged),
    )


def _row(planned: Planned, outcome: Outcome) -> dict[str, Any]:
    verdicts = outcome.verdicts
    return {
        "about": planned.check.about,
        "status": str(outcome.status),
        "gates": len(verdicts),
        "blocking": sum(not verdict.passed for verdict in verdicts),
        "waived": sum(verdict.waiver is not None for verdict in verdicts),
        "required": planned.required and not planned.allowed,
        "severity": planned.severity,
        "detail": outcome.detail,
        "page": f"{outcome.check}.html" if outcome.report else None,
    }


def _warnings(options: Options, judged: _Judged) -> list[str]:
    warnings = []
    if options.today:
        warnings.append(f"waivers were judged as on {options.today}, which --today names")
    used = sum(each["fate"] == "used" for each in judged.fates)
    if used:
        warnings.append(f"{used} waiver{'s are' if used > 1 else ' is'} in force")
    idle = [each["gate"] for each in judged.fates if each["fate"] == "not_judged"]
    if idle:
        warnings.append(f"waivers of gates that this run did not judge: {', '.join(idle)}")
    return warnings + [
        f"{outcome.check}: {text}"
        for outcome in judged.outcomes
        for text in (outcome.report.warnings if outcome.report else ())
    ]
