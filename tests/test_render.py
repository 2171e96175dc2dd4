"""Every form of a report: what it says, and that data in it stays text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from click.testing import Result
from conftest import ROOT

from training.gates import Interval, Measurement, Report, Threshold, judge
from training.manifest import InputFile
from training.render import RENDERERS
from training.render.text import figure

HOSTILE = "<script>alert(1)</script>\x1b[2J\"'&\u202e::error::x"


def report(*, hostile: str = "", tool: str = "some-tool", metrics: Any = None) -> dict[str, Any]:
    name = f"x.min{hostile}"
    threshold = Threshold(
        name=name, comparator=">=", value=0.9, fix=f"mend{hostile}", reason=hostile or "why"
    )
    values: list[tuple[float | None, Interval | None]] = [
        (0.95, Interval(lower=0.91, upper=0.97)),
        (0.5, None),
        (None, None),
    ]
    verdicts = [
        judge(Measurement(name=name, value=value, ci=ci, n=7, detail=hostile), threshold)
        for value, ci in values
    ]
    return Report(
        tool=tool,
        inputs=[InputFile(f"in{hostile}.jsonl", "0" * 64, 10, 1)],
        parameters={"path": Path("a"), f"p{hostile}": [hostile]},
        metrics=metrics if metrics is not None else {f"m{hostile}": {hostile or "a": {"b": 1.5}}},
        verdicts=verdicts,
        warnings=[hostile] if hostile else [],
    ).to_dict()


class Tags(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)


@pytest.mark.parametrize("form", sorted(RENDERERS))
def test_every_form_names_the_gates(form: str) -> None:
    said = RENDERERS[form](report())
    assert "x.min" in said
    assert "0.5" in said


@pytest.mark.parametrize("form", sorted(RENDERERS))
def test_every_form_takes_hostile_and_empty_data(form: str) -> None:
    said = RENDERERS[form](report(hostile=HOSTILE))
    assert "\x1b" not in said
    empty = Report(tool="t", inputs=(), parameters={}, metrics={}).to_dict()
    assert RENDERERS[form](empty)


def test_the_page_runs_its_own_script_alone_and_asks_for_nothing() -> None:
    page = RENDERERS["html"](report(hostile=HOSTILE))
    tags = Tags()
    tags.feed(page)
    shipped = (ROOT / "training" / "render" / "templates" / "page.js").read_text().strip()
    assert page.count("<script") == 1
    assert f"<script>{shipped}</script>" in page
    digest = base64.b64encode(hashlib.sha256(shipped.encode()).digest()).decode()
    assert f"default-src 'none'; script-src 'sha256-{digest}'; style-src" in page
    assert all(link.startswith("#") for link in tags.links)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_junit_counts_and_parses() -> None:
    suite = ET.fromstring(RENDERERS["junit"](report(hostile=HOSTILE))).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")


def test_github_annotations_cannot_be_forged() -> None:
    lines = RENDERERS["github"](report(hostile="\n::error::forged")).splitlines()
    assert all(re.match(r"::(notice|error|warning)( title=[^:]*)?::", line) for line in lines)
    assert sum(line.startswith("::error") for line in lines) == 2


def test_json_is_the_report_itself() -> None:
    data = report()
    assert json.loads(RENDERERS["json"](data)) == json.loads(json.dumps(data))


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "–"), (0.95, "0.95"), (1234, "1,234"), (12.0, "12"), (0.00012345, "0.0001234")],
)
def test_figures_read_well(value: float | None, said: str) -> None:
    assert figure(value) == said


def test_a_saved_report_is_shown_again(drumgate: Callable[..., Result], tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(RENDERERS["json"](report()))
    assert drumgate("show-report", path).exit_code == 0
    assert drumgate("show-report", path, "--strict").exit_code == 1
    page = drumgate("show-report", path, "--format", "html")
    assert "<!doctype html>" in page.stdout
    path.write_text("{}")
    assert drumgate("show-report", path).exit_code == 2
