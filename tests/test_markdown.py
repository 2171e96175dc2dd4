"""Reports as Markdown: within the limit, plain where data speaks, the same from run to run."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from reports import HOSTILE, hostile_report, report, row, waived
from training.errors import printable
from training.render import RENDERERS
from training.render.markdown import COMMENT_LIMIT, code, prose, render_many, render_markdown

ALLOWED = {
    "h3", "p", "strong", "table", "thead", "tbody", "tr", "th", "td",
    "code", "details", "summary", "br", "sub", "ul", "li", "em",
}  # fmt: skip
# What GitHub makes something of in text that is no code: mentions, references, emoji, addresses.
LIVE = re.compile(r"(?<!\w)@\w|#\d|\bGH-\d|:[\w+-]+:|\bwww\.|\w@\w|\b[0-9a-f]{7,40}\b(?<=\D)")


class Page(HTMLParser):
    """What GitHub's own Markdown parser makes of a text: its elements, and its words."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.seen: set[str] = set()
        self.cells: list[str] = []
        self.loose: list[str] = []
        self.open: list[str] = []
        self.comments: list[str] = []
        self.columns: list[int] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not attrs or tag == "th", (tag, attrs)
        self.seen.add(tag)
        if tag == "br":
            return
        self.open.append(tag)
        if tag == "tr":
            self.columns.append(0)
        if tag == "td":
            self.cells.append("")
            self.columns[-1] += 1

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "td" in self.open:
            self.cells[-1] += data
        if "code" not in self.open:
            self.loose.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)


def shown(text: str) -> Page:
    """Render as GitHub does, raw HTML let through (GitHub then strips what is dangerous)."""
    cmarkgfm = pytest.importorskip("cmarkgfm", reason="needs GitHub's Markdown parser: cmarkgfm")
    from cmarkgfm.cmark import Options

    html = cmarkgfm.github_flavored_markdown_to_html(text, options=Options.CMARK_OPT_UNSAFE)
    return Page(html)


def test_the_verdict_stands_first_and_what_passed_is_folded() -> None:
    rows = [
        row("health.good"),
        row("health.bad", "fail", observed=3.0, threshold=0.0, comparator="<=", unit="hits"),
        row("openset", "not_measured", observed=None, threshold=None, detail="no input"),
        row("bootstrap.meh", "warn"),
        waived("alignment.late"),
    ]
    text = render_markdown(report(rows, tool="run-readiness-checks", warnings=["one mic is out"]))
    lines = text.splitlines()
    assert lines[0] == "<!-- drumgate:run-readiness-checks -->"
    assert lines[2] == ("### ❌ `run-readiness-checks`: FAIL: 2 of 5 gates block, 1 is waived")
    order = ["What blocks", "health.bad", "What is waived", "1 gate that warns"]
    order += ["2 gates that block"]
    order += ["1 warning", "1 gate passed"]
    places = [text.index(each) for each in order]
    assert places == sorted(places)
    assert (
        "- **Fail**: `health.bad` has 3 hits, asked for at most 0 hits (**3 hits over the limit**)"
        "<br>*To do:* mend it<br><sub>gate `health.bad`</sub>" in lines
    )
    assert (
        "- **Not measured**: `openset`<br>no input<br>*To do:* mend it<br><sub>gate `openset`</sub>"
        in lines
    )
    assert "| **FAIL** | `health.bad` | 3 hits | at most 0 hits |  |" in lines
    assert (
        "| WAIVED | `alignment.late` | 0.5 | at least 0.9 | Ada, until 2027-01-31 (old mic) |"
        in lines
    )
    assert text.index("<details>") < text.index("health.good")
    assert text.count("<details>") == text.count("</details>") == 5
    only = render_markdown(report([row("bootstrap.meh", "warn")]))
    assert "\n**What warns**\n" in only, "where nothing blocks it is not folded"


def test_what_to_do_is_said_once() -> None:
    rows = [row(f"x.min[{name}]", "fail", detail=f"about {name}") for name in "abc"]
    text = render_markdown(report([*rows, row("y", "fail", fix="another thing")]))
    assert text.count("mend it") == 1
    assert "about a<br>The same for `b` 0.5, `c` 0.5<br>*To do:* mend it<br>" in text
    assert "| about b |" in text
    assert text.count("another thing") == 1
    warned = [row(f"w.max[{name}]", "warn", detail=f"about {name}") for name in "ab"]
    text = render_markdown(report(warned))
    assert "| about a<br>mend it |" in text
    assert "| about b |" in text


