"""A report as JUnit XML, for CI systems that show test results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree as ET

from training.errors import printable
from training.render.text import observed, wanted


def render_junit(report: Mapping[str, Any]) -> str:
    """Return a report as JUnit XML: a test case a gate, a failure or an error where one blocks."""
    rows = report["gating_results"]
    suite = ET.Element(
        "testsuite",
        name=str(report["tool"]),
        tests=str(len(rows)),
        failures=str(sum(row["status"] == "fail" for row in rows)),
        errors=str(sum(row["status"] in ("error", "not_measured") for row in rows)),
    )
    for row in rows:
        name = printable(row["name"])
        case = ET.SubElement(suite, "testcase", classname=f"drumgate.{report['tool']}", name=name)
        if not row["passed"]:
            kind = "failure" if row["status"] == "fail" else "error"
            message = f"{observed(row)}, asked for {wanted(row)}"
            found = ET.SubElement(case, kind, type=row["status"], message=message)
            found.text = printable(" ".join(text for text in (row["detail"], row["fix"]) if text))
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"
