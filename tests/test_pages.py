"""The page of every kind of report: whole, safe, and clear about why a run failed."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import itertools
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
from conftest import ROOT
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from training.checks import readiness_manifest
from training.cli import MODULES, main
from training.render import titles
from training.render.page import render_html

EXAMPLES = ROOT / "examples"
TEMPLATES = ROOT / "training" / "render" / "templates"
HOSTILE = "<script>alert(1)</script>\x1b[2J\"'&\u202e{{ 7*7 }}</style>"
SHOWN = "&lt;script&gt;alert(1)&lt;/script&gt;"
VOID = {"meta", "br", "input", "img", "link", "hr", "wbr"}


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make_pages = _load("make_pages")
make_picture = _load("make_picture")
TOOLS = sorted(make_pages.RUNS)


def folder(tool: str) -> Path:
    return EXAMPLES / tool.replace("-", "_")


def load(tool: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder(tool) / "report.json").read_text(encoding="utf-8"))
    return found


class Page(HTMLParser):
    """What a browser would make of a page, as far as the tests ask."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"attribute twice in {tag}"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> without a beginning"
        assert self.open[-1] == tag, f"</{tag}> within {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append(data)
        elif not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, *names: str) -> Iterator[dict[str, str | None]]:
        return (attributes for tag, attributes in self.tags if tag in names)


def check(source: str) -> Page:
    """Assert what holds for every page, whatever is on it."""
    page = Page(source)
    allowed = re.search(r"script-src 'sha256-([^']+)'", source)
    assert allowed
    assert page.scripts == [(TEMPLATES / "page.js").read_text(encoding="utf-8").strip()]
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert allowed[1] == digest
    assert "default-src 'none'" in source
    assert not {"iframe", "object", "embed", "form", "link", "base", "img"} & {
        tag for tag, _ in page.tags
    }
    for _, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes)
        assert not {"src", "action", "srcset", "formaction", "background"} & set(attributes)
    for attributes in page.all("a"):
        assert re.fullmatch(r"#[\w-]+|[\w.-]+\.html(#[\w-]+)?", attributes["href"] or "")
    identities = [a["id"] for _, a in page.tags if "id" in a]
    assert len(set(identities)) == len(identities)
    assert {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")} <= set(identities)  # type: ignore[union-attr,index]
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels)), levels
    assert all(attributes.get("scope") in ("col", "row") for attributes in page.all("th"))
    for attributes in page.all("svg"):
        assert attributes.get("role") == "img"
        assert attributes.get("aria-label")
    assert not re.search(r"\b(nan|NaN|Infinity|Undefined)\b", page.text)
    assert "a form that this version does not know" not in source
    assert "url(" not in source
    assert "\x1b" not in source
    assert "\u202e" not in source
    assert len(source.encode()) < 2_000_000
    return page


def row(**given: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "name": "alignment.max_delay_ms[take/overhead]",
        "status": "fail",
        "passed": False,
        "observed": 1.0,
        "comparator": "<=",
        "threshold": 0.25,
        "unit": "ms",
        "n": 10,
        "ci": None,
        "detail": "lag 2.5 ms",
        "fix": "Shift the mic.",
        "reason": "comb filtering",
        "required": True,
        "decide_on": "point",
        "production_threshold": None,
    }
    return {**base, **given}


def report_of(*rows: dict[str, Any], **given: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "tool": "some-tool",
        "status": "fail",
        "gating_results": list(rows),
        "metrics": {},
        "warnings": [],
        "parameters": {},
    }
    return {**base, **given}


# --- every kind of report ---


def test_every_tool_that_writes_a_report_has_an_example_page() -> None:
    wanted = set()
    for tool in MODULES:
        command = main.get_command(click.Context(main), tool)
        assert command is not None
        if any(
            isinstance(each, click.Option) and each.name in ("html_output", "report")
            for each in command.params
        ):
            wanted.add(tool)
    assert wanted <= set(TOOLS)
    assert set(TOOLS) <= set(MODULES)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_example_page_is_made_from_its_report(tool: str) -> None:
    report = load(tool)
    assert report["tool"] == tool
    path = folder(tool) / ("index.html" if tool == "run-readiness-checks" else "page.html")
    page = path.read_text(encoding="utf-8")
    assert page == render_html(report), "run python examples/make_pages.py"
    assert len(page) < 300_000
    check(page)


