"""What derive-sampling-weights warns of: lost takes, weights that do nothing, two names of one."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st

from training.checks.sampling import Options, run

KEY = ("session_id", "onset_time", "components")


def event(sample: str, onset: float = 0.0, session: str = "s", **more: Any) -> dict[str, Any]:
    parts = [{"label": "kick"}]
    return {
        "sample_id": sample,
        "session_id": session,
        "onset_time": onset,
        "components": parts,
        **more,
    }


def derived(folder: Path, rows: list[dict[str, Any]], **given_: Any) -> dict[str, Any]:
    path = folder / "events.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run(Options(manifest=path, given=given_))


def test_takes_that_look_alike_are_counted_and_warned_of(tmp_path: Path) -> None:
    rows = [
        event("a", track_id="1"),
        event("b", track_id="2"),
        event("c", track_id="1"),
        event("d"),
        event("e", onset=1.0, track_id="2"),
    ]
    found = derived(tmp_path, rows)
    assert (found["duplicates_left_out"], found["duplicates_of_another_track"]) == (3, 2)
    assert any("2 of 3 events left out as duplicates" in text for text in found["warnings"])
    found = derived(tmp_path, rows, dedupe_key=("session_id", "track_id", *KEY[1:]))
    assert (found["duplicates_left_out"], found["duplicates_of_another_track"]) == (1, 0)
    assert found["warnings"] == []
    assert derived(tmp_path, rows, dedupe_key=())["duplicates_of_another_track"] == 0


@settings(max_examples=12, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("st"),
            st.sampled_from([0.0, 0.5]),
            st.sampled_from([None, "1", "2"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_the_first_of_each_kind_is_kept(
    rows: list[tuple[str, float, str | None]],
) -> None:
    first: dict[tuple[str, float], str | None] = {}
    left_out = elsewhere = 0
    for session, onset, track in rows:
        if (session, onset) in first:
            left_out += 1
            elsewhere += first[session, onset] != track
        first.setdefault((session, onset), track)
    events = [
        event(f"{number}", onset, session, **({} if track is None else {"track_id": track}))
        for number, (session, onset, track) in enumerate(rows)
    ]
    with tempfile.TemporaryDirectory() as folder:
        found = derived(Path(folder), events)
    counted = found["duplicates_left_out"], found["duplicates_of_another_track"]
    assert counted == (left_out, elsewhere)


def sessions(*sizes: int) -> list[dict[str, Any]]:
    return [
        event(f"{number}-{i}", float(i), f"s{number}")
        for number, size in enumerate(sizes)
        for i in range(size)
    ]


def test_weights_that_are_all_clamped_to_one(tmp_path: Path) -> None:
    found = derived(tmp_path, sessions(1, 2), max_weight=0.1)
    assert any(text.startswith("all groups weigh the same, 2 of 2") for text in found["warnings"])
    assert derived(tmp_path, sessions(1, 5), max_weight=0.5)["warnings"] == []
    # One group cannot differ from itself, and equal groups weigh alike without clamping.
    assert derived(tmp_path, sessions(3), max_weight=0.1)["warnings"] == []
    assert derived(tmp_path, sessions(3, 3), max_weight=9.0)["warnings"] == []


def test_an_alias_of_what_is_asked_for_is_named(tmp_path: Path) -> None:
    rows = [event("a", techniques=["flam"]), event("b", 1.0, techniques=["flams", "own"])]
    said = "flam also stands in the manifest as flams, which is not taken for it"
    assert derived(tmp_path, rows, technique_boost={"flam": 1.0})["warnings"] == [said]
    assert derived(tmp_path, rows, exclude_technique=("flam",))["warnings"] == [said]
    assert derived(tmp_path, rows, technique_boost={"own": 1.0, "none": 1.0})["warnings"] == []


def test_the_command_says_so_and_cuts_long_names(
    tmp_path: Path, drumgate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [event("a", track_id="1"), event("b", track_id="2")]
    rows[0]["components"] = rows[1]["components"] = [{"label": "x" * 5000}]
    Path("m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = drumgate("derive-sampling-weights m.jsonl --output w.json")
    assert result.exit_code == 0
    assert "warning: 1 of 1 events left out as duplicates" in result.stderr
    assert max(map(len, result.stdout.splitlines())) < 200
    assert json.loads(Path("w.json").read_text())["duplicates_of_another_track"] == 1
    twice = drumgate(
        "derive-sampling-weights m.jsonl --output v.json"
        " --technique-boost flam=1 --technique-boost flam=2"
    )
    assert twice.exit_code == 2
    assert "'flam' is given twice" in twice.stderr
