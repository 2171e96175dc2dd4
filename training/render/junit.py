"""A report as JUnit XML, for CI systems that show test results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from training.errors import printable
from training.render.text import observed, waived, waiver_text, wanted, word


def render_junit(report: Mapping[str, Any]) -> str:
    """Return a report as JUnit XML: a test case a gate, in the order of the report.

    A gate that fails is a `failure`, one that could not be measured or crashed an `error`, and one
    that is waived is `skipped` and says by whom. It follows the schema that Jenkins, GitLab and
    the others share; nothing in it changes from run to run by itself, so it has no times.
    """
    rows = report["gating_results"]
    kinds = [_kind(row) for row in rows]
    counts = {
        "tests": str(len(rows)),
        "failures": str(kinds.count("failure")),
        "errors": str(kinds.count("error")),
    }
    tool = printable(str(report["tool"]))
    root = ET.Element("testsuites", {"name": "drumgate", **counts})
    skipped = str(kinds.count("skipped"))
    suite = ET.SubElement(root, "testsuite", {"name": tool, **counts, "skipped": skipped})
    _properties(suite, report)
    for row, kind in zip(rows, kinds, strict=True):
        name = printable(row["name"])
        case = ET.SubElement(suite, "testcase", classname=f"drumgate.{tool}", name=name)
        _outcome(case, kind, row)
    if report["warnings"]:
        said = ET.SubElement(suite, "system-out")
        said.text = "\n".join(f"warning: {printable(text)}" for text in report["warnings"])
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _kind(row: Mapping[str, Any]) -> str | None:
    """Return the element that says why a gate did not pass, and None where it did."""
    if waived(row):
        return "skipped"
    if row["passed"]:
        return None
    return "failure" if row["status"] == "fail" else "error"


def _properties(suite: ET.Element, report: Mapping[str, Any]) -> None:
    """Say which version judged which files."""
    found = {"status": str(report["status"]), "version": str(report.get("version", ""))}
    for file in report.get("inputs") or []:
        found[f"sha256 of {printable(str(file['path']))}"] = printable(str(file["sha256"]))
    holder = ET.SubElement(suite, "properties")
    for name, value in found.items():
        ET.SubElement(holder, "property", name=name, value=printable(value))


def _outcome(case: ET.Element, kind: str | None, row: Mapping[str, Any]) -> None:
    figures = f"{printable(observed(row))}, asked for {printable(wanted(row))}"
    why = printable(" ".join(text for text in (row["detail"], row["fix"]) if text))
    if kind is None:
        if row["status"] != "pass":
            said = ET.SubElement(case, "system-out")
            said.text = f"{word(row)}: {figures}. {why}"
        return
    message = waiver_text(row) if kind == "skipped" else figures
    found = ET.SubElement(case, kind, type=row["status"], message=message)
    found.text = f"{figures}. {why}" if kind == "skipped" else why