@pytest.mark.parametrize(
    "tool",
    [
        pytest.param(tool, marks=pytest.mark.slow)
        if tool in ("export-onnx", "predict", "train-classifier")
        else tool
        for tool in TOOLS
    ],
)
def test_the_example_report_is_what_the_tool_says(tool: str) -> None:
    if not make_pages.can_run(tool):
        pytest.skip(f"needs {' and '.join(make_pages.NEEDED[tool])}")
    made = make_pages.make(tool)
    # of a rounding error another processor makes another one
    near = 1e-5 if tool == "export-onnx" else 1e-6
    alike(json.loads(made["report.json"]), load(tool), "report", near)
    assert set(made) <= {path.name for path in folder(tool).iterdir()}


def test_the_sample_is_what_the_tool_says() -> None:
    kept = ROOT / "reports" / "sample"
    report = json.loads((kept / "openset.json").read_text(encoding="utf-8"))
    assert (kept / "openset.html").read_text(encoding="utf-8") == render_html(report)
    alike(json.loads(make_pages.sample()["openset.json"]), report, "report")


def test_the_picture_in_the_readme_is_of_the_present_page() -> None:
    picture = make_picture.PICTURE.read_bytes()
    shown = make_picture.shown(make_picture.PAGE.read_text(encoding="utf-8"))
    assert make_picture.taken_of(picture) == shown, "run python examples/make_picture.py"
    assert make_picture.taken_of(picture[:33] + picture[33 + 12 + 5 + 64 :]) == ""


def alike(found: Any, kept: Any, where: str, near: float = 1e-6) -> None:
    """Assert that two reports are the same but for the last digits of a figure."""
    if isinstance(kept, dict):
        assert list(found) == list(kept), f"{where}: run python examples/make_pages.py"
        for name, value in kept.items():
            alike(found[name], value, f"{where}.{name}", near)
    elif isinstance(kept, list):
        assert len(found) == len(kept), where
        for index, value in enumerate(kept):
            alike(found[index], value, f"{where}[{index}]", near)
    elif isinstance(kept, float):
        assert found == pytest.approx(kept, rel=1e-3, abs=near), where
    elif "sha256" not in where and not where.endswith(".version"):
        assert found == kept, where


def test_the_pages_of_a_readiness_run_lead_to_each_other() -> None:
    here = folder("run-readiness-checks")
    page = check((here / "index.html").read_text(encoding="utf-8"))
    leads = {a["href"] for a in page.all("a") if not str(a["href"]).startswith("#")}
    assert leads
    for lead in leads:
        name, _, place = str(lead).partition("#")
        there = check((here / name).read_text(encoding="utf-8"))
        assert not place or any(a.get("id") == place for _, a in there.tags), lead


@pytest.mark.parametrize("labels", [["kick"], ["kick", HOSTILE, "vibraslap"]])
def test_the_page_of_a_manifest_names_the_lines(tmp_path: Path, labels: list[str]) -> None:
    events = [
        {"sample_id": f"{n}", "session_id": "s", "onset_time": n, "components": [{"label": label}]}
        for n, label in enumerate(labels)
    ]
    path = tmp_path / "e.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    report = readiness_manifest.run(readiness_manifest.Options(events=(path,))).to_dict()
    page = check(render_html(json.loads(json.dumps(report))))
    assert titles.QUESTIONS["validate-manifest"] in page.text
    assert (f"{path}:2" in page.text) == (len(labels) > 1)
    assert ("Nothing: the events contradict" in page.text) == (len(labels) == 1)
    for change in (emptied, unmeasured):
        check(render_html({**report, "metrics": change(report["metrics"])}))
    check(render_html(hostile(report)))


# --- hostile, empty and huge ---


def known_words() -> set[str]:
    """Every word of the templates and of the code behind them: what a page knows by name."""
    sources = [path.read_text() for path in TEMPLATES.rglob("*.j2")]
    sources += [path.read_text() for path in TEMPLATES.parent.glob("*.py")]
    return set(re.findall(r"\w+", " ".join(sources)))


WORDS = known_words()
STRUCTURE = {"tool", "status", "comparator", "decide_on", "schema_version", "fate"}


