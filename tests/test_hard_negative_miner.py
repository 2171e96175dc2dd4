"""The hard-negative miner from files to exit code."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from conftest import ROOT
from jsonl import read, write

from training.checks import hard_negatives
from training.errors import DrumgateError

LABELS = ("kick", "snare", "ride", "crash")


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Events of ten sessions and predictions at random; `aux_percussion` now and then."""
    rng = np.random.default_rng(0)
    events, predictions = [], []
    for i in range(800):
        label = str(rng.choice([*LABELS, "aux_percussion"]))
        row = {
            "sample_id": f"e{i}",
            "session_id": f"s{int(rng.integers(10) ** 2 / 10)}",
            "onset_time": round(float(rng.uniform(0, 60)), 3),
            "components": [{"label": label}],
            "audio_path": f"a{i}.wav",
        }
        if i % 3 == 0:
            row["annotated_labels"] = ["kick", "snare", label]
        events.append(row)
        scores = {name: round(float(rng.random()), 4) for name in LABELS}
        predictions.append({"sample_id": f"e{i}", "scores": scores})
    return write(tmp_path / "events.jsonl", events), write(tmp_path / "p.jsonl", predictions)


def mine(files: tuple[Path, Path], **fields: Any) -> tuple[list[dict[str, Any]], Any]:
    events, predictions = files
    output = events.parent / "hard.jsonl"
    report = hard_negatives.run(
        hard_negatives.Options(
            predictions=predictions, ground_truth=events, output=output, **fields
        )
    )
    return read(output), report


def test_without_caps_the_rows_equal_a_plain_search(files: tuple[Path, Path]) -> None:
    rows, report = mine(files, max_per_label=None, max_session_share=1.0)
    expected = []
    for event, said in zip(read(files[0]), read(files[1]), strict=True):
        there = event["components"][0]["label"]
        known = event.get("annotated_labels", LABELS)
        expected += [
            (-score, event["sample_id"], label)
            for label, score in said["scores"].items()
            if score >= 0.7 and label != there and label in known
        ]
    assert [(-r["score"], r["sample_id"], r["label"]) for r in rows] == sorted(expected)
    assert [row["rank"] for row in rows] == list(range(1, len(rows) + 1))
    assert report.metrics["candidates_total"] == len(rows)
    assert sum(report.metrics["unannotated_left_out"].values()) > 0
    assert {row["reason"] for row in rows if row["true_labels"] == ["aux_percussion"]} <= {
        "out_of_vocabulary",
        "timing_miss",
    }


