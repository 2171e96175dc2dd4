"""Making a candidate the next baseline: only one that passes, and in one step or not at all.

The new baseline is the candidate's report with `provenance.blessed` added: who blessed it, when,
the hashes of the candidate and of the baseline before it, and the outcome of the comparison. It
stands inside the report, not beside it, because two files cannot be replaced in one step.
"""

from __future__ import annotations

import fcntl
import getpass
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training import __version__
from training.checks.health_compare_input import HealthReport
from training.errors import DrumgateError, InputError, printable
from training.gates import Measurement, Report, Threshold, Verdict, judge, nearest
from training.manifest import InputFile, atomic_write, describe_file, read_json, to_json

if TYPE_CHECKING:
    from training.checks.health_compare import Options

SHOWN = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Blessed:
    """What stands under `provenance.blessed` of a baseline.

    Attributes:
        by, host, at: who promoted it, on which machine, and when (UTC).
        candidate: the report that was promoted, with the hash that it had.
        previous_baseline: the report that it replaced; None for a first baseline.
        status: of the comparison: pass or warn.
        parameters: those of the comparison, with what a class was allowed to lose.
        warnings: of the comparison.
        version: of the drumgate that compared.
    """

    by: str
    host: str
    at: str
    candidate: InputFile
    previous_baseline: InputFile | None
    status: str
    parameters: dict[str, Any]
    warnings: list[str]
    version: str = __version__


def check_options(options: Options) -> None:
    """Refuse options that contradict each other or the files that they name.

    Raises:
        InputError: there is a baseline where a first one was announced, or none to compare with.
        DrumgateError: an option of blessing stands without `--bless`.
    """
    for flag, given in (
        ("--first-baseline", options.first_baseline),
        ("--allow-failing", options.allow_failing),
        ("--blessed-by", options.blessed_by is not None),
    ):
        if given and not options.bless:
            raise DrumgateError(f"{flag}: means nothing without --bless")
    if not options.bless:
        return
    baseline = options.baseline
    if options.first_baseline and baseline.exists():
        why = "is there already: leave --first-baseline away to compare with it"
        raise InputError.at(baseline, why)
    if not options.first_baseline and not baseline.exists():
        why = "no such file; to start with this candidate as the baseline, add --first-baseline"
        raise InputError.at(baseline, why)
    if baseline.exists() and options.candidate.exists() and baseline.samefile(options.candidate):
        raise InputError.at(baseline, "is the candidate itself")


def judge_candidate(
    candidate: HealthReport, allowed: Sequence[str], threshold: Threshold
) -> Verdict:
    """Judge whether a candidate may become the baseline: how many of its own gates failed.

    A gate that `allowed` names, in full or without its subject, is not counted.

    Raises:
        DrumgateError: `allowed` names a gate that has not failed.
    """
    failed = [gate.name for gate in candidate.gates if not gate.passed]
    known = {*failed, *(name.partition("[")[0] for name in failed)}
    for name in allowed:
        if name not in known:
            hint = nearest(name, known)
            raise DrumgateError(f"--allow-failing: {name!r} has not failed in the candidate{hint}")
    found = [name for name in failed if not {name, name.partition("[")[0]} & set(allowed)]
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    accepted = f"{len(failed) - len(found)} allowed to fail" if len(failed) > len(found) else ""
    measured = Measurement(
        name="failing_gates_blessed",
        value=len(found),
        n=len(candidate.gates),
        detail=", ".join(found[:SHOWN]) + more or accepted,
    )
    return judge(measured, threshold)


def summary(
    options: Options, baseline: HealthReport, candidate: HealthReport
) -> dict[str, Any] | None:
    """Say in a report what blessing was asked for; None when none was."""
    if not options.bless or candidate.file is None:
        return None
    return {
        "baseline": str(options.baseline),
        "candidate_sha256": candidate.file.sha256,
        "previous_sha256": baseline.file.sha256 if baseline.file else None,
        "first": options.first_baseline,
        "allowed_failing": list(options.allow_failing),
    }


@contextmanager
def promoting(options: Options, report: Report) -> Iterator[str]:
    """Promote the candidate at the end of the block, when `options.bless` and `report` allow it.

    The new baseline is written beside the old one before the block runs, so that a folder that
    cannot be written to is noticed first, and takes its name after it; when the block raises, or
    the process is killed, the old one stays as it was. Of two runs that bless into one folder the
    second waits for the first, and then finds that the baseline is another. Gives what there is to
    tell the user; empty when blessing was not asked for.

    Raises:
        InputError: the baseline cannot be written, or either report is no longer the one that
            was compared.
    """
    if not options.bless:
        yield ""
        return
    if report.blocks:
        stays = "there is no baseline yet" if options.first_baseline else "the baseline stays"
        yield f"{options.baseline}: not blessed, because the comparison blocks; {stays}"
        return
    raw = read_json(options.candidate, dict[str, Any])
    note = asdict(_blessed(options, report))
    provenance = raw.get("provenance", {})
    with _alone(options.baseline.parent), atomic_write(options.baseline) as file:
        file.write(to_json({**raw, "provenance": {**provenance, "blessed": note}}) + "\n")
        _check_unchanged(options, report)
        began = "the first baseline is" if options.first_baseline else "the new baseline is"
        yield f"{options.baseline}: blessed by {printable(note['by'])}; {began} {options.candidate}"
        _check_unchanged(options, report)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which nothing is left of; some network drives know none."""
    handle = None
    with suppress(OSError):  # what cannot be written to is said by whoever writes
        handle = os.open(folder, os.O_RDONLY)
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if handle is not None:
            os.close(handle)


def _blessed(options: Options, report: Report) -> Blessed:
    *previous, candidate = report.inputs
    data = report.to_dict()
    return Blessed(
        by=options.blessed_by or _user(),
        host=platform.node(),
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        candidate=candidate,
        previous_baseline=previous[0] if previous else None,
        status=data["status"],
        parameters=data["parameters"],
        warnings=data["warnings"],
    )


def _check_unchanged(options: Options, report: Report) -> None:
    """Make sure that what was compared is what is promoted, and what is replaced."""
    *previous, candidate = report.inputs
    if describe_file(options.candidate) != candidate:
        raise InputError.at(options.candidate, "changed while it was compared: nothing was blessed")
    if previous and describe_file(options.baseline) != previous[0]:
        raise InputError.at(options.baseline, "changed while it was compared: nothing was blessed")
    if not previous and options.baseline.exists():
        raise InputError.at(options.baseline, "was made in the meantime: nothing was blessed")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "unknown"
