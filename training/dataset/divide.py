"""Decide which split each event belongs to, and say truthfully what the splits share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from training.dataset.leakage import Isolation, Offender, check_isolation
from training.dataset.select import Selection
from training.dataset.splits import LEVELS, Considered, SplitError, plan_splits
from training.errors import SHOWN_PROBLEMS, InputError, Problem

SPLITS: Final = ("train", "val", "test")
SplitBy = Literal["auto", "session", "drummer_kit", "official"]

_OFFICIAL: Final = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_HOLDS: Final = {
    "official": "as the manifest's own split field says",
    "drummer_or_kit": "by drummer and kit",
    "drummer_kit": "by drummer x kit",
    "session": "by session",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Division:
    """A split for each event, and what is known of it.

    Attributes:
        names: the splits that have events, in the order train, val, test.
        split: int64 ``(n,)``, index into ``names``.
        by: what the splits were made by: ``official`` or a level of `splits.LEVELS`.
        considered: the levels that were tried; empty where the manifest decided alone.
        isolation: what the splits share.
        statement: all of this in words.
        warnings: what the user should hear.
    """

    names: tuple[str, ...]
    split: NDArray[np.int64]
    by: str
    considered: tuple[Considered, ...]
    isolation: Isolation
    statement: str
    warnings: tuple[str, ...]


def divide(
    selection: Selection,
    *,
    source: str,
    by: SplitBy = "auto",
    val_ratio: float = 0.1,
    test_ratio: float = 0.1,
    seed: int = 0,
    allow_session_overlap: bool = False,
) -> Division:
    """Divide a selection.

    ``auto`` takes the manifest's ``split`` field when every event has one, else the strictest
    level that is possible. Where the field knows no val and `val_ratio` is not 0, val is drawn
    from its train by groups.

    Raises:
        InputError: too few groups; an unknown or missing name in ``split``; a session in two
            official splits (unless allowed), or a recording in two (never allowed).
    """
    named = [event.split is not None for event in selection.events]
    warnings: list[str] = []
    considered: tuple[Considered, ...]
    if by == "official" or (by == "auto" and all(named)):
        names = _official(selection, source)
        by_words, considered = "official", ()
        if "train" not in names:
            raise InputError.at(source, "puts no event into train", field="split")
        if "val" not in names and val_ratio > 0:
            rows = [row for row, name in enumerate(names) if name == "train"]
            ratios = {"train": 1 - val_ratio, "val": val_ratio}
            _, considered, drawn = _by_groups(selection, rows, ratios, seed, LEVELS, source)
            for row, name in zip(rows, drawn, strict=True):
                names[row] = name
            warnings.append("the manifest names no val split: it was drawn from train, by groups")
    else:
        if by == "auto" and any(named):
            warnings.append(
                f"{sum(named)} of {len(named)} events name a split; not all do, so it was not used"
            )
        levels = {"session": LEVELS[2:], "drummer_kit": LEVELS[:2]}.get(by, LEVELS)
        ratios = {"train": 1 - val_ratio - test_ratio, "val": val_ratio, "test": test_ratio}
        rows = list(range(len(named)))
        by_words, considered, names = _by_groups(selection, rows, ratios, seed, levels, source)

    isolation = check_isolation(
        splits=names,
        sessions=[event.session_id for event in selection.events],
        recordings=selection.recording_hashes,
        drummers=[event.drummer_id for event in selection.events],
        kits=[event.kit_id for event in selection.events],
    )
    _require_isolated(selection, isolation, source, allow_session_overlap)
    present = tuple(name for name in SPLITS if name in set(names))
    return Division(
        names=present,
        split=np.array([present.index(name) for name in names], dtype=np.int64),
        by=by_words,
        considered=considered,
        isolation=isolation,
        statement=_statement(by_words, isolation),
        warnings=tuple(warnings),
    )


def _by_groups(
    selection: Selection,
    rows: list[int],
    ratios: dict[str, float],
    seed: int,
    levels: Sequence[str],
    source: str,
) -> tuple[str, tuple[Considered, ...], list[str]]:
    """Return the level that was taken, what was considered, and the split of each of the rows."""
    events = [selection.events[row] for row in rows]
    hashes = selection.recording_hashes
    try:
        plan = plan_splits(
            sessions=[event.session_id for event in events],
            recordings=[hashes[row] for row in rows],
            drummers=[event.drummer_id for event in events],
            kits=[event.kit_id for event in events],
            labels=selection.columns.labels[rows],
            ratios=ratios,
            seed=seed,
            levels=levels,
        )
    except SplitError as error:
        copies = selection.copied_recordings
        tied = f" ({copies} recordings are copies of others, which ties them)" if copies else ""
        why = f"{error}{tied}; record more sessions, or ask for fewer splits with a ratio of 0"
        raise InputError.at(source, why) from None
    return plan.level, plan.considered, [plan.names[index] for index in plan.split.tolist()]


def _official(selection: Selection, source: str) -> list[str]:
    names, problems = [], []
    for event, line in zip(selection.events, selection.lines, strict=True):
        name = _OFFICIAL.get((event.split or "").strip().lower())
        if name is None:
            why = (
                "is missing, and the official splits were asked for"
                if event.split is None
                else "must be train, val or test"
            )
            problems.append(Problem(source, why, line, "split", event.split))
        else:
            names.append(name)
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))
    return names


def _require_isolated(
    selection: Selection, isolation: Isolation, source: str, allow_session_overlap: bool
) -> None:
    problems = []
    for offender in isolation.recordings:
        index = next(
            i for i, each in enumerate(selection.recordings) if each.sha256 == offender.key
        )
        line = selection.lines[int(np.argmax(selection.recording == index))]
        audio = selection.recordings[index].audio_path
        why = f"this recording is in {_and(offender.splits)}: what is tested would be learned"
        problems.append(Problem(source, why, line, "audio_path", audio))
    if not allow_session_overlap:
        for offender in isolation.sessions:
            line = next(
                line
                for event, line in zip(selection.events, selection.lines, strict=True)
                if event.session_id == offender.key
            )
            why = (
                f"this session is in {_and(offender.splits)}; --split-by session makes splits "
                "that share none, --allow-session-overlap keeps these and records it"
            )
            problems.append(Problem(source, why, line, "session_id", offender.key))
    if problems:
        raise InputError(problems[:SHOWN_PROBLEMS], len(problems))


def _statement(by: str, isolation: Isolation) -> str:
    parts = [f"Split {_HOLDS[by]}."]
    sessions = isolation.sessions
    if sessions:
        parts.append(f"Shared between splits, which was allowed: {_list('session', sessions)}.")
    else:
        parts.append("No session and no recording is in two splits.")
    named = isolation.events
    for kind, offenders, unknown in (
        (
            "drummer x kit pair",
            isolation.drummer_kits,
            max(isolation.events_without_drummer, isolation.events_without_kit),
        ),
        ("drummer", isolation.drummers, isolation.events_without_drummer),
        ("kit", isolation.kits, isolation.events_without_kit),
    ):
        if unknown >= named:
            parts.append(f"Of no event is the {kind} known.")
        elif offenders:
            parts.append(f"Shared between splits: {_list(kind, offenders)}.")
        else:
            limit = f" among the events that name it ({unknown} do not)" if unknown else ""
            parts.append(f"No {kind} is in two splits{limit}.")
    return " ".join(parts)


def _list(kind: str, offenders: Sequence[Offender], shown: int = 5) -> str:
    names = ", ".join(offender.key for offender in offenders[:shown])
    more = f" and {len(offenders) - shown} more" if len(offenders) > shown else ""
    return f"{len(offenders)} {kind}{'' if len(offenders) == 1 else 's'} ({names}{more})"


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
