"""What a comparison of health reports refuses to read, and how it says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from test_health_compare import report

from training.checks.health_compare import Options, run
from training.checks.health_compare_input import read_health_report
from training.errors import InputError
from training.manifest import read_json


def histogram(**changes: Any) -> str:
    bins = {"edges": [0.0, 0.5, 1.0], "counts": [3, 4]}
    return json.dumps(report(metrics={"openness_histogram": bins | changes}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "is not valid JSON"),
        ('{"tool": "align-qc"}', r'tool: .*\(got "align-qc"\)'),
        ('{"tool": "dataset-health"}', "metrics: is required"),
        (json.dumps(report(metrics={"events_total": "100"})), "metrics.events_total: must be"),
        (json.dumps(report(metrics={"events_total": -1})), "metrics.events_total: must be"),
        (json.dumps(report(metrics={"events_total": 10**30})), "metrics.events_total: must be"),
        (json.dumps(report(schema_version=2)), r"schema_version: must be 1.*\(got 2\)"),
        (json.dumps(report(schema_version="1")), r"schema_version: must be 1.*\(got \"1\"\)"),
        (json.dumps(report(schema_version=True)), r"schema_version: must be 1"),
        (json.dumps(report(gating_results=2 * report()["gating_results"])), "stands twice"),
        (json.dumps(report(provenance=[])), "provenance: must be"),
        (histogram(edges=[0.0, 1.0]), "edges: must be one more than the 2 counts"),
        (histogram(edges=[0.0, 1.0, 0.5]), "edges: must rise from edge to edge"),
        (histogram(edges=[0.0, 0.0, 0.5]), "edges: must rise from edge to edge"),
        (json.dumps(report(metrics={"meters": {"4/4": "7"}})), "metrics.meters.*: must be"),
    ],
)
def test_what_is_no_health_report(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "baseline.json").write_text(json.dumps(report()))
    (tmp_path / "candidate.json").write_text(content)
    with pytest.raises(InputError, match=rf"candidate\.json:?\d*: .*{message}"):
        run(Options(baseline=tmp_path / "baseline.json", candidate=tmp_path / "candidate.json"))


def test_a_report_that_changes_while_it_is_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is hashed, and may be blessed, must be what was read."""
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report()))
    parse = read_json

    def slow(source: Path, kind: Any) -> Any:
        found = parse(source, kind)
        path.write_text(json.dumps(report(version="later")))
        return found

    monkeypatch.setattr("training.checks.health_compare_input.read_json", slow)
    with pytest.raises(InputError, match=r"report\.json: changed while it was read"):
        read_health_report(path)
