"""Reports as JUnit XML: what Jenkins, GitLab and the others read, whatever stands in the data."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import HOSTILE, hostile_report, report, row, waived
from training.errors import printable
from training.render.junit import render_junit

# What the schema of the Jenkins xUnit plugin (junit-10.xsd) allows: attributes, those that must be
# there, and elements inside; the schema of Apache Ant has the same elements and more attributes.
COUNTS = {"tests", "failures", "errors"}
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuites": ({"name", "time", *COUNTS}, set(), {"testsuite"}),
    "testsuite": (
        {"name", "group", "time", "skipped", "timestamp", "hostname", "id", "package", *COUNTS},
        {"name", *COUNTS},
        {"properties", "testcase", "system-out", "system-err"},
    ),
    "properties": (set(), set(), {"property"}),
    "property": ({"name", "value"}, {"name", "value"}, set()),
    "testcase": (
        {"name", "time", "classname", "group"},
        {"name"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "skipped": ({"type", "message"}, set(), set()),
    "error": ({"type", "message"}, set(), set()),
    "failure": ({"type", "message"}, set(), set()),
    "system-out": (set(), set(), set()),
}
ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def checked(text: str) -> ET.Element:
    """Parse a report and hold it against the schema and against its own counts."""
    assert not ILLEGAL.search(text)
    root = ET.fromstring(text.encode())
    assert root.tag == "testsuites"
    for element in root.iter():
        allowed, needed, inside = SCHEMA[element.tag]
        assert needed <= set(element.attrib) <= allowed, element.tag
        assert {child.tag for child in element} <= inside, element.tag
    for suite in root:
        found = Counter(child.tag for case in suite.iter("testcase") for child in case)
        assert suite.get("tests") == str(len(suite.findall("testcase")))
        for kind, name in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
            assert suite.get(name) == str(found[kind])
    return root


def test_each_outcome_has_its_element() -> None:
    rows = [row(kind, kind) for kind in ("pass", "warn", "fail", "not_measured", "error")]
    rows += [waived(), row("excused", "not_measured", passed=True, required=False)]
    root = checked(render_junit(report(rows, warnings=["careful"])))
    found = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert found == {
        "pass": [],
        "warn": ["system-out"],
        "fail": ["failure"],
        "not_measured": ["error"],
        "error": ["error"],
        "x.waived": ["skipped"],
        "excused": ["system-out"],
    }
    assert list(found) == [each["name"] for each in rows], "the order of the report"
    skipped = root.find(".//skipped")
    assert skipped is not None
    assert skipped.get("message") == "waived by Ada until 2027-01-31: old mic"
    assert root.findtext("testsuite/system-out") == "warning: careful"


def test_it_says_which_files_were_judged() -> None:
    root = checked(render_junit(report([row()])))
    properties = {each.get("name"): each.get("value") for each in root.iter("property")}
    assert properties == {"status": "pass", "version": "0", "sha256 of in.jsonl": "ab" * 32}


def test_a_report_without_gates() -> None:
    assert checked(render_junit(report([]))).find("testsuite/testcase") is None


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_stands_in_the_data(text: str) -> None:
    root = checked(render_junit(hostile_report(text)))
    names = {case.get("name") for case in root.iter("testcase")}
    assert names == {printable(text)}


@given(st.text(st.characters(exclude_categories=[]), max_size=40))
def test_any_text_at_all(text: str) -> None:
    checked(render_junit(hostile_report(text)))
