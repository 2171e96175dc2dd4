"""Broken manifests through every tool that reads them: exact messages, nothing written."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hostile import FAULTS, bad_lines, broken_manifests, is_event
from hypothesis import HealthCheck, given, settings

from training.cli import main

TOOLS = {
    "dataset-health": "--events {manifest} --output {out}/report.json",
    "compare-manifests": "{manifest} {good} --json-output {out}/diff.json",
    "compare-manifests, second": "{good} {manifest} --json-output {out}/diff.json",
    "merge-manifests": "--input {good} --input {manifest} --output {out}/merged.jsonl",
    "derive-sampling-weights": "{manifest} --output {out}/weights.json",
    "annotate-techniques": "--input {manifest} --output {out}/annotated.jsonl",
    "annotate-techniques, in place": "--input {manifest} --in-place",
    "normalize-openness": "--events {manifest} --output {out}/normalized.jsonl",
    "summarize-manifest": "{manifest}",
    "validate-manifest": "{manifest}",
    "generate-boundary-pack": "--events {manifest} --output {out}/pack.jsonl",
    "build-training-dataset": "{manifest} {out}/store",
}
GOOD: dict[str, Any] = {
    "sample_id": "other",
    "session_id": "s",
    "onset_time": 0.5,
    "components": [{"label": "kick", "velocity": 0.5}],
    "audio_path": "a.wav",
}


def call(tool: str, manifest: Path) -> Result:
    good, out = manifest.parent / "good.jsonl", manifest.parent / "out"
    good.write_text(json.dumps(GOOD) + "\n")
    out.mkdir(exist_ok=True)
    words = shlex.split(TOOLS[tool].format(manifest=manifest, good=good, out=out))
    name = tool.partition(",")[0]
    return CliRunner().invoke(main, [name, *words], prog_name="drumgate")


def check_refused(tool: str, manifest: Path, bad: list[int]) -> None:
    """The tool names the first bad line, counts them all, and has touched nothing."""
    before = manifest.read_bytes()
    result = call(tool, manifest)
    said = f"{result.stdout}\n{result.stderr}"
    assert result.exit_code == 2, said
    assert "Traceback" not in said
    named = [int(number) for number in re.findall(rf"^{manifest}:(\d+): ", result.stderr, re.M)]
    assert len(named) >= min(len(bad), 20)
    assert named == bad[: len(named)]
    if len(bad) > len(named):
        assert f"… and {len(bad) - len(named)} more" in said
    assert list((manifest.parent / "out").rglob("*")) == []
    assert manifest.read_bytes() == before


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one(fault: str) -> None:
    assert is_event(json.dumps(GOOD).encode())
    assert not is_event(FAULTS[fault](json.dumps(GOOD).encode()))


@pytest.mark.parametrize("tool", TOOLS)
def test_all_faults_are_named_by_every_tool(tool: str, tmp_path: Path) -> None:
    manifest = tmp_path / "events.jsonl"
    lines = []
    for number, fault in enumerate(FAULTS.values()):
        line = json.dumps({**GOOD, "sample_id": f"id{number}"}).encode()
        lines += [line, fault(line)]
    manifest.write_bytes(b"\n".join(lines) + b"\n")
    check_refused(tool, manifest, bad_lines(manifest.read_bytes()))


@pytest.mark.parametrize("tool", TOOLS)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=broken_manifests())
def test_broken_manifests_are_refused_exactly(
    tool: str, tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    manifest = tmp_path_factory.mktemp("hostile") / "events.jsonl"
    manifest.write_bytes(content)
    bad = bad_lines(content)
    if bad:
        check_refused(tool, manifest, bad)
    else:
        assert call(tool, manifest).exit_code in (0, 1, 2)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty", b"", "is empty"),
        ("blank", b"\n  \n", "holds no record"),
        ("cut archive", gzip.compress(json.dumps(GOOD).encode() * 9)[:-9], "damaged or cut short"),
        ("a long line", b'{"x": "' + b"y" * (17 * 2**20) + b'"}\n', "is longer than 16 MiB"),
        ("binary", bytes(range(256)), ":1: "),
        ("a Parquet file cut short", b"PAR1" + bytes(100), "Parquet"),
    ],
)
def test_files_that_are_no_manifest(
    tool: str, name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    manifest = tmp_path / "events.jsonl"
    manifest.write_bytes(content)
    result = call(tool, manifest)
    output = f"{result.stdout}\n{result.stderr}"
    assert result.exit_code == 2, output
    in_place = tool.endswith("in place")  # which no packed file is, whatever else is wrong with it
    assert said in output or (in_place and "is packed" in output)
    assert "Traceback" not in output
    assert list((tmp_path / "out").rglob("*")) == []


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("place", ["missing.jsonl", "."])
def test_files_that_are_not_there(tool: str, place: str, tmp_path: Path) -> None:
    result = call(tool, tmp_path / place if place != "." else _folder(tmp_path))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "events.jsonl"
    folder.mkdir()
    return folder


def test_the_tools_here_are_those_that_read_manifests(drumgate: Callable[..., Result]) -> None:
    said = drumgate("--help").stdout
    assert all(tool.partition(",")[0] in said for tool in TOOLS)
