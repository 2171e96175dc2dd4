"""Judging, fail closed: what was not measured has not passed."""

from __future__ import annotations

import operator
from collections.abc import Iterable

from training.gates.model import SEVERITY, Measurement, Status, Threshold, Verdict

_COMPARE = {"<=": operator.le, ">=": operator.ge, "==": operator.eq}


def judge(measurement: Measurement, threshold: Threshold, *, subject: str = "") -> Verdict:
    """Compare a measurement with a threshold.

    Without a figure to compare (no value, or no interval where a bound decides) the verdict is
    `not_measured`. A gate that is not required warns where it would have failed.

    Args:
        measurement: the figure.
        threshold: where the line is drawn.
        subject: what was measured, where one gate judges several things, such as a mic.
    """
    observed = _figure(measurement, threshold)
    detail = measurement.detail
    if observed is None:
        status = Status.NOT_MEASURED
        if measurement.value is not None:
            why = f"the gate decides on the {threshold.decide_on} bound and there is no interval"
            detail = f"{why}: {detail}" if detail else why
        detail = detail or "no figure"
    elif _COMPARE[threshold.comparator](observed, threshold.value):
        status = Status.PASS
    else:
        status = Status.FAIL
    fix = ""
    if status is Status.FAIL:
        fix = measurement.fix or threshold.fix
    elif status is Status.NOT_MEASURED:
        fix = measurement.fix
    if not threshold.required and status.blocks:
        status = Status.WARN
    return Verdict(
        name=f"{threshold.name}[{subject}]" if subject else threshold.name,
        status=status,
        observed=observed,
        comparator=threshold.comparator,
        threshold=threshold.value,
        unit=threshold.unit or measurement.unit,
        n=measurement.n,
        ci=measurement.ci,
        detail=detail,
        fix=fix,
        reason=threshold.reason,
        required=threshold.required,
        decide_on=threshold.decide_on,
        production_threshold=threshold.production,
    )


def overall(verdicts: Iterable[Verdict]) -> Status:
    """Return the status of a whole: its worst verdict; with no verdict, `not_measured`.

    A whole that passes only thanks to a waiver warns.
    """
    found = [verdict.standing for verdict in verdicts]
    return max(found, key=SEVERITY.index) if found else Status.NOT_MEASURED


def _figure(measurement: Measurement, threshold: Threshold) -> float | None:
    if measurement.value is None or threshold.decide_on == "point":
        return measurement.value
    if measurement.ci is None:
        return None
    return measurement.ci.lower if threshold.decide_on == "lower" else measurement.ci.upper
