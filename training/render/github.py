"""A report as workflow commands, which GitHub Actions shows as annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.errors import printable
from training.render.text import headline, observed, wanted

_LEVELS = {"fail": "error", "error": "error", "not_measured": "error", "warn": "warning"}


def render_github(report: Mapping[str, Any]) -> str:
    """Return one annotation for every gate that did not pass, and a notice with the verdict."""
    lines = [f"::notice title={_property(report['tool'])}::{_data(headline(report))}"]
    for row in report["gating_results"]:
        if level := _LEVELS.get(row["status"]):
            said = f"{observed(row)}, asked for {wanted(row)}. {row['detail']} {row['fix']}"
            lines.append(f"::{level} title={_property(row['name'])}::{_data(said.strip())}")
    lines += [f"::warning::{_data(text)}" for text in report["warnings"]]
    return "\n".join(lines) + "\n"


def _data(text: str) -> str:
    return printable(text).replace("%", "%25")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
