"""What the records of an evaluation may contradict: ids that repeat, labels that nobody knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.errors import Problem

_LABEL_FIELDS = ("labels", "scores", "probabilities")


@dataclass(slots=True)
class _Name:
    """A label that the taxonomy does not know: where it stands first, and in how many records."""

    path: str
    line: int
    field: str
    records: int = 0


@dataclass(slots=True)
class EvaluationFindings:
    """Findings about ground truth or predictions, gathered record by record.

    Ids must be unique within a file: several files may be several models judged on one set.

    Attributes:
        canonical: gives the label that a name stands for, None when it is unknown.
        keep: how many repeated ids to keep; all are counted.
    """

    canonical: Callable[[str], str | None]
    keep: int
    repeats: int = 0
    _kept: list[Problem] = field(default_factory=list)
    _unknown: dict[str, _Name] = field(default_factory=dict)

    def visitor(self, path: Path | str) -> Callable[[int, Any], None]:
        """Give the function that takes the (line number, record) pairs of one file."""
        first: dict[str, int] = {}

        def visit(number: int, record: Any) -> None:
            earlier = first.setdefault(record.sample_id, number)
            if earlier != number:
                self.repeats += 1
                if len(self._kept) < self.keep:
                    why = f"stands already in {path}:{earlier}"
                    self._kept.append(
                        Problem(str(path), why, number, "sample_id", record.sample_id)
                    )
            named: dict[str, str] = {}
            for where, label in _labels(record):
                if self.canonical(label) is None:
                    named.setdefault(label, where)
            for label, where in named.items():
                known = self._unknown.setdefault(label, _Name(str(path), number, where))
                known.records += 1

        return visit

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return {rule: (findings, records that they concern)} of the rules that were broken."""
        found = {}
        if self.repeats:
            found["duplicate-sample-id"] = (self.repeats, self.repeats)
        if self._unknown:
            records = sum(name.records for name in self._unknown.values())
            found["unknown-label"] = (len(self._unknown), records)
        return found

    def kept(self) -> Iterator[tuple[str, Problem, int]]:
        """Yield (rule, problem, records that it concerns), each rule in the order met."""
        for problem in self._kept:
            yield "duplicate-sample-id", problem, 1
        why = "is not a label of the taxonomy"
        for label, name in self._unknown.items():
            problem = Problem(name.path, why, name.line, name.field, label)
            yield "unknown-label", problem, name.records


def _labels(record: Any) -> Iterator[tuple[str, str]]:
    """Yield (field, label) of everything that a record names; what is not stated is no tuple."""
    for name in _LABEL_FIELDS:
        value = getattr(record, name, None)
        if isinstance(value, tuple):
            yield from ((f"{name}[{place}]", label) for place, label in enumerate(value))
        elif isinstance(value, dict):
            yield from ((f"{name}.{label}", label) for label in value)
    components = getattr(record, "components", None)
    if isinstance(components, tuple):
        for place, component in enumerate(components):
            yield f"components[{place}].label", component.label
