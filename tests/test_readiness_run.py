"""How a readiness run goes: side by side, one after the other, interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from conftest import ROOT
from readiness_cases import CASES, stores, table

from training.checks import readiness_run
from training.checks.readiness_checks import CHECKS
from training.checks.readiness_plan import Planned
from training.gates import Report, Status, Verdict

__all__ = ["stores"]  # a fixture


def verdict(name: str, status: Status = Status.FAIL, **more: Any) -> Verdict:
    return Verdict(name=name, status=status, observed=None, comparator=None, threshold=None, **more)


def whole(tmp_path: Path, stores: Path, kinds: dict[str, str]) -> Path:
    config = tmp_path / "readiness.toml"
    config.write_text("".join(table(CASES[name], kind, stores) for name, kind in kinds.items()))
    return config


def test_the_report_does_not_depend_on_how_many_run_at_a_time(
    drumgate: Callable[..., Result], tmp_path: Path, stores: Path
) -> None:
    kinds = {name: "bad" if number % 2 else "good" for number, name in enumerate(CASES)}
    config = whole(tmp_path, stores, dict(reversed(kinds.items())))
    seen = set()
    for number, jobs in enumerate((1, 2, 8, 8)):
        report = tmp_path / f"{number}.json"
        words = ("--root", "/", "--jobs", jobs, "--report", report)
        result = drumgate("run-readiness-checks", "--config", config, *words)
        assert result.exit_code == 1, result.output
        made = json.loads(report.read_text())
        del made["provenance"]
        assert list(made["metrics"]["checks"]) == list(reversed(kinds))
        seen.add(json.dumps(made))
    assert len(seen) == 1


def test_the_health_of_this_run_is_compared_with_the_baseline(
    drumgate: Callable[..., Result], tmp_path: Path, stores: Path
) -> None:
    config = tmp_path / "readiness.toml"
    base, out = tmp_path / "base.json", tmp_path / "out.json"
    health = table(CASES["health"], "good", stores)
    config.write_text(health)
    words = ["run-readiness-checks", "--config", config, "--root", "/", "--report", out]
    assert drumgate(*words, "--health-report", base).exit_code == 0
    compare = f"[health_compare.inputs]\nbaseline = {json.dumps(str(base).lstrip('/'))}\n"
    config.write_text(compare + health)  # which table comes first does not matter
    for jobs in (1, 4):
        assert drumgate(*words, "--jobs", jobs).exit_code == 0, jobs
        made = json.loads(out.read_text())
        assert list(made["metrics"]["checks"]) == ["health_compare", "health"]
        assert made["parameters"]["health_compare"]["candidate"] == "the health check of this run"
        assert {Path(file["path"]).name for file in made["inputs"]} == {
            "base.json",
            "events_health_example.jsonl",
            "readiness.toml",
        }
    config.write_text(compare + table(CASES["health"], "bad", stores))
    assert drumgate(*words).exit_code == 1
    rows = json.loads(out.read_text())["gating_results"]
    assert any(row["name"].startswith("health_compare.") and not row["passed"] for row in rows)
    # Without a report there is nothing to compare with.
    config.write_text(compare + "[health.inputs]\nevents = 'gone'\n")
    assert drumgate(*words).exit_code == 1
    rows = json.loads(out.read_text())["gating_results"]
    assert [row["status"] for row in rows] == ["not_measured", "not_measured"]
    assert "reads the report of health" in rows[0]["detail"]


def test_a_gate_that_was_asked_for_and_not_judged_blocks(
    drumgate: Callable[..., Result], tmp_path: Path, stores: Path
) -> None:
    gates = {
        "openset": "min_calibrated_tpr",  # needs a calibration file
        "bootstrap": "max_macro_f1_drop",  # needs a baseline
        "boundary": "max_recall_lost",  # needs predictions of the whole recordings
    }
    for name, gate in gates.items():
        config, report = tmp_path / "readiness.toml", tmp_path / "r.json"
        config.write_text(
            table(CASES[name], "good", stores) + f"[{name}.gates.{gate}]\nreason = 'wanted'\n"
        )
        words = ["run-readiness-checks", "--config", config, "--root", "/", "--report", report]
        assert drumgate(*words).exit_code == 1, name
        rows = {row["name"]: row for row in json.loads(report.read_text())["gating_results"]}
        assert rows[f"{name}.{gate}"]["status"] == "not_measured", name
        config.write_text(table(CASES[name], "good", stores))
        assert drumgate(*words).exit_code == 0
        assert drumgate(*words, "--set", f"{name}.{gate}=0.5").exit_code in (1, 2)


def test_bad_input_of_several_checks_is_named_at_once(
    drumgate: Callable[..., Result], tmp_path: Path
) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("{}\n")
    config, report = tmp_path / "readiness.toml", tmp_path / "r.json"
    config.write_text(
        "[manifest.inputs]\nevents = 'a.jsonl'\n"
        "[health.inputs]\nevents = 'a.jsonl'\n"
        "[openset.inputs]\nground_truth = 'b.jsonl'\npredictions = 'b.jsonl'\n"
    )
    result = drumgate("run-readiness-checks", "--config", config, "--report", report)
    assert (result.exit_code, report.exists()) == (2, False)
    assert result.stderr.count("a.jsonl:1: sample_id: is required") == 1
    assert "b.jsonl:1: sample_id: is required" in result.stderr
    config.write_text(config.read_text() + "[openset.options]\nmethod = 'x'\n")
    result = drumgate("run-readiness-checks", "--config", config, "--report", report)
    assert (result.exit_code, report.exists()) == (2, False)
    assert "openset: --method x: is not a score" in result.stderr


@pytest.mark.parametrize("kind", [ZeroDivisionError, MemoryError, RecursionError, SystemExit])
@pytest.mark.parametrize("jobs", [1, 4])
def test_a_crash_stays_with_its_check(
    monkeypatch: pytest.MonkeyPatch, kind: type[BaseException], jobs: int
) -> None:
    def run(self: Any, given: Any) -> Report:
        if self.name == "openset":
            raise kind("oops")
        return Report(tool="t", inputs=(), parameters={}, metrics={}, verdicts=[good])

    good = verdict("x.y", Status.PASS)
    monkeypatch.setattr(type(CHECKS["openset"]), "run", run)
    plan = [
        Planned(check=CHECKS[name], given={}, gates=None)
        for name in ("boundary", "openset", "bootstrap")
    ]
    found = readiness_run.run_all(plan, jobs=jobs)
    assert [each.status for each in found] == [Status.PASS, Status.ERROR, Status.PASS]
    assert "Traceback" in found[1].trace
    assert found[1].blocks


def test_checks_run_side_by_side_and_no_more_than_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together = threading.Barrier(2, timeout=20)
    running, most = 0, 0
    lock = threading.Lock()

    def run(self: Any, given: Any) -> Report:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()  # breaks where only one runs at a time
        time.sleep(0.1)
        with lock:
            running -= 1
        return Report(tool="t", inputs=(), parameters={}, metrics={})

    monkeypatch.setattr(type(CHECKS["openset"]), "run", run)
    plan = [
        Planned(check=CHECKS[name], given={}, gates=None)
        for name in ("boundary", "openset", "bootstrap", "calibration")
    ]
    found = readiness_run.run_all(plan, jobs=2)
    assert [each.check for each in found] == ["boundary", "openset", "bootstrap", "calibration"]
    assert all("no gate was asked for" in each.detail for each in found)
    assert most == 2


@pytest.mark.parametrize(
    "excuse",
    [{"allowed": True}, {"required": False, "reason": "new"}],
    ids=["allowed to be missing", "not required"],
)
def test_only_a_missing_input_is_excused(
    monkeypatch: pytest.MonkeyPatch, excuse: dict[str, Any]
) -> None:
    empty = Report(tool="t", inputs=(), parameters={}, metrics={})
    monkeypatch.setattr(type(CHECKS["openset"]), "run", lambda self, given: empty)
    openset = Planned(check=CHECKS["openset"], given={}, gates=None, **excuse)
    (found,) = readiness_run.run_all([openset])
    assert found.blocks  # it has its input, and judged nothing
    (found,) = readiness_run.run_all([replace(openset, missing="no input")])
    assert not found.blocks
    boundary = Planned(check=CHECKS["boundary"], given={}, gates=None, missing="no input")
    found = readiness_run.run_all([boundary, openset], halt=True)[1]
    assert found.blocks  # it was not run
    assert "boundary blocks" in found.detail


def test_a_check_that_only_warns_may_not_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [verdict("a.b", status) for status in Status]
    report = Report(tool="t", inputs=(), parameters={}, metrics={}, verdicts=rows)
    monkeypatch.setattr(type(CHECKS["openset"]), "run", lambda self, given: report)
    plan = Planned(check=CHECKS["openset"], given={}, gates=None, severity="warn", reason="new")
    (found,) = readiness_run.run_all([plan])
    assert [row.status for row in found.verdicts] == [
        *(Status.PASS, Status.WARN, Status.WARN, Status.WARN, Status.ERROR)
    ]


def test_an_interrupt_reaches_the_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    started, ended = threading.Event(), []

    def run(self: Any, given: Any) -> Report:
        if self.name == "boundary":
            started.wait(20)
            raise KeyboardInterrupt  # as if it had reached the main thread
        started.set()
        try:
            while True:
                time.sleep(0.01)
        finally:
            ended.append(self.name)  # what is open is closed

    monkeypatch.setattr(type(CHECKS["openset"]), "run", run)
    plan = [Planned(check=CHECKS[name], given={}, gates=None) for name in ("openset", "boundary")]
    with pytest.raises(KeyboardInterrupt):
        readiness_run.run_all(plan, jobs=2)
    assert ended == ["openset"]


@pytest.mark.parametrize("jobs", [1, 4])
def test_ctrl_c_ends_the_command(tmp_path: Path, jobs: int) -> None:
    code = (
        # A job in the background is started with Ctrl-C ignored, and so would this child be.
        "import os, signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from training.checks import boundary, openset\n"
        # In one piece: two threads write at the same time.
        "def forever(options):\n    os.write(1, b'started\\n')\n"
        "    while True: time.sleep(0.01)\n"
        "boundary.run = openset.run = forever\n"
        "from training.run_readiness_checks import main\nmain()\n"
    )
    words = ["--checks", "boundary,openset", "--jobs", str(jobs), "--report", "r.json"]
    for check in ("boundary", "openset"):
        for name, path in CASES[check].good.items():
            words += [f"--{check}-{name.replace('_', '-')}", str(path)]
    with subprocess.Popen(
        [sys.executable, "-c", code, *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "started\n"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, "interrupted" in said) == (130, True), said
    assert not (tmp_path / "r.json").exists()


def test_a_dry_run_says_what_would_become_of_each_check(
    drumgate: Callable[..., Result], tmp_path: Path, stores: Path
) -> None:
    config = whole(tmp_path, stores, {"health": "good", "bootstrap": "good"})
    with config.open("a") as file:
        file.write("[boundary.inputs]\nground_truth = 'gone'\npredictions = 'gone'\n")
        file.write("[calibration]\nrequired = false\nreason = 'new'\n")
        file.write("[manifest]\nseverity = 'warn'\nreason = 'new'\n[openset]\n[alignment]\n")
    words = ["run-readiness-checks", "--config", config, "--root", "/", "--dry-run"]
    words += ["--bootstrap-predictions", tmp_path / "slip.jsonl", "--allow-missing", "openset"]
    made = json.loads(drumgate(*words, "--format", "json").stdout)
    assert {each["name"]: each["would"] for each in made["checks"]} == {
        "health": "run",
        "bootstrap": "refuse",
        "boundary": "block",
        "calibration": "warn",
        "manifest": "warn",
        "openset": "warn",
        "alignment": "block",
    }
    said = drumgate(*words)
    assert said.exit_code == 0
    assert "slip.jsonl" in said.stdout
    assert list(tmp_path.iterdir()) == [config]
