"""What a page says in plain words: why a run failed, by how much, and what to do."""

from __future__ import annotations

import copy
import tomllib
from typing import Any

import click
import pytest
from conftest import ROOT
from test_pages import TEMPLATES, Page, check, load, report_of, row

from training.cli import main
from training.render import explain, titles
from training.render.page import render_html


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "0.75 ms over the limit: 4 times what is allowed"),
        ({"observed": 0.3}, "0.05 ms over the limit"),
        ({"threshold": 0.0, "observed": 3.0, "unit": "hits"}, "3 hits over the limit"),
        ({"comparator": ">=", "threshold": 0.9, "observed": 0.8, "unit": ""}, "0.1 short"),
        ({"passed": True}, ""),
        ({"observed": None}, ""),
        ({"threshold": None}, ""),
    ],
)
def test_by_how_much_a_gate_was_missed(given: dict[str, Any], said: str) -> None:
    assert explain.gap(row(**given)) == said


def test_what_was_seen_names_the_bound_that_decides() -> None:
    ci = {"lower": 0.8, "upper": 0.9, "confidence": 0.95}
    seen = explain.seen(row(observed=0.8, unit="", ci=ci, decide_on="lower"))
    assert seen == "0.8, the lower bound of the 95% interval 0.8 to 0.9"
    assert explain.seen(row(observed=0.85, unit="", ci=ci)) == "0.85"
    assert explain.seen(row(observed=None)) == "not measured"
    assert explain.asked(row()) == "at most 0.25 ms"
    assert explain.asked(row(comparator=">=", unit="hits", threshold=8)) == "at least 8 hits"
    assert explain.asked(row(threshold=None)) == ""


def test_the_verdict_is_put_in_a_sentence() -> None:
    passed = row(status="pass", passed=True)
    unmeasured_row = row(status="not_measured", observed=None)
    waived = row(
        passed=True, waiver={"gate": "g", "who": "w", "reason": "r", "expires": "2026-01-01"}
    )
    advice = row(status="warn", passed=True, required=False)
    assert explain.meaning(report_of(row(), passed)) == "1 of 2 gates blocks: it missed its limit."
    assert explain.meaning(report_of(row(), row())) == (
        "2 of 2 gates block: they missed their limits."
    )
    assert explain.meaning(report_of(row(), row(), unmeasured_row)) == (
        "3 of 3 gates block: 2 missed their limits; "
        "1 could not be measured, and what was not measured has not passed."
    )
    assert explain.meaning(report_of(passed)) == "Every gate lets this pass."
    assert explain.meaning(report_of(passed, waived, advice)) == (
        "Nothing blocks; 1 gate did not pass and is waived; 1 gate only advises."
    )
    assert "no gate was asked for" in explain.meaning(report_of())


def test_what_blocks_is_grouped_and_the_worst_named() -> None:
    names = [f"alignment.max_delay_ms[s{n}]" for n in range(10)]
    rows = [row(name=name, observed=1.0 + n) for n, name in enumerate(names)]
    missing = row(name="boundary", status="not_measured", observed=None, threshold=None)
    error = row(name="openset", status="error", observed=None, threshold=None)
    found = explain.blockers(report_of(*rows, missing, error, row(status="pass", passed=True)))
    assert [each["base"] for each in found] == ["openset", "alignment.max_delay_ms", "boundary"]
    worst = found[1]
    assert worst["subject"] == "s9"
    assert worst["others"] == ["s8", "s7", "s6", "s5", "s4", "s3"]
    assert worst["more"] == 3


def test_a_waiver_is_shown_with_who_why_and_until_when() -> None:
    waiver = {"gate": "g", "who": "Ada", "reason": "new kit", "expires": "2026-12-31"}
    page = check(render_html(report_of(row(passed=True, waiver=waiver), status="warn")))
    assert "waived by Ada until 2026-12-31: new kit" in page.text
    assert "WAIVED" in page.text
    assert "What blocks" not in page.text


def test_every_gate_says_in_plain_words_what_is_wrong() -> None:
    gates = tomllib.loads((ROOT / "configs" / "gates.toml").read_text())
    names = {f"{check}.{gate}" for check, table in gates.items() for gate in table}
    assert names - set(titles.GATES) == set()


def test_every_place_to_look_is_on_some_page() -> None:
    sections = " ".join(path.read_text() for path in (TEMPLATES / "sections").glob("*.j2"))
    for place in set(explain.PLACES.values()):
        assert f'id="{place}"' in sections


def test_every_command_that_a_page_advises_can_be_run() -> None:
    values = {
        name: [f"{name}.jsonl"]
        for name in ("events", "ground_truth", "predictions", "candidate", "baseline")
    }
    for gate in explain.COMMANDS:
        said = explain.command(gate, values)
        assert said.startswith("drumgate "), gate
        tool, *words = said.split()[1:]
        command = main.get_command(click.Context(main), tool)
        assert command is not None, tool
        command.make_context(tool, words, resilient_parsing=False)


def test_commands_quote_what_comes_from_data() -> None:
    said = explain.command("health.min_class_count", {"events": "a b; rm -rf ~\x1b"})
    assert said == "drumgate summarize-manifest 'a b; rm -rf ~\\x1b'"
    assert explain.command("health.min_class_count", {"health": {"events": "e.jsonl"}}) == (
        "drumgate summarize-manifest e.jsonl"
    )
    assert explain.command("health.min_class_count", {}) == ""
    assert explain.command("no.such", {"events": "e"}) == ""
    assert explain.command("health.require_techniques", {"events": ["a", "b"]}) == ""
    assert explain.command("health.max_duplication_rate", {"events": ["a", "b"]}) == (
        "drumgate merge-manifests --input a --input b --on-duplicate first --output merged.jsonl"
    )


@pytest.mark.parametrize("tool", ["align-qc", "bootstrap-eval", "run-readiness-checks"])
def test_the_beginning_of_a_page_says_why_it_failed(tool: str) -> None:
    report = load(tool)
    page = Page(render_html(report))
    beginning = page.text[: 2600 if tool == "run-readiness-checks" else 1400]
    worst = explain.blockers(report)[0]
    assert "FAIL" in beginning
    assert explain.meaning(report) in beginning
    assert titles.trouble(worst["base"]) in beginning
    assert explain.seen(worst["row"]) in beginning
    assert explain.asked(worst["row"]) in beginning
    assert worst["row"]["fix"] in beginning


def test_a_page_does_not_depend_on_what_was_rendered_before() -> None:
    report = load("dataset-health")
    before = copy.deepcopy(report)
    assert render_html(report) == render_html(report)
    assert report == before
