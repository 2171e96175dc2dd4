"""Divide events among train, val and test so that what is judged was not met in training.

Events are first tied into groups that may not be torn apart, then whole groups are dealt out,
stratified by label (`training.dataset.stratify`).

Three levels of isolation, the strictest first:

``drummer_or_kit``
    no drummer and no kit is in two splits;
``drummer_kit``
    no pair of a drummer and a kit is in two splits;
``session``
    no session is in two splits.

At every level a session, and a recording, lies in one split only. ``auto`` takes the strictest
level that leaves enough groups, keeps the sizes near what was asked, and leaves no label
without an example to learn from; what it turned down, and why, is part of the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.dataset.stratify import deal_groups

LEVELS = ("drummer_or_kit", "drummer_kit", "session")
"""Levels of isolation, the strictest first."""


class SplitError(ValueError):
    """The events cannot be divided as asked; the message says what is in the way."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Considered:
    """A level of isolation that was tried: how many groups it gave, and what spoke against it.

    ``reason`` is empty for the level that was taken.
    """

    level: str
    groups: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitPlan:
    """The answer: a split for each event.

    Attributes:
        names: the splits, in the order asked.
        split: int64 ``(n,)``, index into ``names`` for each event.
        group: int64 ``(n,)``, group of each event, numbered by first appearance.
        level: the level of isolation that holds.
        considered: the levels tried, strictest first; the last one is the one taken.
        shares: share of the events in each split, in the order of ``names``.
    """

    names: tuple[str, ...]
    split: NDArray[np.int64]
    group: NDArray[np.int64]
    level: str
    considered: tuple[Considered, ...]
    shares: tuple[float, ...]


def plan_splits(
    *,
    sessions: Sequence[str],
    recordings: Sequence[str | None],
    drummers: Sequence[str | None],
    kits: Sequence[str | None],
    labels: NDArray[np.uint8],
    ratios: Mapping[str, float],
    seed: int,
    levels: Sequence[str] = LEVELS,
) -> SplitPlan:
    """Divide events among splits.

    Args:
        sessions: session of each event.
        recordings: identity of each event's audio; None ties it to nothing.
        drummers: drummer of each event, None unknown.
        kits: kit of each event, None unknown.
        labels: ``(n, n_labels)``, 1 where the event has the label.
        ratios: share asked for each split, in the order wanted, each >= 0, summing to 1; a
            split of ratio 0 gets nothing. The largest is the one that is learned from.
        seed: chooses among equally good divisions.
        levels: the levels that may be taken, strictest first. The last is taken even when the
            sizes come out far from what was asked.

    Raises:
        SplitError: fewer groups than splits at every level, or no events at all.
        ValueError: arguments that do not fit together.
    """
    n = len(sessions)
    columns = (recordings, drummers, kits, labels)
    if any(len(column) != n for column in columns):
        raise ValueError("sessions, recordings, drummers, kits and labels differ in length")
    if not levels or any(level not in LEVELS for level in levels):
        raise ValueError(f"levels must be some of {LEVELS} (got {tuple(levels)})")
    shares = np.array(list(ratios.values()), dtype=np.float64)
    if not len(shares) or not np.isfinite(shares).all() or (shares < 0).any():
        raise ValueError("ratios must be finite and at least 0")
    if abs(shares.sum() - 1.0) > 1e-9:
        raise ValueError(f"ratios must sum to 1 (got {shares.sum():g})")
    if n == 0:
        raise SplitError("there are no events to divide")

    considered: list[Considered] = []
    for level in levels:
        last = level == levels[-1]
        group = tie_groups(
            level, sessions=sessions, recordings=recordings, drummers=drummers, kits=kits
        )
        groups = int(group.max()) + 1
        unknown = _nothing_named(level, drummers, kits)
        if unknown and not last:
            considered.append(Considered(level=level, groups=groups, reason=unknown))
            continue
        wanted = int((shares > 0).sum())
        if groups < wanted:
            considered.append(
                Considered(
                    level=level, groups=groups, reason=f"{_count(groups)} for {wanted} splits"
                )
            )
            continue
        dealt = deal_groups(group, labels, shares, seed=seed)
        split = dealt[group]
        reason = "" if last else _objection(split, labels, shares, tuple(ratios))
        considered.append(Considered(level=level, groups=groups, reason=reason))
        if not reason:
            return SplitPlan(
                names=tuple(ratios),
                split=split,
                group=group,
                level=level,
                considered=tuple(considered),
                shares=tuple(
                    float(share) for share in np.bincount(split, minlength=len(shares)) / n
                ),
            )
    tried = "; ".join(f"{each.level}: {each.reason}" for each in considered)
    raise SplitError(f"the events cannot be divided ({tried})")


