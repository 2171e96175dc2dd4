"""The schema half of `validate-manifest`: every line of every input, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import InputError, Problem
from training.manifest.diagnose import diagnose_line
from training.manifest.fields import RECORDS
from training.manifest.lines import TOO_LONG, limited_lines, packing_of
from training.manifest.read import read_records
from training.manifest.validate import LineCheck

Visit = Callable[[int, Any], None]
"""Is called with the line number and the record of every valid line."""


@dataclass(slots=True)
class SchemaFindings:
    """What is wrong with the lines of some inputs.

    Attributes:
        keep: how many problems of each rule to keep.
        counts: {rule: problems found}, complete.
        problems: (rule, problem) in file order, at most `keep` of each rule.
    """

    keep: int
    counts: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[str, Problem]] = field(default_factory=list)

    def add(self, problem: Problem) -> None:
        """Count a problem and keep it while there is room."""
        rule = rule_of(problem)
        self.counts[rule] = self.counts.get(rule, 0) + 1
        if self.counts[rule] <= self.keep:
            self.problems.append((rule, problem))

    def add_error(self, error: InputError) -> None:
        """Add what an error names; those that it only counts are taken to be like its last."""
        for problem in error.problems:
            self.add(problem)
        if error.problems:
            rule = rule_of(error.problems[-1])
            self.counts[rule] += error.total - len(error.problems)

    @property
    def total(self) -> int:
        """How many problems there are."""
        return sum(self.counts.values())


def rule_of(problem: Problem) -> str:
    """Return the id of the schema rule that a problem breaks."""
    if problem.line is None or problem.why.startswith("the compressed data is"):
        return "unreadable-input"
    of_record = problem.field is not None or problem.why.startswith("must be")
    return "invalid-record" if of_record else "invalid-json"


def check_lines(path: Path, kind: str, found: SchemaFindings, visit: Visit | None = None) -> int:
    """Check every line of a file and return how many are valid.

    What is wrong goes to `found`, also that a file is missing, damaged or without a valid record:
    nothing is raised.
    """
    before = found.total
    unreadable = found.counts.get("unreadable-input", 0)
    valid = 0
    try:
        if packing_of(path) == "parquet":
            valid = _check_parquet(path, kind, found, visit)
        else:
            valid = _check_plain(path, kind, found, visit)
    except InputError as error:
        found.add_error(error)
    if not valid and found.counts.get("unreadable-input", 0) == unreadable:
        why = "holds no record" if found.total == before else "holds no valid record"
        found.add(Problem(str(path), why))
    return valid


def _check_plain(path: Path, kind: str, found: SchemaFindings, visit: Visit | None) -> int:
    decode = LineCheck(kind).decode
    valid = 0
    for number, line in limited_lines(path):
        if line is None:
            found.add(Problem(str(path), TOO_LONG, number))
            continue
        try:
            record = decode(line)
        except (ValueError, RecursionError):
            found.add(diagnose_line(path, line, RECORDS[kind], number))
        else:
            valid += 1
            if visit:
                visit(number, record)
    return valid


def _check_parquet(path: Path, kind: str, found: SchemaFindings, visit: Visit | None) -> int:
    record: type[Any] = RECORDS[kind]
    try:
        records = read_records(path, record)
    except InputError as error:
        found.add_error(error)
        if any(problem.line is None for problem in error.problems):
            return 0
        try:
            records = read_records(path, record, skip_invalid=True)
        except InputError:  # not one row is valid
            return 0
    for number, row in zip(records.lines, records.rows, strict=True):
        if visit:
            visit(number, row)
    return len(records)
