"""The outliers of dataset health: against a plain Python loop, and by hand."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import manifests
from test_health_oracle import ENGINES, measured, on_arrow, on_duckdb

from training.metrics import health_outliers
from training.metrics.health import OUTLIER_KINDS

LENGTHS = {"a.wav": 2.5, "b.wav": 4.0, "no event names it.wav": 1.0}
BURST = 2
STUCK = 8


@st.composite
def odd_manifests(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Manifests in which each kind of outlier really occurs now and then."""
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(draw(manifests(max_events=30))):
        again = {**row, "onset_time": row["onset_time"] + draw(st.sampled_from([0, 0.002, 0.9]))}
        again.pop("offset_time", None)
        again["sample_id"] = f"again{number}"
        rows += [row, again] if draw(st.booleans()) else [row]
    field = draw(st.sampled_from(["velocity", "openness"]))
    where = draw(st.sampled_from(["session_id", "device_model"]))
    value = draw(st.sampled_from([0.0, 0.5, 1.0]))
    for row in rows:
        if row.get(where) in ("s0", "TD-50"):
            row["components"] = [{**part, field: value} for part in row["components"]]
        if draw(st.integers(0, 4)) == 0:
            row["tempo_bpm"] = draw(st.sampled_from([19.9, 20, 400, 400.5]))
            row["loudness"] = {
                "LUFS_i": draw(st.sampled_from([-70.1, -70, -3])),
                "peak_dbfs": draw(st.sampled_from([-1, 0, 0.01])),
            }
    return rows


