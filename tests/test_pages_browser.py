"""The pages in a real browser: headless Chromium, driven by playwright, with axe-core.

Skipped where playwright (`pip install 'drumgate[browser]'`) or a Chromium is missing: Debian's
chromium, or the one that DRUMGATE_CHROMIUM names. No browser is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_pages import HOSTILE, TOOLS, folder, hostile, load, render_html, report_of, row

CHROMIUM = os.environ.get("DRUMGATE_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
AUDIT = folder("hard-negative-miner") / "audit.html"
SEVERE = ("serious", "critical")

sync_api = pytest.importorskip("playwright.sync_api", reason="needs drumgate[browser]")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs drumgate[browser]")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM, reason="needs chromium (apt install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


class Visit:
    """One page in a window of its own, and all that happened there."""

    def __init__(self, browser: Any, **given: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1100, "height": 900}, **given)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", self._dialog)
        self.page.on("request", lambda request: self.requests.append(request.url))

    def _dialog(self, dialog: Any) -> None:
        self.said.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open(self, path: Path) -> Any:
        self.page.goto(path.as_uri())
        return self.page

    def asked_elsewhere(self, path: Path) -> list[str]:
        """Return what was asked for besides the file itself and what stands in it."""
        return [
            url
            for url in self.requests
            if url.partition("#")[0] != path.as_uri() and not url.startswith("data:")
        ]

    def severe(self, **options: Any) -> list[str]:
        """Return what axe-core calls serious or critical."""
        given = {"resultTypes": ["violations"], **options}
        found = axe.Axe().run(self.page, options=given).response["violations"]
        return [
            f"{each['id']}: {each['nodes'][0]['html'][:200]} ({len(each['nodes'])})"
            for each in found
            if each["impact"] in SEVERE
        ]


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    found = Visit(browser)
    yield found
    found.context.close()


def write(tmp_path: Path, source: str) -> Path:
    path = tmp_path / "page.html"
    path.write_text(source, encoding="utf-8")
    return path


@pytest.mark.parametrize("tool", [*TOOLS, "audit"])
def test_a_page_is_quiet_and_open_to_all(visit: Visit, tool: str, tmp_path: Path) -> None:
    path = AUDIT if tool == "audit" else write(tmp_path, render_html(load(tool)))
    page = visit.open(path)
    # what is folded is looked at as well, save the longest tables: axe takes seconds for those
    page.evaluate(
        """for (const each of document.querySelectorAll("details"))
          each.open = each.querySelectorAll("*").length < 200"""
    )
    assert visit.severe() == []
    page.emulate_media(color_scheme="dark")
    assert visit.severe(runOnly=["color-contrast"]) == []
    page.set_viewport_size({"width": 420, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert visit.severe(runOnly=["scrollable-region-focusable"]) == []
    page.emulate_media(media="print")
    assert not page.locator(".filters:visible").count()
    assert visit.said == []
    assert visit.asked_elsewhere(path) == []


@pytest.mark.parametrize("tool", ["dataset-health", "bootstrap-eval", "run-readiness-checks"])
def test_markup_in_data_stays_text(visit: Visit, tool: str, tmp_path: Path) -> None:
    path = write(tmp_path, render_html(hostile(load(tool))))
    page = visit.open(path)
    assert "<script>alert(1)</script>" in page.inner_text("main")
    assert page.locator("script").count() == 1
    assert page.locator("[style*='position']").count() == 0
    assert visit.said == []
    assert visit.asked_elsewhere(path) == []
    assert visit.severe() == []


def table_page(tmp_path: Path, rows: int = 14) -> Path:
    names = ["kick", "<script>alert(1)</script>", "snare", "crash"]
    table = {
        f"{names[n % 4]} {n}": {"hits": (n * 7919) % 1500, "f1": None if n == 3 else n / 20}
        for n in range(rows)
    }
    return write(tmp_path, render_html(report_of(row(), metrics={"per_class": table})))


def column(table: Any, index: int) -> list[str]:
    found: list[str] = table.locator("tbody tr:visible").evaluate_all(
        f"(rows) => rows.map((row) => row.cells[{index}].textContent.trim())"
    )
    return found


def test_tables_sort_by_click(visit: Visit, tmp_path: Path) -> None:
    page = visit.open(table_page(tmp_path))
    table = page.locator("table", has_text="<script>alert(1)</script> 1")
    before = column(table, 1)
    head = table.locator("th", has_text="hits")
    assert head.get_attribute("aria-sort") == "none"
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    figures = [int(text.replace(",", "")) for text in column(table, 1)]
    assert figures == sorted(figures)
    assert max(figures) > 1000, "thousands are figures too"
    head.get_by_role("button").click()
    assert [int(text.replace(",", "")) for text in column(table, 1)] == figures[::-1]
    assert page.locator("p[role=status]").inner_text().endswith("sorted by hits, descending")
    head.get_by_role("button").click()
    assert column(table, 1) == before
    # what was not measured comes last, whichever way
    for _ in range(2):
        table.locator("th", has_text="f1").get_by_role("button").click()
        assert column(table, 2)[-1] == "–"
    assert head.get_attribute("aria-sort") == "none"
    assert visit.said == []


def test_tables_sort_by_keyboard(visit: Visit, tmp_path: Path) -> None:
    page = visit.open(table_page(tmp_path))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "hits":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    table = page.locator("table", has_text="<script>alert(1)</script> 1")
    for key, way in (("Enter", "ascending"), ("Space", "descending")):
        page.keyboard.press(key)
        assert table.locator("th", has_text="hits").get_attribute("aria-sort") == way


def test_the_gates_sort_by_verdict_and_by_figure(visit: Visit, tmp_path: Path) -> None:
    rows = [
        row(name="a[1]", status="pass", passed=True, observed=2.0, unit="ms"),
        row(name="b[1]", status="warn", passed=True, observed=10.0),
        row(name="c[1]", observed=9.0, ci={"lower": 1, "upper": 99, "confidence": 0.95}),
    ]
    page = visit.open(write(tmp_path, render_html(report_of(*rows))))
    table = page.locator("#gates ~ .wide table").first
    table.get_by_role("button", name="verdict").click()
    assert [text[0] for text in column(table, 1)] == ["c", "b", "a"]
    table.get_by_role("button", name="seen").click()
    assert [text[0] for text in column(table, 1)] == ["a", "c", "b"]


def test_long_tables_filter(visit: Visit, tmp_path: Path) -> None:
    page = visit.open(table_page(tmp_path))
    table = page.locator("table", has_text="<script>alert(1)</script> 1")
    field = page.get_by_label("Filter each class")
    field.fill("12 Kick")
    assert column(table, 0) == ["kick 12"]
    assert page.locator("output").first.inner_text() == "1 of 14 rows"
    field.fill("SCRIPT")
    assert len(column(table, 0)) == 4
    field.fill("")
    assert len(column(table, 0)) == 14
    assert visit.said == []


def test_without_scripts_the_page_is_whole(browser: Any, tmp_path: Path) -> None:
    visit = Visit(browser, java_script_enabled=False)
    try:
        page = visit.open(table_page(tmp_path))
        text = page.inner_text("main")
        assert "A mic is late or early" in text
        assert "kick 12" in text
        assert page.locator("button, input").count() == 0
    finally:
        visit.context.close()


def test_a_script_that_is_not_ours_does_not_run(visit: Visit, tmp_path: Path) -> None:
    source = render_html(report_of(row()))
    forged = source.replace("</main>", "<script>document.title = 'forged'</script></main>")
    page = visit.open(write(tmp_path, forged))
    assert page.title() != "forged"
    assert any("Content Security Policy" in text for text in visit.said)


def test_the_pages_of_a_readiness_run_are_reached_from_its_index(visit: Visit) -> None:
    page = visit.open(folder("run-readiness-checks") / "index.html")
    page.get_by_role("link", name="alignment").click()
    assert page.title().startswith("FAIL · align-qc")
    page.go_back()
    page.get_by_role("link", name="See the figures of this check").first.click()
    assert page.url.endswith("alignment.html#lag")
    assert visit.said == []


def test_what_is_folded_is_printed(visit: Visit) -> None:
    page = visit.open(folder("compare-health-reports") / "page.html")
    folded = page.locator("details")
    repeats = page.locator("details.repeats").count()
    assert 0 < repeats < folded.count()
    page.locator("details:not(.repeats)").first.locator("summary").click()
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details[open]").count() == folded.count() - repeats
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 1, "as the reader left it"
    page.emulate_media(media="print")
    # without a script as well, and what only repeats the page says where it is
    assert page.get_by_text("How far the distributions moved", exact=True).is_visible()
    assert page.locator("details.repeats table:visible").count() == 0


@pytest.mark.parametrize("width", [360, 420, 800])
def test_long_labels_of_plots_are_read_on_a_narrow_screen(
    visit: Visit, tmp_path: Path, width: int
) -> None:
    report = load("dataset-health")
    counts = report["metrics"]["per_class_counts"]
    names = ["session_001/overhead_left", "session_001/overhead_right", "W" * 60, "kick"]
    report["metrics"]["per_class_counts"] = {name: counts["kick"] for name in names}
    page = visit.open(write(tmp_path, render_html(report)))
    page.set_viewport_size({"width": width, "height": 900})
    places = (
        page.locator("figure")
        .first.locator("text.label:visible")
        .evaluate_all(
            "(all) => all.map((each) => [each.firstChild.data, each.getBoundingClientRect().left])"
        )
    )
    assert len(places) == len(names)
    assert len({said for said, _ in places}) == len(names), "no two are cut to the same"
    assert all(left >= 0 for said, left in places if not said.startswith("W"))
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_words_of_the_trade_are_explained_on_the_page(visit: Visit) -> None:
    page = visit.open(folder("bootstrap-eval") / "page.html")
    page.get_by_role("link", name="Words explained").click()
    assert page.url.endswith("#words")
    assert "harmonic mean" in page.locator("dl.words").inner_text()
    first = page.locator("abbr", has_text="F1").first
    assert "harmonic mean" in (first.get_attribute("title") or "")
    # a heading that is marked sorts as before
    table = page.locator("table", has_text="average precision").first
    table.locator("th", has_text="F1").first.get_by_role("button").click()
    assert table.locator("th", has_text="F1").first.get_attribute("aria-sort") == "ascending"
    assert visit.said == []


def test_clips_play_in_the_audit_page(visit: Visit) -> None:
    page = visit.open(AUDIT)
    heard = page.evaluate(
        """async () => {
          const all = [...document.querySelectorAll("audio")];
          const first = all[0];
          await first.play();
          const start = performance.now();
          while (first.currentTime === 0 && !first.ended && performance.now() - start < 5000)
            await new Promise((go) => setTimeout(go, 20));
          return [all.length, first.currentTime, first.duration, first.error];
        }"""
    )
    assert heard[0] >= 3
    assert heard[1] > 0
    assert 0.05 < heard[2] < 10
    assert heard[3] is None
    assert visit.said == []


def test_the_audit_page_shows_one_reason_alone(visit: Visit) -> None:
    page = visit.open(AUDIT)
    before = page.locator("article.clip:visible").count()
    page.locator("fieldset input").first.uncheck()
    assert page.locator("article.clip:visible").count() < before


def test_a_huge_report_stays_usable(visit: Visit, tmp_path: Path) -> None:
    rows = [row(name=f"alignment.max_delay_ms[s{n}/mic]", observed=1.0 + n) for n in range(5000)]
    path = write(tmp_path, render_html(report_of(*rows)))
    page = visit.open(path)
    assert page.locator("tbody tr").count() <= 1000
    assert "and 4,600 more in the JSON report" in page.inner_text("main").replace("4600", "4,600")
    table = page.locator("#gates ~ .wide table").first
    table.get_by_role("button", name="gate").click()
    assert [text.partition("]")[0].rpartition("[")[2] for text in column(table, 1)[9:11]] == [
        "s9/mic",
        "s10/mic",
    ]


def test_hostile_text_is_what_the_fast_tests_say_it_is() -> None:
    assert json.loads(json.dumps(HOSTILE)) == HOSTILE
