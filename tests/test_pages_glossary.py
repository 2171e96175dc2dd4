"""The words of the trade on a page: each is explained where it stands, and listed below."""

from __future__ import annotations

import html
import re
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from test_pages import HOSTILE, TOOLS, check, load, render_html, report_of, row

from training.render.words import LINK, LIST, explained, words

PAGES = sorted(
    [*(ROOT / "examples").glob("*/*.html"), *(ROOT / "reports" / "sample").glob("*.html")]
)
# Abbreviations that everybody knows who reads such a page, or that a page spells out.
KNOWN = {
    *("FAIL", "PASS", "WARN", "ERROR", "WARNING", "NOT", "MEASURED", "WAIVED", "COMPARED", "MORE"),
    *("LARGE", "MODERATE", "SMALL", "NOTE", "DEAD", "JSON", "UTC", "MB", "JS", "TD", "LUFS"),
    *("OLD.jsonl", "NEW.jsonl", "GM", "MIDI", "ID", "CPU", "PNG"),
}
TRADE = re.split(
    r",\s+",
    """anchor, residual, lag, drift, jump, support, confidence, polarity, transient, onset,
    taxonomy, dynamics, openness, seam, baseline, candidate, distribution, PSI, JS distance, Holm,
    p, precision, recall, macro, micro, F1, mAP, average precision, subset accuracy, cluster,
    operating point, floor, epoch, loss, AUROC, AUPR, FPR at 95 % TPR, TNR at 95 % TPR, TPR, FPR,
    ROC curve, calibration, cross-fitted, in-sample, ECE, Brier score, Brier skill, log loss (NLL),
    slope, intercept, interval, lower bound, upper bound, gate, advice, n, ONNX""",
)


def plain(source: str) -> str:
    """The text of a page before its list of words, without what is marked, code and scripts."""
    body = source[source.index("<main") :].partition('<h2 id="words">')[0]
    body = re.sub(r"<(code|pre|style|script|desc|title|abbr)\b.*?</\1>", " ", body, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", body))


def listed(source: str) -> set[str]:
    """The words that a page lists."""
    return {html.unescape(name) for name in re.findall(r'<dt id="word-[^"]*">(.*?)</dt>', source)}


def test_the_words_of_the_trade_are_explained() -> None:
    known = {word.name: word for word in words()}
    assert set(TRADE) <= set(known)
    assert len({word.anchor for word in known.values()}) == len(known)
    for word in known.values():
        assert re.fullmatch(r"[A-Z].*\.", word.meaning), word
        assert len(word.meaning) < 190, word
        assert set(word.tools) <= {*TOOLS, "card"}, word


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_abbreviation_stands_unexplained(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if path.name == "audit.html":
        return  # it has none, and no list
    text = plain(source)
    shown = listed(source)
    for found in set(re.findall(r"\b[A-Z]{2,}[0-9]*\b|\bF1\b|\bmAP\b", text)) - KNOWN:
        assert any(found in name for name in shown), found
    for name in shown:
        assert name in {word.name for word in words()}
    assert ('href="#words"' in source) == bool(shown)


def test_a_word_is_marked_where_it_stands() -> None:
    page = f"<main>{LINK}<p>The macro F1, and F1 again.</p><h2>F1</h2>{LIST}<p>AUROC</p></main>"
    made = explained(page, "x")
    assert made.count("<abbr") == 2, "the first of each"
    assert "<p>The <abbr title=" in made
    assert ", and F1 again.</p><h2>F1</h2>" in made
    assert listed(made) == {"macro", "F1"}, "what stands behind the list is not looked at"
    assert '<a href="#words">Words explained</a>' in made


def test_headings_of_tables_are_all_marked() -> None:
    heads = '<th scope="col">F1</th><th scope="col" class="n">F1</th><th scope="row">F1</th>'
    made = explained(f"<main><p>F1</p><table><tr>{heads}</tr></table>{LIST}</main>", "x")
    assert made.count("<abbr") == 3
    assert '<th scope="row">F1</th>' in made


def test_what_is_code_or_part_of_a_name_is_left_alone() -> None:
    body = "<code>F1</code><pre>F1</pre><p>max_F1 F1.json --F1 a/F1 F1x F1-x</p>"
    page = f"<main>{LINK}{body}{LIST}</main>"
    assert explained(page, "x") == f"<main>{body}</main>"


def test_some_words_mean_something_on_some_pages_only() -> None:
    page = f"<main><p>the anchor</p>{LIST}</main>"
    assert "<abbr" in explained(page, "align-qc")
    assert "<abbr" not in explained(page, "dataset-health")


def test_a_page_without_a_list_stays_as_it_is() -> None:
    assert explained("<main><p>F1</p></main>", "x") == "<main><p>F1</p></main>"


@given(st.text(st.sampled_from("F1 <>&\"'pn AUROCmacro/.-\n"), max_size=80))
def test_marking_changes_no_text(said: str) -> None:
    page = f"<main><p>{html.escape(said)}</p>{LIST}</main>"
    made = explained(page, "x").partition('<h2 id="words">')[0]
    kept = re.sub(r"</?(?:abbr|main|p)\b[^>]*>|<!--.*?-->", "", made)
    assert kept == html.escape(said)


def test_words_in_data_are_marked_like_any_other_and_stay_text() -> None:
    report = report_of(row(detail=f"F1 {HOSTILE} <abbr title='x'>AUROC</abbr>"))
    page = check(render_html(report))
    assert page.source.count("<abbr title='x'>") == 0
    assert {"F1", "AUROC"} <= listed(page.source)


@pytest.mark.parametrize("tool", TOOLS)
def test_words_mean_on_a_page_what_the_project_says(tool: str) -> None:
    meant = {word.name: word.meaning for word in words()}
    source = render_html(load(tool))
    for name, meaning in re.findall(r'<dt id="word-[^"]*">(.*?)</dt><dd>(.*?)</dd>', source):
        assert html.unescape(meaning) == meant[html.unescape(name)]


def test_the_table_is_in_order() -> None:
    path = ROOT / "training" / "render" / "templates" / "words.toml"
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    assert all(set(each) <= {"means", "found", "tools"} for each in table.values())
    for each in table.values():
        re.compile(each.get("found", ""))
