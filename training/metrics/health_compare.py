"""What changed between two health reports: counts that dropped, gates that newly fail.

Counts are compared name by name, gates by their names. How far distributions moved is measured in
`training.metrics.drift`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class CountChange:
    """How one count changed.

    Attributes:
        name: the class, technique or label.
        baseline, candidate: the counts; 0 where a side does not have the name.
        drop: how many fewer the candidate has; 0 when it has as many or more.
        drop_pct: the drop in percent of the baseline; 0 when there is none.
        ignored: the caller asked that this name does not count.
    """

    name: str
    baseline: int
    candidate: int
    drop: int
    drop_pct: float
    ignored: bool = False


def count_changes(
    baseline: Mapping[str, int],
    candidate: Mapping[str, int],
    *,
    ignore: Collection[str] = (),
) -> tuple[CountChange, ...]:
    """Compare counts name by name, over the names of both sides, sorted."""
    changes = []
    for name in sorted({*baseline, *candidate}):
        before, after = baseline.get(name, 0), candidate.get(name, 0)
        drop = max(before - after, 0)
        changes.append(
            CountChange(
                name=name,
                baseline=before,
                candidate=after,
                drop=drop,
                drop_pct=round(100.0 * drop / before, 6) if before else 0.0,
                ignored=name in ignore,
            )
        )
    return tuple(changes)


Fate = Literal["newly_failing", "no_longer_checked", "still_failing", "fixed", "passing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateChange:
    """What became of one gate.

    Attributes:
        name: the gate.
        baseline, candidate: its status on each side; None where the side did not judge it.
        fate: `newly_failing` (fails now, and did not fail before), `no_longer_checked` (passed
            before and is not judged now), `still_failing`, `fixed`, or `passing`.
        loosened: it asks for less than it did: its threshold moved to the easy side, it compares
            another way round, or it became advice. Empty, or what was and what is now.
    """

    name: str
    baseline: str | None
    candidate: str | None
    fate: Fate
    loosened: str = ""

    @property
    def is_regression(self) -> bool:
        """Whether the candidate is worse here: it fails now, or nobody looks any more."""
        return self.fate in ("newly_failing", "no_longer_checked")


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRow:
    """The outcome of one gate in a report: its name, its status, and whether it passed.

    `comparator` and `threshold` are what it asked for (None where the report does not say), and a
    gate that is not `required` is advice.
    """

    name: str
    status: str
    passed: bool
    required: bool = True
    comparator: str | None = None
    threshold: float | None = None


def gate_changes(
    baseline: Sequence[GateRow], candidate: Sequence[GateRow]
) -> tuple[GateChange, ...]:
    """Match gates by name and tell what became of each, sorted by name.

    A gate that failed in the baseline and is not judged in the candidate is `still_failing`:
    it has not been shown to pass.
    """
    before = {row.name: row for row in baseline}
    after = {row.name: row for row in candidate}
    changes = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        fate: Fate
        if new is None:
            fate = "no_longer_checked" if old is not None and old.passed else "still_failing"
        elif new.passed:
            fate = "passing" if old is None or old.passed else "fixed"
        else:
            fate = "newly_failing" if old is None or old.passed else "still_failing"
        changes.append(
            GateChange(
                name=name,
                baseline=None if old is None else old.status,
                candidate=None if new is None else new.status,
                fate=fate,
                loosened=_loosened(old, new) if old and new else "",
            )
        )
    return tuple(changes)


def _loosened(old: GateRow, new: GateRow) -> str:
    """Say what a gate asked for before and asks for now, where that is less."""
    found = []
    if old.required and not new.required:
        found.append("required before, advice now")
    if old.threshold is not None and new.threshold is not None:
        easier = {
            "<=": new.threshold > old.threshold,
            ">=": new.threshold < old.threshold,
        }.get(new.comparator or "", new.threshold != old.threshold)
        if easier or new.comparator != old.comparator:
            now = f"{new.comparator} {new.threshold:g}"
            found.append(f"{old.comparator} {old.threshold:g} before, {now} now")
    return "; ".join(found)
