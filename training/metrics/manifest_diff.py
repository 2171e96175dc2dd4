"""What changed between two manifests, event by event.

Events are paired in two steps. An id that stands exactly once on both sides pairs its two events,
whatever else changed about them. The events left over are paired within their session and track by
time: among all pairings of onsets no further apart than the tolerance, one with the most pairs is
taken, and of those one with the least total distance, where differing labels count as one tolerance
more. Who stays alone was added or removed.

This is the plain form, for manifests that fit in memory, and what `manifest_diff_sql` is tested
against; that one gives the same result for manifests of any size.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import numpy as np

from training.metrics.manifest_match import assign

if TYPE_CHECKING:
    from training.manifest import Component, Event

Kind = Literal[
    "added", "removed", "moved", "relabelled", "velocity", "openness", "techniques", "fields"
]
KINDS: Final[tuple[Kind, ...]] = (
    "added",
    "removed",
    "moved",
    "relabelled",
    "velocity",
    "openness",
    "techniques",
    "fields",
)
"""`moved`: another onset. `relabelled`: another multiset of labels. `velocity`, `openness`: another
value on a component that kept its label. `techniques`: another set. `fields`: anything else."""

SAME_ONSET_S: Final = 1e-6
"""Onsets closer than this are equal: the rounding of an export."""

_COMPARED = ("sample_id", "onset_time", "components", "techniques")


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One difference of one event.

    Attributes:
        kind: what changed.
        session_id, onset_s: where: of the candidate's event, or of the removed one.
        base_id, candidate_id: the sample ids; None on the side that does not have the event.
        before, after: the values that differ; None where the event is added or removed.
    """

    kind: Kind
    session_id: str
    onset_s: float
    base_id: str | None
    candidate_id: str | None
    before: Any = None
    after: Any = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ManifestDiff:
    """All differences of two manifests.

    Attributes:
        counts: {kind: events}; an event that moved and was relabelled counts in both.
        unchanged: pairs without any difference.
        paired_by_id, paired_by_time: how many pairs each step found.
        ids_far_apart: pairs by id whose onsets lie further apart than the tolerance. Where they are
            many, ids were probably given anew and no longer name the same events.
        changes: every difference, by session and onset, added and removed ones included.
    """

    counts: dict[str, int]
    unchanged: int
    paired_by_id: int
    paired_by_time: int
    ids_far_apart: int
    changes: tuple[Change, ...]


def diff_manifests(
    base: Sequence[Event],
    candidate: Sequence[Event],
    *,
    tolerance_s: float = 0.05,
    by_id: bool = True,
) -> ManifestDiff:
    """Compare two manifests event by event.

    Args:
        base: the events as they were.
        candidate: the events as they are.
        tolerance_s: onsets further apart are never paired by time.
        by_id: whether ids pair events; if not, all are paired by time.

    Raises:
        DrumgateError: see `manifest_match.assign`.
    """
    named, base_left, candidate_left = _pair_by_id(base, candidate, by_id)
    by_time, removed, added = _pair_by_time(base, candidate, base_left, candidate_left, tolerance_s)
    found: list[tuple[tuple[int, int], Change]] = []
    unchanged = 0
    for i, j in [*named, *by_time]:
        changes = differences(base[i], candidate[j])
        unchanged += not changes
        found += [((i, j), change) for change in changes]
    found += [((i, -1), alone("removed", base[i])) for i in removed]
    found += [((-1, j), alone("added", candidate[j])) for j in added]
    found.sort(key=lambda item: (*order(item[1]), *item[0]))
    counts = Counter(change.kind for _, change in found)
    return ManifestDiff(
        counts={kind: counts[kind] for kind in KINDS},
        unchanged=unchanged,
        paired_by_id=len(named),
        paired_by_time=len(by_time),
        ids_far_apart=sum(
            abs(base[i].onset_time - candidate[j].onset_time) > tolerance_s for i, j in named
        ),
        changes=tuple(change for _, change in found),
    )


def order(change: Change) -> tuple[str, float, int, str, str]:
    """Return what changes are listed by; equal ones stand in the order of the manifests."""
    return (
        change.session_id,
        change.onset_s,
        KINDS.index(change.kind),
        change.base_id or "",
        change.candidate_id or "",
    )


def summary_counts(events: Iterable[Event]) -> dict[str, Counter[str]]:
    """Count events by session, source and split, hits by label, events by technique."""
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("sessions", "components", "techniques", "sources", "splits")
    }
    for event in events:
        counts["sessions"][event.session_id] += 1
        counts["sources"][event.source_set or "(none)"] += 1
        counts["splits"][event.split or "(none)"] += 1
        counts["components"].update(part.label for part in event.components)
        counts["techniques"].update(set(event.techniques))
    return counts


_Pairs = list[tuple[int, int]]


def _pair_by_id(
    base: Sequence[Event], candidate: Sequence[Event], by_id: bool
) -> tuple[_Pairs, list[int], list[int]]:
    if not by_id:
        return [], list(range(len(base))), list(range(len(candidate)))
    base_ids = Counter(event.sample_id for event in base)
    candidate_ids = Counter(event.sample_id for event in candidate)
    shared = {name for name, times in base_ids.items() if times == 1 and candidate_ids[name] == 1}
    after = {event.sample_id: j for j, event in enumerate(candidate)}
    pairs = [
        (i, after[event.sample_id]) for i, event in enumerate(base) if event.sample_id in shared
    ]
    return (
        pairs,
        [i for i, event in enumerate(base) if event.sample_id not in shared],
        [j for j, event in enumerate(candidate) if event.sample_id not in shared],
    )


