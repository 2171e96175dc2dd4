"""The made manifest is what it says, and the plain loops compute what the tools compute."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from strategies import manifests

from training.checks import health, manifest_diff, merge, sampling
from training.manifest import Event, read_records

sys.path.append(str(Path(__file__).resolve().parent.parent / "benchmarks"))

import manifest_loops as loops
import manifest_maker as maker
import manifests as bench

EVENTS = 12_000
RECIPE = maker.Recipe(events=EVENTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("made")


@pytest.fixture(scope="module")
def base(folder: Path) -> Path:
    return maker.make(folder, RECIPE)


@pytest.fixture(scope="module")
def changed(folder: Path) -> Path:
    return maker.make(folder, maker.replace(RECIPE, changed=True))


@pytest.fixture(scope="module")
def other(folder: Path) -> Path:
    return maker.make(folder, RECIPE.other)


def health_of(path: Path) -> dict[str, Any]:
    """The tool's figures as they stand in a report, without what no loop over lines can know."""
    metrics = json.loads(json.dumps(health.run(health.Options(events=path)).metrics))
    return {
        name: value for name, value in metrics.items() if name not in ("durations", "skipped_lines")
    }


def test_production_size_is_met_exactly() -> None:
    sizes = maker._sizes(maker.PRODUCTION_EVENTS)
    assert (len(sizes), sum(sizes)) == (maker.PRODUCTION_SESSIONS, maker.PRODUCTION_EVENTS)
    assert min(sizes) > 0


@pytest.mark.parametrize("events", [0, maker.PRODUCTION_EVENTS + 1])
def test_other_sizes_are_refused(events: int) -> None:
    with pytest.raises(ValueError, match="can be made"):
        next(maker.sessions(maker.Recipe(events=events)))


def test_smaller_manifests_are_the_beginning_of_larger_ones(base: Path) -> None:
    text = "".join(maker.sessions(maker.Recipe(events=1_000)))
    assert text.count("\n") == 1_000
    assert base.read_text().startswith(text)


def test_made_manifests_are_valid_and_look_like_production(
    base: Path, changed: Path, other: Path
) -> None:
    rows = read_records(base, Event).rows
    assert len(rows) == EVENTS
    assert 480 < base.stat().st_size / EVENTS < 600
    labels = Counter(part.label for event in rows for part in event.components)
    assert set(maker.NAMES[:13]) <= set(labels)
    assert 0.05 < sum(bool(event.techniques) for event in rows) / EVENTS < 0.1
    assert {len(event.components) for event in rows} == {0, 1, 2, 3}
    ids = {event.sample_id for event in rows}
    assert ids.isdisjoint(event.sample_id for event in read_records(other, Event))
    assert ids != {event.sample_id for event in read_records(changed, Event)}


def test_made_manifests_hold_what_real_ones_get_wrong(base: Path) -> None:
    found = health_of(base)
    assert found["unknown_labels"]
    assert found["aliased_labels"]
    assert found["unknown_techniques"]
    assert found["duplicates"]["sample_id"]["surplus"]
    assert found["duplicates"]["audio_path_onset"]["surplus"]
    assert found["duplicates"]["performance"]["families"] == len(maker._sizes(EVENTS)) // 40
    assert found["annotated_labels"]["hits_outside_annotated"]
    assert found["negatives"]["marked_with_components"]
    assert found["outliers"]["velocity_stuck_take"]["count"]
    assert found["outliers"]["near_repeat"]["count"]
    assert found["outliers"]["peak_above_full_scale"]["count"]
    assert len(found["openness_histogram"]["per_device"]) > 3


def test_health_loop_equals_the_tool(base: Path) -> None:
    assert json.loads(json.dumps(loops.health(base))) == health_of(base)


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(rows=manifests())
def test_health_loop_equals_the_tool_on_any_manifest(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert json.loads(json.dumps(loops.health(path))) == health_of(path)


def test_diff_loop_equals_the_tool(base: Path, changed: Path) -> None:
    found = loops.diff(base, changed)
    metrics = manifest_diff.run(manifest_diff.Options(base=base, candidate=changed)).metrics
    for name in ("events_total", "paired_by_id", "paired_by_time", "unchanged", "counts"):
        assert found[name] == metrics[name], name
    for name, row in found["totals"].items():
        assert row == {key: metrics["totals"][name][key] for key in row}, name
    # As many as the recipe says, to within chance.
    expected = {"added": 12, "removed": 12, "moved": 60, "relabelled": 36, "velocity": 24}
    for kind, number in expected.items():
        assert abs(found["counts"][kind] - number) < 5 * math.sqrt(number), kind
    assert found["paired_by_time"] > 0


def test_weights_loop_equals_the_tool(base: Path) -> None:
    found = loops.weights(base)
    artefact = sampling.run(sampling.Options(manifest=base))
    assert found["duplicates_left_out"] > 0
    # Floats may differ in their last digits: they were added in another order.
    assert bench.differences(found, json.loads(json.dumps(artefact, default=str))) == []


def test_merge_loop_equals_the_tool(base: Path, other: Path, tmp_path: Path) -> None:
    outputs = [tmp_path / "loop.jsonl", tmp_path / "tool.jsonl"]
    found = loops.merge([base, other], outputs[0])
    merged = merge.run(merge.Options(inputs=(base, other), output=outputs[1], on_duplicate="first"))
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    provenance = merged.provenance
    assert found["inputs"] == [file["sha256"] for file in provenance["inputs"]]
    for part in ("output", "duplicates"):
        assert found[part] == {name: provenance[part][name] for name in found[part]}
    assert found["duplicates"]["dropped"] > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_costs_are_those_of_the_whole_tree_of_processes() -> None:
    hold = "import time; held = bytearray(60 << 20); time.sleep(1)"
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    parent = (
        "import subprocess, sys\n"
        f"two = [subprocess.Popen([sys.executable, '-c', {hold!r}]) for _ in range(2)]\n"
        f"subprocess.run([sys.executable, '-c', {burn!r}])\n"
        "[one.wait() for one in two]"
    )
    cost = bench.measure([sys.executable, "-c", parent])
    assert 100 < cost.own_mib <= cost.rss_mib  # neither child alone holds so much
    assert cost.cpu_s > 0.3
    assert cost.wall_s > 1


def test_a_failing_command_stops_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="exited 3"):
        bench.measure([sys.executable, "-c", "raise SystemExit(3)"])


def test_differences_are_found_wherever_they_are() -> None:
    found = {"a": [1, {"b": 0.1 + 0.2}], "c": "x"}
    assert bench.differences(found, {"a": [1, {"b": 0.3}], "c": "x", "more": 1}) == []
    assert bench.differences(found, {"a": [2, {"b": 0.4}], "c": None}) == [
        "$.a[0]",
        "$.a[1].b",
        "$.c",
    ]
    assert bench.differences([1], [1, 2]) == ["$"]