def test_what_blocks_says_what_is_wrong_in_plain_words() -> None:
    late = row(
        "alignment.max_delay_ms[s1/@room|mic]",
        "fail",
        **{"observed": 1.0, "threshold": 0.25, "comparator": "<=", "unit": "ms"},
    )
    text = render_markdown(report([late]))
    first = next(line for line in text.splitlines() if line.startswith("- "))
    assert first.startswith("- **A mic is late or early**: <code>s1/")
    assert "has 1 ms, asked for at most 0.25 ms (**0.75 ms over the limit: 4 times" in first
    assert "@room" not in text


def test_of_several_reports_all_verdicts_come_first() -> None:
    changed = {
        "events_total": {"base": 1000, "candidate": 1001},
        "counts": {"added": 1, "moved": 0},
        "changes": {
            "added": [
                {
                    "session_id": "s|1",
                    "onset_s": 9.0,
                    "base_id": None,
                    "candidate_id": "@a",
                    "before": None,
                    "after": ["ride", "kick"],
                }
            ],
            "moved": [],
        },
    }
    blocked = report([row("x", "fail")], tool="first")
    diff = report([], tool="compare-manifests", metrics=changed)
    text = render_many([blocked, diff])
    assert text.splitlines()[2:4] == [
        "- ❌ `first`: FAIL: 1 of 1 gate blocks",
        "- ℹ️ `compare-manifests`: 1,000 → 1,001 events: 1 added",
    ]
    assert "| `added` | 1 | &#64;&#8203;a at 9 s in s&#124;1 (ride + kick) |" in text
    for broken in ({}, {**changed, "changes": 3}, {**changed, "counts": {"added": "x"}}):
        assert "compare-manifests" in render_many([blocked, {**diff, "metrics": broken}])
    assert render_markdown(blocked).count("FAIL: 1 of 1") == 1


def test_the_classes_that_lost_hits_are_named() -> None:
    classes = [
        {"name": f"c{n}", "baseline": 100, "candidate": 100 - n, "drop": n} for n in range(20)
    ]
    metrics = {"classes": classes, "hits_total": {"baseline": 2000, "candidate": 1810}}
    text = render_markdown(report([], tool="compare-health-reports", metrics=metrics))
    rows = [line for line in text.splitlines() if line.startswith("| `c")]
    assert rows[0] == "| `c19` | 100 | 81 | −19 |"
    assert len(rows) == 12
    assert "7 more" in text
    assert "`c0`" not in text


def test_a_report_without_gates_is_still_a_text() -> None:
    text = render_markdown(report([], inputs=[]))
    assert "### ℹ️ `some-tool`: no gate was asked for" in text
    assert "|" not in text
    with pytest.raises(ValueError, match="no report"):
        render_many([])


def test_the_checks_of_a_run_have_a_table() -> None:
    checks = {"health": {"status": "pass", "gates": 3, "blocking": 0}, "odd": {"status": "x"}}
    text = render_markdown(report([row()], metrics={"checks": checks}))
    assert "| `health` | ✅ pass | 3 | 0 |" in text
    assert "odd" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_data_stays_plain_text(text: str) -> None:
    page = shown(render_markdown(hostile_report(text)))
    assert page.seen <= ALLOWED
    assert len(page.comments) == 1
    assert not any(LIVE.search(words) for words in page.loose), page.loose
    # Nothing broke out of its cell: every row has as many as its head.
    assert {count for count in page.columns if count} <= {1, 3, 4, 5}
    names = [cell.replace("\u200b", "") for cell in page.cells]
    expected = printable(text)[:100].strip()
    assert any(cell.strip().startswith(expected) for cell in names)


@given(st.text(max_size=60))
def test_code_and_prose_say_what_they_were_given(text: str) -> None:
    page = shown(f"| a | b |\n|---|---|\n| {code(text)} | {prose(text)} |\n")
    assert page.seen <= {"table", "thead", "tbody", "tr", "th", "td", "code"}
    assert len(page.cells) == 2
    for cell in page.cells:
        assert cell.replace("\u200b", "").strip() == printable(text).strip().replace("\u200b", "")


@given(st.text(st.sampled_from("@#:abc12deadbeef7 .w-GH/`|\\*_<>&~$[]()!"), max_size=40))
def test_prose_pings_nobody(text: str) -> None:
    assert not any(
        LIVE.search(words) for words in shown(f"| x |\n|---|\n| {prose(text)} |\n").loose
    )


