"""Do the splits of a dataset share anything? Pure: columns in, a frozen answer out.

A split is only honest when what it is judged on was not met in training. Four things can
leak, from worst to mildest: the recording itself, the session (one occasion: same player,
kit, room, microphones, minutes apart), the pair drummer x kit, and a drummer or a kit alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Offender:
    """One thing that lies in more than one split.

    Attributes:
        kind: ``recording``, ``session``, ``drummer_kit``, ``drummer`` or ``kit``.
        key: its identity; for a pair, ``"drummer x kit"``.
        splits: the splits that it lies in, sorted.
        events: how many events it has in all of them together.
    """

    kind: str
    key: str
    splits: tuple[str, ...]
    events: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Isolation:
    """What the splits share. Every tuple is sorted by key; empty means nothing is shared.

    ``events_without_*`` count the events that name no drummer (kit, recording): for those
    nothing can be said, so an empty ``drummers`` beside a large count is not a proof.
    """

    recordings: tuple[Offender, ...]
    sessions: tuple[Offender, ...]
    drummer_kits: tuple[Offender, ...]
    drummers: tuple[Offender, ...]
    kits: tuple[Offender, ...]
    events: int
    events_without_recording: int
    events_without_drummer: int
    events_without_kit: int

    @property
    def leaks(self) -> tuple[Offender, ...]:
        """What no split may share: recordings and sessions."""
        return self.recordings + self.sessions


def check_isolation(
    *,
    splits: Sequence[str],
    sessions: Sequence[str],
    recordings: Sequence[str | None],
    drummers: Sequence[str | None],
    kits: Sequence[str | None],
) -> Isolation:
    """Find everything that lies in more than one split.

    Args:
        splits: split of each event.
        sessions: session of each event.
        recordings: identity of each event's audio (best: a hash of its content), None unknown.
        drummers: drummer of each event, None unknown.
        kits: kit of each event, None unknown.

    Returns:
        The offenders by kind. No events at all: nothing shared, every count 0. A pair counts
        as known only when both its halves are.

    Raises:
        ValueError: the columns differ in length.
    """
    lengths = {len(splits), len(sessions), len(recordings), len(drummers), len(kits)}
    if len(lengths) > 1:
        raise ValueError(f"the columns differ in length: {sorted(lengths)}")
    pairs = (
        None if drummer is None or kit is None else f"{drummer} x {kit}"
        for drummer, kit in zip(drummers, kits, strict=True)
    )
    return Isolation(
        recordings=_shared("recording", recordings, splits),
        sessions=_shared("session", sessions, splits),
        drummer_kits=_shared("drummer_kit", pairs, splits),
        drummers=_shared("drummer", drummers, splits),
        kits=_shared("kit", kits, splits),
        events=len(splits),
        events_without_recording=sum(value is None for value in recordings),
        events_without_drummer=sum(value is None for value in drummers),
        events_without_kit=sum(value is None for value in kits),
    )


def _shared(kind: str, keys: Iterable[str | None], splits: Sequence[str]) -> tuple[Offender, ...]:
    where: dict[str, set[str]] = {}
    events: dict[str, int] = {}
    for key, split in zip(keys, splits, strict=True):
        if key is None:
            continue
        where.setdefault(key, set()).add(split)
        events[key] = events.get(key, 0) + 1
    return tuple(
        Offender(kind=kind, key=key, splits=tuple(sorted(where[key])), events=events[key])
        for key in sorted(where)
        if len(where[key]) > 1
    )
