"""Running checks side by side, in threads: they spend their time in code that lets others run.

They wait for each other little (of 4.7 s of processor time in the checks of a model, 0.5 s), and
yet a run is as long as its longest check: `alignment` has three quarters of the demo's work, and
spreads it over two cores by itself. Side by side pays from three cores on, or where several checks
are long.

The order in which they finish shows nowhere: results are handed back in the order of the plan.
"""

from __future__ import annotations

import ctypes
import queue
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from typing import Any, Final

from training.checks.readiness_plan import Planned
from training.errors import DrumgateError
from training.gates import Measurement, Report, Status, Verdict, judge, overall
from training.manifest import to_json, write_text
from training.manifest.scratch import scratch_folder

Track = Callable[[Iterable[Any], int], Iterable[Any]]
Excuse = Callable[[Sequence[Verdict]], Sequence[Verdict]]

_STOPPING_S: Final = 10.0
_NO_REPORT: Final = "not run: it reads the report of {check}, and there is none"
_THIS_RUN: Final = "the {check} check of this run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one check went: its verdicts, and its report where there is one.

    `problem` is what was wrong with its input; there are then no verdicts, and nothing is judged.
    """

    check: str
    verdicts: Sequence[Verdict] = ()
    report: Report | None = None
    detail: str = ""
    trace: str = ""
    problem: DrumgateError | None = None

    @property
    def status(self) -> Status:
        """The worst of its verdicts, as they count."""
        return overall(self.verdicts)

    @property
    def blocks(self) -> bool:
        """Whether this check stops a release."""
        return any(not verdict.passed for verdict in self.verdicts)


def run_all(
    plan: Sequence[Planned],
    *,
    jobs: int = 1,
    halt: bool = False,
    excuse: Excuse = lambda verdicts: verdicts,
    track: Track = lambda items, total: items,
) -> list[Outcome]:
    """Run the checks and return how each went, in the order of the plan.

    Args:
        plan: what to run; a check that reads the report of another is run after it.
        jobs: how many run at a time.
        halt: run one after the other, and none after one that blocks.
        excuse: lays waivers over the verdicts of a check.
        track: is handed the outcomes as they come in, to show how far the run is.

    Raises:
        KeyboardInterrupt: the user has had enough; what was running was told to stop.
    """
    waiting = sorted(plan, key=lambda each: each.after is not None)
    found: dict[str, Outcome] = {}
    alone = halt or jobs == 1 or len(plan) == 1
    made = (
        _one_by_one(waiting, found, halt, excuse)
        if alone
        else (_side_by_side(waiting, found, jobs, excuse))
    )
    for outcome in track(made, len(plan)):
        found[outcome.check] = outcome
    return [found[each.check.name] for each in plan]


def _one_by_one(
    plan: Sequence[Planned], found: dict[str, Outcome], halt: bool, excuse: Excuse
) -> Iterable[Outcome]:
    halted_by = ""
    for each in plan:
        if halted_by:
            why = f"not run: {halted_by} blocks and --halt-on-first-failure is set"
            yield _without(each, why, excuse)
            continue
        outcome = _run(each, found, excuse)
        if halt and (outcome.blocks or outcome.problem):
            halted_by = each.check.name
        yield outcome


def _side_by_side(
    plan: Sequence[Planned], found: dict[str, Outcome], jobs: int, excuse: Excuse
) -> Iterable[Outcome]:
    waiting = list(plan)
    threads: dict[str, threading.Thread] = {}
    done: queue.SimpleQueue[tuple[str, Outcome | BaseException]] = queue.SimpleQueue()

    def work(planned: Planned) -> None:
        result: Outcome | BaseException
        try:
            result = _run(planned, found, excuse)
        except BaseException as error:
            result = error
        done.put((planned.check.name, result))

    try:
        while waiting or threads:
            for each in [each for each in waiting if each.after is None or each.after in found]:
                if len(threads) < jobs:
                    waiting.remove(each)
                    # A daemon: where it does not stop when it is told to, it ends with us.
                    thread = threading.Thread(
                        target=copy_context().run, args=(work, each), daemon=True
                    )
                    threads[each.check.name] = thread
                    thread.start()
            name, result = done.get()
            threads.pop(name).join()
            if isinstance(result, BaseException):
                raise result
            found[name] = result
            yield result
    finally:
        _stop(threads.values())


def _stop(threads: Collection[threading.Thread]) -> None:
    """Raise KeyboardInterrupt in threads: Python raises it in the main one only.

    Each sees it between two steps of Python, closes what it has open, and ends.
    """
    until = time.monotonic() + _STOPPING_S
    started = [thread for thread in threads if thread.ident is not None]
    for thread in started:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(KeyboardInterrupt)
        )
    for thread in started:
        thread.join(max(0.0, until - time.monotonic()))


def _run(planned: Planned, found: dict[str, Outcome], excuse: Excuse) -> Outcome:
    """Run one check; whatever goes wrong with it stays with it."""
    name = planned.check.name
    if planned.missing:
        return _without(planned, planned.missing, excuse)
    try:
        report = _report(planned, found)
    except DrumgateError as error:
        return Outcome(check=name, problem=error)
    except (Exception, SystemExit) as error:
        row = _row(
            planned,
            Status.ERROR,
            f"the check crashed: {type(error).__name__}: {error}",
            fix="Run again with -v for the traceback, and report it: this is a fault of drumgate.",
        )
        return Outcome(check=name, verdicts=[row], detail=row.detail, trace=traceback.format_exc())
    if report is None:
        return _without(planned, _NO_REPORT.format(check=planned.after), excuse)
    report = replace(report, verdicts=[*report.verdicts, *_unjudged(planned, report)])
    if not report.verdicts:
        why = "no gate was asked for, so nothing was judged"
        return replace(_without(planned, why, excuse), report=report)
    verdicts = excuse([_eased(planned, verdict) for verdict in report.verdicts])
    return Outcome(check=name, verdicts=verdicts, report=replace(report, verdicts=verdicts))


def _report(planned: Planned, found: dict[str, Outcome]) -> Report | None:
    given = {**planned.given, "gates": planned.gates}
    if planned.after is None:
        return planned.check.run(given)
    before = found[planned.after].report
    if before is None:
        return None
    with scratch_folder() as folder:
        candidate = folder / f"{planned.after}.json"
        # Without its provenance, so that the same data gives the same bytes.
        write_text(candidate, to_json({**before.to_dict(), "provenance": {}}))
        report = planned.check.run({**given, "candidate": candidate})
    return replace(
        report,
        inputs=[file for file in report.inputs if file.path != str(candidate)],
        parameters={**report.parameters, "candidate": _THIS_RUN.format(check=planned.after)},
    )


def _unjudged(planned: Planned, report: Report) -> list[Verdict]:
    """A verdict for each gate that was asked for and that the check gave none for."""
    judged = {verdict.name.partition("[")[0] for verdict in report.verdicts}
    thresholds = planned.thresholds() if planned.asked else {}
    why = "it was asked for, and the check did not judge it, for want of an input or of a figure"
    return [
        judge(Measurement(name=gate, value=None, detail=why), thresholds[gate])
        for gate in thresholds
        if gate in planned.asked and f"{planned.check.table}.{gate}" not in judged
    ]


def _eased(planned: Planned, verdict: Verdict) -> Verdict:
    """Let a check that only warns warn."""
    if planned.severity == "block" or verdict.status is Status.ERROR or not verdict.status.blocks:
        return verdict
    said = f"only warns: {planned.reason}"
    return replace(
        verdict,
        status=Status.WARN,
        required=False,
        detail=f"{verdict.detail}; {said}" if verdict.detail else said,
    )


def _without(planned: Planned, why: str, excuse: Excuse) -> Outcome:
    """The outcome of a check that judged nothing."""
    row = _row(planned, Status.NOT_MEASURED, why)
    missing = bool(planned.missing)
    if missing and planned.allowed:
        row = replace(row, required=False, detail=f"{why}; --allow-missing lets it be missing")
    elif missing and not planned.required:
        row = replace(row, required=False, detail=f"{why}; not required: {planned.reason}")
    verdicts = excuse([_eased(planned, row) if row.required else row])
    return Outcome(check=planned.check.name, verdicts=verdicts, detail=verdicts[0].detail)


def _row(planned: Planned, status: Status, detail: str, fix: str = "") -> Verdict:
    return Verdict(
        name=planned.check.name,
        status=status,
        observed=None,
        comparator=None,
        threshold=None,
        detail=detail,
        fix=fix or "Give the check its input, or leave it out of --checks.",
    )
