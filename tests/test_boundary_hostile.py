"""What an expert would not let pass beside the seams: other names, empty answers, few events."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonl import read, write

from training.checks import boundary, boundary_pack
from training.errors import InputError
from training.gates import Report, Status, Verdict

Rows = list[dict[str, Any]]


def evaluate(tmp_path: Path, truth: Rows, predicted: Rows, **fields: Any) -> Report:
    return boundary.run(
        boundary.Options(
            ground_truth=write(tmp_path / "truth.jsonl", truth),
            predictions=write(tmp_path / "predicted.jsonl", predicted),
            **fields,
        )
    )


def answers(
    n: int = 60, *, said: tuple[str, ...] = (), alias: bool = False, sessions: int = 8
) -> tuple[Rows, Rows]:
    """Rows of kick or snare and predictions that are right, and say `said` besides."""
    truth, predictions = [], []
    for i in range(n):
        label = ("kick", "snare")[i % 2]
        name = {"kick": "bass_drum", "snare": "Snare-Drum"}[label] if alias else label
        truth.append({"sample_id": f"r{i}", "session_id": f"s{i % sessions}", "labels": [name]})
        predictions.append({"sample_id": f"r{i}", "labels": sorted({label, *said})})
    return truth, predictions


def by_name(report: Report) -> dict[str, Verdict]:
    return {verdict.name.removeprefix("boundary."): verdict for verdict in report.verdicts}


def test_a_name_that_stands_for_a_class_is_that_class(tmp_path: Path) -> None:
    plain = evaluate(tmp_path, *answers())
    truth, said = answers(alias=True)
    for row in truth:
        row["annotated_labels"] = ["kd", "sd"]
    named = evaluate(tmp_path, truth, said)
    assert named.metrics["per_class"] == plain.metrics["per_class"]
    assert not named.blocks
    turned = evaluate(tmp_path, said, truth)
    assert set(turned.metrics["per_class"]) == {"kick", "snare"}
    limits = tmp_path / "limits.json"
    limits.write_text('{"bd": 0.4, "kick": 0.6}')
    with pytest.raises(InputError, match="names one class twice"):
        evaluate(tmp_path, truth, said, thresholds=limits)


def test_a_model_that_says_everything_does_not_pass(tmp_path: Path) -> None:
    everything = ("kick", "snare", "ride")
    report = evaluate(tmp_path, *answers(said=everything))
    found = by_name(report)
    assert found["min_macro_recall"].status is Status.PASS
    assert found["min_macro_recall"].observed == 1.0
    assert found["min_macro_precision"].status is Status.PASS
    assert found["min_macro_precision"].observed == 0.5
    assert any("without any reference event" in w and "ride (60)" in w for w in report.warnings)
    strict = by_name(evaluate(tmp_path, *answers(said=everything), min_macro_precision=0.6))
    assert strict["min_macro_precision"].status is Status.FAIL
    truth, said = answers()
    for row in truth:
        row["annotated_labels"] = row["labels"]
    found = by_name(evaluate(tmp_path, truth, said))["min_macro_precision"]
    assert found.status is Status.NOT_MEASURED
    assert "a false alarm could not show" in found.detail


def test_a_handful_of_events_is_not_measured(tmp_path: Path) -> None:
    few = by_name(evaluate(tmp_path, *answers(19)))
    assert {each.status for each in few.values()} == {Status.NOT_MEASURED}
    assert few["min_macro_recall"].detail.startswith("19 events that hold a class")
    assert not evaluate(tmp_path, *answers(20)).blocks
    # Rows of one event are one event.
    truth, said = answers(60)
    for i, row in enumerate(truth):
        row["event_id"] = f"e{i % 10}"
    assert evaluate(tmp_path, truth, said).blocks
    for row in truth[20:]:
        row["weight"] = 0.0
    assert by_name(evaluate(tmp_path, truth, said))["min_macro_recall"].detail.startswith(
        "10 events"
    )


def test_a_pass_that_other_sessions_could_turn_round_is_named(tmp_path: Path) -> None:
    truth, said = answers(400)
    for row in said[:72:8]:  # all of them in the first session
        row["labels"] = []
    report = evaluate(tmp_path, truth, said)
    assert not report.blocks
    assert any("min_macro_recall passes on the point only" in text for text in report.warnings)
    quiet = evaluate(tmp_path, *answers(400))
    assert not any("on the point only" in text for text in quiet.warnings)


def test_labels_asked_for_by_another_name_are_found(tmp_path: Path) -> None:
    rows = [
        {"sample_id": "a", "session_id": "s", "onset_time": 0.52, "components": [{"label": "bd"}]},
        {"sample_id": "b", "session_id": "s", "onset_time": 0.52, "components": [{"label": "sd"}]},
    ]
    events_path = write(tmp_path / "named.jsonl", rows)
    for given, wanted in (
        ({"include_labels": ("kick",)}, {"a"}),
        ({"exclude_labels": ("snare",)}, {"a"}),
        ({"include_labels": ("snare_drum",)}, {"b"}),
    ):
        made = tmp_path / "some.jsonl"
        report = boundary_pack.run(boundary_pack.Options(events=events_path, output=made, **given))
        found = read(made)
        assert {row["event_id"] for row in found} == wanted
        assert not any("no event has this label" in text for text in report.warnings)
    with pytest.raises(InputError, match="2 of 2 events are left out by label"):
        boundary_pack.run(
            boundary_pack.Options(
                events=events_path, output=tmp_path / "no.jsonl", include_labels=("crash",)
            )
        )
