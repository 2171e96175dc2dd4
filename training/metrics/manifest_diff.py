"""What changed between two manifests, event by event.

Events are paired in two steps. An id that stands exactly once on both sides pairs its two events,
whatever else changed about them. The events left over are paired within their session and track by
time: among all pairings of onsets no further apart than the tolerance, one with the most pairs is
taken, and of those one with the least total distance, where differing labels count as one tolerance
more. Who stays alone was added or removed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

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
        changes: every difference, by session and onset, added and removed ones included.
    """

    counts: dict[str, int]
    unchanged: int
    paired_by_id: int
    paired_by_time: int
    changes: tuple[Change, ...]


def diff_manifests(
    base: Sequence[Event], candidate: Sequence[Event], *, tolerance_s: float = 0.05
) -> ManifestDiff:
    """Compare two manifests event by event.

    Args:
        base: the events as they were.
        candidate: the events as they are.
        tolerance_s: onsets further apart are never paired by time.
    """
    by_id, base_left, candidate_left = _pair_by_id(base, candidate)
    by_time, removed, added = _pair_by_time(base_left, candidate_left, tolerance_s)
    changes: list[Change] = []
    unchanged = 0
    for before, after in [*by_id, *by_time]:
        found = _differences(before, after)
        unchanged += not found
        changes += found
    changes += [_alone("removed", event) for event in removed]
    changes += [_alone("added", event) for event in added]
    changes.sort(
        key=lambda change: (
            change.session_id,
            change.onset_s,
            KINDS.index(change.kind),
            change.base_id or "",
            change.candidate_id or "",
        )
    )
    counts = Counter(change.kind for change in changes)
    return ManifestDiff(
        counts={kind: counts[kind] for kind in KINDS},
        unchanged=unchanged,
        paired_by_id=len(by_id),
        paired_by_time=len(by_time),
        changes=tuple(changes),
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


_Pairs = list[tuple["Event", "Event"]]


def _pair_by_id(
    base: Sequence[Event], candidate: Sequence[Event]
) -> tuple[_Pairs, list[Event], list[Event]]:
    base_ids = Counter(event.sample_id for event in base)
    candidate_ids = Counter(event.sample_id for event in candidate)
    shared = {name for name, times in base_ids.items() if times == 1 and candidate_ids[name] == 1}
    after = {event.sample_id: event for event in candidate if event.sample_id in shared}
    pairs = [(event, after[event.sample_id]) for event in base if event.sample_id in shared]
    return (
        pairs,
        [event for event in base if event.sample_id not in shared],
        [event for event in candidate if event.sample_id not in shared],
    )


def _pair_by_time(
    base: Sequence[Event], candidate: Sequence[Event], tolerance_s: float
) -> tuple[_Pairs, list[Event], list[Event]]:
    takes: dict[tuple[str, str | None], tuple[list[Event], list[Event]]] = defaultdict(
        lambda: ([], [])
    )
    for side, events in enumerate((base, candidate)):
        for event in events:
            takes[event.session_id, event.track_id][side].append(event)
    pairs: _Pairs = []
    removed: list[Event] = []
    added: list[Event] = []
    for before, after in takes.values():
        for some_before, some_after in _clusters(before, after, tolerance_s):
            matched = _assign(some_before, some_after, tolerance_s)
            pairs += [(some_before[i], some_after[j]) for i, j in matched]
            taken = {i for i, _ in matched}, {j for _, j in matched}
            removed += [event for i, event in enumerate(some_before) if i not in taken[0]]
            added += [event for j, event in enumerate(some_after) if j not in taken[1]]
    return pairs, removed, added


def _clusters(
    before: Sequence[Event], after: Sequence[Event], tolerance_s: float
) -> Iterable[tuple[list[Event], list[Event]]]:
    """Cut a take wherever neighbouring onsets are too far apart for a pair to span the cut."""
    merged = sorted(
        [(event.onset_time, event.sample_id, 0, event) for event in before]
        + [(event.onset_time, event.sample_id, 1, event) for event in after],
        key=lambda item: item[:3],
    )
    cluster: tuple[list[Event], list[Event]] = ([], [])
    last = -np.inf
    for onset_s, _, side, event in merged:
        if onset_s - last > tolerance_s and (cluster[0] or cluster[1]):
            yield cluster
            cluster = ([], [])
        cluster[side].append(event)
        last = onset_s
    if cluster[0] or cluster[1]:
        yield cluster


def _assign(
    before: Sequence[Event], after: Sequence[Event], tolerance_s: float
) -> list[tuple[int, int]]:
    """Pair the events of one cluster: as many as possible, then as near as possible."""
    if not before or not after:
        return []
    from scipy.optimize import linear_sum_assignment

    distance = np.abs(
        np.array([event.onset_time for event in before])[:, None]
        - np.array([event.onset_time for event in after])[None, :]
    )
    labels = [[_labels(event) for event in side] for side in (before, after)]
    differ = np.array([[a != b for b in labels[1]] for a in labels[0]])
    allowed = distance <= tolerance_s
    # One forbidden pair costs more than all allowed ones together, so that as few as possible are
    # chosen; a zero tolerance still needs a price.
    unit = tolerance_s or 1.0
    forbidden = 2.0 * unit * (min(distance.shape) + 1)
    rows, columns = linear_sum_assignment(np.where(allowed, distance + differ * unit, forbidden))
    return [(int(i), int(j)) for i, j in zip(rows, columns, strict=True) if allowed[i, j]]


def _labels(event: Event) -> tuple[str, ...]:
    return tuple(sorted(part.label for part in event.components))


def _alone(kind: Literal["added", "removed"], event: Event) -> Change:
    return Change(
        kind=kind,
        session_id=event.session_id,
        onset_s=event.onset_time,
        base_id=event.sample_id if kind == "removed" else None,
        candidate_id=event.sample_id if kind == "added" else None,
        before=list(_labels(event)) if kind == "removed" else None,
        after=list(_labels(event)) if kind == "added" else None,
    )


def _differences(before: Event, after: Event) -> list[Change]:
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
