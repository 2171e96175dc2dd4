"""Readiness: run the checks, gather their verdicts, and block what is not ready.

A check that was selected and has no input is `not_measured`, and so is one in which no gate was
asked for; one that crashes is `error`; both block, and the other checks still run. Input that is
there but malformed ends the run instead, since a verdict on it would be a guess.
"""

from __future__ import annotations

import importlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from training.errors import DrumgateError, InputError
from training.gates import Report, Status, Verdict, overall
from training.manifest import InputFile

# Each check with the options that it cannot do without; in the order of a recording's way.
REQUIRED_INPUTS: Final[dict[str, tuple[str, ...]]] = {
    "alignment": ("manifest",),
    "health": ("events",),
    "boundary": ("ground_truth", "predictions"),
    "openset": ("ground_truth", "predictions"),
    "bootstrap": ("ground_truth", "predictions"),
}
CHECKS: Final = tuple(REQUIRED_INPUTS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to run.

    `given` holds, for each check, the options that were given for it, named as in its own
    `Options`, save that an alignment manifest is `manifest`.
    """

    checks: tuple[str, ...] = CHECKS
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    halt_on_first_failure: bool = False
    gates: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one check went: its report, or why there is none."""

    check: str
    report: Report | None = None
    status: Status = Status.NOT_MEASURED
    detail: str = ""
    trace: str = ""

    @property
    def verdicts(self) -> Sequence[Verdict]:
        """The verdicts of the check; a single blocking one where it gave none."""
        if self.report and self.report.verdicts:
            return self.report.verdicts
        return [
            Verdict(
                name=self.check,
                status=self.status,
                observed=None,
                comparator=None,
                threshold=None,
                detail=self.detail,
                fix="Give the check its input, or leave it out of --checks.",
            )
        ]

    @property
    def blocks(self) -> bool:
        """Whether this check stops a release."""
        return any(not verdict.passed for verdict in self.verdicts)


def run(options: Options) -> tuple[Report, Sequence[Outcome]]:
    """Run the selected checks in process; return the report on all of them and each outcome.

    Raises:
        InputError: some input is malformed or was named and is not there; every fault of every
            check is in it, and nothing has been judged.
    """
    outcomes: list[Outcome] = []
    problems: list[InputError] = []
    halted_by = ""
    for check in options.checks:
        if halted_by:
            detail = f"not run: {halted_by} blocks and --halt-on-first-failure is set"
            outcomes.append(Outcome(check=check, detail=detail))
            continue
        try:
            outcomes.append(_run_check(check, options))
        except InputError as error:
            problems.append(error)
            continue
        if outcomes[-1].blocks and options.halt_on_first_failure:
            halted_by = check
    if problems:
        found = [problem for error in problems for problem in error.problems]
        raise InputError(found, sum(error.total for error in problems))
    return _summary(options, outcomes), outcomes


def _run_check(check: str, options: Options) -> Outcome:
    given = {name: value for name, value in options.given.get(check, {}).items() if _is_set(value)}
    missing = [name for name in REQUIRED_INPUTS[check] if name not in given]
    if missing:
        flags = " and ".join(f"--{check}-{name.replace('_', '-')}" for name in missing)
        return Outcome(check=check, detail=f"no input: give {flags}")
    try:
        module = importlib.import_module(f"training.checks.{check}")
        if "manifest" in given:
            given["manifests"] = given.pop("manifest")
        report: Report = module.run(module.Options(**given, gates=options.gates))
    except DrumgateError:
        raise
    except Exception as error:
        detail = f"the check crashed: {type(error).__name__}: {error}"
        trace = traceback.format_exc()
        return Outcome(check=check, status=Status.ERROR, detail=detail, trace=trace)
    detail = "" if report.verdicts else "no gate was asked for, so nothing was judged"
    return Outcome(check=check, report=report, status=report.status, detail=detail)


def _is_set(value: Any) -> bool:
    return value is not None and value != ()


def _summary(options: Options, outcomes: Sequence[Outcome]) -> Report:
    inputs: dict[tuple[str, str], InputFile] = {}
    for outcome in outcomes:
        for file in outcome.report.inputs if outcome.report else ():
            inputs.setdefault((file.path, file.sha256), file)
    return Report(
        tool="run-readiness-checks",
        inputs=list(inputs.values()),
        parameters={
            "checks": options.checks,
            "halt_on_first_failure": options.halt_on_first_failure,
            "gates": options.gates,
            **{
                check: outcome.report.parameters if outcome.report else options.given.get(check, {})
                for check, outcome in zip(options.checks, outcomes, strict=True)
            },
        },
        metrics={"checks": {outcome.check: _row(outcome) for outcome in outcomes}},
        verdicts=[verdict for outcome in outcomes for verdict in outcome.verdicts],
        warnings=[
            f"{outcome.check}: {text}"
            for outcome in outcomes
            for text in (outcome.report.warnings if outcome.report else ())
        ],
    )


def _row(outcome: Outcome) -> dict[str, Any]:
    verdicts = outcome.verdicts
    return {
        "status": str(overall(verdicts)),
        "gates": len(verdicts),
        "blocking": sum(not verdict.passed for verdict in verdicts),
        "detail": outcome.detail,
        "page": f"{outcome.check}.html" if outcome.report else None,
    }
