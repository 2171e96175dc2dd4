"""The page of a comparison: what it says alone, and that data in it stays text."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from test_health_compare import compared, report, totals

from training.checks.health_compare import Options, run
from training.render import RENDERERS
from training.render.paired import class_rows, paired, probability, share_rows, signed

HOSTILE = "<script>alert(1)</script>\x1b[2J\"'&\u202e"


class Words(HTMLParser):
    """Collects the tags, and the text that a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("style", "script"):
            self.text.append(data)


def page(made: dict[str, Any]) -> tuple[str, list[str]]:
    found = Words()
    found.feed(RENDERERS["html"](made))
    return " ".join(" ".join(found.text).split()), found.tags


def hostile_report() -> dict[str, Any]:
    edges = {"edges": [0.0, 0.5, 1.0], "counts": [5, 5], "unstated": 2}
    return report(
        version=HOSTILE,
        inputs=[{"path": HOSTILE, "sha256": HOSTILE}],
        provenance={HOSTILE: HOSTILE},
        gating_results=[{"name": f"g[{HOSTILE}]", "status": HOSTILE, "passed": True}],
        metrics={
            "per_class_counts": {HOSTILE: {"total": 60}, "kick": {"total": 20}},
            "technique_counts": {HOSTILE: 3},
            "unknown_labels": {HOSTILE: 2},
            "dynamics": {HOSTILE: 10, "ghost": 5},
            "dynamics_by_class": {HOSTILE: {HOSTILE: 10, "ghost": 5}},
            "by_source": {HOSTILE: {"events": 10}},
            "meters": {HOSTILE: 4},
            "tempo_bins": {HOSTILE: 4, "100-120": 4},
            "velocity_histogram": edges,
        },
    )


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    before, after = hostile_report(), hostile_report()
    after["metrics"]["per_class_counts"][HOSTILE] = {"total": 5}
    after["metrics"]["dynamics"] = {HOSTILE: 1, "ghost": 90}
    after["metrics"]["dynamics_by_class"] = {HOSTILE: {HOSTILE: 1, "ghost": 90}}
    after["metrics"]["unknown_labels"] = {HOSTILE: 3}
    after["gating_results"][0]["passed"] = False
    found = compared(
        tmp_path, before, after, bless=True, blessed_by=HOSTILE, ignore_labels=(HOSTILE + "2",)
    ).to_dict()
    plain, tags = page(report_of(found))
    calm, calm_tags = page(compared(tmp_path, report(), report()).to_dict())
    assert tags.count("script") == calm_tags.count("script")
    assert "<script>alert(1)</script>\\x1b[2J" in plain
    assert "\x1b" not in plain + RENDERERS["text"](found)
    assert "\u202e" not in plain
    assert "PASS" in calm
    for form in ("text", "junit", "github", "json"):
        assert RENDERERS[form](found)


def report_of(found: dict[str, Any]) -> dict[str, Any]:
    """The report as a reader of its file gets it."""
    return dict(json.loads(RENDERERS["json"](found)))


def test_a_page_tells_what_was_lost_and_what_moved(tmp_path: Path) -> None:
    after = report(
        metrics={
            **totals(kick=40, aux_percussion=50, ride=5),
            "dynamics": {"ghost": 70, "accent": 30},
        }
    )
    plain, _ = page(compared(tmp_path, report(), after, max_drop=25).to_dict())
    for said in (
        "100 → 40 (−60 %)",
        "5, new",
        "1 moved a lot",
        "LARGE",
        "ghost",
        "10 → 70 %",
        "1 gate passes as before",
        "does not say how many sessions",
    ):
        assert said in plain, said


def test_pages_of_nothing(tmp_path: Path) -> None:
    nothing = report(
        gating_results=[],
        metrics={
            "events_total": 0,
            "per_class_counts": {},
            "technique_counts": {},
            "unknown_labels": {},
            "dynamics": {},
            "openness_histogram": {"edges": [0.0], "counts": []},
            "by_source": {},
        },
    )
    plain, _ = page(compared(tmp_path, nothing, nothing).to_dict())
    assert "Neither report judged a gate." in plain
    assert "5 could not be compared" in plain
    (tmp_path / "candidate.json").write_text(json.dumps(report()))
    options = Options(
        baseline=tmp_path / "none.json",
        candidate=tmp_path / "candidate.json",
        bless=True,
        first_baseline=True,
    )
    plain, _ = page(run(options).to_dict())
    assert "The candidate becomes the baseline" in plain
    assert "Nothing was compared." in plain


def test_paired_bars() -> None:
    rows = [
        {"label": "a<b", "baseline": 100, "candidate": 40, "note": "100 → 40", "lost": True},
        {"label": "c", "baseline": 0, "candidate": 50, "note": "50, new", "lost": False},
    ]
    drawn = str(paired(rows, "Hits", "hits"))
    assert "a&lt;b" in drawn
    root = ET.fromstring(drawn)
    drawn_as = [(node.get("class"), node.get("width", "")) for node in root.iter("rect")]
    longest = float(drawn_as[0][1].removesuffix("%"))
    widths = [(kind, float(width.removesuffix("%")) / longest) for kind, width in drawn_as]
    # What was lost makes up the difference between the two bars.
    assert [kind for kind, _ in widths] == ["s4", "s0", "gate", "s4", "s0"]
    assert [share for _, share in widths] == pytest.approx([1, 0.4, 0.6, 0, 0.5], abs=1e-3)
    assert "nothing to draw" in paired([], "Hits")
    many = [dict(rows[0], label=str(index)) for index in range(100)]
    assert "40 more in the JSON report" in paired(many, "Hits")


def test_rows_of_classes() -> None:
    def change(name: str, before: int, after: int, ignored: bool = False) -> dict[str, Any]:
        return {"name": name, "baseline": before, "candidate": after, "ignored": ignored}

    changes = [
        change("new", 0, 3),
        change("silent", 0, 0),
        change("less", 10, 9),
        change("lost", 1000, 995),
        change("passed_over", 10, 1, ignored=True),
        change("same", 7, 7),
    ]
    gates = [{"name": "health_compare.max_drop[lost]", "status": "fail"}]
    rows = class_rows({"metrics": {"classes": changes}, "gating_results": gates})
    assert [(row["label"], row["note"], row["lost"]) for row in rows] == [
        ("lost", "1,000 → 995 (−0.5 %)", True),
        ("passed_over", "10 → 1 (−90 %), not judged", False),
        ("less", "10 → 9 (−10 %)", False),
        ("new", "3, new", False),
        ("same", "7", False),
    ]


def test_dynamics_are_drawn_from_soft_to_loud() -> None:
    def value(name: str) -> dict[str, Any]:
        return {"value": name, "baseline": 0.0004, "candidate": 0.25, "psi": 0.1}

    names = ["accent", "(none)", "ghost", "medium"]
    rows = share_rows({"values": [value(name) for name in names]})
    assert [row["label"] for row in rows] == ["ghost", "medium", "accent", "(none)"]
    assert rows[0]["note"] == "<0.1 → 25 %"
    names = ["b", "a"]
    assert [row["label"] for row in share_rows({"values": [value(n) for n in names]})] == names


@pytest.mark.parametrize(
    ("value", "said"), [(None, "–"), (0.0, "<0.001"), (0.0123, "0.012"), (1.0, "1.000")]
)
def test_probabilities(value: float | None, said: str) -> None:
    assert probability(value) == said


def test_signed() -> None:
    assert [signed(value) for value in (-69.8, 4.75, -0.04, 1234.5)] == [
        "−70", "+4.8", "−0.04", "+1,234",
    ]  # fmt: skip
