"""Openness curves: by hand, as properties, and against scipy; the file of curves; the tool."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from jsonl import read, write
from scipy import stats

from training.checks import openness as check
from training.errors import InputError
from training.metrics import openness
from training.metrics.openness import Curve

TD11 = Curve(id="c", polarity="high_is_closed", points=((0, 1.0), (90, 0.0), (127, 0.0)))


@st.composite
def curves(draw: st.DrawFn) -> Curve:
    """Any valid curve."""
    inner = draw(st.lists(st.integers(1, 126), max_size=6, unique=True))
    raw = [0, *sorted(inner), 127]
    heights = st.lists(st.integers(0, 20), min_size=len(raw), max_size=len(raw))
    values = sorted(draw(heights.filter(lambda v: len(set(v)) > 1)))
    rises = draw(st.booleans())
    return Curve(
        id="c",
        polarity="high_is_open" if rises else "high_is_closed",
        points=tuple(zip(raw, [v / 20 for v in (values if rises else values[::-1])], strict=True)),
    )


def test_by_hand() -> None:
    # Half way down a straight slope; everything past 90 is shut.
    raw = np.array([0, 45, 90, 127], dtype=float)
    assert openness.openness_of(raw, TD11).tolist() == [1.0, 0.5, 0.0, 0.0]
    assert openness.openness_of(np.empty(0), TD11).size == 0


@given(curves(), st.lists(st.floats(0, 127), min_size=2))
def test_a_curve_stays_in_range_and_never_turns_back(curve: Curve, raw: list[float]) -> None:
    assert openness.check_curve(curve) is None
    values = openness.openness_of(np.sort(raw), curve)
    assert ((values >= 0) & (values <= 1)).all()
    steps = np.diff(values)
    tiny = 1e-12
    assert (steps >= -tiny).all() if curve.polarity == "high_is_open" else (steps <= tiny).all()
    knots = np.array(curve.points)
    assert np.allclose(openness.openness_of(knots[:, 0], curve), knots[:, 1])


@pytest.mark.parametrize(
    ("polarity", "points", "why"),
    [
        ("high_is_closed", [(0, 0.0), (127, 1.0)], "may only fall"),
        ("high_is_open", [(0, 1.0), (127, 0.0)], "may only rise"),
        ("high_is_open", [(0, 0.0), (60, 0.8), (90, 0.7), (127, 1.0)], "never turn back"),
        ("high_is_open", [(0, 0.5), (127, 0.5)], "same openness everywhere"),
        ("high_is_open", [(0, 0.0), (60, 0.3), (60, 0.5), (127, 1.0)], "60 follows 60"),
        ("high_is_open", [(1, 0.0), (127, 1.0)], "from raw 0 to raw 127"),
        ("high_is_open", [(0, 0.0), (127, 1.5)], r"in \[0, 1\]"),
        ("high_is_open", [(0, 0.0)], "at least two points"),
        ("high_is_open", [], "at least two points"),
        ("high_is_open", [(0, 0.0), (float("nan"), 0.5), (127, 1.0)], "finite"),
    ],
)
def test_a_curve_that_makes_no_sense(polarity: Any, points: Any, why: str) -> None:
    found = openness.check_curve(Curve(id="c", polarity=polarity, points=tuple(points)))
    assert found is not None
    assert re.search(why, found)


@given(
    st.lists(st.integers(0, 127), min_size=1, max_size=40),
    st.lists(st.integers(0, 127), min_size=1, max_size=40),
)
def test_separation_is_the_mann_whitney_statistic(closed: list[int], opened: list[int]) -> None:
    figures = openness.detect_polarity(np.array(closed, float), np.array(opened, float))
    oracle = stats.mannwhitneyu(closed, opened, method="asymptotic", use_continuity=False)
    expected = oracle.statistic / (len(closed) * len(opened))
    assert figures.separation == pytest.approx(expected)


def test_polarity() -> None:
    high, low = np.full(20, 90.0), np.full(20, 10.0)
    assert openness.detect_polarity(high, low).polarity == "high_is_closed"
    assert openness.detect_polarity(low, high).polarity == "high_is_open"
    assert openness.detect_polarity(high, high).polarity is None, "no difference, no answer"
    assert openness.detect_polarity(high[:19], low).polarity is None, "too few strokes"
    none = openness.detect_polarity(np.empty(0), low)
    assert (none.separation, none.polarity) == (None, None)


def test_the_shipped_curves() -> None:
    curves = check.load_curves(check.DEFAULT_CURVES)
    assert curves.by_device["roland", "td-11"].polarity == "high_is_closed"


def curve_file(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"schema_version": 1, "curves": list(entries)}))
    return path


GOOD = {
    "id": "a",
    "vendor": "V",
    "models": ["M"],
    "polarity": "high_is_closed",
    "points": [[0, 1], [127, 0]],
}


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([GOOD, GOOD], r"curves\[1\].id: stands twice"),
        ([GOOD, {**GOOD, "id": "b", "vendor": "v "}], r"curves\[1\].models: has a curve already"),
        ([{**GOOD, "points": [[0, 0], [127, 1]]}], r"curves\[0\].points: must never turn back"),
        (
            [{**GOOD, "points": [[0, "1"], [127, 0]]}],
            r"curves\[0\].points\[0\]\[1\]: must be a num",
        ),
        ([{**GOOD, "polarity": "up"}], r"curves\[0\].polarity"),
        ([{**GOOD, "slope": 1}], r"curves\[0\].slope"),
        ([{**GOOD, "vendor": None}], r"curves\[0\].vendor: is required"),
        ([], r"holds no curve"),
    ],
)
def test_a_bad_file_of_curves(tmp_path: Path, entries: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check.load_curves(curve_file(tmp_path / "c.json", *entries))


# The tool


def stroke(number: int, label: str, raw: float | None, **more: Any) -> dict[str, Any]:
    component: dict[str, Any] = {"label": label, "note": number}
    if raw is not None:
        component["openness_raw"] = raw
    component |= more.pop("component", {})
    return {
        "sample_id": f"e{number}",
        "session_id": "s",
        "onset_time": float(number),
        "components": [{"label": "kick"}, component],
        **more,
    }


DEVICE = {"device_vendor": "roland", "device_model": "TD-11 "}


def test_the_tool(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    rows = [
        stroke(0, "hihat_open", 45, **DEVICE, mood="dark"),
        stroke(1, "hihat_closed", None, **DEVICE),
        stroke(2, "hihat_open", 30, device_vendor="Acme", device_model="X"),
        stroke(3, "hihat_open", 30),
        stroke(4, "hihat_open", 90, **DEVICE, component={"openness": 0.7}),
        stroke(
            5, "hihat_open", 90, **DEVICE, component={"openness": 0.7, "openness_curve_id": "old"}
        ),
    ]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    result = drumgate(
        "normalize-openness", "--events", source, "--output", output,
        "--report", tmp_path / "r.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "warning: Acme X: no curve, 1 raw values left untouched" in result.stderr
    assert "warning: no device named: no curve, 1 raw values left untouched" in result.stderr
    written = read(output)
    assert written[0]["mood"] == "dark"
    assert written[0]["components"] == [
        {"label": "kick"},
        {
            "label": "hihat_open",
            "note": 0,
            "openness_raw": 45,
            "openness": 0.5,
            "openness_curve_id": "roland_td11_v1",
        },
    ]
    assert written[1:5] == rows[1:5], "untouched: no raw value, no curve, or measured elsewhere"
    assert written[5]["components"][1]["openness"] == 0.0, "what a curve made is made anew"
    metrics = json.loads((tmp_path / "r.json").read_text())["metrics"]
    assert (metrics["normalized"], metrics["left_untouched"], metrics["kept"]) == (2, 2, 1)
    assert metrics["unknown_devices"] == ["Acme X", "no device named"]
    assert metrics["devices"]["roland TD-11"]["open_but_shut"] == 1


def test_a_default_curve_and_overwrite(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    rows = [stroke(0, "hihat_open", 127), stroke(1, "hihat_open", 0, component={"openness": 0.7})]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    arguments = ["normalize-openness", "--events", source, "--output", output]
    result = drumgate(*arguments, "--default-curve", "linear_high_is_open", "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert [row["components"][1]["openness"] for row in read(output)] == [1.0, 0.0]
    assert drumgate(*arguments, "--default-curve", "none").exit_code == 2


def test_a_second_run_changes_nothing(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    source = write(tmp_path / "in.jsonl", [stroke(0, "hihat_open", 45, **DEVICE)])
    once, twice = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    assert drumgate("normalize-openness", "--events", source, "--output", once).exit_code == 0
    assert drumgate("normalize-openness", "--events", once, "--output", twice).exit_code == 0
    assert once.read_bytes() == twice.read_bytes()


def test_a_pedal_that_runs_the_other_way_is_refused(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    rows = [stroke(i, "hihat_closed", i % 5, **DEVICE) for i in range(20)]
    rows += [stroke(20 + i, "hihat_open", 100 + i % 5, **DEVICE) for i in range(20)]
    source, output = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    result = drumgate("normalize-openness", "--events", source, "--output", output)
    assert result.exit_code == 2
    assert "says high_is_closed, but the closed and open strokes say high_is_open" in result.stderr
    assert not output.exists()


def test_a_dry_run_writes_nothing(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    source = write(tmp_path / "in.jsonl", [stroke(0, "hihat_open", 45, **DEVICE)])
    output = tmp_path / "out.jsonl"
    result = drumgate("normalize-openness", "--events", source, "--output", output, "--dry-run")
    assert result.exit_code == 0
    assert "1 components normalized" in result.stdout
    assert not output.exists()
    assert drumgate("normalize-openness", "--events", source).exit_code == 2


@pytest.mark.parametrize(
    "flags", [("--fit", "c.json", "--overwrite"), ("--output", "o", "--fit-from", "labels")]
)
def test_flags_that_would_do_nothing_are_refused(
    tmp_path: Path, drumgate: Callable[..., Result], flags: tuple[str, ...]
) -> None:
    result = drumgate("normalize-openness", "--events", tmp_path / "none.jsonl", *flags)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr
    assert "--fit" in result.stderr
