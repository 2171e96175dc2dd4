"""What changed between two health reports: drops, drifts, gates that newly fail.

Counts are compared class by class. Distributions are compared with the Jensen-Shannon divergence
in bits (J. Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37(1),
1991): 0 for equal distributions, 1 for distributions without anything in common, symmetric, and
defined where a value occurs on one side only.
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Drift:
    """How far one distribution moved.

    Attributes:
        name: what is distributed, such as "dynamics".
        divergence_bits: Jensen-Shannon divergence, 0..1; None when a side holds nothing.
        baseline_n, candidate_n: observations on each side.
        largest: the value whose share changed most; None when no share changed.
        largest_change: candidate share minus baseline share of that value.
        detail: why there is no divergence; empty when there is one.
    """

    name: str
    divergence_bits: float | None
    baseline_n: int
    candidate_n: int
    largest: str | None = None
    largest_change: float | None = None
    detail: str = ""


def drift(name: str, baseline: Mapping[str, int], candidate: Mapping[str, int]) -> Drift:
    """Compare two distributions given as counts."""
    from scipy.spatial.distance import jensenshannon

    values = sorted({*baseline, *candidate})
    before = [baseline.get(value, 0) for value in values]
    after = [candidate.get(value, 0) for value in values]
    n_before, n_after = sum(before), sum(after)
    if not n_before or not n_after:
        empty = " and ".join(
            side for side, n in (("baseline", n_before), ("candidate", n_after)) if not n
        )
        return Drift(
            name=name,
            divergence_bits=None,
            baseline_n=n_before,
            candidate_n=n_after,
            detail=f"nothing to compare in the {empty}",
        )
    # Of equal distributions SciPy takes the square root of rounding noise: 1e-9 or NaN.
    distance = 0.0 if before == after else float(jensenshannon(before, after, base=2))
    shares = [b / n_after - a / n_before for a, b in zip(before, after, strict=True)]
    index = max(range(len(values)), key=lambda i: abs(shares[i]))
    return Drift(
        name=name,
        divergence_bits=min(max(round(distance**2, 9), 0.0), 1.0),
        baseline_n=n_before,
        candidate_n=n_after,
        largest=values[index] if shares[index] else None,
        largest_change=round(shares[index], 9) if shares[index] else None,
    )


Fate = Literal["newly_failing", "no_longer_checked", "still_failing", "fixed", "passing"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateChange:
    """What became of one gate.

    Attributes:
        name: the gate.
        baseline, candidate: its status on each side; None where the side did not judge it.
        fate: `newly_failing` (fails now, and did not fail before), `no_longer_checked` (passed
            before and is not judged now), `still_failing`, `fixed`, or `passing`.
    """

    name: str
    baseline: str | None
    candidate: str | None
    fate: Fate

    @property
    def is_regression(self) -> bool:
        """Whether the candidate is worse here: it fails now, or nobody looks any more."""
        return self.fate in ("newly_failing", "no_longer_checked")


@dataclass(frozen=True, kw_only=True, slots=True)
class GateRow:
    """The outcome of one gate in a report: its name, its status, and whether it passed."""

    name: str
    status: str
    passed: bool


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
            )
        )
    return tuple(changes)
