"""Blessing: only a candidate that passes becomes the baseline, in one step or not at all."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from test_health_compare import report, totals

from training.checks import health_compare_bless
from training.checks.health_compare import Options, run
from training.errors import InputError

Blesser = Callable[..., Result]
FAILING = {
    "gating_results": [
        {"name": "g", "status": "pass", "passed": True},
        {"name": "h[kick]", "status": "fail", "passed": False},
        {"name": "h[snare]", "status": "not_measured", "passed": False},
    ]
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def bless(drumgate: Callable[..., Result], tmp_path: Path) -> Blesser:
    """Write both reports (None: there is no baseline) and bless the candidate."""

    def call(baseline: dict[str, Any] | None, candidate: dict[str, Any], *more: object) -> Result:
        for name, content in (("baseline", baseline), ("candidate", candidate)):
            if content is not None:
                (tmp_path / f"{name}.json").write_text(json.dumps(content))
        files = "--baseline", tmp_path / "baseline.json", "--candidate", tmp_path / "candidate.json"
        return drumgate(
            "compare-health-reports", *files, "--json-output", tmp_path / "diff.json",
            "--bless", *more,
        )  # fmt: skip

    return call


def test_a_candidate_that_passes_becomes_the_baseline(bless: Blesser, tmp_path: Path) -> None:
    candidate = report(provenance={"host": "h"}, metrics=totals(kick=200, aux_percussion=50))
    result = bless(report(), candidate, "--max-drop", 5, "--blessed-by", "Release <Manager>")
    assert result.exit_code == 0, result.stderr
    assert "blessed by Release <Manager>; the new baseline is" in result.stderr
    made = json.loads((tmp_path / "baseline.json").read_text())
    blessed = made["provenance"].pop("blessed")
    assert made == candidate
    assert blessed["by"] == "Release <Manager>"
    assert blessed["at"].endswith("+00:00")
    assert blessed["candidate"]["sha256"] == digest(tmp_path / "candidate.json")
    old = hashlib.sha256(json.dumps(report()).encode()).hexdigest()
    assert blessed["previous_baseline"]["sha256"] == old
    assert (blessed["status"], blessed["parameters"]["max_drop"]) == ("pass", 5)
    diff = json.loads((tmp_path / "diff.json").read_text())
    assert diff["metrics"]["blessing"]["previous_sha256"] == old
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "baseline.json",
        "candidate.json",
        "diff.json",
    ]


def test_what_was_blessed_can_be_compared_and_blessed_again(bless: Blesser, tmp_path: Path) -> None:
    bless(None, report(), "--first-baseline")
    first = digest(tmp_path / "baseline.json")
    candidate = json.loads((tmp_path / "baseline.json").read_text())
    assert bless(None, candidate).exit_code == 0
    blessed = json.loads((tmp_path / "baseline.json").read_text())["provenance"]["blessed"]
    assert blessed["previous_baseline"]["sha256"] == first
    assert "blessed" not in blessed["candidate"]


@pytest.mark.parametrize(
    ("candidate", "gate"),
    [
        (report(metrics=totals(kick=99, aux_percussion=50)), "max_drop[kick]"),
        (report(metrics={"unknown_labels": {"gong": 3}}), "max_unknown_label_rises"),
        (report(gating_results=[]), "max_newly_failing_gates"),
    ],
)
def test_what_does_not_pass_is_not_blessed(
    bless: Blesser, tmp_path: Path, candidate: dict[str, Any], gate: str
) -> None:
    result = bless(report(), candidate)
    assert result.exit_code == 1
    assert "not blessed, because the comparison blocks; the baseline stays" in result.stderr
    assert json.loads((tmp_path / "baseline.json").read_text()) == report()
    assert not json.loads((tmp_path / "diff.json").read_text())["provenance"].get("blessed")
    rows = json.loads((tmp_path / "diff.json").read_text())["gating_results"]
    assert [row["name"] for row in rows if not row["passed"]] == [f"health_compare.{gate}"]


def test_without_the_flag_nothing_is_promoted(
    drumgate: Callable[..., Result], tmp_path: Path
) -> None:
    for name in ("b", "c"):
        (tmp_path / name).write_text(json.dumps(report(version=name)))
    files = "--baseline", tmp_path / "b", "--candidate", tmp_path / "c"
    assert drumgate("compare-health-reports", *files).exit_code == 0
    assert json.loads((tmp_path / "b").read_text()) == report(version="b")


def test_a_candidate_that_fails_its_own_gates(bless: Blesser, tmp_path: Path) -> None:
    """Failing before and failing still is no regression, and yet nothing to make a baseline of."""
    result = bless(report(**FAILING), report(**FAILING))
    assert result.exit_code == 1
    assert "health_compare.max_failing_gates_blessed" in result.stdout
    assert "h[kick], h[snare]" in result.stdout
    assert bless(report(**FAILING), report(**FAILING), "--allow-failing", "h[kick]").exit_code == 1
    result = bless(report(**FAILING), report(**FAILING), "--allow-failing", "h")
    assert result.exit_code == 0
    blessed = json.loads((tmp_path / "baseline.json").read_text())["provenance"]["blessed"]
    assert blessed["parameters"]["allow_failing"] == ["h"]
    result = bless(report(**FAILING), report(**FAILING), "--allow-failing", "h[kik]")
    assert result.exit_code == 2
    assert "'h[kik]' has not failed in the candidate; did you mean 'h[kick]'?" in result.stderr


def test_the_first_baseline(bless: Blesser, tmp_path: Path) -> None:
    result = bless(None, report())
    assert result.exit_code == 2
    assert "to start with this candidate as the baseline, add --first-baseline" in result.stderr
    assert not (tmp_path / "baseline.json").exists()

    result = bless(None, report(), "--first-baseline")
    assert result.exit_code == 0, result.stderr
    assert "the first baseline is" in result.stderr
    assert "there is no baseline yet: nothing was compared" in result.stdout
    made = json.loads((tmp_path / "baseline.json").read_text())
    assert made["provenance"]["blessed"]["previous_baseline"] is None
    diff = json.loads((tmp_path / "diff.json").read_text())
    names = [row["name"] for row in diff["gating_results"]]
    assert names == ["health_compare.max_failing_gates_blessed"]

    result = bless(None, report(), "--first-baseline")
    assert result.exit_code == 2
    assert "is there already: leave --first-baseline away" in result.stderr


def test_a_first_baseline_must_pass_its_own_gates(bless: Blesser, tmp_path: Path) -> None:
    result = bless(None, report(**FAILING), "--first-baseline")
    assert result.exit_code == 1
    assert "there is no baseline yet" in result.stderr
    assert not (tmp_path / "baseline.json").exists()
    result = bless(None, report(gating_results=[]), "--first-baseline")
    assert result.exit_code == 0
    assert "the candidate judged no gate" in result.stdout


@pytest.mark.parametrize(
    "flag", [["--first-baseline"], ["--allow-failing", "g"], ["--blessed-by", "me"]]
)
def test_options_that_need_the_flag(
    drumgate: Callable[..., Result], tmp_path: Path, flag: list[str]
) -> None:
    for name in ("b", "c"):
        (tmp_path / name).write_text(json.dumps(report()))
    files = "--baseline", tmp_path / "b", "--candidate", tmp_path / "c"
    result = drumgate("compare-health-reports", *files, *flag)
    assert result.exit_code == 2
    assert f"{flag[0]}: means nothing without --bless" in result.stderr


def test_the_candidate_is_not_its_own_baseline(
    drumgate: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "b").write_text(json.dumps(report()))
    (tmp_path / "c").symlink_to("b")
    result = drumgate(
        "compare-health-reports", "--baseline", tmp_path / "b", "--candidate", tmp_path / "c",
        "--bless",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "is the candidate itself" in result.stderr


def test_a_report_that_cannot_be_written_blesses_nothing(bless: Blesser, tmp_path: Path) -> None:
    (tmp_path / "a_file").touch()
    result = bless(report(), report(version="new"), "--html-output", tmp_path / "a_file" / "x.html")
    assert result.exit_code == 2
    assert json.loads((tmp_path / "baseline.json").read_text()) == report()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("changed", ["baseline", "candidate"])
@pytest.mark.parametrize("late", [False, True])
def test_a_report_that_changed_meanwhile(tmp_path: Path, changed: str, late: bool) -> None:
    paths = {name: tmp_path / f"{name}.json" for name in ("baseline", "candidate")}
    for path in paths.values():
        path.write_text(json.dumps(report()))
    options = Options(baseline=paths["baseline"], candidate=paths["candidate"], bless=True)
    found = run(options)
    other = json.dumps(report(version="another"))
    if not late:
        paths[changed].write_text(other)
    why = rf"{changed}\.json: changed while it was compared"
    promotion = health_compare_bless.promoting(options, found)
    entered = []
    with pytest.raises(InputError, match=why), promotion:
        entered.append(paths[changed].write_text(other))
    assert bool(entered) == late  # what is known before must keep the reports from being written
    assert paths["baseline"].read_text() == (
        other if changed == "baseline" else json.dumps(report())
    )
    assert len(list(tmp_path.iterdir())) == 2


def test_a_baseline_that_appeared_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "c").write_text(json.dumps(report()))
    options = Options(
        baseline=tmp_path / "b", candidate=tmp_path / "c", bless=True, first_baseline=True
    )
    found = run(options)
    with (
        pytest.raises(InputError, match="was made in the meantime"),
        health_compare_bless.promoting(options, found),
    ):
        (tmp_path / "b").write_text("{}")
    assert (tmp_path / "b").read_text() == "{}"


def test_of_two_that_bless_at_once_the_second_is_refused(tmp_path: Path) -> None:
    for name in ("b", "c1", "c2"):
        (tmp_path / name).write_text(json.dumps(report(version=name)))
    asked = [
        Options(baseline=tmp_path / "b", candidate=tmp_path / name, bless=True)
        for name in ("c1", "c2")
    ]
    found = [run(options) for options in asked]

    def second() -> None:
        with health_compare_bless.promoting(asked[1], found[1]):
            pass

    with ThreadPoolExecutor(1) as pool:
        with health_compare_bless.promoting(asked[0], found[0]):
            waiting = pool.submit(second)
            with pytest.raises(TimeoutError):
                waiting.result(timeout=0.3)
        with pytest.raises(InputError, match="b: changed while it was compared"):
            waiting.result(timeout=30)
    assert json.loads((tmp_path / "b").read_text())["version"] == "c1"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "c1", "c2"]


KILLED = """
import os, pathlib, signal, sys
from training.cli import main
at, real = sys.argv.pop(1), pathlib.Path.replace
def replace(self, target):
    if pathlib.Path(target).name != "baseline.json":
        return real(self, target)
    if at == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, target)
    os.kill(os.getpid(), signal.SIGKILL)
pathlib.Path.replace = replace
main()
"""


@pytest.mark.parametrize("at", ["before", "after"])
def test_killed_at_the_last_step(tmp_path: Path, at: str) -> None:
    """Whatever the moment, the baseline is the old one or the whole new one."""
    old, new = json.dumps(report(version="old")), report(version="new")
    (tmp_path / "baseline.json").write_text(old)
    (tmp_path / "candidate.json").write_text(json.dumps(new))
    arguments = "compare-health-reports --baseline baseline.json --candidate candidate.json --bless"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, at, *arguments.split()],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    found = (tmp_path / "baseline.json").read_text()
    if at == "before":
        assert found == old
    else:
        assert json.loads(found)["provenance"]["blessed"]["status"] == "pass"
        assert json.loads(found)["version"] == "new"


def test_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr("getpass.getuser", nobody)
    (tmp_path / "c").write_text(json.dumps(report()))
    options = Options(
        baseline=tmp_path / "b", candidate=tmp_path / "c", bless=True, first_baseline=True
    )
    with health_compare_bless.promoting(options, run(options)):
        pass
    assert json.loads((tmp_path / "b").read_text())["provenance"]["blessed"]["by"] == "unknown"
