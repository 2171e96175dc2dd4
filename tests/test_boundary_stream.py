"""Streaming parity from files to exit code, thresholds a class, and a pack of any size."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonl import read, write
from test_boundary_tools import event, events, pack

from training.checks import boundary, boundary_pack, boundary_parity, predict
from training.checks.boundary_input import BoundaryTruth
from training.errors import DrumgateError, InputError
from training.gates import Status
from training.manifest import external
from training.manifest.unique import RepeatedIds
from training.metrics import boundary_pack as bp

Run = Callable[..., Result]
LABELS = ("kick", "snare")


def evaluate(
    tmp_path: Path,
    truth: list[dict[str, Any]],
    predicted: list[dict[str, Any]],
    whole: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> Any:
    if whole is not None:
        fields["reference_predictions"] = write(tmp_path / "whole.jsonl", whole)
    return boundary.run(
        boundary.Options(
            ground_truth=write(tmp_path / "truth.jsonl", truth),
            predictions=write(tmp_path / "predicted.jsonl", predicted),
            **fields,
        )
    )


def deaf(
    rows: list[dict[str, Any]], start_ms: float = 0.0, end_ms: float = 0.0
) -> list[dict[str, Any]]:
    """What a model says that hears nothing just after a start or just before an end."""
    made = []
    for row in rows:
        before, after = row["onset_ms"], row["window_size_ms"] - row["onset_ms"]
        heard = before >= start_ms and after >= end_ms
        labels = row["labels"] if heard else []
        made.append({"sample_id": row["sample_id"], "labels": labels})
    return made


def whole_of(source: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"sample_id": row["sample_id"], "labels": [c["label"] for c in row["components"]]}
        for row in source
    ]


def test_the_smallest_overlap_of_a_pack_loses_nothing_when_it_is_laid(tmp_path: Path) -> None:
    source = events(n=3000)
    layout = {"window_ms": 200.0, "hop_ms": 100.0, "margin_ms": 100.0}
    rows = pack(tmp_path, source, **layout, offsets_ms=(0.0, 25.0, 50.0, 75.0))
    report = evaluate(tmp_path, rows, deaf(rows, 12.0, 31.0), whole_of(source))
    parity = report.metrics["parity"]
    # the next event behind each deaf stretch; 3000 events lie close enough
    assert 12.0 <= parity["guards"]["start"]["guard_ms"] <= 12.2
    assert 31.0 <= parity["guards"]["end"]["guard_ms"] <= 31.2
    smallest = parity["smallest_overlap_ms"]
    assert smallest == pytest.approx(43.0, abs=0.3)
    assert parity["overlap_ms"] == 100.0
    assert parity["overlap_loses_nothing"] is True
    # half-overlapping windows hear every event in the middle of one of them
    assert parity["windows_not_in_pack"] == 0
    started = sum(r["onset_time"] * 1000 >= o for r in source for o in (0, 25, 50, 75))
    assert parity["merged"]["n_events"] == started
    # all but those of the first 12 ms, which no earlier window holds
    first = sum(r["onset_time"] * 1000 - o < 12 for r in source for o in (0, 25, 50, 75))
    assert parity["merged"]["lost"] <= 2 * first

    def lost_when_laid(overlap_ms: float) -> int:
        hop = round((200.0 - overlap_ms) * 1000) / 1000
        laid = pack(tmp_path, source, window_ms=200.0, hop_ms=hop, margin_ms=200.0)
        found = {
            row["event_id"]
            for row in laid
            if row["onset_ms"] >= 12.0 and 200.0 - row["onset_ms"] >= 31.0
        }
        return sum(row["sample_id"] not in found and row["onset_time"] >= 0.012 for row in source)

    assert lost_when_laid(smallest) == 0
    assert lost_when_laid(42.0) > 0
    assert lost_when_laid(10.0) > lost_when_laid(42.0)


def test_recall_lost_and_duplicates_stand_against_the_distance(tmp_path: Path) -> None:
    source = events(n=1500)
    rows = pack(tmp_path, source, window_ms=100.0, hop_ms=50.0, margin_ms=50.0)
    metrics = evaluate(tmp_path, rows, deaf(rows, end_ms=10.05), whole_of(source)).metrics["parity"]
    ends = {each["upper_ms"]: each for each in metrics["per_edge"]["end"]["by_distance"]}
    assert [ends[bound]["macro_recall_lost"] for bound in (5.0, 10.0, 20.0, 40.0)] == [1, 1, 0, 0]
    assert metrics["per_edge"]["start"]["lost"] == 0
    assert metrics["lost"] == sum(
        len(row["labels"]) for row in rows if row["edge"] == "end" and row["distance_ms"] < 10.05
    )
    # each event lies in two windows; it is doubled unless one of them is deaf to it
    windows: dict[str, set[int]] = {}
    for row in rows:
        if 100.0 - row["onset_ms"] >= 10.05:
            windows.setdefault(row["event_id"], set()).add(row["window_index"])
    labels = {row["event_id"]: len(row["labels"]) for row in rows}
    expected = sum(labels[name] * (len(seen) - 1) for name, seen in windows.items())
    assert metrics["duplicates"] == expected > 500
    bins = metrics["by_distance"]
    assert sum(each["duplicates"] for each in bins) == expected
    assert bins[-1]["upper_ms"] is None  # 40 to 50 ms


def test_timing_errors_are_measured_where_both_files_place_an_onset(tmp_path: Path) -> None:
    source = [event(f"e{i}", 1.0 + i, LABELS[i % 2], session_id=f"s{i}") for i in range(6)]
    rows = pack(tmp_path, source, window_ms=1000.0, hop_ms=1000.0)
    said = whole_of(source)
    for i, row in enumerate(said):
        row["onset_pred"] = 1.0 + i
    predicted = deaf(rows)
    for i, row in enumerate(predicted[:4]):
        row["onset_pred"] = 1.0 + i + 0.001 * i
    timing = evaluate(tmp_path, rows, predicted, said).metrics["parity"]["timing"]
    assert timing["n"] == 4
    assert timing["median_ms"] == pytest.approx(1.5)
    assert timing["max_abs_ms"] == pytest.approx(3.0)
    report = evaluate(tmp_path, rows, predicted, whole_of(source))
    assert any("timing error is not measured" in text for text in report.warnings)


def test_the_parity_gate_passes_fails_and_fails_closed(tmp_path: Path) -> None:
    source = events(n=1500)
    rows = pack(tmp_path, source)

    def verdict(predicted: list[dict[str, Any]], whole: Any, **fields: Any) -> Any:
        found = evaluate(tmp_path, rows, predicted, whole, **fields).verdicts
        named = {each.name: each for each in found}
        return named.get("boundary.max_recall_lost")

    said = whole_of(source)
    assert verdict(deaf(rows), said).status is Status.PASS
    lossy = verdict(deaf(rows, end_ms=10.0), said)
    assert lossy.status is Status.FAIL
    assert lossy.ci is not None
    assert lossy.ci.lower < lossy.observed < lossy.ci.upper
    # a model that misses as much on the whole recording has lost nothing at the seams
    silent = [{"sample_id": row["sample_id"], "labels": []} for row in source]
    nothing = [{"sample_id": row["sample_id"], "labels": []} for row in rows]
    assert verdict(nothing, silent).observed == 0.0
    # an event left out of the reference can hide no loss
    partly = verdict(deaf(rows), [x for x in said if x["sample_id"] != rows[0]["event_id"]])
    assert partly.status is Status.NOT_MEASURED
    assert partly.observed is None
    few = verdict(deaf(rows), said[:3])
    assert few.status is Status.NOT_MEASURED
    assert "no prediction on the whole recording" in few.detail
    # without the reference the gate is not judged, unless somebody asks for it
    assert verdict(deaf(rows), None) is None
    asked = verdict(deaf(rows), None, gate_values={"max_recall_lost": 0.1})
    assert asked.status is Status.NOT_MEASURED
    assert "--reference-predictions" in asked.detail


def test_events_without_a_reference_are_listed_and_left_out(tmp_path: Path) -> None:
    source = events(n=300)
    rows = pack(tmp_path, source)
    gone = {rows[0]["event_id"], rows[1]["event_id"]}
    said = [row for row in whole_of(source) if row["sample_id"] not in gone]
    report = evaluate(tmp_path, rows, deaf(rows), said)
    assert report.metrics["parity"]["missing_reference"] == sorted(gone)
    kept = [row for row in rows if row["event_id"] not in gone]
    assert report.metrics["parity"]["n_clips"] == len(kept)
    assert report.metrics["n_clips"] == len(rows)
    nobody = evaluate(tmp_path, rows, deaf(rows), [{"sample_id": "x", "labels": []}])
    assert nobody.metrics["parity"]["macro_recall_lost"] is None
    assert nobody.metrics["parity"]["smallest_overlap_ms"] is None


def test_a_pack_that_says_less_is_measured_as_far_as_it_goes(tmp_path: Path) -> None:
    source = events(n=400)
    rows = pack(tmp_path, source)
    bare = [{k: v for k, v in row.items() if k != "window_index"} for row in rows]
    report = evaluate(tmp_path, bare, deaf(rows), whole_of(source))
    assert report.metrics["parity"]["duplicates"] is None
    assert any("duplicates are not counted" in text for text in report.warnings)
    mixed = [dict(row) for row in rows]
    mixed[0]["hop_size_ms"] = 256.0
    report = evaluate(tmp_path, mixed, deaf(rows), whole_of(source))
    assert "one hop" in report.metrics["parity"]["smallest_overlap_reason"]
    ends = [row for row in rows if row["edge"] == "end"]
    report = evaluate(tmp_path, ends, deaf(ends), whole_of(source))
    assert "near the start" in report.metrics["parity"]["smallest_overlap_reason"]
    assert any("duplicates are a lower bound" in text for text in report.warnings)
    plain = [{"sample_id": row["sample_id"], "labels": row["labels"]} for row in rows]
    with pytest.raises(InputError, match=r"truth\.jsonl:1: event_id: is required with"):
        evaluate(tmp_path, plain, deaf(rows), whole_of(source))


@pytest.mark.parametrize(
    ("edge", "distance", "index", "held"),
    [
        ("start", 10.0, 5, 4),  # windows 2 to 5 of 100 ms every 25 ms
        ("end", 10.0, 5, 4),  # windows 5 to 8
        ("start", 10.0, 0, 1),  # nothing lies before window 0
        ("end", 10.0, 0, 4),  # windows 0 to 3
        ("end", 80.0, 0, 1),  # 20 ms into window 0, before window 1 starts
        ("start", 20.0, 0, 1),
        ("start", 25.0, 0, 2),
    ],
)
def test_how_many_windows_hold_an_event(edge: str, distance: float, index: int, held: int) -> None:
    row = BoundaryTruth(
        sample_id="a",
        labels=("kick",),
        edge=edge,  # type: ignore[arg-type]
        distance_ms=distance,
        window_index=index,
        window_size_ms=100.0,
        hop_size_ms=25.0,
        offset_ms=5.0,
    )
    assert boundary_parity._windows_that_hold(row) == held


def test_parity_does_not_depend_on_the_order_of_any_file(tmp_path: Path) -> None:
    source = events(n=500)
    rows = pack(tmp_path, source, window_ms=100.0, hop_ms=50.0, margin_ms=50.0)
    predicted, said = deaf(rows, 3.0, 7.0), whole_of(source)
    once = evaluate(tmp_path, rows, predicted, said)
    again = evaluate(tmp_path, rows[::-1], predicted[::-1], said[::-1])
    assert once.metrics["parity"] == again.metrics["parity"]


# --- thresholds a class -------------------------------------------------------------------------


def test_thresholds_a_class_decide_and_the_others_take_the_common_one(tmp_path: Path) -> None:
    truth = [
        {"sample_id": f"r{i}", "labels": [label], "session_id": f"s{i}"}
        for i, label in enumerate(["kick", "snare", "ride"])
    ]
    said = [
        {"sample_id": "r0", "scores": {"kick": 0.3, "snare": 0.55, "ride": 0.1}},
        {"sample_id": "r1", "scores": {"kick": 0.29, "snare": 0.65, "ride": 0.1}},
        {"sample_id": "r2", "scores": {"kick": 0.0, "snare": 0.0, "ride": 0.45}},
    ]
    file = tmp_path / "thresholds.json"
    file.write_text(json.dumps({"kick": 0.3, "snare": 0.6, "tom_low": 0.2}))
    plain = evaluate(tmp_path, truth, said).metrics
    assert plain["per_class"]["kick"]["recall"] == 0.0
    assert plain["per_class"]["snare"]["fp"] == 1.0
    report = evaluate(tmp_path, truth, said, thresholds=file)
    found = report.metrics["per_class"]
    assert [found[x]["recall"] for x in ("kick", "snare", "ride")] == [1.0, 1.0, 0.0]
    assert sum(each["fp"] for each in found.values()) == 0
    assert evaluate(tmp_path, truth, said, thresholds=file, threshold=0.4).metrics["macro"] == {
        "precision": 1.0,
        "recall": 1.0,
        "f1": 1.0,
    }
    assert any("no threshold for ride: 0.5" in text for text in report.warnings)
    assert any("has tom_low" in text for text in report.warnings)
    assert report.inputs[-1].path == str(file)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{}", "holds no threshold"),
        ("[]", "thresholds.json"),
        ('{"kick": 1.5}', "must be <= 1"),
        ('{"kick": "0.5"}', "must be a number"),
        ('{"kick": NaN}', "not valid JSON"),
        ('{"kick": 0.5, "kick": 0.6}', "kick"),
        ('{"schema_version": 1, "classes": {}}', "give it as --calibration"),
        ("", "is empty"),
    ],
)
def test_bad_threshold_files_are_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "thresholds.json"
    file.write_text(text)
    truth = [{"sample_id": "a", "labels": ["kick"]}]
    with pytest.raises(InputError, match=why):
        evaluate(tmp_path, truth, truth, thresholds=file)


def test_thresholds_and_a_calibration_exclude_each_other(tmp_path: Path) -> None:
    truth = [{"sample_id": "a", "labels": ["kick"]}]
    with pytest.raises(DrumgateError, match="either --thresholds or --calibration"):
        evaluate(tmp_path, truth, truth, thresholds=tmp_path / "a", calibration=tmp_path / "b")


def test_each_distance_bin_holds_every_class(tmp_path: Path) -> None:
    rows = pack(tmp_path, events(n=2000))
    metrics = evaluate(tmp_path, rows, deaf(rows, end_ms=10.0)).metrics
    near, *_, far = metrics["per_edge"]["end"]["by_distance"]
    assert {each["recall"] for each in near["per_class"].values()} == {0.0}
    assert {each["recall"] for each in far["per_class"].values()} == {1.0}
    for part in (metrics, *metrics["per_edge"].values()):
        for label, each in part["per_class"].items():
            total = sum(bin_["per_class"][label]["n_ref"] for bin_ in part["by_distance"])
            assert total == each["n_ref"]


# --- manifests of any size ----------------------------------------------------------------------


def test_a_repeated_id_is_found_when_the_notes_lie_in_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "RUN_BYTES", 2000)
    monkeypatch.setattr("training.manifest.unique._BATCH", 10)
    rows = [event(f"e{i}", i / 7, "kick") for i in range(400)]
    rows[250]["sample_id"] = rows[399]["sample_id"] = "e3"
    rows[100]["sample_id"] = "e99"
    output = tmp_path / "pack.jsonl"
    options = boundary_pack.Options(events=write(tmp_path / "e.jsonl", rows), output=output)
    with pytest.raises(InputError) as caught:
        boundary_pack.run(options)
    found = [(each.line, each.why, each.got) for each in caught.value.problems]
    assert found == [
        (101, "stands already in line 100", "e99"),
        (251, "stands already in line 4", "e3"),
        (400, "stands already in line 4", "e3"),
    ]
    assert not output.exists()
    with pytest.raises(InputError):
        boundary_pack.run(boundary_pack.Options(events=options.events, output=None, dry_run=True))
    with pytest.raises(InputError):
        boundary_pack.run(
            boundary_pack.Options(events=options.events, output=output, max_per_edge=2)
        )


def test_many_repetitions_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    names = [f"e{i % 50}" for i in range(150)]
    repeated = RepeatedIds(tmp_path)
    for line, name in enumerate(names, start=1):
        repeated.add(line, name)
    error = repeated.error(Path("x"), iter(enumerate(names, start=1)))
    assert error is not None
    assert error.total == 100
    assert [each.line for each in error.problems] == list(range(51, 71))
    fine = RepeatedIds(tmp_path / "other")
    for line in range(100):
        fine.add(line, str(line))
    assert fine.error(Path("x"), iter([])) is None


def test_the_pack_tool_does_not_hold_the_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(external, "RUN_BYTES", 200_000)
    monkeypatch.setattr(external, "CHUNK_BYTES", 8_000)

    def lines(n: int) -> Iterator[str]:
        for i in range(n):
            yield json.dumps(event(f"a name of some length, {i:09d}", i * 0.511, "kick")) + "\n"

    def peak(n: int) -> int:
        path = tmp_path / f"{n}.jsonl"
        path.write_text("".join(lines(n)))
        tracemalloc.start()
        boundary_pack.run(
            boundary_pack.Options(events=path, output=tmp_path / "pack.jsonl", max_per_edge=50)
        )
        size = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return size

    peak(100)  # what is imported once is no part of it
    small, large = peak(4_000), peak(24_000)
    assert large < small + 600_000  # the names alone would be 1.5 MB


@pytest.mark.parametrize("onset", [1e300, 1e308, 9.1e9])
def test_onsets_beyond_whole_microseconds_are_refused(tmp_path: Path, onset: float) -> None:
    source = write(tmp_path / "e.jsonl", [event("a", 0.0, "kick"), event("b", onset, "kick")])
    with pytest.raises(InputError, match=r"e\.jsonl:2: onset_time: must not exceed"):
        boundary_pack.run(boundary_pack.Options(events=source, output=tmp_path / "p.jsonl"))
    layout = bp.layout_from_ms(window_ms=100, hop_ms=50, margin_ms=10)
    with pytest.raises(ValueError, match="an onset must lie between"):
        list(bp.placements(onset, layout))


@pytest.mark.parametrize("name", ["window_ms", "hop_ms", "margin_ms"])
def test_lengths_beyond_whole_microseconds_are_refused(name: str) -> None:
    given: dict[str, Any] = {"window_ms": 100.0, "hop_ms": 50.0, "margin_ms": 10.0, name: 1e308}
    with pytest.raises(ValueError, match="must not exceed"):
        bp.layout_from_ms(**given)


def test_the_latest_onset_that_is_allowed_has_its_rows(tmp_path: Path) -> None:
    rows = pack(tmp_path, [event("a", 9e9, "kick")], window_ms=1e6, hop_ms=1.0, margin_ms=2.0)
    assert {row["edge"] for row in rows} == {"start", "end"}
    assert all(row["distance_ms"] <= 2.0 for row in rows)


def test_the_command_writes_a_page_with_parity(tmp_path: Path, drumgate: Run) -> None:
    source = events(n=400)
    rows = pack(tmp_path, source)
    write(tmp_path / "said.jsonl", deaf(rows, end_ms=10.0))
    write(tmp_path / "whole.jsonl", whole_of(source))
    result = drumgate(
        "boundary-eval", "--ground-truth", tmp_path / "labels.jsonl",
        "--predictions", tmp_path / "said.jsonl",
        "--reference-predictions", tmp_path / "whole.jsonl",
        "--report", tmp_path / "r.json", "--html-output", tmp_path / "r.html", "--strict",
    )  # fmt: skip
    assert result.exit_code == 1
    assert "boundary.max_recall_lost" in result.stdout
    page = (tmp_path / "r.html").read_text()
    assert "Against the whole recording" in page
    assert "Recall against the distance to the seam" in page
    assert "nan" not in page.lower().replace("nance", "")
    report = json.loads((tmp_path / "r.json").read_text())
    assert len(report["inputs"]) == 3
    assert read(tmp_path / "labels.jsonl") == rows
    assert np.isfinite(report["metrics"]["parity"]["micro_recall_lost"])


@settings(max_examples=60, deadline=None)
@given(
    start_us=st.integers(0, 900_000),
    size_us=st.integers(1, 200_000),
    share=st.floats(0, 1, exclude_max=True),
)
def test_a_clip_holds_the_samples_of_its_window_and_no_other(
    tmp_path_factory: pytest.TempPathFactory, start_us: int, size_us: int, share: float
) -> None:
    rate = 8000
    folder = tmp_path_factory.getbasetemp()
    path = folder / "ones.wav"
    if not path.exists():
        soundfile.write(path, np.full(rate, 0.5), rate)
    onset_s = (start_us + int(size_us * share)) / 1e6
    target = predict.Target(
        sample_id="a",
        line=1,
        onset_s=onset_s,
        audible_s=(start_us / 1e6, start_us / 1e6 + size_us / 1000 / 1000.0),
        audio_path="ones.wav",
        source=None,
    )
    features = SimpleNamespace(sample_rate=rate, read_before=400, read_samples=1200)
    ((_, clip),) = predict._clips(
        SimpleNamespace(features=features),  # type: ignore[arg-type]
        {path: [(0, target)]},
        predict._Heard(),
        lambda items, _: items,
    )
    first = round(onset_s * rate) - 400
    for place, value in enumerate(clip):
        number = first + place
        # in whole microseconds a sample every 125
        inside = 0 <= number < rate and start_us <= number * 125 < start_us + size_us
        assert bool(value) == inside