def _pair_by_time(
    base: Sequence[Event],
    candidate: Sequence[Event],
    base_left: Sequence[int],
    candidate_left: Sequence[int],
    tolerance_s: float,
) -> tuple[_Pairs, list[int], list[int]]:
    takes: dict[tuple[str, str | None], list[_Hit]] = defaultdict(list)
    for side, (events, left) in enumerate([(base, base_left), (candidate, candidate_left)]):
        for row in left:
            event = events[row]
            hit = _Hit(event.onset_time, event.sample_id, side, row, _labels(event))
            takes[event.session_id, event.track_id].append(hit)
    pairs: _Pairs = []
    for hits in takes.values():
        for before, after in _clusters(sorted(hits), tolerance_s):
            labels = sorted({hit.labels for hit in (*before, *after)})
            rows, columns = assign(
                (_column(before, "onset_s"), _column(after, "onset_s")),
                (
                    np.array([labels.index(hit.labels) for hit in before]),
                    np.array([labels.index(hit.labels) for hit in after]),
                ),
                tolerance_s,
            )
            pairs += [(before[i].row, after[j].row) for i, j in zip(rows, columns, strict=True)]
    taken = {i for i, _ in pairs}, {j for _, j in pairs}
    return (
        pairs,
        [i for i in base_left if i not in taken[0]],
        [j for j in candidate_left if j not in taken[1]],
    )


class _Hit(NamedTuple):
    onset_s: float
    sample_id: str
    side: int
    row: int
    labels: tuple[str, ...]


def _column(hits: Sequence[_Hit], name: str) -> np.ndarray[Any, Any]:
    return np.array([getattr(hit, name) for hit in hits])


def _clusters(hits: Sequence[_Hit], tolerance_s: float) -> Iterable[tuple[list[_Hit], list[_Hit]]]:
    """Cut a take wherever neighbouring onsets are too far apart for a pair to span the cut."""
    cluster: tuple[list[_Hit], list[_Hit]] = ([], [])
    last = -np.inf
    for hit in hits:
        if hit.onset_s - last > tolerance_s and (cluster[0] or cluster[1]):
            yield cluster
            cluster = ([], [])
        cluster[hit.side].append(hit)
        last = hit.onset_s
    if cluster[0] or cluster[1]:
        yield cluster


def _labels(event: Event) -> tuple[str, ...]:
    return tuple(sorted(part.label for part in event.components))


def alone(kind: Literal["added", "removed"], event: Event) -> Change:
    """Tell of an event that only one side has."""
    return Change(
        kind=kind,
        session_id=event.session_id,
        onset_s=event.onset_time,
        base_id=event.sample_id if kind == "removed" else None,
        candidate_id=event.sample_id if kind == "added" else None,
        before=list(_labels(event)) if kind == "removed" else None,
        after=list(_labels(event)) if kind == "added" else None,
    )


def differences(before: Event, after: Event) -> list[Change]:
    """Tell how two paired events differ: at most one change of each kind, none if they are equal.

    Whether they may be paired at all is not asked.
    """
    found: list[tuple[Kind, Any, Any]] = []
    if abs(before.onset_time - after.onset_time) > SAME_ONSET_S:
        found.append(("moved", before.onset_time, after.onset_time))
    if _labels(before) != _labels(after):
        found.append(("relabelled", list(_labels(before)), list(_labels(after))))
    else:
        found += _component_differences(before, after)
    if set(before.techniques) != set(after.techniques):
        found.append(("techniques", sorted(set(before.techniques)), sorted(set(after.techniques))))
    others = _other_fields(before, after)
    if others:
        found.append(
            (
                "fields",
                {name: pair[0] for name, pair in others.items()},
                {name: pair[1] for name, pair in others.items()},
            )
        )
    return [
        Change(
            kind=kind,
            session_id=after.session_id,
            onset_s=after.onset_time,
            base_id=before.sample_id,
            candidate_id=after.sample_id,
            before=old,
            after=new,
        )
        for kind, old, new in found
    ]


def _sorted_parts(event: Event) -> list[Component]:
    def order(part: Component) -> tuple[Any, ...]:
        return (
            part.label,
            part.instrument_variant or "",
            -1.0 if part.velocity is None else part.velocity,
        )

    return sorted(event.components, key=order)


def _component_differences(before: Event, after: Event) -> list[tuple[Kind, Any, Any]]:
    """Compare the components of two events that carry the same labels."""
    pairs = list(zip(_sorted_parts(before), _sorted_parts(after), strict=True))
    velocity = [(a.velocity, b.velocity) for a, b in pairs]
    openness = [((a.openness, a.openness_raw), (b.openness, b.openness_raw)) for a, b in pairs]
    found: list[tuple[Kind, Any, Any]] = []
    if any(a != b for a, b in velocity):
        found.append(("velocity", [a for a, _ in velocity], [b for _, b in velocity]))
    if any(a != b for a, b in openness):
        found.append(("openness", [a[0] for a, _ in openness], [b[0] for _, b in openness]))
    return found


def _plain_parts(event: Event) -> list[Mapping[str, Any]]:
    """What components say beyond label, velocity and openness."""
    told = ("label", "velocity", "openness", "openness_raw")
    return [
        {
            name: getattr(part, name)
            for name in part.__struct_fields__
            if name not in told and getattr(part, name) is not None
        }
        for part in _sorted_parts(event)
    ]


def _other_fields(before: Event, after: Event) -> dict[str, tuple[Any, Any]]:
    others: dict[str, tuple[Any, Any]] = {}
    for name in before.__struct_fields__:
        if name in _COMPARED:
            continue
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            others[name] = (old, new)
    if _labels(before) == _labels(after):
        parts = _plain_parts(before), _plain_parts(after)
        if parts[0] != parts[1]:
            others["components"] = parts
    return others
