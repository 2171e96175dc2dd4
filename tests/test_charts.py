"""Plots: where things are drawn, by hand, and that nothing from data gets out of its text."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.render import charts, plots
from training.render.reliability import reliability
from training.render.svg import LABEL_END, PLOT_END, ROWS, Scale, ticks

WIDTH = PLOT_END - LABEL_END
HOSTILE = '"><script>alert(1)</script>\x1b'


def parsed(markup: str) -> ET.Element:
    return ET.fromstring(str(markup))


def marks(markup: str, name: str, kind: str) -> list[dict[str, str]]:
    return [
        dict(each.attrib)
        for each in parsed(markup).iter(name)
        if kind in each.get("class", "").split()
    ]


def percent(text: str) -> float:
    assert text.endswith("%")
    return float(text[:-1])


def words(markup: str) -> str:
    return " ".join("".join(parsed(markup).itertext()).split())


def test_bars_are_as_long_as_their_amounts() -> None:
    rows = {"kick": {"real": 30, "synthetic": 10}, "snare": {"real": 20, "synthetic": None}}
    drawn = charts.bars(rows, ["real", "synthetic"], "Hits", 25)
    parts = marks(drawn, "rect", "part")
    assert [percent(each["width"]) for each in parts] == pytest.approx(
        [WIDTH * 0.75, WIDTH * 0.25, WIDTH * 0.5], abs=0.01
    )
    assert percent(parts[1]["x"]) == pytest.approx(LABEL_END + WIDTH * 0.75, abs=0.01)
    (gate,) = marks(drawn, "line", "gate")
    assert percent(gate["x1"]) == pytest.approx(LABEL_END + WIDTH * 25 / 40, abs=0.01)
    assert "gate 25" in words(drawn)


def test_bars_can_have_a_gate_each() -> None:
    rows = {"kick": {"hits": 40}, "snare": {"hits": 20}, "ride": {"hits": 5}}
    drawn = charts.bars(rows, ["hits"], "Hits", {"kick": 10, "ride": 50, "other": 99})
    gates = marks(drawn, "line", "gate")
    assert [percent(each["x1"]) for each in gates] == pytest.approx(
        [LABEL_END + WIDTH * 0.2, PLOT_END], abs=0.01
    )


def test_shares_fill_the_whole_length() -> None:
    drawn = charts.bars({"a": {"x": 1, "y": 3}, "b": {"x": 0, "y": 0}}, ["x", "y"], "s", share=True)
    parts = marks(drawn, "rect", "part")
    assert [percent(each["width"]) for each in parts] == pytest.approx(
        [WIDTH / 4, WIDTH * 3 / 4], abs=0.01
    )


def test_a_forest_shows_points_intervals_and_the_gate() -> None:
    rows: list[dict[str, Any]] = [
        {"label": "kick", "point": 0.5, "lower": 0.25, "upper": 1.0},
        {"label": "snare", "point": None, "lower": None, "upper": None},
        {"label": "ride", "point": 1, "lower": None, "upper": None},
    ]
    drawn = charts.forest(rows, "F1", 0.9)
    points = marks(drawn, "circle", "s0")
    assert [percent(each["cx"]) for each in points] == pytest.approx(
        [LABEL_END + WIDTH / 2, PLOT_END]
    )
    whisker = marks(drawn, "line", "ci")[0]
    assert percent(whisker["x1"]) == pytest.approx(LABEL_END + WIDTH / 4)
    assert percent(whisker["x2"]) == pytest.approx(PLOT_END)
    assert percent(marks(drawn, "line", "gate")[0]["x1"]) == pytest.approx(LABEL_END + 0.9 * WIDTH)
    assert "not measured" in words(drawn)
    assert "kick: 0.5 [0.25, 1]" in words(drawn)


def test_a_forest_of_changes_holds_zero_and_every_bound() -> None:
    rows = [{"label": "a", "point": -0.2, "lower": -0.4, "upper": 0.1}]
    drawn = charts.forest(rows, "change")
    whisker = marks(drawn, "line", "ci")[0]
    assert LABEL_END < percent(whisker["x1"]) < percent(whisker["x2"]) < PLOT_END


@pytest.mark.parametrize(
    ("comparator", "observed", "limit", "allowed"),
    [("<=", 1.0, 0.25, (0.0, 0.25)), (">=", 0.5, 0.9, (0.9, 1.0)), ("==", 0.5, 0.5, (0.5, 0.5))],
)
def test_a_gate_is_drawn_with_what_it_allows(
    comparator: str, observed: float, limit: float, allowed: tuple[float, float]
) -> None:
    row = {
        "observed": observed,
        "threshold": limit,
        "comparator": comparator,
        "unit": "",
        "ci": None,
    }
    drawn = charts.against_limit(row)
    (rect,) = marks(drawn, "rect", "allowed")
    assert percent(rect["x"]) == pytest.approx(1 + 98 * allowed[0], abs=0.01)
    assert percent(rect["width"]) == pytest.approx(98 * (allowed[1] - allowed[0]), abs=0.01)
    assert percent(marks(drawn, "circle", "seen")[0]["cx"]) == pytest.approx(1 + 98 * observed)
    assert charts.against_limit({**row, "observed": None}) == ""
    assert charts.against_limit({**row, "threshold": None}) == ""


def test_a_curve_runs_from_corner_to_corner() -> None:
    drawn = plots.curve([0, 0.5, 1], [0, 1, 1], "ROC", ("x", "y"), (0.5, 0.95))
    (line,) = marks(drawn, "polyline", "line0")
    first, middle, last = (tuple(map(float, p.split(","))) for p in line["points"].split())
    assert middle[0] - first[0] == pytest.approx(last[0] - middle[0])
    assert first[1] - middle[1] == pytest.approx(260)
    assert len(marks(drawn, "circle", "s1")) == 1
    assert not marks(plots.curve([0, 1], [0, 1], "c", ("x", "y"), (None, 1)), "circle", "s1")


def test_long_curves_are_thinned_and_keep_their_ends() -> None:
    many = [n / 9999 for n in range(10_000)]
    (line,) = marks(plots.curve(many, many, "c", ("x", "y")), "polyline", "line0")
    points = line["points"].split()
    assert len(points) == plots.MOST_POINTS
    assert points[0] == "46.0,270.0"
    assert points[-1] == "306.0,10.0"


def test_histograms_show_shares_of_their_own_total() -> None:
    drawn = plots.histogram([0, 1, 2], {"a": [1, 3], "b": [50, 50]}, "h")
    heights = [float(each["height"]) for each in marks(drawn, "rect", "over")]
    assert heights == pytest.approx([190 / 3, 190, 190 * 2 / 3, 190 * 2 / 3], abs=0.1)


def test_a_series_has_its_band_and_its_jumps() -> None:
    drawn = plots.series([0, 10], [1.0, 4.0], "lag", (0.5, 1.5), "ms", jumps=[5])
    (jump,) = marks(drawn, "line", "jump")
    assert percent(jump["x1"]) == pytest.approx(12 + 86 / 2)
    (band,) = marks(drawn, "rect", "band")
    low, high = (float(each["cy"]) for each in marks(drawn, "circle", "s0"))
    assert float(band["y"]) < low < float(band["y"]) + float(band["height"])
    assert high < float(band["y"])


def test_lines_leave_gaps_out() -> None:
    drawn = plots.lines([1, 2, 3], {"a": [3, None, 1], "b": [None] * 3}, "l", ("epoch", "loss"))
    (line,) = marks(drawn, "polyline", "line0")
    assert len(line["points"].split()) == 2
    assert "a: 3 at first, 1 at last" in words(drawn)


def test_what_has_no_data_is_a_sentence() -> None:
    for drawn in (
        charts.bars({}, ["a"], "Hits"),
        charts.forest([], "Hits"),
        plots.curve([], [], "Hits", ("x", "y")),
        plots.curve([None], [0.5], "Hits", ("x", "y")),  # type: ignore[list-item]
        plots.histogram([0, 1], {"a": [0]}, "Hits"),
        plots.series([], [], "Hits", None, "ms"),
        plots.lines([], {}, "Hits", ("x", "y")),
        plots.steps({"a": []}, "Hits", ("x", "y")),
    ):
        assert words(drawn) == "Hits: nothing to draw."
    assert words(reliability({"before": []}, "kick")) == "reliability of kick: nothing to draw."


def test_many_rows_are_cut_and_counted() -> None:
    drawn = charts.bars({f"c{n}": {"hits": n} for n in range(ROWS + 7)}, ["hits"], "Hits")
    assert len(marks(drawn, "text", "label")) == ROWS
    assert "7 more in the JSON report" in words(drawn)


def test_data_stays_text_in_every_plot() -> None:
    stretch = {"lower": 0, "upper": None, "value": 0.5}
    row = {"label": HOSTILE, "point": 0.5, "lower": 0.1, "upper": 0.9}
    point = {"cells": 1.0, "mean_score": 0.5, "share_true": 0.5}
    gate = {"observed": 1, "threshold": 2, "comparator": HOSTILE, "unit": HOSTILE, "ci": None}
    for drawn in (
        charts.bars({HOSTILE: {HOSTILE: 1}}, [HOSTILE, "x"], HOSTILE, 0.5, unit=HOSTILE),
        charts.forest([row], HOSTILE, 0.5, unit=HOSTILE),
        charts.against_limit(gate),
        plots.curve([0, 1], [0, 1], HOSTILE, (HOSTILE, HOSTILE), (0.5, 0.5)),
        plots.histogram([0, 1], {HOSTILE: [1]}, HOSTILE),
        plots.series([0, 1], [1, 2], HOSTILE, (0, 1), HOSTILE, [0.5]),
        plots.lines([0, 1], {HOSTILE: [1, 2]}, HOSTILE, (HOSTILE, HOSTILE)),
        plots.steps({HOSTILE: [stretch]}, HOSTILE, (HOSTILE, HOSTILE)),
        reliability({HOSTILE: [point], "last": [point]}, HOSTILE),
    ):
        assert "\x1b" not in drawn
        assert "<script" not in drawn
        assert "script" not in {each.tag for each in parsed(drawn).iter()}


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite)
def test_ticks_lie_within_and_ascend(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    found = ticks(low, high)
    assert found == sorted(found)
    assert len(found) <= 8
    slack = 1e-6 * (high - low) if math.isfinite(high - low) else math.inf
    assert all(low - slack <= each <= high + slack for each in found)


@given(finite, finite, finite)
def test_a_scale_never_leaves_the_plot(low: float, high: float, value: float) -> None:
    assert LABEL_END <= Scale(low, high).share(value) <= PLOT_END


@given(st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=5), finite)
def test_a_forest_can_be_drawn_of_any_figures(
    found: list[tuple[float, float, float]], line: float
) -> None:
    rows = [
        {"label": "x", "point": point, "lower": min(a, b), "upper": max(a, b)}
        for point, a, b in found
    ]
    drawn = charts.forest(rows, "any", line)
    assert "nan" not in drawn
    assert "inf" not in drawn
    parsed(drawn)
