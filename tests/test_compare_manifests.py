"""The event-aware diff: each kind of change, pairing by id and by time, gates."""

from __future__ import annotations

import io
import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import manifests

from training.checks.manifest_diff import Options, run
from training.errors import DrumgateError
from training.gates import Status
from training.manifest import Event
from training.metrics.manifest_diff import KINDS, ManifestDiff, diff_manifests


def event(sample: str, onset: float = 0.0, label: str = "kick", **fields: Any) -> dict[str, Any]:
    return {
        "sample_id": sample,
        "session_id": "s",
        "onset_time": onset,
        "components": [{"label": label}],
        **fields,
    }


def diff(base: list[dict[str, Any]], candidate: list[dict[str, Any]], **how: Any) -> ManifestDiff:
    sides = [[msgspec.convert(row, Event) for row in rows] for rows in (base, candidate)]
    return diff_manifests(*sides, **how)


def kinds(found: ManifestDiff) -> dict[str, int]:
    return {kind: count for kind, count in found.counts.items() if count}


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"onset_time": 1.003}, "moved"),
        ({"onset_time": 99.0}, "moved"),  # with one id, the distance does not matter
        ({"components": [{"label": "snare"}]}, "relabelled"),
        ({"components": [{"label": "kick"}, {"label": "crash"}]}, "relabelled"),
        ({"components": [{"label": "kick", "velocity": 0.5}]}, "velocity"),
        ({"components": [{"label": "kick", "openness_raw": 5}]}, "openness"),
        ({"components": [{"label": "kick", "choke": True}]}, "fields"),
        ({"techniques": ["flam"]}, "techniques"),
        ({"split": "val"}, "fields"),
        ({"session_id": "t"}, "fields"),
    ],
)
def test_one_change_is_one_kind(change: dict[str, Any], kind: str) -> None:
    found = diff([event("a", 1.0)], [{**event("a", 1.0), **change}])
    assert kinds(found) == {kind: 1}
    assert (found.paired_by_id, found.unchanged) == (1, 0)


def test_what_is_no_change() -> None:
    parts = [{"label": "kick"}, {"label": "crash", "velocity": 0.5}]
    base = event("a", 1.0, techniques=["flam", "drag"], components=parts)
    candidate = event("a", 1.0 + 1e-8, techniques=["drag", "flam"], components=parts[::-1])
    found = diff([base], [candidate])
    assert kinds(found) == {}
    assert found.unchanged == 1


def test_other_ids_are_paired_by_time() -> None:
    base = [event("a", 1.0), event("b", 2.0), event("c", 3.0)]
    candidate = [event("x", 1.02), event("y", 2.0, "snare"), event("z", 3.2)]
    found = diff(base, candidate)
    assert kinds(found) == {"added": 1, "removed": 1, "moved": 1, "relabelled": 1}
    assert found.paired_by_time == 2
    (moved,) = [change for change in found.changes if change.kind == "moved"]
    assert (moved.base_id, moved.candidate_id, moved.before, moved.after) == ("a", "x", 1.0, 1.02)


def test_as_many_pairs_as_possible_come_before_near_ones() -> None:
    # The nearest neighbour of b is x, but taking it would leave a alone.
    found = diff([event("a", 1.00), event("b", 1.04)], [event("x", 1.045), event("y", 1.08)])
    assert found.paired_by_time == 2
    assert kinds(found) == {"moved": 2}


def test_events_of_other_sessions_and_tracks_are_never_paired() -> None:
    base = [event("a", session_id="s"), event("b", track_id="one")]
    candidate = [event("x", session_id="t"), event("y", track_id="two")]
    assert kinds(diff(base, candidate)) == {"added": 2, "removed": 2}


def test_ids_that_repeat_are_paired_by_time() -> None:
    rows = [event("a", 1.0), event("a", 2.0)]
    found = diff(rows, rows)
    assert (found.paired_by_id, found.paired_by_time, found.unchanged) == (0, 2, 2)


times = st.lists(st.integers(0, 20).map(lambda value: value / 100), max_size=4, unique=True)


