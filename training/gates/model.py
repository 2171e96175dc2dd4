"""What a gate is made of: a measurement, a threshold, and the verdict of one on the other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Comparator = Literal["<=", ">=", "=="]
DecideOn = Literal["point", "lower", "upper"]


class Status(StrEnum):
    """How a gate, or a whole report, came out."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    NOT_MEASURED = "not_measured"
    ERROR = "error"

    @property
    def blocks(self) -> bool:
        """Whether a required gate with this status stops a release: all but pass and warn do."""
        return self not in (Status.PASS, Status.WARN)


# From best to worst: a report is as good as its worst required gate.
SEVERITY = (Status.PASS, Status.WARN, Status.NOT_MEASURED, Status.FAIL, Status.ERROR)


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A confidence interval, in the unit of the figure that it belongs to."""

    lower: float
    upper: float
    confidence: float = 0.95


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One figure, or the reason why there is none.

    `value` None (NaN and infinities count as None) means not measured; `detail` then says why.
    `n` is the number of observations behind the figure. `fix` is what to do about this figure where
    it fails or is missing, if that is more than what the threshold says of all.
    """

    name: str
    value: float | None
    unit: str = ""
    n: int | None = None
    ci: Interval | None = None
    detail: str = ""
    fix: str = ""

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            object.__setattr__(self, "detail", self.detail or f"the figure is {self.value}")
            object.__setattr__(self, "value", None)
        if self.ci and not (math.isfinite(self.ci.lower) and math.isfinite(self.ci.upper)):
            object.__setattr__(self, "ci", None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """Where a gate draws the line, and why there.

    `decide_on` picks what is compared: the point estimate or a bound of its interval. `production`
    is the value of the shipped configuration where a user's own file sets another one.
    """

    name: str
    comparator: Comparator
    value: float
    unit: str = ""
    reason: str = ""
    fix: str = ""
    required: bool = True
    decide_on: DecideOn = "point"
    production: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiver:
    """Leave for a gate not to pass until a day: who gave it, and why."""

    gate: str
    reason: str
    who: str
    expires: str
    """The last day on which it holds, as YYYY-MM-DD."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the first thing stands that a gate complains of; lines count from 1."""

    path: str
    line: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How a measurement stood up to its threshold: one row of `gating_results`.

    `observed` is the figure compared; None when it was not measured, and `detail` says why. A
    waiver leaves the status as it is: what failed is shown as failed, and lets the rest pass.
    """

    name: str
    status: Status
    observed: float | None
    comparator: Comparator | None
    threshold: float | None
    unit: str = ""
    n: int | None = None
    ci: Interval | None = None
    detail: str = ""
    fix: str = ""
    reason: str = ""
    required: bool = True
    decide_on: DecideOn = "point"
    production_threshold: float | None = None
    waiver: Waiver | None = None
    place: Place | None = None

    @property
    def standing(self) -> Status:
        """The status as it counts for the whole.

        A gate that is waived warns, and so does a figure that is missing where it is not required.
        A crash is excused by nothing.
        """
        missing = self.status is Status.NOT_MEASURED and not self.required
        waived = self.waiver is not None and self.status in (Status.FAIL, Status.NOT_MEASURED)
        return Status.WARN if missing or waived else self.status

    @property
    def passed(self) -> bool:
        """Whether the gate lets this pass."""
        return not self.standing.blocks
