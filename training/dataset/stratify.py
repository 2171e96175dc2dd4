"""Deal whole groups of events out to splits so that each gets its share of every label.

Greedy from the rarest label on, after Sechidis, Tsoumakas & Vlahavas 2011, "On the stratification
of multi-label data", carried over from rows to groups; then improved by moving and swapping single
groups until no step helps. With few groups, where it matters most, every division is tried.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_RESTARTS = 16
_SWAPS_UP_TO = 150
_STEPS = 400
_TRY_ALL_UP_TO = 20_000
_ABSENT = 1.0
_EMPTY = 1e6


def deal_groups(
    group: NDArray[np.int64],
    labels: NDArray[np.uint8],
    ratios: NDArray[np.float64],
    *,
    seed: int,
) -> NDArray[np.int64]:
    """Deal whole groups out to splits, stratified by label; return the split of each group.

    The cost that is made small compares, for the number of events and for each label, the
    share that a split got with the share asked: ``(got - asked)^2 / asked``, the number of
    events weighing as much as all labels together. A label that is missing from a split though
    it has groups enough costs extra, most of all in the largest split.
    With few groups every division is tried; else the best of several seeded starts is kept.
    """
    n_groups = int(group.max()) + 1
    used = np.flatnonzero(ratios > 0)
    if len(used) == 1:
        return np.full(n_groups, used[0], dtype=np.int64)
    problem = _Problem.of(group, labels, ratios[used], n_groups)
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, n_groups])))
    if len(used) ** n_groups <= _TRY_ALL_UP_TO:
        return used[_try_all(problem, rng)]
    best = _improve(problem, _greedy(problem, rng))
    best_cost = float(problem.cost(problem.totals(best)).sum())
    for _ in range(_RESTARTS if n_groups <= _SWAPS_UP_TO else 2):
        dealt = _improve(problem, rng.choice(len(used), n_groups, p=ratios[used]))
        cost = float(problem.cost(problem.totals(dealt)).sum())
        if cost < best_cost - 1e-12:
            best, best_cost = dealt, cost
    return used[best]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Problem:
    """Groups as vectors of shares: column 0 the events, then one column a label that occurs."""

    vectors: NDArray[np.float64]  # (groups, 1 + labels)
    ratios: NDArray[np.float64]  # (splits,)
    weights: NDArray[np.float64]  # (1 + labels,)
    absent: NDArray[np.float64]  # (splits, 1 + labels): what it costs to hold none

    @classmethod
    def of(
        cls,
        group: NDArray[np.int64],
        labels: NDArray[np.uint8],
        ratios: NDArray[np.float64],
        n_groups: int,
    ) -> _Problem:
        counts = [np.bincount(group, minlength=n_groups)]
        counts += [
            np.bincount(group, weights=column, minlength=n_groups)
            for column in labels.T
            if column.any()
        ]
        table = np.stack(counts, axis=1).astype(np.float64)
        holders = (table > 0).sum(axis=0)
        weights = np.ones(table.shape[1])
        weights[0] = max(1, table.shape[1] - 1)
        absent = np.where(holders >= len(ratios), _ABSENT, 0.0)[None, :].repeat(len(ratios), 0)
        absent[int(np.argmax(ratios))] = 4 * _ABSENT
        absent[:, 0] = _EMPTY
        return cls(vectors=table / table.sum(axis=0), ratios=ratios, weights=weights, absent=absent)

    def totals(self, dealt: NDArray[np.int64]) -> NDArray[np.float64]:
        """Shares that each split holds, ``(splits, columns)``."""
        held = np.zeros((len(self.ratios), self.vectors.shape[1]))
        np.add.at(held, dealt, self.vectors)
        return held

    def cost(self, held: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cost of each split, for ``held`` of shape ``(…, splits, columns)``."""
        ratios = self.ratios[:, None]
        off = self.weights * (held - ratios) ** 2 / ratios
        # a share left over by rounding is not an example
        return np.asarray((off + self.absent * (held < 1e-9)).sum(axis=-1))


