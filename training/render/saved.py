"""Reading a report that was written before, so that every form can be made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

from training.errors import InputError
from training.gates import Status
from training.manifest import read_json
from training.manifest.diagnose import explain

NEEDED: Final = frozenset({"tool", "status", "gating_results", "metrics", "warnings"})


class SavedInterval(msgspec.Struct):
    """The interval of a row."""

    lower: float
    upper: float


class SavedWaiver(msgspec.Struct):
    """The waiver of a row."""

    reason: str
    who: str
    expires: str


class SavedPlace(msgspec.Struct):
    """The place of a row."""

    path: str
    line: int


class SavedRow(msgspec.Struct):
    """A row of `gating_results`, as far as the forms of a report rely on it."""

    name: str
    status: Status
    passed: bool
    observed: float | None
    comparator: str | None
    threshold: float | None
    unit: str
    ci: SavedInterval | None
    detail: str
    fix: str
    decide_on: str
    production_threshold: float | None
    waiver: SavedWaiver | None = None
    place: SavedPlace | None = None


class SavedReport(msgspec.Struct):
    """A report, as far as its forms rely on it."""

    tool: str
    status: Status
    gating_results: list[SavedRow]
    metrics: dict[str, Any]
    warnings: list[str]


def read_report(path: Path) -> dict[str, Any]:
    """Return a saved report as it stands in the file, once it is known to be one.

    Raises:
        InputError: the file is missing, is no JSON object, or not a drumgate report.
    """
    data = read_json(path, dict[str, Any])
    if lacking := NEEDED - set(data):
        raise InputError.at(path, "is not a drumgate report", field=min(lacking))
    try:
        msgspec.convert(data, SavedReport, strict=True)
    except msgspec.ValidationError as error:
        raise InputError([explain(path, str(error), data, None, SavedReport)]) from None
    return data
