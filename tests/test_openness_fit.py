"""Fitting openness curves: known curves come back, and what gives no curve is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from jsonl import write

from training.checks.openness_curves import load_curves
from training.metrics import openness
from training.metrics.openness_fit import (
    GROUPS,
    MIN_GROUPS,
    RAW_VALUES,
    NoFitError,
    fit_curve,
)

RAW = np.arange(RAW_VALUES)


def pairs(
    raw: np.ndarray[Any, Any], values: np.ndarray[Any, Any], groups: int = GROUPS
) -> np.ndarray[Any, Any]:
    """Count measured pairs, dealt out to groups of sessions in turn."""
    counts = np.zeros((GROUPS, RAW_VALUES, 3))
    for number, (at, value) in enumerate(zip(raw, values, strict=True)):
        counts[number % groups, at] += (1, value, value**2)
    return counts


def strokes(
    closed: np.ndarray[Any, Any], opened: np.ndarray[Any, Any], groups: int = GROUPS
) -> np.ndarray[Any, Any]:
    """Count labelled strokes likewise."""
    counts = np.zeros((GROUPS, RAW_VALUES, 3))
    for kind, raw in enumerate((closed, opened)):
        for number, at in enumerate(raw):
            counts[number % groups, at, kind] += 1
    return counts


def at(points: tuple[tuple[float, float], ...]) -> np.ndarray[Any, Any]:
    x, y = np.array(points).T
    return np.interp(RAW, x, y)


def test_a_known_curve_comes_back_exactly() -> None:
    truth = np.interp(RAW, [0, 30, 90, 127], [1.0, 1.0, 0.0, 0.0])
    fit = fit_curve(pairs(RAW, truth), "c", "measured")
    assert fit.curve.polarity == "high_is_closed"
    assert fit.curve.points == ((0.0, 1.0), (30.0, 1.0), (90.0, 0.0), (127.0, 0.0))
    assert (fit.n, fit.raw_values, fit.residual, fit.groups) == (128, 128, 0.0, 16)
    assert openness.check_curve(fit.curve) is None


def test_residual_and_means_by_hand() -> None:
    # Five raw values, 40 pairs each, 0.1 above and below a straight line: the means are on it.
    raw = np.repeat([0, 32, 64, 96, 127], 40)
    line = raw / 127
    values = np.clip(line + np.tile([0.1, -0.1], 100), -1, 2)
    fit = fit_curve(pairs(raw, values), "c", "measured")
    assert fit.curve.polarity == "high_is_open"
    assert at(fit.curve.points) == pytest.approx(np.interp(RAW, raw, line), abs=1e-4)
    assert fit.residual == pytest.approx(0.1, abs=1e-4)


def test_labels_weigh_the_same_however_many_there_are() -> None:
    closed, opened = np.repeat([60, 90], [10, 30]), np.repeat([10, 60], [30, 10])
    one = fit_curve(strokes(closed, opened), "c", "labels")
    many = fit_curve(strokes(np.tile(closed, 50), opened), "c", "labels")
    assert one.curve == many.curve
    # At 60 a quarter of either kind: half open.
    assert at(one.curve.points)[[10, 60, 90]].tolist() == [1.0, 0.5, 0.0]
    assert many.n == 40 * 50 + 40


@pytest.mark.parametrize(
    ("counts", "method", "why"),
    [
        (pairs(RAW[:99], RAW[:99] / 127), "measured", "99 pairs .* 100 at 5 are needed"),
        (pairs(RAW // 32 * 32, RAW / 127), "measured", "at 4 raw"),
        (pairs(RAW, np.full(128, 0.5)), "measured", "the same at every raw value"),
        (pairs(RAW, np.abs(RAW - 64) / 64), "measured", "neither rises nor falls"),
        (pairs(RAW, 1 - np.abs(RAW - 80) / 80), "measured", "turns back .* would lose"),
        (strokes(np.full(19, 90), np.full(50, 10)), "labels", "19 closed strokes, 20 of either"),
        (strokes(RAW[:0], RAW[:0]), "labels", "0 closed strokes and 0 open strokes"),
        (strokes(RAW, RAW), "labels", "at the same raw values"),
        (pairs(RAW[:0], RAW[:0]), "measured", "0 pairs"),
    ],
)  # fmt: skip
def test_what_gives_no_curve(counts: Any, method: Any, why: str) -> None:
    with pytest.raises(NoFitError, match=why):
        fit_curve(counts, "c", method)


@given(st.integers(0, 2**32 - 1), st.booleans(), st.integers(MIN_GROUPS, GROUPS))
def test_a_fit_is_a_valid_curve_and_knows_no_order(seed: int, rises: bool, groups: int) -> None:
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, RAW_VALUES, 400)
    values = np.clip(raw / 127 + rng.normal(0, 0.05, 400), 0, 1)
    values = values if rises else 1 - values
    fit = fit_curve(pairs(raw, values, groups), "c", "measured")
    assert openness.check_curve(fit.curve) is None
    assert fit.curve.polarity == ("high_is_open" if rises else "high_is_closed")
    assert fit.standard_errors is not None
    assert len(fit.standard_errors) == len(fit.curve.points)
    # Turned round: the same curve, the other way.
    turned = fit_curve(pairs(raw, 1 - values, groups), "c", "measured")
    assert at(turned.curve.points) == pytest.approx(1 - at(fit.curve.points), abs=2e-4)


def test_the_standard_error_is_that_of_repeated_data() -> None:
    """Sessions that are off by a shift of their own: the jackknife must see it."""
    rng = np.random.default_rng(1)
    curves, claimed = [], []
    for _ in range(60):
        raw = rng.integers(0, RAW_VALUES, 1600)
        shift = rng.normal(0, 0.05, GROUPS)[np.arange(1600) % GROUPS]
        values = np.clip(0.2 + 0.6 * raw / 127 + shift + rng.normal(0, 0.02, 1600), 0, 1)
        fit = fit_curve(pairs(raw, values), "c", "measured")
        curves.append(at(fit.curve.points))
        assert fit.uncertainty is not None
        claimed.append(fit.uncertainty)
    seen = float(np.sqrt(np.var(curves, axis=0, ddof=1).mean()))
    assert np.mean(claimed) == pytest.approx(seen, rel=0.25)


def test_few_sessions_leave_the_uncertainty_open() -> None:
    fit = fit_curve(pairs(RAW, RAW / 127, MIN_GROUPS - 1), "c", "measured")
    assert (fit.groups, fit.standard_errors, fit.uncertainty) == (4, None, None)


# The tool


def stroke(number: int, raw: float, label: str = "hihat_open", **more: Any) -> dict[str, Any]:
    component = {"label": label, "openness_raw": raw, **more.pop("component", {})}
    return {
        "sample_id": f"e{number}",
        "session_id": f"s{number % 40}",
        "onset_time": float(number),
        "components": [component],
        "device_vendor": "Acme",
        "device_model": "One",
        **more,
    }


def test_fit_then_normalize(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    rows = [stroke(i, i % 128, component={"openness": (i % 128) / 127}) for i in range(256)]
    rows += [stroke(300 + i, i, device_model="two ") for i in range(30)]
    events, curves = write(tmp_path / "e.jsonl", rows), tmp_path / "c.json"
    result = drumgate(
        "normalize-openness", "--events", events, "--fit", curves, "--report", tmp_path / "r.json"
    )
    assert result.exit_code == 0, result.stderr
    assert "warning: Acme two: no curve fitted: 0 closed strokes" in result.stderr
    assert "Acme One: acme_one_measured, high_is_open, 256 strokes, residual 0.000" in result.stdout
    made = load_curves(curves)
    entry = made.entries["acme_one_measured"]
    assert entry.fit is not None
    assert (entry.vendor, entry.models, entry.fit.n) == ("Acme", ("One",), 256)
    report = json.loads((tmp_path / "r.json").read_text())["metrics"]
    assert list(report["refused"]) == ["Acme two"]
    assert report["fitted"]["acme_one_measured"]["uncertainty"] == entry.fit.uncertainty

    new = write(tmp_path / "new.jsonl", [stroke(1, 127), stroke(2, 0)])
    output = tmp_path / "out.jsonl"
    result = drumgate(
        "normalize-openness", "--events", new, "--curves", curves, "--output", output,
        "--report", tmp_path / "r.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    lines = output.read_text().splitlines()
    opened = [json.loads(line)["components"][0]["openness"] for line in lines]
    assert opened == [1.0, 0.0]
    applied = json.loads((tmp_path / "r.json").read_text())["metrics"]["curves"]
    figures = applied["acme_one_measured"]
    assert (figures["components"], figures["fitted_to"], figures["n"]) == (2, "measured", 256)
    assert figures["uncertainty"] == entry.fit.uncertainty


def test_labels_are_taken_where_nothing_is_measured(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    # What a curve made is no measurement.
    by_curve = {"openness": 0.3, "openness_curve_id": "old"}
    rows = [stroke(i, 90, "hihat_closed", component=by_curve) for i in range(60)]
    rows += [stroke(100 + i, i % 30, component=by_curve) for i in range(60)]
    events, curves = write(tmp_path / "e.jsonl", rows), tmp_path / "c.json"
    assert drumgate("normalize-openness", "--events", events, "--fit", curves).exit_code == 0
    entry = load_curves(curves).entries["acme_one_labels"]
    assert (entry.polarity, entry.points[0], entry.points[-1]) == (
        "high_is_closed",
        (0.0, 1.0),
        (127.0, 0.0),
    )
    refused = drumgate(
        "normalize-openness", "--events", events, "--fit", tmp_path / "n.json",
        "--fit-from", "measured",
    )  # fmt: skip
    assert refused.exit_code == 2
    assert "e.jsonl: Acme One: 0 pairs of raw value and openness" in refused.stderr
    assert not (tmp_path / "n.json").exists()


def test_nothing_to_fit(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    events = write(tmp_path / "e.jsonl", [stroke(0, 5, "ride")])
    result = drumgate("normalize-openness", "--events", events, "--fit", tmp_path / "c.json")
    assert result.exit_code == 2
    assert "no component has a raw pedal value that a curve could be fitted to" in result.stderr


def test_a_dry_run_fits_and_writes_nothing(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    rows = [stroke(i, i % 128, component={"openness": (i % 128) / 127}) for i in range(128)]
    events, curves = write(tmp_path / "e.jsonl", rows), tmp_path / "c.json"
    result = drumgate("normalize-openness", "--events", events, "--fit", curves, "--dry-run")
    assert result.exit_code == 0
    assert "dry run: no curve written" in result.stdout
    assert not curves.exists()


@pytest.mark.parametrize("extra", [["--output", "o"], ["--curves", "c"], ["--default-curve", "c"]])
def test_bad_usage(tmp_path: Path, drumgate: Callable[..., Result], extra: list[str]) -> None:
    events = write(tmp_path / "e.jsonl", [stroke(0, 5)])
    result = drumgate(
        "normalize-openness", "--events", events, "--fit", tmp_path / "c.json", *extra
    )
    assert result.exit_code == 2
    assert "--fit takes neither" in result.stderr


def test_no_device_named_gives_a_curve_for_default_curve(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    rows = [stroke(i, i % 128, component={"openness": (i % 128) / 127}) for i in range(128)]
    for row in rows:
        del row["device_vendor"], row["device_model"]
    events, curves = write(tmp_path / "e.jsonl", rows), tmp_path / "c.json"
    assert drumgate("normalize-openness", "--events", events, "--fit", curves).exit_code == 0
    made = load_curves(curves)
    assert list(made.by_id) == ["no_device_named_measured"]
    assert not made.by_device
