"""What a page says in plain words: why a run failed, by how much, and what to do."""

from __future__ import annotations

import copy
import re
import tomllib
from typing import Any

import click
import pytest
from conftest import ROOT
from test_pages import TEMPLATES, Page, check, load, report_of, row

from training.cli import main
from training.render import explain, facts, text, titles
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
    assert [each["subject"] for each in worst["others"]] == ["s8", "s7", "s6", "s5", "s4", "s3"]
    assert worst["others"][0]["seen"] == "9 ms"
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


def test_every_figure_says_what_it_is() -> None:
    gates = tomllib.loads((ROOT / "configs" / "gates.toml").read_text())
    for part, table in gates.items():
        for gate, entry in table.items():
            assert bool(entry.get("unit")) != bool(titles.measure(f"{part}.{gate}[x]")), gate
    seen = explain.seen(row(name="openset.min_auroc", observed=0.57, unit="", ci=None))
    assert seen == "AUROC 0.57"


def test_what_to_do_does_not_send_anybody_into_the_json() -> None:
    gates = tomllib.loads((ROOT / "configs" / "gates.toml").read_text())
    for table in gates.values():
        for entry in table.values():
            assert "metrics." not in entry["fix"]
            assert entry["fix"].endswith(".")


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


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        (1, "hits", "1 hit"),
        (1.0, "labels", "1 label"),
        (2, "hits", "2 hits"),
        (0, "hits", "0 hits"),
        (1, "ms", "1 ms"),
        (1, "s", "1 s"),
        (1, "samples/min", "1 sample/min"),
        (1, "PSI", "1 PSI"),
        (1, "classes", "1 class"),
        (1, "kits", "1 kit"),
        (1, "%", "1 %"),
        (-1, "hits", "-1 hits"),
    ],
)
def test_one_thing_is_no_several(value: float, unit: str, said: str) -> None:
    assert text.figure(value, unit) == said


@pytest.mark.parametrize(
    ("lower", "upper", "seen", "said"),
    [
        (7.7e-07, 3.0, 1.5, ("0", "3")),
        (0.45125, 1.0, 0.451251, ("0.4512", "1")),
        (-1e-9, 1e-9, 0.0, ("-1e-09", "1e-09")),
        (0.0, 0.0, 0.0, ("0", "0")),
        (-0.00001, 250.0, None, ("0", "250")),
        (1e-300, 1e300, 1.0, ("0", "1e+300")),
    ],
)
def test_the_ends_of_an_interval_are_no_finer_than_its_figure(
    lower: float, upper: float, seen: float | None, said: tuple[str, str]
) -> None:
    assert text.between({"lower": lower, "upper": upper}, seen) == said


def test_the_name_of_a_gate_breaks_between_its_words() -> None:
    report = report_of(row(name="a.b_c[<x>/y z]", detail=""))
    broken = "a.<wbr>b_<wbr>c<wbr>[&lt;x&gt;/<wbr>y z]"
    assert f"<code>{broken}</code>" in render_html(report)


def test_tables_within_tables_are_told_in_words() -> None:
    inner = {"kick": 3, "snare": None, "more": {"n_ref": 1}, "empty": {}, "yes": True}
    rows = {"a": {"found": inner, "list": ["x<y", 0.5]}, "b": {"found": {}, "list": []}}
    page = check(render_html(report_of(metrics={"per_label": rows})))
    assert "kick 3, more (events 1), yes yes" in page.text
    assert "x<y, 0.5" in page.text
    assert "{" not in page.text


def test_parameters_that_are_not_set_are_left_out() -> None:
    given = {"events": "e.jsonl", "nothing": None, "none": [], "own": {"seed": 0, "void": None}}
    page = check(render_html(report_of(parameters=given)))
    assert "e.jsonl" in page.text
    assert "seed 0" in page.text
    assert "nothing" not in page.text.partition("Parameters")[2]


@pytest.mark.parametrize(
    "tool", ["annotate-techniques", "normalize-openness", "predict", "train-classifier"]
)
def test_where_nothing_is_judged_the_page_begins_with_what_came_out(tool: str) -> None:
    report = load(tool)
    said = facts.result(report)
    assert re.search(r"\d", said)
    page = Page(render_html(report))
    assert said in page.text[:300]
    for broken in ({}, {name: "x" for name in report["metrics"]}):
        assert facts.result({**report, "metrics": broken}) == ""
    assert facts.result({**report, "tool": "unheard-of"}) == ""


def test_what_blocks_stands_in_short_beside_the_verdict() -> None:
    rows = [
        row(name="alignment.max_delay_ms[s1]", observed=2.0),
        row(name="alignment.max_delay_ms[s2]", observed=1.0),
        row(name="alignment.max_jump_ms[s1]", observed=3.0),
        row(name="openset.min_auroc", observed=0.57, threshold=0.9, comparator=">=", unit=""),
        row(name="boundary", status="not_measured", observed=None, threshold=None, detail="gone"),
    ]
    page = check(render_html(report_of(*rows)))
    short = page.text.partition("What blocks, and what to do")[0]
    said = [
        "The lag of a mic jumps : s1, 3 ms instead of at most 0.25 ms",
        "A mic is late or early : s1, 2 ms instead of at most 0.25 ms, and 1 more",
        "Unknown sounds are not told from known ones",
        "boundary : gone",
    ]
    places = [short.index(each) for each in said]
    assert places == sorted(places), "a jump is mended before the lag is measured again"
    assert "The same for s2 (1 ms)." in page.text
    alone = render_html(report_of(rows[0]))
    assert "short-list" not in alone.partition("<body>")[2], "one is read in its own place"


def test_what_is_advised_is_said_once() -> None:
    rows = [row(name=f"g.max[{n}]", status="warn", passed=True, fix="look at it") for n in range(5)]
    page = check(render_html(report_of(*rows, status="warn")))
    assert page.text.partition("All 5 gates")[0].count("look at it") == 1


def test_a_page_does_not_depend_on_what_was_rendered_before() -> None:
    report = load("dataset-health")
    before = copy.deepcopy(report)
    assert render_html(report) == render_html(report)
    assert report == before
