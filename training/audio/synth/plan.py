"""Who plays which kit in which session, and which split the session belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from training.audio.synth.drummers import make_drummers
from training.audio.synth.kits import make_kits
from training.audio.synth.room import make_rooms
from training.audio.synth.session import SessionSpec
from training.errors import InputError

SPLITS: Final = ("train", "val", "test")
KNOWN_SOURCE: Final = "demo"
UNKNOWN_SOURCE: Final = "demo_unknown"
# Shorter sessions have no room for a variable meter, a metric modulation and an ending.
MIN_DURATION_S: Final = 15.0


@dataclass(frozen=True, kw_only=True, slots=True)
class DatasetPlan:
    """What a demo dataset is made of; the fields are the options of `make_demo_dataset`."""

    sessions: int = 24
    drummers: int = 6
    kits: int = 8
    unknown_sessions: int = 3
    duration_s: float = 30.0
    sample_rate: int = 44_100
    seed: int = 0

    def __post_init__(self) -> None:
        least = {
            "sessions": (self.sessions, 3, "train, val and test need one each"),
            "drummers": (self.drummers, 2, "test sessions need a drummer of their own"),
            "kits": (self.kits, 2, "test sessions need a kit of their own"),
            "unknown-sessions": (self.unknown_sessions, 0, "a count"),
            "seed": (self.seed, 0, "seeds are not negative"),
        }
        for name, (value, low, why) in least.items():
            if value < low:
                raise InputError.at(f"--{name}", f"must be at least {low}: {why}", got=value)
        if not MIN_DURATION_S <= self.duration_s <= 600.0:
            why = f"must lie between {MIN_DURATION_S:g} and 600 seconds"
            raise InputError.at("--duration-s", why, got=self.duration_s)
        if not 16_000 <= self.sample_rate <= 96_000:
            raise InputError.at(
                "--sample-rate", "must lie between 16000 and 96000", got=self.sample_rate
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedSession:
    """One session of the plan."""

    spec: SessionSpec
    split: str
    source_set: str


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shares:
    """Indices of the drummers, kits or sessions of each split."""

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]


def plan_sessions(plan: DatasetPlan) -> tuple[PlannedSession, ...]:
    """Assign drummers, kits and rooms to sessions.

    Test sessions have drummers and kits that no other split has.  Validation has a kit of its own
    from three kits on and a drummer of its own from four drummers on; below that it shares them
    with training (never a session).  The first session of every split has a metric modulation and
    a variable meter; after that every second and every third has.  Sessions of unknown percussion
    belong to test and are set up in the rooms of the test kits.
    """
    drummers = make_drummers(plan.drummers, plan.seed)
    kits = make_kits(plan.kits, plan.seed)
    rooms = make_rooms(max(2, -(-plan.kits // 2)), plan.seed)
    rng = np.random.default_rng(np.random.SeedSequence([plan.seed, 0x706C]))
    of_drummer = _shares(rng, plan.drummers, val_from=4)
    of_kit = _shares(rng, plan.kits, val_from=3)
    n_test = max(1, round(0.25 * plan.sessions))
    n_val = max(1, round(0.125 * plan.sessions))
    counts = {"train": plan.sessions - n_test - n_val, "val": n_val, "test": n_test}
    planned: list[PlannedSession] = []

    def add(split: str, index: int, *, unknown: bool) -> None:
        number = 1 + sum(p.spec.unknown is unknown for p in planned)
        kit = getattr(of_kit, split)[index % len(getattr(of_kit, split))]
        # Every drummer meets every kit of the split before a pair comes again.
        who = getattr(of_drummer, split)
        drummer = who[(index + index // len(getattr(of_kit, split))) % len(who)]
        planned.append(
            PlannedSession(
                spec=SessionSpec(
                    session_id=f"{'unknown' if unknown else 'session'}_{number:03d}",
                    seed=int(rng.integers(1, 2**31)),
                    kit=kits[kit],
                    drummer=drummers[drummer],
                    room=rooms[kit % len(rooms)],
                    duration_s=plan.duration_s,
                    sample_rate=plan.sample_rate,
                    unknown=unknown,
                    metric_modulation=index % 2 == 0,
                    variable_meter=index % 3 == 0,
                ),
                split=split,
                source_set=UNKNOWN_SOURCE if unknown else KNOWN_SOURCE,
            )
        )

    for split in SPLITS:
        for index in range(counts[split]):
            add(split, index, unknown=False)
    for index in range(plan.unknown_sessions):
        add("test", index, unknown=True)
    return tuple(planned)


def _shares(rng: np.random.Generator, count: int, *, val_from: int) -> _Shares:
    """Deal `count` things to the splits: about 28 % to test, 14 % to val if there are enough."""
    order = tuple(int(i) for i in rng.permutation(count))
    n_test = max(1, round(0.28 * count))
    test, rest = order[:n_test], order[n_test:]
    if count < val_from or len(rest) < 2:
        return _Shares(train=tuple(sorted(rest)), val=tuple(sorted(rest)), test=test)
    n_val = max(1, round(0.14 * count))
    return _Shares(train=tuple(sorted(rest[n_val:])), val=rest[:n_val], test=test)
