"""Dataset health: each gate seen passing, failing and not measured, and hand-computed figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from health_checks import check, event, verdicts

from training.checks.health import Options, run
from training.errors import DrumgateError, InputError
from training.gates import Report, Status

__all__ = ["check"]  # a fixture

ROOT = Path(__file__).resolve().parent.parent


def test_without_a_gate_nothing_is_judged(check: Callable[..., Report]) -> None:
    report = check([event()])
    assert report.verdicts == []
    assert not report.blocks
    assert report.metrics["events_total"] == 1


@pytest.mark.parametrize(
    ("limit", "status"), [(0.25, Status.PASS), (0.24, Status.FAIL), (0.0, Status.FAIL)]
)
def test_duplication_rate_counts_the_surplus(
    check: Callable[..., Report], limit: float, status: Status
) -> None:
    rows = [event(0), event(1), event(2), event(1, onset_time=9.0)]
    report = check(rows, max_duplication_rate=limit)
    assert verdicts(report) == {"health.max_duplication_rate": (status, 0.25)}
    assert report.metrics["duplicates"]["sample_id"]["examples"] == (
        {"sample_id": "e1", "rows": 2},
    )


def test_the_same_place_in_the_same_audio_is_a_duplicate(check: Callable[..., Report]) -> None:
    rows = [
        event(0, onset_time=1.0, audio_path="a.wav"),
        event(1, onset_time=1.00004, audio_path="a.wav"),  # the same to 0.1 ms
        event(2, onset_time=1.0002, audio_path="a.wav"),
        event(3, onset_time=1.0, audio_path="b.wav"),
        event(4, onset_time=1.0),
    ]
    places = check(rows).metrics["duplicates"]["audio_path_onset"]
    assert (places["groups"], places["surplus"], places["compared"]) == (1, 1, 4)
    assert places["examples"] == ({"audio_path": "a.wav", "onset_s": 1.0, "rows": 2},)


def take(
    session: str, split: str, *, start: float = 0.0, tempo: float = 0.1
) -> list[dict[str, Any]]:
    labels = ["kick", "hihat_closed", "snare", "hihat_closed"]
    return [
        event(
            sample_id=f"{session}{hit}",
            session_id=session,
            split=split,
            onset_time=start + hit * tempo,
            components=[{"label": labels[hit % 4]}],
        )
        for hit in range(8)
    ]


def test_a_performance_in_two_splits_leaks(check: Callable[..., Report]) -> None:
    rows = take("a", "train") + take("b", "test", start=7.77)
    report = check(rows, split_isolation=("session", "performance"))
    assert verdicts(report) == {
        "health.split_isolation[session]": (Status.PASS, 0),
        "health.split_isolation[performance]": (Status.FAIL, 1),
    }
    (family,) = report.metrics["duplicates"]["performance"]["examples"]
    assert family == {"sessions": ["a", "b"], "takes": 2, "hits": 8, "splits": ["test", "train"]}


@pytest.mark.parametrize(
    "other",
    [
        take("b", "train"),  # the same performance, but on the same side
        take("b", "test", tempo=0.1015),  # another tempo
        take("b", "test")[:7],  # too few hits to compare
        [{**row, "components": [{"label": "ride"}]} for row in take("b", "test")],
    ],
)
def test_what_is_no_leak_of_a_performance(
    check: Callable[..., Report], other: list[dict[str, Any]]
) -> None:
    report = check(take("a", "train") + other, split_isolation=("performance",))
    assert verdicts(report)["health.split_isolation[performance]"] == (Status.PASS, 0)


def test_mics_of_one_session_are_no_family(check: Callable[..., Report]) -> None:
    rows = [
        {**row, "track_id": mic, "sample_id": row["sample_id"] + mic}
        for mic in ("kick_in", "room")
        for row in take("a", "train")
    ]
    assert check(rows).metrics["duplicates"]["performance"]["families"] == 0


def test_class_counts_are_judged_one_by_one(check: Callable[..., Report], tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    counts.write_text('{"ohh": 3, "aux_percussion": 1}')
    hits = ["kick", "kick", "hihat_open", "hh_open", "snare"]
    rows = [event(i, components=[{"label": label}]) for i, label in enumerate(hits)]
    found = verdicts(check(rows, min_class_count=1, min_counts_json=counts))
    prefix = "health.min_class_count"
    assert found[f"{prefix}[kick]"] == (Status.PASS, 2)
    assert found[f"{prefix}[hihat_open]"] == (Status.FAIL, 2)  # the alias counts; 3 are wanted
    assert found[f"{prefix}[crash]"] == (Status.FAIL, 0)
    assert found[f"{prefix}[aux_percussion]"] == (Status.FAIL, 0)
    assert len(found) == 13


def test_counts_file_alone_judges_only_its_labels(
    check: Callable[..., Report], tmp_path: Path
) -> None:
    counts = tmp_path / "counts.json"
    counts.write_text('{"kick": 1}')
    assert list(verdicts(check([event()], min_counts_json=counts))) == [
        "health.min_class_count[kick]"
    ]


def test_unknown_labels_count_hits(check: Callable[..., Report]) -> None:
    rows = [
        event(0),
        event(1, components=[{"label": "gong"}, {"label": "gong"}, {"label": "kick"}]),
    ]
    report = check(rows, max_unknown_labels=1)
    assert verdicts(report) == {"health.max_unknown_labels": (Status.FAIL, 2)}
    assert report.verdicts[0].detail == "gong (2)"
    assert any("gong" in warning for warning in report.warnings)


def test_required_names_from_flags_and_files(check: Callable[..., Report], tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("# for a release\nhihat_bark  # twice is once\nflam\n\n")
    rows = [event(0, techniques=["flam"])]
    report = check(
        rows,
        require_techniques=("hihat_bark",),
        require_techniques_files=(names,),
        require_labels=("kick", "crash"),
    )
    assert verdicts(report) == {
        "health.require_labels[kick]": (Status.PASS, 1),
        "health.require_labels[crash]": (Status.FAIL, 0),
        "health.require_techniques[hihat_bark]": (Status.FAIL, 0),
        "health.require_techniques[flam]": (Status.PASS, 1),
    }
    assert [Path(file.path).name for file in report.inputs] == ["events.jsonl", "names.txt"]


def test_the_production_list_is_known(check: Callable[..., Report]) -> None:
    path = ROOT / "configs" / "health_required_techniques_prod.txt"
    wanted = ["hihat_bark", "metric_modulation", "variable_meter", "multi_cymbal_same_class"]
    report = check([event(techniques=wanted)], require_techniques_files=(path,))
    assert path.read_text().split() == wanted
    assert [verdict.passed for verdict in report.verdicts] == [True] * 4


@pytest.mark.parametrize(
    ("flags", "limit", "status", "observed"),
    [
        ([True, False, False, False], 0.25, Status.PASS, 0.25),
        ([True, False, False, False], 0.2, Status.FAIL, 0.25),
        ([True, False, None, False], 1.0, Status.NOT_MEASURED, None),
    ],
)
def test_synthetic_fraction(
    check: Callable[..., Report],
    flags: list[bool | None],
    limit: float,
    status: Status,
    observed: float | None,
) -> None:
    rows = [event(i, is_synthetic=flag) for i, flag in enumerate(flags)]
    report = check(rows, max_synthetic_fraction=limit)
    assert verdicts(report) == {"health.max_synthetic_fraction": (status, observed)}


def test_drummers_that_nobody_names_are_not_measured(check: Callable[..., Report]) -> None:
    report = check([event()], min_drummers=0)
    assert verdicts(report) == {"health.min_drummers": (Status.NOT_MEASURED, None)}
    assert report.blocks
    named = check([event(0, drummer_id="a"), event(1)], min_drummers=2)
    assert verdicts(named) == {"health.min_drummers": (Status.FAIL, 1)}


@pytest.mark.parametrize(
    ("rows", "status", "observed"),
    [
        ([event(0, kit_id="a"), event(1, kit_id="a")], Status.NOT_MEASURED, None),
        (
            [event(0, kit_id="a", split="train"), event(1, kit_id="b", split="val")],
            Status.PASS,
            0,
        ),
        (
            [event(0, kit_id="a", split="train"), event(1, kit_id="a", split="val")],
            Status.FAIL,
            1,
        ),
        (  # one event does not say its kit: nobody knows whether it leaks
            [event(0, kit_id="a", split="train"), event(1, split="val")],
            Status.NOT_MEASURED,
            None,
        ),
        (  # what is known to leak fails even so
            [
                event(0, kit_id="a", split="train"),
                event(1, kit_id="a", split="val"),
                event(2, split="val"),
            ],
            Status.FAIL,
            1,
        ),
        (  # an event without a split is on no side yet
            [event(0, kit_id="a", split="train"), event(1, kit_id="a")],
            Status.PASS,
            0,
        ),
    ],
)
def test_split_isolation(
    check: Callable[..., Report],
    rows: list[dict[str, Any]],
    status: Status,
    observed: float | None,
) -> None:
    report = check(rows, split_isolation=("kit",))
    assert verdicts(report) == {"health.split_isolation[kit]": (status, observed)}


def test_a_gates_file_asks_for_a_gate(check: Callable[..., Report], tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text(
        '[health.max_unknown_labels]\nvalue = 3\nreason = "old names"\n'
        '[health.require_labels]\nvalue = 2\nreason = "twice"\n'
    )
    report = check([event()], gates=gates)
    assert verdicts(report) == {
        "health.max_unknown_labels": (Status.PASS, 0),
        "health.require_labels": (Status.NOT_MEASURED, None),  # it names no label
    }
    named = check([event()], gates=gates, require_labels=("kick",))
    assert verdicts(named)["health.require_labels[kick]"] == (Status.FAIL, 1)


def test_durations_come_from_the_metadata(check: Callable[..., Report], tmp_path: Path) -> None:
    metadata = tmp_path / "metadata.json"
    metadata.write_text(
        json.dumps({"durations_s": {"train": {"a": 60, "b": 30.5}, "val": {"a": 10}}, "x": 1})
    )
    durations = check([event()], dataset_metadata=metadata).metrics["durations"]
    assert durations["total_s"] == 100.5
    assert durations["by_split_s"] == {"train": 90.5, "val": 10}
    assert durations["by_source_s"] == {"a": 70, "b": 30.5}
    metadata.write_text("{}")
    report = check([event()], dataset_metadata=metadata)
    assert report.metrics["durations"]["total_s"] is None
    assert any("durations were not measured" in warning for warning in report.warnings)


@pytest.mark.parametrize(
    ("durations", "field"),
    [
        ([], "durations_s: must be an object"),
        ({"train": 3}, "durations_s.train: must be an object"),
        ({"train": {"a": True}}, "durations_s.train.a: must be a number"),
        ({"train": {"a": "60"}}, "durations_s.train.a: must be a number"),
        ({"train": {"a": -1}}, "durations_s.train.a: must be a number >= 0"),
        ({"train": {"a": "1e999"}}, 'is not valid JSON: the number "1e999" is out of range'),
    ],
)
def test_bad_durations_name_their_field(
    check: Callable[..., Report], tmp_path: Path, durations: Any, field: str
) -> None:
    metadata = tmp_path / "metadata.json"
    # 1e999 without its quotes is a number that JSON can write and no float can hold.
    metadata.write_text(json.dumps({"durations_s": durations}).replace('"1e999"', "1e999"))
    with pytest.raises(InputError) as caught:
        check([event()], dataset_metadata=metadata)
    assert f"metadata.json: {field}" in str(caught.value)


@pytest.mark.parametrize(
    "counts",
    ['{"kick": true}', '{"kick": 1.5}', '{"kick": -1}', '{"kick": 1, "bd": 1}', "{}", "[]"],
)
def test_bad_counts_are_refused(check: Callable[..., Report], tmp_path: Path, counts: str) -> None:
    path = tmp_path / "counts.json"
    path.write_text(counts)
    with pytest.raises(InputError, match=r"counts\.json: "):
        check([event()], min_counts_json=path)


def test_every_unknown_name_is_reported(check: Callable[..., Report], tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("kick\ngong\n\nbongo\n")
    with pytest.raises(InputError) as caught:
        check([event()], require_labels_files=(names,), require_labels=("zil",))
    assert [(problem.path, problem.line) for problem in caught.value.problems] == [
        ("--require-label", None),
        (str(names), 2),
        (str(names), 4),
    ]


@pytest.mark.parametrize(
    "options", [{"max_duplication_rate": float("nan")}, {"split_isolation": ("sessions",)}]
)
def test_options_that_cannot_be_used(check: Callable[..., Report], options: dict[str, Any]) -> None:
    with pytest.raises(DrumgateError):
        check([event()], **options)


def test_skipped_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(event()) + "\nnot json\n")
    with pytest.raises(InputError, match=r"events\.jsonl:2: "):
        run(Options(events=path))
    report = run(Options(events=path, skip_invalid=True))
    assert (report.metrics["events_total"], report.metrics["skipped_lines"]) == (1, 1)
    assert any("skipped" in warning for warning in report.warnings)


def test_coverage_of_annotated_labels(check: Callable[..., Report]) -> None:
    rows = [
        event(0, source_set="full"),
        event(1, source_set="part", annotated_labels=["kick", "snare"]),
        event(2, source_set="part", annotated_labels=["snare"]),  # its own kick is not annotated
    ]
    found = check(rows).metrics["annotated_labels"]
    assert found["per_class"]["kick"] == 2
    assert found["per_class"]["snare"] == 3
    assert found["per_class"]["crash"] == 1
    assert found["by_source"]["part"] == {"events": 2, "stating": 2, "labels": ["snare"]}
    assert found["by_source"]["full"] == {"events": 1, "stating": 0, "labels": None}
    assert found["hits_outside_annotated"] == {"kick": 1}


def test_openness_by_device(check: Callable[..., Report]) -> None:
    hat = {"label": "hihat_open"}
    rows = [
        event(0, components=[{**hat, "openness": 1.0}], device_vendor="Roland"),
        event(1, components=[{**hat, "openness": 0.95}], device_vendor="Roland"),
        event(2, components=[{**hat, "openness_raw": 64}], device_model="TD-11"),
    ]
    found = check(rows).metrics["openness_histogram"]
    assert found["counts"] == [0] * 9 + [2]
    assert (found["stated"], found["raw_only"]) == (2, 1)
    assert found["per_device"] == {
        "Roland": {"counts": [0] * 9 + [2], "raw_only": 0},
        "TD-11": {"counts": [0] * 10, "raw_only": 1},
    }


def test_the_documented_command_runs(drumgate: Callable[..., Any], tmp_path: Path) -> None:
    configs, examples = ROOT / "configs", ROOT / "examples"
    result = drumgate(
        "dataset-health",
        *("--events", examples / "events_health_example.jsonl"),
        *("--components", configs / "components.json"),
        *("--output", tmp_path / "reports" / "latest_health.json"),
        *("--html-output", tmp_path / "reports" / "latest_health.html"),
        *("--dataset-metadata", examples / "metadata_health_example.json"),
        *("--max-duplication-rate", 0.005, "--min-class-count", 200, "--max-unknown-labels", 0),
        *("--require-technique", "hihat_bark"),
        *("--require-techniques-file", configs / "health_required_techniques_prod.txt"),
        *("--require-label", "hihat_open"),
        *("--require-labels-file", configs / "health_require_labels_example.txt"),
        *("--min-counts-json", configs / "health_min_counts_example.json"),
    )
    assert result.exit_code == 1  # the example is far smaller than a production dataset
    report = json.loads((tmp_path / "reports" / "latest_health.json").read_text())
    failed = {
        row["name"].partition("[")[0] for row in report["gating_results"] if not row["passed"]
    }
    assert failed == {"health.min_class_count"}
    assert (tmp_path / "reports" / "latest_health.html").stat().st_size > 1000


def test_two_runs_are_the_same_but_for_provenance(
    drumgate: Callable[..., Any], tmp_path: Path
) -> None:
    reports = []
    for name in ("a.json", "b.json"):
        events = ROOT / "examples" / "events_health_example.jsonl"
        drumgate("dataset-health", "--events", events, "--output", tmp_path / name)
        report = json.loads((tmp_path / name).read_text())
        report.pop("provenance")
        reports.append(json.dumps(report))
    assert reports[0] == reports[1]


def test_figures_from_the_cache_are_those_that_were_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = ROOT / "examples" / "events_health_example.jsonl"
    plain = run(Options(events=events, max_unknown_labels=0))
    asked = Options(events=events, max_unknown_labels=0, cache_dir=tmp_path / "cache")
    first = run(asked)
    monkeypatch.setattr("training.checks.health.measure_health", None)
    again = run(asked)
    for report in (first, again):
        assert json.dumps(report.metrics) == json.dumps(plain.metrics)
        assert report.verdicts == plain.verdicts
    with pytest.raises(TypeError):  # another question is not answered from there
        run(replace(asked, max_events_per_second=39))
    for figures in (tmp_path / "cache" / "figures").iterdir():
        figures.write_text("{")
    with pytest.raises(TypeError):
        run(asked)