def tie_groups(
    level: str,
    *,
    sessions: Sequence[str],
    recordings: Sequence[str | None],
    drummers: Sequence[str | None],
    kits: Sequence[str | None],
) -> NDArray[np.int64]:
    """Return the group of each event, shape ``(n,)``, numbered by first appearance.

    Two events are in one group when a chain of shared sessions or recordings joins them, and,
    by level, of shared drummers or kits, or of shared pairs. Where only one half of a pair is
    named, events that name the same half and lack the other count as the same pair.
    """
    ties: list[Sequence[object | None]] = [sessions, recordings]
    if level == "drummer_or_kit":
        ties += [drummers, kits]
    elif level == "drummer_kit":
        ties.append(
            [
                None if drummer is None and kit is None else (drummer, kit)
                for drummer, kit in zip(drummers, kits, strict=True)
            ]
        )
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(sessions)
    rows: list[NDArray[np.int64]] = []
    nodes: list[NDArray[np.int64]] = []
    used = n
    for column in ties:
        codes, distinct = _codes(column)
        known = np.flatnonzero(codes >= 0)
        rows.append(known)
        nodes.append(codes[known] + used)
        used += distinct
    row, node = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_matrix((np.ones(len(row), dtype=np.int8), (row, node)), shape=(used, used))
    _, component = connected_components(graph, directed=False)
    return _codes(component[:n].tolist())[0]


def _objection(
    split: NDArray[np.int64],
    labels: NDArray[np.uint8],
    ratios: NDArray[np.float64],
    names: tuple[str, ...],
) -> str:
    """What speaks against a division, or ``""``: sizes far off, or a label never learned.

    Isolation is worth more than size: a held-out split may be a fifth of all events too large.
    The largest split may be as large as it likes; it is too small only when another is too large.
    """
    learns = int(np.argmax(ratios))
    got = np.bincount(split, minlength=len(ratios)) / len(split)
    for index, (name, have, asked) in enumerate(zip(names, got, ratios, strict=True)):
        if index != learns and asked > 0 and not asked / 4 <= have <= asked + 0.2 + 1e-9:
            return f"{name} would hold {have:.1%} of the events where {asked:.1%} was asked"
    learned = labels[split == learns].any(axis=0)
    unlearned = int((labels.any(axis=0) & ~learned).sum())
    if unlearned:
        return f"{unlearned} labels would have no event in {names[learns]}"
    return ""


def _nothing_named(level: str, drummers: Sequence[str | None], kits: Sequence[str | None]) -> str:
    if level == "session":
        return ""
    named = any(value is not None for value in drummers) or any(value is not None for value in kits)
    return "" if named else "no event names a drummer or a kit"


def _codes(column: Sequence[object | None]) -> tuple[NDArray[np.int64], int]:
    """Number the values of a column by first appearance; None becomes -1."""
    seen: dict[object, int] = {}
    codes = np.fromiter(
        (-1 if value is None else seen.setdefault(value, len(seen)) for value in column),
        dtype=np.int64,
        count=len(column),
    )
    return codes, len(seen)


def _count(groups: int) -> str:
    return "1 group" if groups == 1 else f"{groups} groups"
