"""Comparing health reports: each gate passing and failing, drift against its definition."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.checks.health_compare import Options, run
from training.errors import DrumgateError, InputError
from training.gates import Report, Status
from training.metrics.health_compare import GateRow, count_changes, drift, gate_changes

ROOT = Path(__file__).resolve().parent.parent
counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000))


def divergence(before: dict[str, int], after: dict[str, int]) -> float:
    """Jensen-Shannon divergence as Lin defines it: entropy of the mean less mean entropy."""

    def entropy(shares: list[float]) -> float:
        return -sum(share * math.log2(share) for share in shares if share)

    names = sorted({*before, *after})
    p = [before.get(name, 0) / sum(before.values()) for name in names]
    q = [after.get(name, 0) / sum(after.values()) for name in names]
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return entropy(middle) - (entropy(p) + entropy(q)) / 2


@settings(deadline=None)
@given(before=counts, after=counts)
def test_drift_is_the_jensen_shannon_divergence(
    before: dict[str, int], after: dict[str, int]
) -> None:
    found = drift("x", before, after)
    if not sum(before.values()) or not sum(after.values()):
        assert found.divergence_bits is None
        assert found.detail
        return
    assert found.divergence_bits == pytest.approx(divergence(before, after), abs=1e-7)
    assert drift("x", after, before).divergence_bits == pytest.approx(found.divergence_bits)


def test_drift_by_hand() -> None:
    assert drift("x", {"a": 5, "b": 5}, {"a": 50, "b": 50}).divergence_bits == 0
    apart = drift("x", {"a": 5}, {"b": 7})
    assert apart.divergence_bits == 1
    moved = drift("x", {"a": 9, "b": 1}, {"a": 7, "b": 3})
    assert (moved.largest, moved.largest_change) == ("a", -0.2)


@settings(deadline=None)
@given(before=counts, after=counts)
def test_a_drop_is_never_negative(before: dict[str, int], after: dict[str, int]) -> None:
    for change in count_changes(before, after):
        assert change.drop == max(change.baseline - change.candidate, 0)
        assert 0 <= change.drop_pct <= 100


@pytest.mark.parametrize(
    ("old", "new", "fate", "regression"),
    [
        (True, True, "passing", False),
        (True, False, "newly_failing", True),
        (None, False, "newly_failing", True),
        (None, True, "passing", False),
        (False, False, "still_failing", False),
        (False, True, "fixed", False),
        (True, None, "no_longer_checked", True),
        (False, None, "still_failing", False),
    ],
)
def test_fates_of_gates(old: bool | None, new: bool | None, fate: str, regression: bool) -> None:
    def rows(passed: bool | None) -> list[GateRow]:
        if passed is None:
            return []
        return [GateRow(name="g", status="pass" if passed else "fail", passed=passed)]

    (change,) = gate_changes(rows(old), rows(new))
    assert (change.fate, change.is_regression) == (fate, regression)


def report(**changes: Any) -> dict[str, Any]:
    metrics = {
        "events_total": 100,
        "per_class_counts": {
            "kick": {"total": 100, "real": 100, "synthetic": 0},
            "aux_percussion": {"total": 50, "real": 50, "synthetic": 0},
        },
        "technique_counts": {"flam": 4},
        "unknown_labels": {"gong": 2},
        "dynamics": {"ghost": 10, "accent": 90},
        "openness_histogram": {"edges": [0.0, 0.5, 1.0], "counts": [3, 4]},
        "by_source": {"studio": {"events": 100}},
        "duplication_rate": 0.0,
    }
    return {
        "tool": "dataset-health",
        "metrics": {**metrics, **changes.pop("metrics", {})},
        "gating_results": [{"name": "g", "status": "pass", "passed": True}],
        **changes,
    }


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Report]:
    def call(candidate: dict[str, Any], **options: Any) -> Report:
        for name, content in (("baseline", report()), ("candidate", candidate)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return run(
            Options(
                baseline=tmp_path / "baseline.json",
                candidate=tmp_path / "candidate.json",
                **options,
            )
        )

    return call


def totals(**hits: int) -> dict[str, Any]:
    return {"per_class_counts": {label: {"total": count} for label, count in hits.items()}}


def failing(found: Report) -> set[str]:
    return {verdict.name for verdict in found.verdicts if verdict.status is not Status.PASS}


def test_equal_reports_pass(compare: Callable[..., Report]) -> None:
    found = compare(report())
    assert found.status is Status.PASS
    assert {row["divergence_bits"] for row in found.metrics["drift"]} == {0}
    assert found.warnings == []


def test_drops_are_judged_by_class(compare: Callable[..., Report]) -> None:
    fewer = report(metrics=totals(kick=75, aux_percussion=20, snare=1))
    assert failing(compare(fewer)) == {
        "health_compare.max_drop[kick]",
        "health_compare.max_drop[aux_percussion]",
    }
    assert failing(compare(fewer, max_drop=25)) == {"health_compare.max_drop[aux_percussion]"}
    assert failing(compare(fewer, max_drop=24, ignore_labels=("aux_percussion",))) == {
        "health_compare.max_drop[kick]"
    }
    assert failing(compare(fewer, max_drop_pct=25.0)) == {
        "health_compare.max_drop_pct[aux_percussion]"
    }
    ignored = compare(fewer, max_drop=25, ignore_labels=("aux_percussion", "gong"))
    assert not failing(ignored)
    assert "ignored labels that lost hits: aux_percussion" in ignored.warnings
    assert "ignored labels that neither report has: gong" in ignored.warnings


def test_a_class_that_vanished_has_dropped(compare: Callable[..., Report]) -> None:
    found = compare(report(metrics=totals(aux_percussion=50)), max_drop=99)
    assert failing(found) == {"health_compare.max_drop[kick]"}


def test_no_class_to_compare_is_not_measured(compare: Callable[..., Report]) -> None:
    found = compare(report(), ignore_labels=("kick", "aux_percussion"))
    assert failing(found) == {"health_compare.max_drop"}
    assert found.status is Status.NOT_MEASURED


@pytest.mark.parametrize("status", ["fail", "not_measured", "error"])
def test_gates_that_newly_fail(compare: Callable[..., Report], status: str) -> None:
    gates = [{"name": "g", "status": status, "passed": False}]
    found = compare(report(gating_results=gates))
    assert failing(found) == {"health_compare.max_newly_failing_gates"}
    assert failing(compare(report(gating_results=[]))) == {"health_compare.max_newly_failing_gates"}


def test_unknown_labels_that_rise(compare: Callable[..., Report]) -> None:
    gate = {"health_compare.max_unknown_label_rises"}
    assert failing(compare(report(metrics={"unknown_labels": {"gong": 3}}))) == gate
    # fewer of one name do not make up for another
    assert failing(compare(report(metrics={"unknown_labels": {"zil": 1}}))) == gate
    assert not failing(compare(report(metrics={"unknown_labels": {"gong": 1}})))


def test_a_gates_file_sets_the_allowance(compare: Callable[..., Report], tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text('[health_compare.max_drop_pct]\nvalue = 50\nreason = "a clean-up"\n')
    fewer = report(metrics=totals(kick=51, aux_percussion=24))
    assert failing(compare(fewer, gates=gates)) == {"health_compare.max_drop_pct[aux_percussion]"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("{", "is not valid JSON"),
        ('{"tool": "align-qc"}', r'tool: .*\(got "align-qc"\)'),
        ('{"tool": "dataset-health"}', "metrics: is required"),
        (json.dumps(report(metrics={"events_total": "100"})), "metrics.events_total: must be"),
        (json.dumps(report(metrics={"events_total": -1})), "metrics.events_total: must be"),
    ],
)
def test_what_is_no_health_report(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "baseline.json").write_text(json.dumps(report()))
    (tmp_path / "candidate.json").write_text(content)
    with pytest.raises(InputError, match=rf"candidate\.json:?\d*: .*{message}"):
        run(Options(baseline=tmp_path / "baseline.json", candidate=tmp_path / "candidate.json"))


def test_a_limit_that_is_no_number(compare: Callable[..., Report]) -> None:
    with pytest.raises(DrumgateError, match="max-drop-pct"):
        compare(report(), max_drop_pct=float("nan"))


def test_real_reports_go_through(drumgate: Callable[..., Any], tmp_path: Path) -> None:
    lines = (ROOT / "examples" / "events_health_example.jsonl").read_text().splitlines()
    for name, kept in (("baseline", lines), ("candidate", lines[:-20])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(kept) + "\n")
        made = drumgate(
            "dataset-health",
            *("--events", tmp_path / f"{name}.jsonl", "--output", tmp_path / f"{name}.json"),
            *("--min-class-count", 4),
        )
        assert made.exit_code == (0 if name == "baseline" else 1)
    result = drumgate(
        "compare-health-reports",
        *("--baseline", tmp_path / "baseline.json", "--candidate", tmp_path / "candidate.json"),
        *("--max-drop", 25, "--ignore-label", "aux_percussion"),
        *("--json-output", tmp_path / "diff.json", "--html-output", tmp_path / "diff.html"),
    )
    assert result.exit_code == 1
    diff = json.loads((tmp_path / "diff.json").read_text())
    failed = [row["name"] for row in diff["gating_results"] if not row["passed"]]
    assert failed == ["health_compare.max_newly_failing_gates"]