def test_a_calibration_scales_the_scores_before_they_are_ranked(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Slope 2 and intercept -1: logit(s) -> 2 logit(s) - 1, by hand; `ride` is not in the file."""
    scale = {"slope": 2.0, "intercept": -1.0}
    path = tmp_path / "calibration.json"
    classes = dict.fromkeys(("kick", "snare", "crash"), scale)
    path.write_text(json.dumps({"schema_version": 1, "classes": classes}))
    everything = {"max_per_label": None, "max_session_share": 1.0}
    plain, _ = mine(files, min_confidence=0.0, **everything)
    rows, report = mine(files, min_confidence=0.7, calibration=path, **everything)
    expected = {}
    for row in plain:
        score = row["score"]
        if row["label"] != "ride":
            odds = (score / (1 - score)) ** 2 / np.e if score < 1 else np.inf
            score = 1.0 if odds == np.inf else odds / (1 + odds)
        if score >= 0.7:
            expected[row["sample_id"], row["label"]] = pytest.approx(score, abs=1e-9)
    assert {(row["sample_id"], row["label"]): row["score"] for row in rows} == expected
    assert len(rows) < len([row for row in plain if row["score"] >= 0.7])
    assert [row["score"] for row in rows] == sorted((r["score"] for r in rows), reverse=True)
    assert any("no entry for ride" in text for text in report.warnings)
    assert str(path) in {str(source.path) for source in report.inputs}


def test_nearest_events_are_true_and_nearest(files: tuple[Path, Path]) -> None:
    rows, _ = mine(files)
    events = read(files[0])
    onset = {row["sample_id"]: row["onset_time"] for row in events}
    for row in rows:
        same = [
            abs(e["onset_time"] - row["onset_time"]) * 1000
            for e in events
            if e["session_id"] == row["session_id"] and e["components"][0]["label"] == row["label"]
        ]
        assert abs(row["nearest_distance_ms"]) == pytest.approx(min(same), abs=1e-3)
        signed = (onset[row["nearest_event_id"]] - row["onset_time"]) * 1000
        assert row["nearest_distance_ms"] == pytest.approx(signed, abs=1e-3)
        assert (row["reason"] == "timing_miss") == (min(same) <= 50 + 1e-9)


def test_caps_keep_the_hardest_and_spread_them(files: tuple[Path, Path]) -> None:
    everything, _ = mine(files, max_per_label=None, max_session_share=1.0)
    rows, report = mine(files, max_per_label=20)
    per_label = Counter(row["label"] for row in rows)
    assert max(per_label.values()) <= 20
    for label, count in per_label.items():
        sessions = Counter(row["session_id"] for row in rows if row["label"] == label)
        assert max(sessions.values()) <= 0.25 * count + 1e-9
        first = next(row for row in everything if row["label"] == label)
        assert first["sample_id"] in {r["sample_id"] for r in rows if r["label"] == label}
    scores = [row["score"] for row in rows]
    assert scores == sorted(scores, reverse=True)
    greedy, _ = mine(files, max_per_label=20, max_session_share=1.0)
    for label in per_label:
        best = [row["sample_id"] for row in everything if row["label"] == label][:20]
        assert [row["sample_id"] for row in greedy if row["label"] == label] == best
    assert report.metrics["left_out_by_session_share"] == len(greedy) - len(rows)
    assert len(mine(files, max_total=9)[0]) <= 9


def test_exclusion_dry_run_and_missing_output(
    files: tuple[Path, Path], drumgate: Callable[..., Result]
) -> None:
    rows, _ = mine(files, exclude_labels=("kick", "ride"))
    assert {row["label"] for row in rows} == {"snare", "crash"}
    (files[0].parent / "hard.jsonl").unlink()
    arguments = ["hard-negative-miner", "--predictions", files[1], "--ground-truth", files[0]]
    target = files[0].parent / "out.jsonl"
    dry = drumgate(*arguments, "--output", target, "--dry-run")
    assert dry.exit_code == 0
    assert "snare" in dry.stdout
    assert not target.exists()
    wet = drumgate(*arguments, "--output", target, "--report", files[0].parent / "r.json")
    assert wet.stdout == dry.stdout
    assert json.loads((files[0].parent / "r.json").read_text())["metrics"]["kept_total"] == len(
        read(target)
    )
    assert drumgate(*arguments).exit_code == 2
    with pytest.raises(DrumgateError, match="--output"):
        hard_negatives.run(
            hard_negatives.Options(predictions=files[1], ground_truth=files[0], output=None)
        )


def test_what_the_join_leaves_out_is_said(tmp_path: Path) -> None:
    truth = [{"sample_id": "a", "labels": ["kick"]}, {"sample_id": "b", "labels": ["kick"]}]
    said = [{"sample_id": "a", "labels": ["snare"]}, {"sample_id": "z", "labels": ["snare"]}]
    rows, report = mine((write(tmp_path / "t.jsonl", truth), write(tmp_path / "p.jsonl", said)))
    assert [(row["sample_id"], row["label"], row["score"]) for row in rows] == [("a", "snare", 1.0)]
    assert rows[0]["nearest_event_id"] is None
    text = " ".join(report.warnings)
    for part in ("1 of 2 examples", "1 predictions", "no session_id or onset_time", "equally hard"):
        assert part in text


def test_a_run_is_repeatable_in_any_order(files: tuple[Path, Path]) -> None:
    rows, _ = mine(files, max_per_label=15, max_total=30)
    for path in files:
        write(path, read(path)[::-1])
    assert mine(files, max_per_label=15, max_total=30)[0] == rows


def test_the_example_files_show_every_reason(tmp_path: Path) -> None:
    rows, _ = mine(
        (
            write(tmp_path / "e.jsonl", read(ROOT / "examples/hard_negative_events_example.jsonl")),
            ROOT / "examples/hard_negative_predictions_example.jsonl",
        )
    )
    assert {row["reason"] for row in rows} == {
        "confident_false_positive",
        "likely_label_error",
        "timing_miss",
        "out_of_vocabulary",
    }


def test_a_true_hit_under_another_name_is_no_negative(files: tuple[Path, Path]) -> None:
    rows, report = mine(files)
    events, predictions = files
    names = {"kick": "bass_drum", "snare": "Snare Drum", "ride": "rdc"}
    renamed = read(events)
    for row in renamed:
        (part,) = row["components"]
        part["label"] = names.get(part["label"], part["label"])
        if "annotated_labels" in row:
            row["annotated_labels"] = [names.get(x, x) for x in row["annotated_labels"]]
    write(events, renamed)
    again, other = mine(files, exclude_labels=())
    assert again == rows
    assert other.metrics == report.metrics
    said = read(predictions)
    for row in said:
        row["scores"] = {names.get(label, label): score for label, score in row["scores"].items()}
    write(predictions, said)
    assert mine(files)[0] == rows
    without = [row for row in rows if row["label"] != "kick"]
    kept = [row | {"rank": 0} for row in mine(files, exclude_labels=("bd",))[0]]
    assert kept == [row | {"rank": 0} for row in without]
