"""Where the first thing stands that a gate complains of."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from training.checks.places import first_line, identified, labelled, placed, played
from training.gates import Place, Status, Verdict
from training.render import RENDERERS

LINES = [
    {"sample_id": "a", "components": [{"label": "kick"}], "drummer_id": "vibraslap"},
    {"sample_id": "b", "components": [], "techniques": ["flam"]},
    {"sample_id": "c", "components": [{"label": "kick"}, {"label": "vibraslap"}]},
    {"sample_id": "d", "components": [{"label": "vibraslap"}], "techniques": ["flåm"]},
]


def event(number: int, label: str = "kick", **more: Any) -> dict[str, Any]:
    made = {"sample_id": f"e{number}", "session_id": "s", "onset_time": number / 2}
    return {**made, "components": [{"label": label, "velocity": 0.5}], **more}


def written(path: Path, rows: list[dict[str, Any]], **form: Any) -> Path:
    path.write_text("".join(json.dumps(row, **form) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("plain", [True, False])
def test_the_first_line_that_holds_it(tmp_path: Path, plain: bool) -> None:
    first = written(tmp_path / "0.jsonl", LINES[:1])
    path = written(tmp_path / "1.jsonl", LINES, ensure_ascii=plain)
    found = first_line([first, path], ["vibraslap"], labelled(["vibraslap"]))
    assert found == Place(path=str(path), line=3)
    assert first_line([path], ["flåm"], played(["flåm"])) == Place(path=str(path), line=4)
    assert first_line([path], ["b"], identified("b")) == Place(path=str(path), line=2)
    assert first_line([path], ["z"], identified("z")) is None
    assert first_line([path], [], lambda event: True) is None


def test_lines_are_counted_as_an_editor_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl.gz"
    text = '\n{"sample_id": 3}\n[1, "x"]\n"x\n\n{"sample_id": "x", "components": "x"}\n'
    path.write_bytes(gzip.compress(text.encode()))
    assert first_line([path], ["x"], identified("x")) == Place(path=str(path), line=6)
    assert first_line([path], ["x"], labelled(["x"])) is None


def test_what_has_no_lines_has_no_place(tmp_path: Path) -> None:
    parquet = tmp_path / "e.parquet"
    parquet.write_bytes(b"PAR1...")
    nothing = [parquet, Path("-"), tmp_path / "gone.jsonl"]
    assert first_line(nothing, ["x"], lambda event: True) is None


def test_only_what_did_not_pass_is_looked_for() -> None:
    verdicts = [
        Verdict(name=name, status=status, observed=1, comparator="<=", threshold=0)
        for name, status in (("a", Status.PASS), ("b", Status.FAIL), ("c", Status.FAIL))
    ]
    place = Place(path="e.jsonl", line=7)
    found = placed(verdicts, {"a": lambda: 1 / 0, "b": lambda: place})  # type: ignore[dict-item]
    assert [each.place for each in found] == [None, place, None]


@given(st.lists(st.sampled_from(["kick", "snare", "x"]), min_size=1, max_size=20))
def test_it_is_the_line_that_a_reader_would_find(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str]
) -> None:
    path = tmp_path_factory.mktemp("e") / "e.jsonl"
    written(path, [event(n, label) for n, label in enumerate(labels)])
    found = first_line([path], ["x"], labelled(["x"]))
    assert (found and found.line) == (labels.index("x") + 1 if "x" in labels else None)


def test_annotations_name_the_line(
    drumgate: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    rows = [event(n, techniques=["flaam"] if n == 4 else []) for n in range(8)]
    path = written(tmp_path / "e.jsonl", [*rows, event(8, "vibraslap")])
    flags = "--max-unknown-labels 0 --github"
    result = drumgate(f"dataset-health --events e.jsonl {flags} --output h.json")
    assert result.exit_code == 1
    assert "::error file=e.jsonl,line=9,title=health.max_unknown_labels::" in result.stdout
    assert "the first one: e.jsonl:9" in result.stdout
    row = json.loads((tmp_path / "h.json").read_text())["gating_results"][0]
    assert row["place"] == {"path": "e.jsonl", "line": 9}
    report = json.loads((tmp_path / "h.json").read_text())
    assert "e.jsonl:9" in RENDERERS["html"](report)
    assert "The first one: `e.jsonl:9`" in RENDERERS["markdown"](report)
    # the readiness run says the same, and so does its own validation of the manifest
    several = "--checks manifest,health --health-max-unknown-labels 0"
    both = f"run-readiness-checks {several} --health-events e.jsonl --manifest-events e.jsonl"
    said = drumgate(f"{both} --github").stdout
    assert "::error file=e.jsonl,line=9,title=health.max_unknown_labels::" in said
    assert "::warning file=e.jsonl,line=5,title=manifest.max_warnings::" in said
    # a change is shown where it is in the candidate; what was removed is there no more
    moved = [{**row, "onset_time": 9.5} if n == 2 else row for n, row in enumerate(rows)]
    written(tmp_path / "new.jsonl", moved)
    found = drumgate(
        f"compare-manifests {path.name} new.jsonl --fail-on moved --fail-on removed --github"
    ).stdout
    assert "::error file=new.jsonl,line=3,title=manifest_diff.moved::" in found
    assert "::error file=e.jsonl,line=9,title=manifest_diff.removed::" in found


def test_a_waiver_that_blocks_is_shown_at_its_line(
    drumgate: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    written(tmp_path / "e.jsonl", [event(n) for n in range(3)])
    rest = 'reason = "r"\nwho = "w"\nexpires = 2026-01-01\n'
    tables = [f'# why\n[[waiver]]\ngate = "{gate}"\n{rest}' for gate in ("health", "openset")]
    (tmp_path / "w.toml").write_text("\n".join(tables))
    command = "run-readiness-checks --checks health --health-events e.jsonl"
    result = drumgate(f"{command} --health-min-class-count 0 --waivers w.toml --github")
    assert result.exit_code == 1
    assert "::error file=w.toml,line=2,title=waivers.expired[health]::" in result.stdout
    assert "::error file=w.toml,line=9,title=waivers.expired[openset]::" in result.stdout
    inline = '[{gate = "health", reason = "r", who = "w", expires = 2026-01-01}]'
    (tmp_path / "w.toml").write_text(f"waiver = {inline}")
    result = drumgate(f"{command} --health-min-class-count 0 --waivers w.toml --github")
    assert "waivers.expired[health]::" in result.stdout
    assert "line=" not in result.stdout
