"""Comparing health reports: each gate passing and failing, what is listed, what is warned of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.checks.health_compare import Options, run
from training.errors import DrumgateError
from training.gates import Report, Status
from training.metrics.health_compare import GateRow, count_changes, gate_changes

ROOT = Path(__file__).resolve().parent.parent
counts = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 1000))


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
        "schema_version": 1,
        "tool": "dataset-health",
        "metrics": {**metrics, **changes.pop("metrics", {})},
        "gating_results": [{"name": "g", "status": "pass", "passed": True}],
        **changes,
    }


def compared(
    folder: Path, baseline: dict[str, Any], candidate: dict[str, Any], **options: Any
) -> Report:
    for name, content in (("baseline", baseline), ("candidate", candidate)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    return run(
        Options(baseline=folder / "baseline.json", candidate=folder / "candidate.json", **options)
    )


@pytest.fixture
def compare(tmp_path: Path) -> Callable[..., Report]:
    return lambda candidate, **options: compared(tmp_path, report(), candidate, **options)


def totals(**hits: int) -> dict[str, Any]:
    return {"per_class_counts": {label: {"total": count} for label, count in hits.items()}}


def failing(found: Report) -> set[str]:
    return {verdict.name for verdict in found.verdicts if verdict.status is not Status.PASS}


def blocking(found: Report) -> set[str]:
    return {verdict.name for verdict in found.verdicts if not verdict.passed}


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
    # Without its kicks the distribution of the classes is another one, too: that only warns.
    assert blocking(found) == {"health_compare.max_drop[kick]"}
    assert failing(found) == {"health_compare.max_drop[kick]", "health_compare.max_psi[classes]"}


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


LOUDER = {"dynamics": {"ghost": 10, "accent": 20, "medium": 70}}


def test_drift_warns_and_blocks_when_asked(compare: Callable[..., Report], tmp_path: Path) -> None:
    gate = {"health_compare.max_psi[dynamics]"}
    found = compare(report(metrics=LOUDER))
    assert failing(found) == gate
    assert (found.status, found.blocks) == (Status.WARN, False)
    (warned,) = (verdict for verdict in found.verdicts if verdict.name in gate)
    assert warned.detail == "accent 90.0 → 20.0 %"
    assert blocking(compare(report(metrics=LOUDER), max_psi=0.25)) == gate
    assert not failing(compare(report(metrics=LOUDER), max_psi=9))
    gates = tmp_path / "gates.toml"
    gates.write_text('[health_compare.max_psi]\nrequired = true\nreason = "no surprises"\n')
    assert blocking(compare(report(metrics=LOUDER), gates=gates)) == gate


def test_a_distribution_that_vanished_was_not_measured(compare: Callable[..., Report]) -> None:
    found = compare(report(metrics={"dynamics": {}}), max_psi=1)
    assert blocking(found) == {"health_compare.max_psi[dynamics]"}
    assert found.status is Status.NOT_MEASURED
    row = next(row for row in found.metrics["drift"] if row["name"] == "dynamics")
    assert (row["psi"], row["detail"]) == (None, "nothing to compare in the candidate")


def test_a_distribution_that_is_new_is_listed_and_not_judged(
    compare: Callable[..., Report],
) -> None:
    found = compare(report(metrics={"meters": {"4/4": 90, "(none)": 10}}), max_psi=0)
    row = next(row for row in found.metrics["drift"] if row["name"] == "meters")
    assert row["detail"] == "the report of the baseline does not hold it"
    assert not blocking(found)


def test_an_ignored_label_moves_no_distribution(compare: Callable[..., Report]) -> None:
    fewer = report(metrics=totals(kick=100, aux_percussion=1))
    assert "health_compare.max_psi[classes]" in failing(compare(fewer, max_psi=0.01))
    assert not failing(compare(fewer, max_psi=0.01, ignore_labels=("aux_percussion",)))


def by_class(**dynamics: dict[str, int]) -> dict[str, Any]:
    return {"metrics": {"dynamics_by_class": dynamics}}


def test_dynamics_by_class(tmp_path: Path) -> None:
    before = report(**by_class(kick={"ghost": 90, "accent": 10}, snare={"light": 5}))
    after = report(**by_class(kick={"ghost": 10, "accent": 90}, snare={}))
    found = compared(tmp_path, before, after)
    names = [row["name"] for row in found.metrics["drift"]]
    assert names[0] == "dynamics of kick"
    assert "dynamics of snare" not in names  # it dropped; there is nothing to drift
    assert failing(found) == {"health_compare.max_psi[dynamics of kick]"}
    assert not failing(compared(tmp_path, before, after, ignore_labels=("kick",)))


def test_ordered_bins_and_whether_they_are_stated(tmp_path: Path) -> None:
    def made(counts: list[int], unstated: int, tempo: dict[str, int]) -> dict[str, Any]:
        edges = [0.0, 0.5, 1.0]
        velocity = {"edges": edges, "counts": counts, "stated": sum(counts), "unstated": unstated}
        return report(metrics={"velocity_histogram": velocity, "tempo_bins": tempo})

    before = made([50, 50], 0, {"(none)": 3, "80-100": 50, "120-140": 50})
    after = made([60, 40], 100, {"100-120": 100, "hostile 9-1": 1})
    drifts = {row["name"]: row for row in compared(tmp_path, before, after).metrics["drift"]}
    assert drifts["velocity"]["test"] == "kolmogorov_smirnov"
    assert drifts["velocity"]["statistic"] == pytest.approx(0.1)
    assert (drifts["velocity"]["baseline_n"], drifts["velocity"]["candidate_n"]) == (100, 100)
    stated = {row["value"]: row["candidate"] for row in drifts["velocity stated"]["values"]}
    assert stated == {"stated": 0.5, "not stated": 0.5}
    assert "openness stated" not in drifts  # where all is stated, that is no news
    tempo = [(row["value"], row["candidate"]) for row in drifts["tempo"]["values"]]
    assert tempo == [("80-100", 0), ("100-120", 1), ("120-140", 0)]
    assert drifts["tempo"]["statistic"] == 0.5
    wide = report(metrics={"tempo_bins": {"60-140": 9}})
    drifts = {row["name"]: row for row in compared(tmp_path, before, wide).metrics["drift"]}
    assert drifts["tempo"]["detail"] == "the two reports have different bins"
    assert drifts["velocity"]["detail"] == "the report of the candidate does not hold it"


def test_bins_as_a_hostile_hand_writes_them(tmp_path: Path) -> None:
    openness = {"edges": [0.0, 0.5, 1.0], "counts": [3, 4], "raw_only": 7}
    tempo = {"80-100": 2, "080-100": 3, "100-80": 4, "100-100": 5, "(none)": 6}
    made = report(metrics={"openness_histogram": openness, "tempo_bins": tempo})
    found = compared(tmp_path, made, made).metrics["drift"]
    stated = {
        row["name"]: {value["value"]: value["baseline"] for value in row["values"]} for row in found
    }
    # Only the raw controller is known of half of the hits: their openness is not stated.
    assert stated["openness stated"] == {"not stated": 0.5, "stated": 0.5}
    assert stated["tempo stated"] == {"not stated": 0.75, "stated": 0.25}
    assert stated["tempo"] == {"80-100": 1}


def test_a_shift_that_chance_explains_is_not_judged(tmp_path: Path) -> None:
    before = report(metrics={"dynamics": {"ghost": 3, "accent": 5}})
    after = report(metrics={"dynamics": {"ghost": 5, "accent": 3}})
    found = compared(tmp_path, before, after, max_psi=0.2)
    (row,) = (row for row in found.metrics["drift"] if row["name"] == "dynamics")
    assert row["psi"] > 0.2 > row["psi_beyond_chance"] == 0
    assert not found.blocks


def test_sessions_are_taken_from_the_reports(tmp_path: Path) -> None:
    before, after = (report(metrics={**LOUDER, "entities": {"sessions": 5}}) for _ in range(2))
    after["metrics"]["dynamics"] = {"ghost": 30, "accent": 20, "medium": 50}
    found = compared(tmp_path, before, after)
    assert found.metrics["sessions"] == {"baseline": 5, "candidate": 5}
    (row,) = (row for row in found.metrics["drift"] if row["name"] == "dynamics")
    assert row["p_value"] < 0.01 < 0.5 < row["p_value_sessions"] <= row["p_holm_sessions"] <= 1
    del after["metrics"]["entities"]
    rows = compared(tmp_path, before, after).metrics["drift"]
    assert {row["p_value_sessions"] for row in rows} == {None}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ({"comparator": "<=", "threshold": 1}, {"comparator": "<=", "threshold": 2}, "<= 1 before"),
        ({"comparator": ">=", "threshold": 2}, {"comparator": ">=", "threshold": 1}, ">= 1 now"),
        ({"comparator": "<=", "threshold": 1}, {"comparator": ">=", "threshold": 1}, ">= 1 now"),
        ({"required": True}, {"required": False}, "required before, advice now"),
        ({"comparator": "<=", "threshold": 2}, {"comparator": "<=", "threshold": 1}, ""),
        ({"comparator": ">=", "threshold": 2}, {"comparator": ">=", "threshold": 3}, ""),
        ({"comparator": "<=", "threshold": 2}, {"comparator": "<=", "threshold": 2}, ""),
        ({"comparator": ">=", "threshold": 2}, {"comparator": ">=", "threshold": 2}, ""),
        ({"comparator": "==", "threshold": 2}, {"comparator": "==", "threshold": 3}, "== 3 now"),
        ({"required": False}, {"required": True}, ""),
        ({}, {"comparator": "<=", "threshold": 1}, ""),
    ],
)
def test_gates_that_ask_for_less(
    tmp_path: Path, old: dict[str, Any], new: dict[str, Any], said: str
) -> None:
    row = {"name": "g", "status": "pass", "passed": True}
    found = compared(
        tmp_path, report(gating_results=[row | old]), report(gating_results=[row | new])
    )
    (gate,) = found.metrics["gates"]
    assert said in gate["loosened"]
    assert bool(gate["loosened"]) == bool(said) == bool(found.warnings)
    assert not found.blocks


def test_what_a_reader_is_warned_of(tmp_path: Path) -> None:
    same = {"inputs": [{"path": "events.jsonl", "sha256": "ab"}]}
    found = compared(tmp_path, report(version="0.1.0", **same), report(version="0.2.0", **same))
    assert [text.partition(":")[0] for text in found.warnings] == [
        "both reports were made from the same files",
        "written by different versions of drumgate (0.1.0, 0.2.0)",
    ]
    other = {"inputs": [{"path": "events.jsonl", "sha256": "cd"}]}
    assert not compared(tmp_path, report(**same), report(**other)).warnings


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("a b.jsonl", ["new.jsonl"], "compare-manifests 'a b.jsonl' new.jsonl)"),
        ("a.jsonl", ["b.jsonl", "c.jsonl"], "compare-manifests OLD.jsonl NEW.jsonl)"),
        ("a.jsonl", "-", "compare-manifests OLD.jsonl NEW.jsonl)"),
        (None, 7, "compare-manifests OLD.jsonl NEW.jsonl)"),
    ],
)
def test_what_to_do_names_the_manifests(
    tmp_path: Path, old: object, new: object, said: str
) -> None:
    before = report(parameters={"events": old})
    after = report(parameters={"events": new}, metrics=totals(kick=90, aux_percussion=50))
    found = compared(tmp_path, before, after)
    (failed,) = (verdict for verdict in found.verdicts if not verdict.passed)
    assert said in failed.fix


def test_a_limit_that_is_no_number(compare: Callable[..., Report]) -> None:
    with pytest.raises(DrumgateError, match="max-drop-pct"):
        compare(report(), max_drop_pct=float("nan"))
    with pytest.raises(DrumgateError, match="max-psi"):
        compare(report(), max_psi=float("inf"))


@pytest.mark.parametrize("flag", ["--json-output", "--html-output", "--junit", "--markdown"])
def test_a_report_does_not_overwrite_what_it_compares(
    drumgate: Callable[..., Any], tmp_path: Path, flag: str
) -> None:
    for name in ("baseline", "candidate"):
        (tmp_path / f"{name}.json").write_text(json.dumps(report()))
    files = "--baseline", tmp_path / "baseline.json", "--candidate", tmp_path / "candidate.json"
    for name in ("baseline", "candidate"):
        output = tmp_path / "." / f"{name}.json"
        result = drumgate("compare-health-reports", *files, flag, output)
        assert (result.exit_code, json.loads(output.read_text())) == (2, report())
        assert f"{name}.json is the file of --{name}, which would be lost" in result.stderr


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