def hostile(value: Any, key: str = "") -> Any:
    """Put markup into every text and into every key that a page does not know by name."""
    if isinstance(value, dict):
        return {
            (name if name in WORDS else f"{name}{HOSTILE}"): hostile(each, name)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [hostile(each, key) for each in value]
    if isinstance(value, str) and key not in STRUCTURE:
        if key == "page":
            return value
        return f"{value}{HOSTILE}"
    return value


def emptied(value: Any) -> Any:
    """Take every entry out of every list, and out of every table with keys from data."""
    if isinstance(value, dict):
        if value and not any(name in WORDS for name in value):
            return {}
        return {name: emptied(each) for name, each in value.items()}
    return [] if isinstance(value, list) else value


def unmeasured(value: Any) -> Any:
    """Replace every figure by none; counts are always there."""
    if isinstance(value, dict):
        return {name: unmeasured(each) for name, each in value.items()}
    if isinstance(value, list):
        return [unmeasured(each) for each in value]
    return None if isinstance(value, float) else value


@pytest.mark.parametrize("tool", TOOLS)
def test_hostile_text_stays_text(tool: str) -> None:
    report = load(tool)
    report["warnings"] = ["a warning"]
    page = check(render_html(hostile(report)))
    assert SHOWN in page.source
    assert "{{ 7*7 }}" in page.text
    assert page.source.count("</style>") == 1


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("change", [emptied, unmeasured, lambda each: unmeasured(emptied(each))])
def test_empty_data_is_a_page(tool: str, change: Callable[[Any], Any]) -> None:
    report = load(tool)
    page = check(render_html({**report, "metrics": change(report["metrics"])}))
    assert titles.QUESTIONS[tool] in page.text


@pytest.mark.parametrize("tool", [*TOOLS, "a tool of tomorrow"])
def test_a_report_of_nothing_is_a_page(tool: str) -> None:
    metrics = emptied(load(tool)["metrics"]) if tool in TOOLS else {}
    bare = {
        "tool": tool,
        "status": "not_measured",
        "gating_results": [],
        "metrics": metrics,
        "warnings": [],
    }
    page = check(render_html(bare))
    assert "Nothing was judged: no gate was asked for." in page.text


def test_figures_of_another_form_stand_in_plain_tables() -> None:
    report = load("align-qc")
    report["metrics"] = {"pairs": [{"something": "else"}], "more": {"a": 1}}
    source = render_html(report)
    assert "a form that this version does not know" in source
    assert "something" in source
    assert titles.trouble("alignment.max_delay_ms") in source


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
anything = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(sorted(WORDS)) | st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("tool", [*TOOLS, "unheard-of"])
@settings(max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_any_figures_make_a_page(tool: str, data: st.DataObject) -> None:
    metrics = dict(load(tool)["metrics"]) if tool in TOOLS else {}
    changed = data.draw(st.dictionaries(st.sampled_from([*metrics, "other"]), anything))
    given_report = report_of(row(), tool=tool, metrics={**metrics, **changed})
    extra = data.draw(st.dictionaries(st.sampled_from(["inputs", "provenance"]), anything))
    source = render_html({**given_report, **extra})
    assert titles.trouble("alignment.max_delay_ms") in source
    assert Page(source).scripts


def multiplied(value: Any, times: int) -> Any:
    """Repeat every entry of every list, and of every table with keys from data."""
    if isinstance(value, dict):
        rows = {name: multiplied(each, times) for name, each in value.items()}
        if rows and not any(name in WORDS for name in rows):
            return {f"{name}_{n}": each for n in range(times) for name, each in rows.items()}
        return rows
    return [multiplied(each, 1) for each in value] * times if isinstance(value, list) else value


@pytest.mark.parametrize("tool", TOOLS)
def test_a_huge_report_is_a_page_of_bounded_size(tool: str) -> None:
    report = multiplied(load(tool), 15)
    gates = [
        {**row, "name": f"{row['name']}{n}"}
        for n in range(1500)
        for row in load(tool)["gating_results"][:2]
    ]
    report = {**report, "gating_results": gates, "warnings": ["w" * 50_000] * 500}
    page = check(render_html(report))
    assert "more in the JSON report" in page.text
