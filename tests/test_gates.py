"""Judging fails closed, and thresholds come from where they should."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import InputError
from training.gates import (
    Interval,
    Measurement,
    Report,
    Status,
    Threshold,
    judge,
    load_thresholds,
    overall,
    report,
)

AT_LEAST = Threshold(name="x.min", comparator=">=", value=0.9, fix="mend it")


def measured(value: float | None, **more: object) -> Measurement:
    return Measurement(name="x", value=value, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("comparator", "value", "status"),
    [
        (">=", 0.9, Status.PASS),
        (">=", math.nextafter(0.9, 0), Status.FAIL),
        ("<=", 0.9, Status.PASS),
        ("<=", math.nextafter(0.9, 1), Status.FAIL),
        ("==", 0.9, Status.PASS),
        ("==", 0.91, Status.FAIL),
    ],
)
def test_the_line_itself_passes(comparator: str, value: float, status: Status) -> None:
    threshold = Threshold(name="x", comparator=comparator, value=0.9)  # type: ignore[arg-type]
    assert judge(measured(value), threshold).status is status


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_was_not_measured_has_not_passed(value: float | None) -> None:
    for comparator in ("<=", ">=", "=="):
        threshold = Threshold(name="x", comparator=comparator, value=0.0)  # type: ignore[arg-type]
        verdict = judge(measured(value), threshold)
        assert verdict.status is Status.NOT_MEASURED
        assert not verdict.passed
        assert verdict.detail


def test_a_bound_decides_where_asked() -> None:
    interval = Interval(lower=0.88, upper=0.97)
    on_lower = Threshold(name="x", comparator=">=", value=0.9, decide_on="lower")
    assert judge(measured(0.93, ci=interval), AT_LEAST).passed
    assert judge(measured(0.93, ci=interval), on_lower).status is Status.FAIL
    assert judge(measured(0.93), on_lower).status is Status.NOT_MEASURED
    broken = Interval(lower=math.nan, upper=1.0)
    assert judge(measured(0.93, ci=broken), on_lower).status is Status.NOT_MEASURED


def test_advice_warns_and_lets_pass() -> None:
    advice = Threshold(name="x", comparator=">=", value=0.9, required=False, fix="mend it")
    for value in (0.1, None):
        verdict = judge(measured(value), advice)
        assert (verdict.status, verdict.passed) == (Status.WARN, True)


def test_a_fix_is_named_only_for_what_failed() -> None:
    assert judge(measured(0.1), AT_LEAST).fix == "mend it"
    assert judge(measured(1.0), AT_LEAST).fix == ""
    assert judge(measured(None), AT_LEAST).fix == ""


@given(st.lists(st.sampled_from(list(Status)), max_size=6))
def test_a_report_is_as_good_as_its_worst_gate(statuses: list[Status]) -> None:
    verdicts = [judge(measured(1.0), AT_LEAST) for _ in statuses]
    verdicts = [
        type(verdict)(
            **{**{f: getattr(verdict, f) for f in verdict.__dataclass_fields__}, "status": status}
        )
        for verdict, status in zip(verdicts, statuses, strict=True)
    ]
    found = overall(verdicts)
    report = Report(tool="x", inputs=(), parameters={}, metrics={}, verdicts=verdicts)
    if not statuses:
        assert found is Status.NOT_MEASURED
    else:
        assert found.blocks == any(status.blocks for status in statuses) == report.blocks


def test_every_shipped_threshold_says_why_and_what_to_do() -> None:
    for check in ("alignment", "boundary", "openset", "bootstrap"):
        thresholds = load_thresholds(check)
        assert thresholds
        for threshold in thresholds.values():
            assert len(threshold.reason) > 30, threshold.name
            assert threshold.fix, threshold.name


def test_defaults_are_the_published_ones() -> None:
    values = {
        threshold.name: threshold.value
        for check in ("alignment", "boundary", "openset")
        for threshold in load_thresholds(check).values()
    }
    assert values["alignment.max_delay_ms"] == 0.25
    assert values["alignment.max_drift_samples_per_min"] == 1.0
    assert values["boundary.min_macro_recall"] == 0.95
    assert values["openset.min_auroc"] == 0.90
    assert values["openset.max_fpr_at_95tpr"] == 0.10


def test_an_overlay_keeps_the_production_value_in_sight(tmp_path: Path) -> None:
    own = tmp_path / "gates.toml"
    own.write_text('[openset.min_auroc]\nvalue = 0.7\nreason = "a six-minute model"\n')
    threshold = load_thresholds("openset", overlay=own)["min_auroc"]
    assert (threshold.value, threshold.production) == (0.7, 0.9)
    assert threshold.reason == "a six-minute model"
    by_flag = load_thresholds("openset", overlay=own, overrides={"min_auroc": 0.5})["min_auroc"]
    assert (by_flag.value, by_flag.production) == (0.5, 0.9)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[opensett.min_auroc]\nvalue = 1",
            "opensett: is not a known gate; did you mean 'openset'?",
        ),
        ("[openset.min_aurok]\nvalue = 1", "did you mean 'openset.min_auroc'?"),
        ("[openset.min_auroc]\nvalu = 1", "openset.min_auroc.valu: is not a known field"),
        ('[openset.min_auroc]\nvalue = "1"', 'value: must be a number (got "1")'),
        ("[openset.min_auroc]\nvalue = 0.1", "openset.min_auroc.reason: needs a reason"),
        ('[openset.min_auroc]\nvalue = 0.1\nreason = " "', "min_auroc.reason: needs a reason"),
        ("[openset.min_auroc]\nvalue = nan", "min_auroc.value: must be a finite number (got NaN)"),
        ("[boundary.x]\nvalue = -inf", "boundary.x.value: must be a finite number"),
        (
            '[openset.min_auroc]\ncomparator = "<="\nvalue = 1\nreason = "why"',
            "min_auroc.comparator: would turn the gate round, whose comparator is '>='",
        ),
        ("[openset", "is not valid TOML"),
    ],
)
def test_a_wrong_overlay_is_refused(tmp_path: Path, text: str, said: str) -> None:
    own = tmp_path / "gates.toml"
    own.write_text(text)
    with pytest.raises(InputError) as caught:
        load_thresholds("openset", overlay=own)
    assert said in str(caught.value)


def test_a_measurement_may_say_what_to_do() -> None:
    low = Measurement(name="min", value=0.1, fix="look here")
    none = Measurement(name="min", value=None, fix="look here")
    assert judge(low, AT_LEAST).fix == judge(none, AT_LEAST).fix == "look here"
    assert judge(Measurement(name="min", value=0.1), AT_LEAST).fix == "mend it"
    assert judge(Measurement(name="min", value=None), AT_LEAST).fix == ""
    assert judge(Measurement(name="min", value=1.0, fix="look here"), AT_LEAST).fix == ""


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("own", [True, False], ids=["own checkout", "somebody else's repository"])
def test_the_revision_is_that_of_drumgate(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    code = tmp_path if own else tmp_path / "venv" / "site-packages"
    code.mkdir(parents=True, exist_ok=True)
    (code / "file").write_text("1")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    monkeypatch.setattr(report, "_CHECKOUT", code)
    head = git("rev-parse", "HEAD") if own else None
    assert report.provenance()["git_revision"] == head
    (code / "file").write_text("2")
    assert report.provenance()["git_revision"] == (f"{head}-dirty" if own else None)
