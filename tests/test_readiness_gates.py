"""Every gate of a readiness run, through the real command: passing, failing, missing, crashing,
waived in every way; each with its exit code and its row."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from readiness_cases import CASES, Case, stores, table

from training.checks.readiness_checks import CHECKS

__all__ = ["stores"]  # a fixture

Run = Callable[..., tuple[int, dict[str, Any]]]
every_check = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


@pytest.fixture
def run(drumgate: Callable[..., Result], tmp_path: Path, stores: Path) -> Run:
    """Run the command on a configuration; give its exit code and its report."""

    def call(
        case: Case, kind: str, *flags: object, waivers: str = "", **keys: Any
    ) -> tuple[int, dict[str, Any]]:
        config, report = tmp_path / "readiness.toml", tmp_path / "report.json"
        config.write_text(table(case, kind, stores, **keys))
        more: list[object] = [*flags]
        if waivers:
            (tmp_path / "waivers.toml").write_text(waivers)
            more += ["--waivers", tmp_path / "waivers.toml"]
        result = drumgate(
            *("run-readiness-checks", "--config", config, "--root", "/", "--report", report),
            *more,
        )
        assert "Traceback" not in result.output
        assert report.exists(), result.output
        return result.exit_code, json.loads(report.read_text())

    return call


def waiver(gate: str, expires: str = "2999-12-31") -> str:
    return (
        f"[[waiver]]\ngate = {json.dumps(gate)}\n"
        f'reason = "known, and being mended"\nwho = "J. Doe"\nexpires = {expires}\n'
    )


def row(report: dict[str, Any], name: str) -> dict[str, Any]:
    found = [each for each in report["gating_results"] if each["name"] == name]
    assert len(found) == 1, [each["name"] for each in report["gating_results"]]
    return found[0]


def failing(report: dict[str, Any]) -> list[str]:
    return [each["name"] for each in report["gating_results"] if each["status"] == "fail"]


def waivers_of_all(report: dict[str, Any], expires: str = "2999-12-31") -> str:
    return "".join(waiver(name, expires) for name in failing(report))


def test_there_is_a_case_of_every_check() -> None:
    assert list(CASES) == list(CHECKS)


@every_check
def test_it_passes(run: Run, case: Case) -> None:
    code, report = run(case, "good")
    assert code == 0, report["gating_results"]
    assert report["status"] in ("pass", "warn")
    assert all(each["passed"] for each in report["gating_results"])
    assert all(len(each["sha256"]) == 64 for each in report["inputs"])
    assert len(report["inputs"]) >= 2  # what it judged, and the configuration
    assert report["metrics"]["checks"][case.check]["blocking"] == 0


@every_check
def test_it_fails(run: Run, case: Case) -> None:
    code, report = run(case, "bad")
    found = row(report, case.gate)
    assert (code, report["status"]) == (1, "fail")
    assert (found["status"], found["passed"]) == ("fail", False)
    assert "waiver" not in found
    assert found["fix"]


@every_check
def test_its_input_is_missing(run: Run, case: Case, stores: Path) -> None:
    gone = Case(**{**vars(case), "good": dict.fromkeys(case.good, stores / "gone.jsonl")})
    code, report = run(gone, "good")
    found = row(report, case.check)
    assert (code, report["status"]) == (1, "not_measured")
    assert (found["status"], found["passed"], found["required"]) == ("not_measured", False, True)
    assert "gone.jsonl" in found["detail"]


@every_check
def test_its_input_is_not_named(run: Run, case: Case) -> None:
    code, report = run(Case(**{**vars(case), "good": {}}), "good")
    found = row(report, case.check)
    assert (code, found["status"]) == (1, "not_measured")
    assert f"--{case.check.replace('_', '-')}-" in found["detail"]


@every_check
def test_its_input_is_allowed_to_be_missing(run: Run, case: Case) -> None:
    nothing = Case(**{**vars(case), "good": {}})
    code, report = run(nothing, "good", "--allow-missing", case.check)
    found = row(report, case.check)
    assert (code, report["status"]) == (0, "warn")
    assert (found["status"], found["passed"], found["required"]) == ("not_measured", True, False)
    assert "--allow-missing" in found["detail"]
    assert report["parameters"]["allow_missing"] == [case.check]


@every_check
def test_allowing_it_to_be_missing_excuses_no_failure(run: Run, case: Case) -> None:
    code, report = run(case, "bad", "--allow-missing", case.check)
    assert (code, row(report, case.gate)["passed"]) == (1, False)


@every_check
def test_it_is_not_required(run: Run, case: Case) -> None:
    nothing = Case(**{**vars(case), "good": {}})
    code, report = run(nothing, "good", required=False, reason="not made yet")
    found = row(report, case.check)
    assert (code, report["status"], found["status"]) == (0, "warn", "not_measured")
    assert "not made yet" in found["detail"]
    code, _ = run(case, "bad", required=False, reason="not made yet")
    assert code == 1  # what is there is judged


@every_check
def test_it_crashes(run: Run, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(importlib.import_module(case.module), "run", crash)
    for flags in ((), ("--allow-missing", case.check)):
        code, report = run(case, "good", *flags, waivers=waiver(case.check))
        found = row(report, case.check)
        assert (code, report["status"], found["status"]) == (1, "error", "error")
        assert "ZeroDivisionError: oops" in found["detail"]
        assert "waiver" not in found
        assert row(report, f"waivers.refused[{case.check}]")["status"] == "fail"
    code, report = run(case, "good", severity="warn", reason="a crash is no advice")
    assert (code, report["status"]) == (1, "error")


@every_check
def test_it_only_warns(run: Run, case: Case) -> None:
    code, report = run(case, "bad", severity="warn", reason="nothing depends on it yet")
    found = row(report, case.gate)
    assert (code, report["status"], found["status"]) == (0, "warn", "warn")
    assert (found["required"], found["passed"]) == (False, True)
    assert "nothing depends on it yet" in found["detail"]


@every_check
def test_it_is_waived(run: Run, case: Case) -> None:
    _, before = run(case, "bad")
    code, report = run(case, "bad", waivers=waivers_of_all(before))
    found = row(report, case.gate)
    assert (code, report["status"]) == (0, "warn")
    assert (found["status"], found["passed"]) == ("fail", True)
    assert found["waiver"] == {
        "gate": case.gate,
        "reason": "known, and being mended",
        "who": "J. Doe",
        "expires": "2999-12-31",
    }
    assert {each["fate"] for each in report["metrics"]["waivers"]} == {"used"}
    assert [each["name"] for each in report["gating_results"]] == [
        each["name"] for each in before["gating_results"]
    ]


@every_check
def test_a_missing_input_is_waived(run: Run, case: Case) -> None:
    nothing = Case(**{**vars(case), "good": {}})
    code, report = run(nothing, "good", waivers=waiver(case.check))
    found = row(report, case.check)
    assert (code, report["status"], found["status"]) == (0, "warn", "not_measured")
    assert found["waiver"]["who"] == "J. Doe"


@every_check
def test_its_waiver_has_expired(run: Run, case: Case) -> None:
    _, before = run(case, "bad")
    code, report = run(case, "bad", waivers=waivers_of_all(before, "2020-01-31"))
    found, own = row(report, case.gate), row(report, f"waivers.expired[{case.gate}]")
    assert (code, report["status"]) == (1, "fail")
    assert (found["passed"], own["passed"]) == (False, False)
    assert "2020-01-31" in own["detail"]
    code, _ = run(
        case, "bad", "--today", "2020-01-31", waivers=waivers_of_all(before, "2020-01-31")
    )
    assert code == 0  # the last day counts


@every_check
def test_its_gate_passes_and_the_waiver_is_to_go(run: Run, case: Case) -> None:
    _, good = run(case, "good")
    passing = next(each for each in good["gating_results"] if each["status"] == "pass")["name"]
    code, report = run(case, "good", waivers=waiver(passing))
    own = row(report, f"waivers.unneeded[{passing}]")
    assert (code, report["status"], own["status"]) == (1, "fail", "fail")
    assert own["fix"].startswith("Delete the waiver")


@every_check
def test_a_waiver_of_a_gate_that_there_is_not(run: Run, case: Case) -> None:
    typo = case.gate[:-1] + ("x" if case.gate[-1] != "]" else "x]")
    code, report = run(case, "bad", waivers=waiver(typo))
    own = row(report, f"waivers.unknown[{typo}]")
    assert code == 1
    assert f"did you mean {case.gate!r}" in own["detail"]


@every_check
@pytest.mark.parametrize("form", ["text", "json"])
def test_it_is_shown_without_being_run(
    drumgate: Callable[..., Result], tmp_path: Path, stores: Path, case: Case, form: str
) -> None:
    config = tmp_path / "readiness.toml"
    config.write_text(table(case, "good", stores))
    words = ("--config", config, "--root", "/", "--report", tmp_path / "r.json", "--format", form)
    for flag in ("--list", "--dry-run"):
        result = drumgate("run-readiness-checks", flag, *words)
        assert result.exit_code == 0, result.output
        assert case.gate.partition("[")[0] in result.stdout
        assert form == "text" or json.loads(result.stdout)["checks"]
    assert not (tmp_path / "r.json").exists()
