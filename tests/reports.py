"""Reports of every kind for the tests of their forms, as the JSON has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HOSTILE = (
    "<script>alert(1)</script>",
    "@someone and @org/team",
    "#12, GH-7, org/repo#3",
    "a | b \\| c",
    "`code` ``two``",
    "[link](https://example.org) ![x](https://example.org/x.png)",
    "https://example.org/x www.example.org me@example.org",
    "::error::forged",
    "##[add-mask]x",
    "a\n::error::forged\r\n% , :",
    "\x1b[31mred\x00\x08\ufffe\ud800\u202e",
    "*b* _i_ ~~s~~ $x$ :tada: &amp; <!-- c --> </details>",
    "]]> --> \" ' &",
    "   ",
    "",
    "é" * 5000,
    "deadbeefcafe0123456789abcdef0123456789ab",
)


def row(name: str = "x.min", status: str = "pass", **changes: Any) -> dict[str, Any]:
    """A row of `gating_results`."""
    made = {
        "name": name,
        "status": status,
        "passed": status in ("pass", "warn"),
        "observed": 0.5,
        "comparator": ">=",
        "threshold": 0.9,
        "unit": "",
        "n": 7,
        "ci": None,
        "detail": "",
        "fix": "mend it" if status != "pass" else "",
        "reason": "",
        "required": True,
        "decide_on": "point",
        "production_threshold": None,
    }
    return {**made, **changes}


def waived(name: str = "x.waived", **changes: Any) -> dict[str, Any]:
    """A row that failed, and that somebody waived."""
    waiver = {"gate": name, "reason": "old mic", "who": "Ada", "expires": "2027-01-31"}
    return row(name, "fail", **{"passed": True, "waiver": waiver, **changes})


def report(rows: Sequence[dict[str, Any]] = (), **changes: Any) -> dict[str, Any]:
    """A report with these rows."""
    order = ("pass", "warn", "not_measured", "fail", "error")
    found = [each["status"] if not each["passed"] else "pass" for each in rows]
    made = {
        "schema_version": 1,
        "tool": "some-tool",
        "version": "0",
        "status": max(found, key=order.index) if found else "not_measured",
        "gating_results": list(rows),
        "metrics": {},
        "warnings": [],
        "parameters": {},
        "seed": None,
        "inputs": [{"path": "in.jsonl", "sha256": "ab" * 32, "bytes": 10, "records": 1234}],
        "provenance": {},
    }
    return {**made, **changes}


def hostile_report(text: str) -> dict[str, Any]:
    """A report in which every text is this one."""
    kinds = ("pass", "warn", "fail", "not_measured", "error")
    words = {"detail": text, "fix": text, "unit": text, "reason": text}
    rows = [row(text, kind, **words) for kind in kinds]
    waiver = {"gate": text, "reason": text, "who": text, "expires": text}
    rows.append(waived(text, waiver=waiver, **words))
    return report(
        rows,
        tool=text,
        warnings=[text],
        metrics={"checks": {text: {"status": "fail", "gates": 1, "blocking": 1}}},
        inputs=[{"path": text, "sha256": text, "bytes": 1, "records": None}],
        parameters={"events": text},
    )
