"""The catalogue of techniques, every rule on cases made by hand, and the tool that applies them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from training.errors import InputError
from training.manifest import Component, Event
from training.taxonomy import rules
from training.taxonomy.annotate import Annotator
from training.taxonomy.techniques import load_techniques

REQUIRED = [
    "hihat_bark",
    "metric_modulation",
    "variable_meter",
    "multi_cymbal_same_class",
    "flam",
    "drag",
    "ghost_note",
    "cymbal_choke",
    "double_kick_burst",
    "blast_beat",
    "tempo_change",
    "crash_dual_label",
    "rimshot",
    "cross_stick",
    "brush",
    "snares_off",
    "buzz_roll",
    "swing",
]


# The catalogue


def test_the_shipped_catalogue() -> None:
    catalogue = load_techniques()
    assert len(catalogue.known) == len(catalogue.entries) >= 60
    assert catalogue.known.issuperset(REQUIRED)
    assert catalogue.known.issuperset(rules.RULES)
    names = [name for entry in catalogue.entries for name in (entry.id, *entry.aliases)]
    assert len(names) == len(set(names)), "an id or alias stands twice"
    descriptions = [entry.description for entry in catalogue.entries]
    assert len(set(descriptions)) == len(descriptions)
    for entry in catalogue.entries:
        assert entry.category != "unsorted"
        assert entry.aliases
        assert entry.keywords
        assert re.fullmatch(r"[A-Z].{15,}\.", entry.description), entry.id


def test_names_and_aliases_lead_to_the_id() -> None:
    catalogue = load_techniques()
    assert catalogue.canonical("Press Roll") == "buzz_roll"
    assert catalogue.canonical("hi") is None
    assert {entry.id for entry in catalogue.of_category("meter")} == {"variable_meter", "odd_meter"}
    assert catalogue.of_category("none such") == ()


def test_plain_text_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "techniques.txt"
    path.write_text("# ours\nflam\n\ndrag  # two graces\n")
    catalogue = load_techniques(path)
    assert [entry.id for entry in catalogue.entries] == ["flam", "drag"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flam\ndrag\nflam\n", r"t:3: is named twice \(flam and flam\) \(got \"flam\"\)"),
        ("flam\nBad Name\n", r"t:2: must be lower-case words"),
        ("# nothing\n", r"t: names no technique"),
        ("{", r"t:1: is not valid JSON"),
        ('{"schema_version": 2, "techniques": []}', r"t: schema_version"),
        ('{"schema_version": 1, "techniques": [{"id": 5}]}', r"t: techniques\[0\].id: must be a"),
        (
            '{"schema_version": 1, "techniques": [{"id": "a", "aliases": ["b"]}, {"id": "b"}]}',
            r"t: techniques\[1\]: is named twice \(a and b\)",
        ),
        ('{"schema_version": 1, "techniques": [{"id": "a", "x": 1}]}', r"techniques\[0\].x"),
    ],
)
def test_a_bad_catalogue_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "t"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_techniques(path)


def test_a_missing_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_techniques(tmp_path / "none")


# The rules, on cases made by hand


def event(ms: float, *labels: str | Component, velocity: float | None = None, **more: Any) -> Event:
    parts = [
        part if isinstance(part, Component) else Component(label=part, velocity=velocity)
        for part in labels
    ]
    return Event(
        sample_id=f"e{ms}", session_id="s", onset_time=ms / 1000, components=tuple(parts), **more
    )


def found(rule: str, events: Iterable[Event], **settings: Any) -> list[int]:
    return sorted(rules.RULES[rule](list(events), rules.RuleSettings(**settings)))


def strokes(label: str, *pairs: tuple[float, float | None]) -> list[Event]:
    return [event(ms, label, velocity=velocity) for ms, velocity in pairs]


def at_tempi(*tempi: float | None) -> list[Event]:
    return [event(500 * i, "kick", tempo_bpm=tempo) for i, tempo in enumerate(tempi)]


@pytest.mark.parametrize(
    ("tempi", "changes", "modulations"),
    [
        ((120, 120, 180, 180), [2], [2]),  # 3:2
        ((120, 90.5), [1], [1]),  # 3:4 within 1 %
        ((120, None, 80), [2], [2]),  # a gap does not hide it
        ((120, 140), [1], []),  # 7:6 is no small fraction
        ((120, 123), [], []),  # 2.5 %: a human tempo
        ((120, 150), [1], []),  # 5:4 needs a term of 5
        ((120, 60), [1], [1]),
        ((120,), [], []),
        ((None, None), [], []),
    ],
)
def test_tempo_rules(
    tempi: tuple[float | None, ...], changes: list[int], modulations: list[int]
) -> None:
    assert found("tempo_change", at_tempi(*tempi)) == changes
    assert found("metric_modulation", at_tempi(*tempi)) == modulations


def test_ratio_terms_are_a_setting() -> None:
    assert found("metric_modulation", at_tempi(120, 150), ratio_max_term=5) == [1]


def test_a_change_is_heard_over_its_first_bar() -> None:
    told = [(120, 0), (180, 1), (180, 1), (180, 2), (120, 2), (120, None), (180, None)]
    events = [event(i, "kick", tempo_bpm=t, bar_index=bar) for i, (t, bar) in enumerate(told)]
    assert found("tempo_change", events) == [1, 2, 4, 6]
    assert found("metric_modulation", events) == [1, 2, 4, 6]


def test_variable_meter() -> None:
    meters = ["4/4", "4/4", None, "7/8", "7/8", "4/4"]
    events = [event(i, "kick", meter=meter) for i, meter in enumerate(meters)]
    assert found("variable_meter", events) == [3, 5]
    assert found("variable_meter", events[:3]) == []


@pytest.mark.parametrize(
    ("variants", "expected"),
    [
        ([None], []),
        ([None, None], [0]),
        (["china", None], [0]),
        (["crash_1", "crash_2"], [0]),
        (["china", "china"], []),
    ],
)
def test_multi_cymbal_same_class(variants: list[str | None], expected: list[int]) -> None:
    parts = [Component(label="crash", instrument_variant=variant) for variant in variants]
    assert found("multi_cymbal_same_class", [event(0, *parts)]) == expected


def test_two_snares_are_no_cymbals() -> None:
    assert found("multi_cymbal_same_class", [event(0, "snare", "snare")]) == []


def test_crash_dual_label() -> None:
    events = [
        event(0, "crash", "ride"),
        event(1, "crash", "kick"),
        event(2, "crash", "hihat_open"),
        event(3, "crash", "hihat_pedal"),
        event(4, "ride", "hihat_open"),
    ]
    assert found("crash_dual_label", events) == [0, 2]


def test_cymbal_choke() -> None:
    choked = [Component(label=label, choke=True) for label in ("crash", "kick")]
    loose = Component(label="crash", choke=False)
    assert found("cymbal_choke", [event(i, c) for i, c in enumerate([*choked, loose])]) == [0]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([event(0, "hihat_open"), event(120, "hihat_closed")], [0]),
        ([event(0, "hihat_open"), event(90, "kick"), event(180, "hihat_pedal")], [0]),
        ([event(0, "hihat_open"), event(181, "hihat_closed")], []),
        ([event(0, "hihat_open"), event(100, "hihat_open"), event(200, "hihat_closed")], [1]),
        ([event(0, "hihat_closed"), event(100, "hihat_open")], []),
        ([event(0, "hihat_open", "hihat_closed"), event(100, "hihat_closed")], []),
        ([event(0, "hihat_open")], []),
    ],
)
def test_hihat_bark(events: list[Event], expected: list[int]) -> None:
    assert found("hihat_bark", events) == expected


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0, 0.3), (25, 0.9)], [0, 1]),
        ([(0, None), (25, None)], [0, 1]),
        ([(0, 0.9), (25, 0.9)], []),  # two equal strokes
        ([(0, 0.9), (25, 0.3)], []),  # the soft one comes last
        ([(0, 0.3), (41, 0.9)], []),  # too far apart
        ([(0, 0.3), (25, 0.9), (110, 0.9)], []),  # part of something longer
        ([(0, 0.3), (0, 0.9)], []),  # the same moment
        ([(0, 0.3), (25, 0.9), (500, 0.9)], [0, 1]),
    ],
)
def test_flam(pairs: list[tuple[float, float | None]], expected: list[int]) -> None:
    assert found("flam", strokes("snare", *pairs)) == expected
    assert found("flam", strokes("tom_low", *pairs)) == expected
    assert found("flam", strokes("kick", *pairs)) == []


def test_a_flam_is_on_one_drum() -> None:
    events = [*strokes("snare", (0, 0.3)), *strokes("tom_low", (25, 0.9))]
    assert found("flam", events) == []


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0, 0.3), (60, 0.3), (120, 0.9)], [0, 1, 2]),
        ([(0, 0.3), (60, 0.3), (155, 0.9)], []),
        ([(0, 0.9), (60, 0.3), (120, 0.9)], []),
        ([(0, None), (60, None), (120, None)], []),
        ([(0, 0.3), (60, 0.3), (120, 0.3), (180, 0.9)], []),  # four strokes
        ([(0, 0.3), (60, 0.9)], []),
    ],
)
def test_drag(pairs: list[tuple[float, float | None]], expected: list[int]) -> None:
    assert found("drag", strokes("snare", *pairs)) == expected


def test_ghost_note() -> None:
    assert found("ghost_note", strokes("snare", (0, 0.2), (500, 0.9), (900, 0.31))) == [0]
    assert found("ghost_note", strokes("snare", (0, 0.2), (500, 0.25))) == [], "soft throughout"
    assert found("ghost_note", strokes("tom_low", (0, 0.2), (500, 0.9))) == []
    marked = Component(label="snare", dynamic_bucket="ghost")
    assert found("ghost_note", [event(0, marked), event(1, "snare")]) == [0]


def test_double_kick_burst() -> None:
    six = strokes("kick", *((100.0 * i, None) for i in range(6)))
    assert found("double_kick_burst", six) == [0, 1, 2, 3, 4, 5]
    assert found("double_kick_burst", six[:5]) == []
    assert found("double_kick_burst", strokes("kick", *((120.0 * i, None) for i in range(9)))) == []
    broken = [*six[:3], event(205, "snare"), *six[3:]]
    assert found("double_kick_burst", broken) == [0, 1, 2, 4, 5, 6]


def blast(n: int, gap_ms: float, *, turn: bool = True, cymbal: str | None = "ride") -> list[Event]:
    """Kick with a cymbal and snare in turn (or together), the snare every `gap_ms`."""
    with_kick = ["kick", *([cymbal] if cymbal else [])]
    if not turn:
        return [event(i * gap_ms, "snare", *with_kick) for i in range(n)]
    return [event(i * gap_ms / 2, *(with_kick if i % 2 == 0 else ["snare"])) for i in range(2 * n)]


def test_blast_beat() -> None:
    assert found("blast_beat", blast(8, 150)) == list(range(16))
    assert found("blast_beat", blast(8, 150, turn=False)) == list(range(8))
    assert found("blast_beat", blast(7, 150)) == [], "too short"
    assert found("blast_beat", blast(8, 180)) == [], "too slow"
    assert found("blast_beat", blast(8, 150, cymbal=None)) == [], "no cymbal"
    roll = strokes("snare", *((100.0 * i, None) for i in range(16)))
    assert found("blast_beat", roll) == [], "a snare roll has no kicks"
    uneven = [event(ms, "snare", "kick", "ride") for ms in (0, 40, 200, 240, 400, 440, 600, 640)]
    assert found("blast_beat", uneven) == []


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3000),
            st.sampled_from(["kick", "snare", "hihat_open", "hihat_closed", "crash"]),
            st.sampled_from([None, 0.1, 0.5, 1.0]),
        ),
        max_size=40,
    ),
    st.integers(0, 5),
)
def test_rules_know_no_absolute_time(
    played: list[tuple[int, str, float | None]], shift_s: int
) -> None:
    played = sorted(played, key=lambda stroke: stroke[0])
    early = [event(ms, label, velocity=velocity) for ms, label, velocity in played]
    late = [event(ms + 1000 * shift_s, label, velocity=v) for ms, label, v in played]
    settings = rules.RuleSettings()
    assert rules.infer(early, settings) == rules.infer(late, settings)


def test_events_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="order of time"):
        rules.infer([event(5, "kick"), event(0, "kick")], rules.RuleSettings())


# The tool


def test_performances_do_not_mix() -> None:
    events = [
        event(0, "kick", tempo_bpm=120, track_id="a"),
        event(1, "kick", tempo_bpm=180, track_id="b"),
        event(2, "kick", tempo_bpm=180, track_id="a"),
    ]
    new = Annotator(catalogue=load_techniques()).new_techniques(events)
    assert new == [[], [], ["metric_modulation", "tempo_change"]]


def test_what_stands_stays_and_an_alias_counts(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(lines(row(0, "crash", "ride", techniques=["dual_crash", "our_own"], m="d")))
    report = tmp_path / "r.json"
    arguments = ["--input", source, "--output", output, "--report", report]
    result = drumgate("annotate-techniques", *arguments)
    assert output.read_bytes() == source.read_bytes()
    assert "warning: 1 techniques are not in the catalogue: our_own (1)" in result.stderr
    metrics = json.loads(report.read_text())["metrics"]
    assert (metrics["events_changed"], metrics["unknown_techniques"]) == (0, {"our_own": 1})
    assert metrics["present"] == {"crash_dual_label": 1}
    assert metrics["added"] == dict.fromkeys(rules.RULES, 0)


def lines(*events: dict[str, Any]) -> str:
    return "".join(json.dumps(e) + "\n" for e in events)


def row(ms: float, *labels: str, **more: Any) -> dict[str, Any]:
    parts = [{"label": label, "pad": 7} for label in labels]
    return {
        "sample_id": f"e{ms}",
        "session_id": "s",
        "onset_time": ms / 1000,
        "components": parts,
        **more,
    }


def test_the_tool_keeps_unknown_fields_and_the_order(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    rows = [row(150, "hihat_closed", x=[1, {"y": None}]), row(0, "hihat_open", big=10**30)]
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(lines(*rows))
    result = drumgate("annotate-techniques", "--input", source, "--output", output)
    assert result.exit_code == 0, result.stderr
    written = [json.loads(line) for line in output.read_text().splitlines()]
    assert written == [rows[0], {**rows[1], "techniques": ["hihat_bark"]}]
    again = drumgate("annotate-techniques", "--input", output, "--in-place")
    assert "0 of 2 events gain a technique" in again.stdout, "a second run changes nothing"
    assert [json.loads(line) for line in output.read_text().splitlines()] == written


def test_a_dry_run_writes_nothing(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(lines(row(0, "crash", "ride")))
    before = source.read_bytes()
    result = drumgate("annotate-techniques", "--input", source, "--in-place", "--dry-run")
    assert result.exit_code == 0
    assert "crash_dual_label                 1 added" in result.stdout
    assert source.read_bytes() == before
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    "arguments", [[], ["--output", "x", "--in-place"], ["--in-place", "--rule", "nonsense"]]
)
def test_bad_usage(tmp_path: Path, drumgate: Callable[..., Result], arguments: list[str]) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(lines(row(0, "kick")))
    assert drumgate("annotate-techniques", "--input", source, *arguments).exit_code == 2