def expected_outliers(events: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Count and base of every kind, pair by pair where pairs are meant."""

    def take(event: dict[str, Any]) -> tuple[str, str]:
        return event["session_id"], event.get("track_id", "")

    def device(event: dict[str, Any]) -> str:
        return f"{event.get('device_vendor', '')} {event.get('device_model', '')}".strip()

    hits = [(event, part) for event in events for part in event["components"]]
    placed = [event for event in events if event.get("audio_path") in LENGTHS]
    beyond = sum(event["onset_time"] >= LENGTHS[event["audio_path"]] for event in placed)
    overfull = 0
    for event in events:
        start = event["onset_time"]
        same = [other["onset_time"] for other in events if take(other) == take(event)]
        overfull += sum(start <= onset < start + 1.0 for onset in same) > BURST
    strikes: dict[tuple[Any, ...], set[int]] = defaultdict(set)
    for row, event in enumerate(events):
        for part in event["components"]:
            step = math.floor(event["onset_time"] * 200 + 0.5)
            strikes[(take(event), part["label"], step)].add(row)
    found = {
        "onset_beyond_audio": (beyond, len(placed)),
        "overfull_second": (overfull, len(events)),
        "near_repeat": (sum(len(rows) > 1 for rows in strikes.values()), len(hits)),
    }
    for field in ("velocity", "openness"):
        stated = [(event, part[field]) for event, part in hits if field in part]
        for name, key in (("take", take), ("device", device)):
            values: dict[Any, list[float]] = defaultdict(list)
            for event, value in stated:
                if key(event):
                    values[key(event)].append(value)
            stuck = [v for v in values.values() if len(v) >= STUCK and len(set(v)) == 1]
            if (field, name) == ("openness", "take"):
                stuck = [v for v in stuck if 0 < v[0] < 1]
            base = sum(len(v) for v in values.values())
            found[f"{field}_stuck_{name}"] = (sum(map(len, stuck)), base)
    tempi = [event["tempo_bpm"] for event in events if "tempo_bpm" in event]
    loudness = [event["loudness"] for event in events if "loudness" in event]
    peaks = [one["peak_dbfs"] for one in loudness if "peak_dbfs" in one]
    lufs = [one["LUFS_i"] for one in loudness if "LUFS_i" in one]
    return found | {
        "tempo_out_of_range": (sum(not 20 <= bpm <= 400 for bpm in tempi), len(tempi)),
        "peak_above_full_scale": (sum(peak > 0 for peak in peaks), len(peaks)),
        "loudness_below_gate": (sum(value < -70 for value in lufs), len(lufs)),
    }


@ENGINES
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=odd_manifests())
def test_outliers_equal_a_plain_loop(
    engine: Callable[[Any], Any], rows: list[dict[str, Any]]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(health_outliers, "STUCK_HITS", STUCK)
        found = measured(rows, engine, lengths_s=LENGTHS, max_events_per_second=BURST)["outliers"]
    wanted = expected_outliers(rows)
    assert found.keys() == wanted.keys() == set(OUTLIER_KINDS)
    for kind, (count, base) in wanted.items():
        outliers = found[kind]
        if kind == "onset_beyond_audio" and not base:
            assert (outliers["count"], outliers["share"]) == (None, None)
            continue
        assert (outliers["count"], outliers["of"]) == (count, base), kind
        assert outliers["share"] == (count / base if base else None), kind
        assert bool(outliers["examples"]) == bool(count), kind


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=odd_manifests())
def test_outliers_do_not_depend_on_engine_or_order(rows: list[dict[str, Any]]) -> None:
    how: dict[str, Any] = {"lengths_s": LENGTHS, "max_events_per_second": BURST}
    one = json.dumps(measured(rows, on_arrow, **how))
    assert one == json.dumps(measured(rows, on_duckdb, **how))
    assert one == json.dumps(measured(rows[::-1], on_arrow, **how))


def hat(number: int, onset: float, **fields: Any) -> dict[str, Any]:
    return {
        "sample_id": f"e{number}",
        "session_id": "s",
        "onset_time": onset,
        "components": [{"label": "hihat_closed"}],
        **fields,
    }


@ENGINES
@pytest.mark.parametrize(("hits", "count"), [(49, 0), (50, 50)])
def test_a_velocity_that_never_changes(engine: Callable[[Any], Any], hits: int, count: int) -> None:
    strike = {"components": [{"label": "kick", "velocity": 0.8, "openness": 0.0}]}
    found = measured([hat(i, float(i), **strike) for i in range(hits)], engine)["outliers"]
    assert (found["velocity_stuck_take"]["count"], found["velocity_stuck_take"]["of"]) == (
        count,
        hits,
    )
    assert found["openness_stuck_take"]["count"] == 0  # a hi-hat may stay closed
    assert found["velocity_stuck_device"] == {
        "count": 0,
        "of": 0,
        "share": None,
        "not_measured": None,
        "examples": [],
    }


@ENGINES
def test_a_burst_across_two_seconds(engine: Callable[[Any], Any]) -> None:
    burst = [hat(i, 0.6 + i * 0.02) for i in range(41)]  # 0.6 to 1.4
    found = measured(burst, engine)["outliers"]["overfull_second"]
    assert (found["count"], found["of"]) == (1, 41)
    assert found["examples"] == [
        {"session_id": "s", "track_id": None, "onset_s": 0.6, "events": 41}
    ]
    assert measured(burst[1:], engine)["outliers"]["overfull_second"]["count"] == 0


@ENGINES
def test_onsets_beyond_the_audio(engine: Callable[[Any], Any]) -> None:
    rows = [
        hat(0, 1.0, audio_path="a.wav"),
        hat(1, 2.0, audio_path="a.wav"),  # the end itself is past the last sample
        hat(2, 9.0, audio_path="b.wav"),  # nobody knows how long b is
        hat(3, 9.0),
    ]
    found = measured(rows, engine, lengths_s={"a.wav": 2.0})["outliers"]["onset_beyond_audio"]
    assert (found["count"], found["of"]) == (1, 2)
    assert found["examples"] == [
        {"audio_path": "a.wav", "length_s": 2.0, "last_onset_s": 2.0, "events": 1}
    ]
    unknown = measured(rows, engine)["outliers"]["onset_beyond_audio"]
    assert unknown["count"] is None
    assert "not known" in unknown["not_measured"]


@ENGINES
def test_one_label_struck_twice_at_once(engine: Callable[[Any], Any]) -> None:
    both = [{"label": "crash"}, {"label": "crash"}]
    rows = [
        hat(0, 1.0),
        hat(1, 1.002),  # the same 5 ms step
        hat(2, 1.002, track_id="another"),
        hat(3, 2.0, components=both),  # two cymbals of one event are no repeat
    ]
    found = measured(rows, engine)["outliers"]["near_repeat"]
    assert (found["count"], found["of"]) == (1, 5)
    assert found["examples"] == [
        {"session_id": "s", "track_id": None, "label": "hihat_closed", "onset_s": 1.0}
    ]


@ENGINES
def test_many_suspect_sessions_are_looked_at_in_blocks(
    engine: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_outliers, "_BLOCK_SESSIONS", 2)
    rows = [
        hat(number, 0.1 * number, session_id=f"s{session}")
        for session in range(5)
        for number in range(3)
    ]
    found = measured(rows, engine, max_events_per_second=2)["outliers"]["overfull_second"]
    assert found["count"] == 5
    assert [one["session_id"] for one in found["examples"]] == [f"s{i}" for i in range(5)]