def _try_all(problem: _Problem, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the best of all divisions; the seed chooses among equals."""
    n_splits, n_groups = len(problem.ratios), len(problem.vectors)
    number = np.arange(n_splits**n_groups)
    dealt = number[:, None] // n_splits ** np.arange(n_groups) % n_splits
    chosen = dealt[:, :, None] == np.arange(n_splits)
    held = np.einsum("dgs,gc->dsc", chosen.astype(np.float64), problem.vectors)
    cost = problem.cost(held).sum(axis=1)
    equals = np.flatnonzero(cost <= cost.min() + 1e-9)
    return np.asarray(dealt[rng.choice(equals)])


def _greedy(problem: _Problem, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal from the rarest label on, the largest holders first, to whoever lacks most."""
    vectors, ratios = problem.vectors, problem.ratios
    n_groups = len(vectors)
    dealt = np.full(n_groups, -1, dtype=np.int64)
    held = np.zeros((len(ratios), vectors.shape[1]))
    noise = rng.random(n_groups) * 0.2 + 0.9
    holders = (vectors > 0).sum(axis=0)
    columns = [*sorted(range(1, vectors.shape[1]), key=lambda c: (holders[c], c)), 0]
    for column in columns:
        open_groups = np.flatnonzero((dealt < 0) & (vectors[:, column] > 0))
        order = np.argsort(-vectors[open_groups, column] * noise[open_groups], kind="stable")
        for chosen in open_groups[order]:
            lacking = ratios - held[:, column]
            overall = ratios - held[:, 0]
            split = int(np.lexsort((-overall, -np.round(lacking, 12)))[0])
            dealt[chosen] = split
            held[split] += vectors[chosen]
    return dealt


def _improve(problem: _Problem, dealt: NDArray[np.int64]) -> NDArray[np.int64]:
    """Move one group, or swap two, whichever helps most, until nothing helps."""
    dealt = dealt.copy()
    vectors = problem.vectors
    n_splits = len(problem.ratios)
    for _ in range(_STEPS):
        held = problem.totals(dealt)
        now = problem.cost(held)
        # cost of every split had it lost, or gained, each group: (groups, splits)
        lost = problem.cost(held[None] - vectors[:, None, :]) - now
        gained = problem.cost(held[None] + vectors[:, None, :]) - now
        change = lost[np.arange(len(dealt)), dealt][:, None] + gained
        change[np.arange(len(dealt)), dealt] = 0.0
        chosen, target = np.unravel_index(int(np.argmin(change)), change.shape)
        best = float(change[chosen, target])
        swap: tuple[int, int] | None = None
        if len(dealt) <= _SWAPS_UP_TO:
            for one in range(n_splits):
                for other in range(one + 1, n_splits):
                    found = _best_swap(problem, dealt, held, now, one, other)
                    if found is not None and found[0] < best - 1e-12:
                        best, swap = found[0], (found[1], found[2])
        if best > -1e-12:
            break
        if swap is None:
            dealt[chosen] = target
        else:
            dealt[swap[0]], dealt[swap[1]] = dealt[swap[1]], dealt[swap[0]]
    return dealt


def _best_swap(
    problem: _Problem,
    dealt: NDArray[np.int64],
    held: NDArray[np.float64],
    now: NDArray[np.float64],
    one: int,
    other: int,
) -> tuple[float, int, int] | None:
    mine, theirs = np.flatnonzero(dealt == one), np.flatnonzero(dealt == other)
    if not len(mine) or not len(theirs):
        return None
    step = problem.vectors[theirs][None, :, :] - problem.vectors[mine][:, None, :]
    after = np.broadcast_to(held, (*step.shape[:2], *held.shape)).copy()
    after[:, :, one] += step
    after[:, :, other] -= step
    change = problem.cost(after)[:, :, [one, other]].sum(axis=2) - now[[one, other]].sum()
    row, column = np.unravel_index(int(np.argmin(change)), change.shape)
    return float(change[row, column]), int(mine[row]), int(theirs[column])
