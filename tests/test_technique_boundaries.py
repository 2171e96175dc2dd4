"""Each rule just on its threshold and just beyond it: which side a boundary belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from training.manifest import Component, Event
from training.taxonomy import rules


def event(ms: float, *labels: str | Component, velocity: float | None = None, **more: Any) -> Event:
    parts = [
        label if isinstance(label, Component) else Component(label=label, velocity=velocity)
        for label in labels
    ]
    return Event(
        sample_id=f"e{ms}", session_id="s", onset_time=ms / 1000, components=tuple(parts), **more
    )


def strokes(label: str, *pairs: tuple[float, float | None]) -> list[Event]:
    return [event(ms, label, velocity=velocity) for ms, velocity in pairs]


def tempi(*values: float) -> list[Event]:
    return [event(500 * i, "kick", tempo_bpm=tempo) for i, tempo in enumerate(values)]


def kicks(n: int, gap_ms: float) -> list[Event]:
    return strokes("kick", *((gap_ms * i, None) for i in range(n)))


def blast(n: int, gap_ms: float, *, kicks: int | None = None, cymbals: int = 99) -> list[Event]:
    """Snare strokes, the first so many of them with a kick and with a ride."""
    played = n if kicks is None else kicks
    return [
        event(i * gap_ms, "snare", *["kick"] * (i < played), *["ride"] * (i < cymbals))
        for i in range(n)
    ]


def uneven(spread: float) -> list[Event]:
    """Eight blast strokes whose gaps are 100 ms ± `spread` in turn, but for a middle one."""
    gaps = [100 * (1 + spread * sign) for sign in (1, -1, 1, 0, -1, 1, -1)]
    times = [sum(gaps[:i]) for i in range(8)]
    return [event(ms, "snare", "kick", "ride") for ms in times]


def shown(rule: str, events: Sequence[Event]) -> list[int]:
    return sorted(rules.RULES[rule](events, rules.RuleSettings()))


def open_by(openness: float) -> Event:
    return event(0, Component(label="hihat_open", openness=openness))


def twice(events: Sequence[Event]) -> list[Event]:
    return [each for each in events for _ in range(2)]


SNARE_01 = (0, 1)
GHOST_AND_KICK = [*strokes("snare", (500, 0.2)), event(510, "kick", "hihat_closed")]
CASES: list[tuple[str, str, list[Event], Sequence[int]]] = [
    ("tempo_change", "exactly 4 % is none", tempi(120, 124.8), ()),
    ("tempo_change", "exactly 4 % less is none", tempi(125, 120), ()),
    ("tempo_change", "just over", tempi(120, 124.9), (1,)),
    ("metric_modulation", "3:2 and 1 %", tempi(120, 181.8), (1,)),
    ("metric_modulation", "3:2 and just over 1 %", tempi(120, 181.9), ()),
    ("metric_modulation", "3:2 less 1 %", tempi(120, 178.2), (1,)),
    ("metric_modulation", "the same tempo is no modulation", tempi(120, 121), ()),
    ("metric_modulation", "4:1 is the largest", tempi(50, 200), (1,)),
    ("metric_modulation", "5:1 is not small", tempi(40, 200), ()),
    ("variable_meter", "the first meter is no change", [event(0, "kick", meter="7/8")], ()),
    (
        "variable_meter",
        "the same meter again",
        [event(i, "kick", meter="7/8") for i in range(3)],
        (),
    ),
    (
        "multi_cymbal_same_class",
        "a crash and a ride are two classes",
        [event(0, "crash", "ride")],
        (),
    ),
    ("multi_cymbal_same_class", "two rides", [event(0, "ride", "ride")], (0,)),
    ("multi_cymbal_same_class", "two hi-hats are one", [event(0, "hihat_open", "hihat_open")], ()),
    ("crash_dual_label", "the foot is no stroke", [event(0, "crash", "hihat_pedal")], ()),
    ("crash_dual_label", "a closed hi-hat is one", [event(0, "crash", "hihat_closed")], (0,)),
    ("crash_dual_label", "two events, two moments", [event(0, "crash"), event(1, "ride")], ()),
    ("cymbal_choke", "ride bell", [event(0, Component(label="ride_bell", choke=True))], (0,)),
    (
        "cymbal_choke",
        "closed hi-hat",
        [event(0, Component(label="hihat_closed", choke=True))],
        (),
    ),
    ("cymbal_choke", "not said", [event(0, "crash")], ()),
    ("hihat_bark", "180 ms", [event(20, "hihat_open"), event(200, "hihat_closed")], (0,)),
    ("hihat_bark", "180.1 ms", [event(20, "hihat_open"), event(200.1, "hihat_closed")], ()),
    ("hihat_bark", "same moment", [event(20, "hihat_open"), event(20, "hihat_closed")], ()),
    ("hihat_bark", "open by a tenth", [open_by(0.1), event(100, "hihat_closed")], (0,)),
    ("hihat_bark", "open by its label only", [open_by(0.099), event(100, "hihat_pedal")], ()),
    ("flam", "40 ms", strokes("snare", (10, 0.3), (50, 0.9)), SNARE_01),
    ("flam", "40.1 ms", strokes("snare", (10, 0.3), (50.1, 0.9)), ()),
    ("flam", "three quarters as loud", strokes("snare", (0, 0.69), (25, 0.92)), SNARE_01),
    ("flam", "a little louder", strokes("snare", (0, 0.70), (25, 0.92)), ()),
    ("flam", "100 ms apart", strokes("snare", (0, 0.3), (25, 0.9), (125, 0.9)), ()),
    ("flam", "101 ms apart", strokes("snare", (0, 0.3), (25, 0.9), (126, 0.9)), SNARE_01),
    ("drag", "90 ms each", strokes("snare", (0, 0.3), (90, 0.3), (180, 0.9)), (0, 1, 2)),
    ("drag", "one of 90.1 ms", strokes("snare", (0, 0.3), (90.1, 0.3), (180, 0.9)), ()),
    ("drag", "graces as loud as 3/4", strokes("snare", (0, 0.6), (60, 0.6), (120, 0.8)), (0, 1, 2)),
    ("drag", "one velocity missing", strokes("snare", (0, 0.3), (60, None), (120, 0.8)), ()),
    ("ghost_note", "0.30 is light", strokes("snare", (0, 0.30), (500, 0.9)), ()),
    ("ghost_note", "0.299", strokes("snare", (0, 0.299), (500, 0.9)), (0,)),
    ("ghost_note", "twice as loud", strokes("snare", (0, 0.2), (500, 0.4)), (0,)),
    ("ghost_note", "not quite twice", strokes("snare", (0, 0.2), (500, 0.399)), ()),
    ("ghost_note", "50 ms before", strokes("snare", (0, 0.9), (50, 0.2)), (1,)),
    ("ghost_note", "49.9 ms before", strokes("snare", (0, 0.9), (49.9, 0.2)), ()),
    ("ghost_note", "49.9 ms behind", strokes("snare", (0, 0.2), (49.9, 0.9)), ()),
    (
        "ghost_note",
        "a roll",
        strokes("snare", *((40.0 * i, 0.1) for i in range(9)), (999, 0.9)),
        (),
    ),
    ("ghost_note", "others may be near", [*strokes("snare", (0, 0.9)), *GHOST_AND_KICK], (1,)),
    ("double_kick_burst", "three, each written twice", twice(kicks(3, 100)), ()),
    ("double_kick_burst", "six, each written twice", twice(kicks(6, 100)), range(12)),
    ("double_kick_burst", "20 ms apart are two", kicks(6, 20), range(6)),
    ("double_kick_burst", "19.9 ms apart are fewer", kicks(6, 19.9), ()),
    ("blast_beat", "each written twice", twice(blast(8, 100)), range(16)),
    ("blast_beat", "four kicks, each written twice", twice(blast(8, 100, kicks=4)), ()),
    ("double_kick_burst", "six at 110 ms", kicks(6, 110), range(6)),
    ("double_kick_burst", "six at 110.1 ms", kicks(6, 110.1), ()),
    ("double_kick_burst", "five", kicks(5, 100), ()),
    ("blast_beat", "167 ms", blast(8, 167), range(8)),
    ("blast_beat", "167.1 ms", blast(8, 167.1), ()),
    ("blast_beat", "seven", blast(7, 100), ()),
    ("blast_beat", "four kicks for five", blast(10, 100, kicks=8), range(10)),
    ("blast_beat", "fewer kicks", blast(10, 100, kicks=7), ()),
    ("blast_beat", "a cymbal on two in five", blast(10, 100, cymbals=4), range(10)),
    ("blast_beat", "fewer cymbals", blast(10, 100, cymbals=3), ()),
    ("blast_beat", "gaps spread by 22 %", uneven(0.24), range(8)),
    ("blast_beat", "gaps spread by 28 %", uneven(0.30), ()),
]


@pytest.mark.parametrize(
    ("rule", "events", "expected"),
    [
        pytest.param(rule, events, expected, id=f"{rule}: {what}")
        for rule, what, events, expected in CASES
    ],
)
def test_boundary(rule: str, events: list[Event], expected: Sequence[int]) -> None:
    assert shown(rule, events) == list(expected)


@pytest.mark.parametrize("rule", rules.RULES)
def test_every_rule_is_shown_on_both_sides_and_names_its_reference(rule: str) -> None:
    outcomes = [bool(expected) for name, _, _, expected in CASES if name == rule]
    if rule != "variable_meter":  # has no threshold; its positive cases are in test_techniques.py
        assert set(outcomes) == {True, False}
    assert "Reference:" in (rules.RULES[rule].__doc__ or "")


@pytest.mark.parametrize("rule", rules.RULES)
def test_every_rule_says_nothing_of_nothing(rule: str) -> None:
    assert shown(rule, []) == []
    silent = [event(ms) for ms in (0, 20, 40)]
    assert shown(rule, silent) == []


def test_a_bar_that_changes_all_the_time_takes_no_longer() -> None:
    """With beat-tracked tempi and a `bar_index` that was never filled in, in linear time."""
    restless = [
        event(i, "kick", tempo_bpm=100.0 + 50.0 * (i % 2), bar_index=0) for i in range(20_000)
    ]
    assert shown("tempo_change", restless) == list(range(1, 20_000))
