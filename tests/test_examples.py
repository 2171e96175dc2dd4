"""Every folder below examples/ that holds a case.toml is run through the real command line."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import ROOT

from training.cli import MODULES

EXAMPLES = ROOT / "examples"
CASES = sorted(path.parent for path in EXAMPLES.glob("*/*/*/case.toml"))
KEYS = {"about", "command", "exit_code", "stderr", "stdout", "writes", "slow"}
EXPECTED_CODES = {"pass": {0}, "fail": {1}, "bad_input": {2}}


def _parameters() -> list[object]:
    """The cases, those that take long marked as such."""
    made = []
    for case in CASES:
        slow = tomllib.loads((case / "case.toml").read_text()).get("slow", False)
        marks = [pytest.mark.slow] if slow else []
        made.append(pytest.param(case, id=str(case.relative_to(EXAMPLES)), marks=marks))
    return made


@pytest.mark.parametrize("case", _parameters())
def test_example(
    case: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    drumgate: Callable[..., Result],
) -> None:
    expected = tomllib.loads((case / "case.toml").read_text())
    assert set(expected) <= KEYS, "unknown key in case.toml"
    assert expected["exit_code"] in EXPECTED_CODES[case.parent.name]
    before = {path: path.stat().st_mtime_ns for path in case.rglob("*")}
    monkeypatch.chdir(case)

    result = drumgate(expected["command"].replace("{out}", str(tmp_path)))

    said = f"{result.stdout}\n{result.stderr}"
    assert result.exit_code == expected["exit_code"], said
    assert "Traceback" not in said
    for text in expected.get("stdout", []):
        assert text in result.stdout, said
    for text in expected.get("stderr", []):
        assert text in result.stderr, said
    for name in expected.get("writes", []):
        assert (tmp_path / name).exists(), f"{name} was not written"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    if expected["exit_code"] == 2:
        assert not written, "bad input must leave nothing behind"
    after = {path: path.stat().st_mtime_ns for path in case.rglob("*")}
    assert after == before, "a tool may not write beside its inputs"


@pytest.mark.parametrize("tool", sorted(MODULES))
def test_every_tool_is_shown_refusing_bad_input(tool: str) -> None:
    kinds = {
        case.parent.name for case in CASES if case.parent.parent.name == tool.replace("-", "_")
    }
    assert "bad_input" in kinds