def big(count: int = 2000) -> dict[str, Any]:
    rows = [row(f"health.bad[{i}]", "fail", detail="é" * 200) for i in range(count)]
    rows += [row(f"health.good{i}") for i in range(count)]
    return report(rows, warnings=[f"warning {i}" for i in range(count)])


@pytest.mark.parametrize("limit", [1500, 5000, COMMENT_LIMIT, 2**20])
def test_whole_rows_are_left_out_beyond_the_limit(limit: int) -> None:
    text = render_markdown(big(), limit)
    assert len(text.encode()) <= limit
    # No other row would have fit: one takes up to 540 bytes, and 160 are kept free.
    assert len(text.encode()) > limit - 540 - 160 or limit == 2**20
    kept = text.count("`health.bad[")
    left = re.search(r"([\d,]+) more gates are left out here", text)
    assert kept + (int(left[1].replace(",", "")) if left else 0) == 2000
    assert all(line.endswith("|") for line in text.splitlines() if line.startswith("|"))
    assert text.count("<details>") == text.count("</details>")
    if kept < 2000:
        assert "`health.good1`" not in text, "what blocks goes before what passed"


def test_many_reports_stay_within_the_limit() -> None:
    text = render_many([big(50)] * 40)
    assert len(text.encode()) <= COMMENT_LIMIT
    assert text.count("### ❌") == 40
    few = render_many([big(2)] * 40, limit=1500)
    assert len(few.encode()) <= 1500
    assert "more reports are left out here" in few


def test_two_runs_differ_only_where_the_verdicts_do() -> None:
    first = report([row("a"), row("b", "fail")], provenance={"created_at": "1", "host": "x"})
    second = report([row("a"), row("b", "fail")], provenance={"created_at": "2", "host": "y"})
    for form in ("markdown", "junit", "github", "text"):
        assert RENDERERS[form](first) == RENDERERS[form](second)
    third = report([row("a"), row("b", "fail", observed=0.6)])
    lines = zip(
        render_markdown(first).splitlines(), render_markdown(third).splitlines(), strict=True
    )
    assert sum(one != other for one, other in lines) == 2, "in plain words, and in the table"


def test_the_order_of_keys_changes_nothing() -> None:
    made = hostile_report("x")
    keys = list(made)
    random.Random(3).shuffle(keys)
    assert render_markdown({key: made[key] for key in keys}) == render_markdown(made)


def test_from_the_command_line(drumgate: Callable[..., Result], tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.json" for name in ("a", "b")]
    for path, rows in zip(paths, ([row("p")], [row("q", "fail")]), strict=True):
        path.write_text(RENDERERS["json"](report(rows, tool=f"tool-{path.stem}")))
    both = drumgate("show-report", *paths, "--format", "markdown", "--strict")
    assert both.exit_code == 1
    assert both.stdout.startswith("<!-- drumgate:tool-a -->")
    assert both.stdout.count("###") == 2
    small = drumgate("show-report", *paths, "--format", "markdown", "--max-bytes", 1000)
    assert len(small.stdout.encode()) <= 1000
    assert drumgate("show-report", *paths, "--format", "html").exit_code == 2


def test_a_tool_writes_it(drumgate: Callable[..., Result], tmp_path: Path) -> None:
    from conftest import ROOT

    folder = ROOT / "examples" / "openset_eval" / "fail" / "missing_prediction"
    files = f"--ground-truth {folder}/labels.jsonl --predictions {folder}/predictions.jsonl"
    result = drumgate(f"openset-eval {files} --strict --markdown {tmp_path}/c.md")
    assert result.exit_code == 1
    assert "**NOT MEASURED**" in (tmp_path / "c.md").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"gating_results": ["x"]},
        {"gating_results": [{"name": "x"}]},
        {"gating_results": [row(observed="0.5")]},
        {"gating_results": [row(status="fine")]},
        {"gating_results": [waived(waiver={"who": 3})]},
        {"warnings": "x"},
        {"metrics": []},
        {"status": "fine"},
    ],
)
def test_what_is_no_report_is_refused(
    drumgate: Callable[..., Result], tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "r.json"
    path.write_text(RENDERERS["json"]({**report([row()]), **change}))
    result = drumgate("show-report", path)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{path}: ")