@settings(deadline=None)
def renumbered(n: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A take of `n` events half a second apart, and the same without the first, counted anew."""
    base = [event(f"{i}", i / 2, "kick" if i % 2 else "snare") for i in range(n)]
    candidate = [{**row, "sample_id": f"{i}"} for i, row in enumerate(base[1:])]
    return base, candidate


def test_ids_given_anew_are_left_aside() -> None:
    by_id, by_time = diff(*renumbered(9)), diff(*renumbered(9), by_id=False)
    assert kinds(by_id) == {"removed": 1, "moved": 8, "relabelled": 8}
    assert (by_id.paired_by_id, by_id.ids_far_apart) == (8, 8)
    assert kinds(by_time) == {"removed": 1}
    assert (by_time.paired_by_id, by_time.paired_by_time, by_time.ids_far_apart) == (0, 8, 0)


def test_a_shift_within_the_tolerance_is_no_sign_of_new_ids() -> None:
    base = [event(f"{i}", i / 2) for i in range(3)]
    shifted = [{**row, "onset_time": row["onset_time"] + 0.04} for row in base]
    assert diff(base, shifted).ids_far_apart == 0
    assert diff(base, shifted, tolerance_s=0.03).ids_far_apart == 3


@given(before=times, after=times)
def test_pairing_is_optimal(before: list[float], after: list[float]) -> None:
    tolerance = 0.05
    found = diff(
        [event(f"b{index}", onset) for index, onset in enumerate(before)],
        [event(f"c{index}", onset) for index, onset in enumerate(after)],
        tolerance_s=tolerance,
    )
    fewer, more = sorted([before, after], key=len)
    best = (0, 0.0)
    for order in itertools.permutations(more, len(fewer)):
        near = [abs(a - b) for a, b in zip(fewer, order, strict=True) if abs(a - b) <= tolerance]
        # Without a term for the pairs left out this would prefer few and near ones.
        best = max(best, (len(near), -sum(near)))
    moved = sum(abs(c.after - c.before) for c in found.changes if c.kind == "moved")
    assert found.paired_by_time == best[0]
    assert moved == pytest.approx(-best[1], abs=1e-5)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=manifests(), other=manifests(), seed=st.integers(0, 9))
def test_counts_add_up(rows: list[dict[str, Any]], other: list[dict[str, Any]], seed: int) -> None:
    shuffled = random.Random(seed).sample(rows, len(rows))
    assert kinds(diff(rows, shuffled, tolerance_s=0)).keys() <= {
        # equal ids and onsets may be paired either way round
        *KINDS[3:]
    }
    found = diff(rows, other)
    pairs = found.paired_by_id + found.paired_by_time
    assert pairs + found.counts["removed"] == len(rows)
    assert pairs + found.counts["added"] == len(other)
    back = diff(other, rows)
    assert back.counts["added"] == found.counts["removed"]
    assert back.counts["removed"] == found.counts["added"]


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    def write(base: list[dict[str, Any]], candidate: list[dict[str, Any]]) -> tuple[Path, Path]:
        paths = (tmp_path / "base.jsonl", tmp_path / "candidate.jsonl")
        for path, rows in zip(paths, (base, candidate), strict=True):
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return paths

    return write


@pytest.mark.parametrize(
    ("fail_on", "statuses"),
    [
        ((), []),
        (("moved",), [Status.FAIL]),
        (("moved=1",), [Status.PASS]),
        (("removed", "added"), [Status.PASS, Status.PASS]),
    ],
)
def test_gates_are_those_asked_for(
    pair: Callable[..., tuple[Path, Path]], fail_on: tuple[str, ...], statuses: list[Status]
) -> None:
    base, candidate = pair([event("a", 1.0)], [event("a", 1.5)])
    report = run(Options(base=base, candidate=candidate, fail_on=fail_on))
    assert [verdict.status for verdict in report.verdicts] == statuses


def test_a_gates_file_asks_too(pair: Callable[..., tuple[Path, Path]], tmp_path: Path) -> None:
    base, candidate = pair([event("a", 1.0)], [event("a", 1.5)])
    gates = tmp_path / "gates.toml"
    gates.write_text('[manifest_diff.moved]\nvalue = 3\nreason = "an onset clean-up"\n')
    (verdict,) = run(Options(base=base, candidate=candidate, gates=gates)).verdicts
    assert (verdict.name, verdict.status) == ("manifest_diff.moved", Status.PASS)


@pytest.mark.parametrize("condition", ["moves", "moved=", "moved=-1", "moved=x", "", "moved=²"])
def test_conditions_that_are_none(pair: Callable[..., tuple[Path, Path]], condition: str) -> None:
    base, candidate = pair([event("a")], [event("a")])
    with pytest.raises(DrumgateError, match="--fail-on"):
        run(Options(base=base, candidate=candidate, fail_on=(condition,)))


def test_totals_and_limit(pair: Callable[..., tuple[Path, Path]]) -> None:
    base, candidate = pair(
        [event(f"a{i}", i, session_id=f"s{i % 3}") for i in range(9)],
        [event(f"b{i}", i + 0.5, "snare", session_id=f"s{i % 2}") for i in range(4)],
    )
    metrics = run(Options(base=base, candidate=candidate, limit=2)).metrics
    assert metrics["counts"]["removed"] == 9
    assert len(metrics["changes"]["removed"]) == 2
    assert metrics["totals"]["sessions"]["changed"] == 3
    assert [row["name"] for row in metrics["totals"]["sessions"]["rows"]] == ["s2", "s0"]
    assert metrics["totals"]["components"]["rows"] == [
        {"name": "kick", "base": 9, "candidate": 0, "delta": -9},
        {"name": "snare", "base": 0, "candidate": 4, "delta": 4},
    ]


def test_the_command(
    drumgate: Callable[..., Any], pair: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    before = event("a", 1.0, loudness={"LUFS_i": -20.0})
    base, candidate = pair([before], [{**before, "loudness": {"LUFS_i": -18.0}}])
    outputs = ["--json-output", tmp_path / "d.json", "--html-output", tmp_path / "d.html"]
    result = drumgate("compare-manifests", base, candidate, *outputs)
    assert result.exit_code == 0
    assert "1 fields, 0 unchanged" in result.stdout
    (change,) = json.loads((tmp_path / "d.json").read_text())["metrics"]["changes"]["fields"]
    assert change["after"] == {"loudness": {"LUFS_i": -18.0}}
    assert drumgate("compare-manifests", base, candidate, "--fail-on", "fields").exit_code == 1


def test_the_page_tells_what_changed(
    drumgate: Callable[..., Any], pair: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    base, candidate = pair(
        [event(f"a{i}", i) for i in range(5)],
        [event(f"a{i}", i + 0.5, "<b>snare") for i in range(4)],
    )
    page = tmp_path / "d.html"
    result = drumgate("compare-manifests", base, candidate, "--html-output", page, "--limit", 3)
    assert result.exit_code == 0
    shown = page.read_text()
    assert "moved: the first 3 of 4" in shown
    assert "removed: 1" in shown
    assert "&lt;b&gt;snare" in shown
    assert "<b>snare" not in shown


def test_many_files_standard_input_and_the_cache(
    drumgate: Callable[..., Any],
    pair: Callable[..., tuple[Path, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, candidate = pair(
        [event(f"a{i}", i) for i in range(6)], [event(f"a{i}", i + (i == 3)) for i in range(6)]
    )
    lines = base.read_text().splitlines(keepends=True)
    for number in range(2):
        (tmp_path / f"part{number}.jsonl").write_text("".join(lines[number * 3 :][:3]))
    more = ["--cache-dir", tmp_path / "cache", "--memory-limit", "256MiB"]
    found = []
    for path in (base, tmp_path / "part*.jsonl", base):
        report = tmp_path / "d.json"
        result = drumgate("compare-manifests", path, candidate, *more, "--json-output", report)
        assert result.exit_code == 0, result.stderr
        found.append(json.loads(report.read_text())["metrics"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(base.read_bytes())))
    found.append(run(Options(base=Path("-"), candidate=candidate)).metrics)
    assert found[0]["counts"]["moved"] == 1
    assert all(metrics == found[0] for metrics in found)
    twice = drumgate("compare-manifests", "-", "-")
    assert (twice.exit_code, twice.stderr) == (2, "-: standard input can be read only once\n")


def test_a_small_share_of_memory_is_enough(pair: Callable[..., tuple[Path, Path]]) -> None:
    base, candidate = pair(
        [event(f"a{i}", i / 8, session_id=f"s{i % 9}") for i in range(30_000)],
        [event(f"b{i}", i / 8 + 0.01, session_id=f"s{i % 9}") for i in range(30_000)],
    )
    metrics = run(Options(base=base, candidate=candidate, memory_limit="128MiB")).metrics
    assert (metrics["paired_by_time"], metrics["counts"]["moved"]) == (30_000, 30_000)
    assert [row["onset_s"] for row in metrics["changes"]["moved"][:2]] == [0.01, 1.135]


def test_the_command_says_when_ids_were_given_anew(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    paths = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for path, rows in zip(paths, renumbered(9), strict=True):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = drumgate("compare-manifests", *paths)
    assert "8 of 8 pairs by sample_id lie more than 50 ms apart" in result.stdout
    result = drumgate("compare-manifests", *paths, "--pair-by", "time", "--fail-on", "moved")
    assert result.exit_code == 0
    assert "1 removed, 8 unchanged" in result.stdout
    assert "--pair-by" not in result.stdout
    twice = drumgate("compare-manifests", *paths, "--fail-on=moved=1", "--fail-on=moved=3")
    assert twice.exit_code == 2
    assert "moved is given twice" in twice.stderr
