"""The readiness wrapper: every way in which a check can go, and what the wrapper makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import ROOT

from training.checks import openset, readiness
from training.gates import Status

OPENSET = ROOT / "examples" / "openset_eval"


def given(kind: str) -> dict[str, Any]:
    folder = OPENSET / kind
    return {
        "openset": {
            "ground_truth": folder / "labels.jsonl",
            "predictions": folder / "predictions.jsonl",
        }
    }


def ran(kind: str, *checks: str, **more: Any) -> tuple[Any, Any]:
    options = readiness.Options(checks=checks or ("openset",), given=given(kind), **more)
    return readiness.run(options)


def test_the_verdicts_of_a_check_are_passed_on() -> None:
    report, _ = ran("pass/separated")
    assert (report.status, len(report.verdicts)) == (Status.PASS, 2)
    report, _ = ran("fail/overlapping")
    assert report.status is Status.FAIL
    assert report.blocks


def test_inputs_carry_their_hash() -> None:
    report, _ = ran("pass/separated")
    assert {Path(file.path).name for file in report.inputs} == {"labels.jsonl", "predictions.jsonl"}
    assert all(len(file.sha256) == 64 for file in report.inputs)


@pytest.mark.parametrize("check", readiness.CHECKS)
def test_a_selected_check_without_input_blocks(check: str) -> None:
    report, _ = readiness.run(readiness.Options(checks=(check,)))
    assert [verdict.status for verdict in report.verdicts] == [Status.NOT_MEASURED]
    assert report.verdicts[0].detail.startswith(f"no input: give --{check.replace('_', '-')}-")
    assert report.blocks


def test_a_check_that_judges_nothing_blocks(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    events.write_text('{"sample_id":"a","session_id":"s","onset_time":0,"components":[]}\n')
    options = readiness.Options(checks=("health",), given={"health": {"events": events}})
    report, _ = readiness.run(options)
    assert report.verdicts[0].status is Status.NOT_MEASURED
    assert "no gate was asked for" in report.verdicts[0].detail


def test_a_crash_is_one_row_and_the_others_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(options: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(openset, "run", crash)
    report, outcomes = ran("pass/separated", "openset", "boundary")
    assert [verdict.status for verdict in report.verdicts] == [Status.ERROR, Status.NOT_MEASURED]
    assert "ZeroDivisionError: oops" in report.verdicts[0].detail
    assert "Traceback" in outcomes[0].trace


def test_halting_names_what_was_not_run() -> None:
    report, _ = ran("fail/overlapping", "openset", "boundary", halt_on_first_failure=True)
    last = report.verdicts[-1]
    assert (last.name, last.status) == ("boundary", Status.NOT_MEASURED)
    assert "openset blocks" in last.detail


def test_through_the_command_line(drumgate: Callable[..., Result], tmp_path: Path) -> None:
    flags = ["--checks", "openset", "--report", tmp_path / "r.json"]
    flags += ["--html-output", tmp_path / "index.html", "--openset-report", tmp_path / "o.json"]

    def call(kind: str) -> Result:
        files = given(kind)["openset"]
        return drumgate(
            "run-readiness-checks",
            *flags,
            "--openset-ground-truth",
            files["ground_truth"],
            "--openset-predictions",
            files["predictions"],
        )

    assert call("pass/separated").exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "index.html",
        "o.json",
        "openset.html",
        "r.json",
    ]
    assert json.loads((tmp_path / "r.json").read_text())["status"] == "pass"
    assert call("fail/overlapping").exit_code == 1
    assert json.loads((tmp_path / "r.json").read_text())["status"] == "fail"


def test_malformed_input_judges_nothing(drumgate: Callable[..., Result], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text("{}\n")
    report = tmp_path / "r.json"
    result = drumgate(
        *("run-readiness-checks", "--checks", "openset", "--report", report),
        *("--openset-ground-truth", bad, "--openset-predictions", bad),
    )
    assert (result.exit_code, report.exists()) == (2, False)
    assert "bad.jsonl:1: sample_id: is required" in result.stderr


@pytest.mark.parametrize("checks", ["", ",", "openset,"])
def test_an_empty_list_of_checks_does_not_pass(
    drumgate: Callable[..., Result], checks: str
) -> None:
    result = drumgate("run-readiness-checks", "--checks", checks)
    assert result.exit_code == 2
    assert "empty name" in result.stderr


def test_an_unknown_check_is_bad_usage(drumgate: Callable[..., Result]) -> None:
    result = drumgate("run-readiness-checks --checks opensett")
    assert result.exit_code == 2
    assert "opensett" in result.stderr
