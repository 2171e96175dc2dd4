"""The calibration check: what it writes, what it judges on, and who else reads the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from jsonl import write

from training.checks import bootstrap, boundary
from training.checks.calibrate import Options, run
from training.checks.calibration_file import load_calibration
from training.errors import DrumgateError, InputError
from training.gates import Report, Status
from training.manifest import Prediction, read_records
from training.metrics.calibration import logit

Rows = list[dict[str, Any]]
LABELS = ("kick", "snare", "crash")


def records(
    n_sessions: int = 8, *, per: int = 40, seed: int = 0, sharp: float = 3.0, bias: float = 1.5
) -> tuple[Rows, Rows]:
    """Make truth and predictions whose scores are `sharp` and `bias` away from what is true."""
    rng = np.random.default_rng(seed)
    truth, predictions = [], []
    for session in range(n_sessions):
        for clip in range(per):
            there = rng.random(3) < (0.4, 0.35, 0.2)
            # With equal spreads of 1 the log odds are 4·z, and the log odds of the shares.
            z = rng.normal(0, 1, 3) + np.where(there, 2.0, -2.0)
            odds = 4 * z + np.log([0.4 / 0.6, 0.35 / 0.65, 0.2 / 0.8])
            scores = 1 / (1 + np.exp(-(sharp * odds / 4 + bias)))
            name = f"{seed}_{session}_{clip}"
            labels = [label for label, yes in zip(LABELS, there, strict=True) if yes]
            truth.append({"sample_id": name, "session_id": f"{seed}s{session}", "labels": labels})
            predictions.append(
                {
                    "sample_id": name,
                    "scores": {
                        label: round(float(score), 6)
                        for label, score in zip(LABELS, scores, strict=True)
                    },
                }
            )
    return truth, predictions


@pytest.fixture
def judge(tmp_path: Path) -> Any:
    """Write truth and predictions, run the check, return its report."""

    def call(truth: Rows, predictions: Rows, **given: Any) -> Report:
        return run(
            Options(
                ground_truth=write(tmp_path / "truth.jsonl", truth),
                predictions=write(tmp_path / "predictions.jsonl", predictions),
                **given,
            )
        )

    return call


def statuses(report: Report) -> dict[str, Status]:
    return {verdict.name.partition(".")[2]: verdict.status for verdict in report.verdicts}


def test_it_finds_the_scaling_that_the_scores_lack(judge: Any, tmp_path: Path) -> None:
    report = judge(*records(40), output=tmp_path / "c.json")
    written = json.loads((tmp_path / "c.json").read_text())
    assert written["schema_version"] == 1
    assert written["method"] == "platt"
    # logit = 0.75 · odds + 1.5, so odds = 4/3 · logit - 2
    for each in written["classes"].values():
        assert each["slope"] == pytest.approx(4 / 3, rel=0.15)
        assert each["intercept"] == pytest.approx(-2.0, abs=0.4)
        assert 0.2 < each["threshold"] < 0.7
        assert each["n"] == 1600
        assert each["reason"] is None
    assert len(written["sessions"]) == 40
    assert {entry["sha256"] for entry in written["inputs"]} == {
        file.sha256 for file in report.inputs
    }
    assert written["figures"] == report.metrics["figures"]
    assert written["status"] == report.status == Status.PASS
    json.dumps(report.to_dict(), allow_nan=False)


def test_the_gates_look_at_cross_fitted_figures_and_say_so(judge: Any) -> None:
    report = judge(*records())
    figures = report.metrics["figures"]
    assert list(figures) == ["before", "after_in_sample", "after_cross_fitted"]
    assert [each["sample"] for each in figures.values()] == [
        "as they are",
        "in-sample",
        "cross-fitted",
    ]
    assert report.metrics["judged_on"] == "cross-fitted"
    observed = {verdict.name: verdict.observed for verdict in report.verdicts}
    assert (
        observed["calibration_validation.max_ece"]
        == figures["after_cross_fitted"]["ece"]
        < figures["before"]["ece"]
    )
    assert figures["after_in_sample"]["nll"] < figures["after_cross_fitted"]["nll"]
    methods = report.metrics["methods_cross_fitted"]
    assert methods["platt"]["ece"] == figures["after_cross_fitted"]["ece"]
    assert methods["none"]["ece"] == figures["before"]["ece"]


def test_each_gate_can_fail(judge: Any) -> None:
    rows = records(4)
    assert statuses(judge(*rows, max_ece=0.0001))["max_ece"] is Status.FAIL
    assert statuses(judge(*rows, max_brier=0.0001))["max_brier"] is Status.FAIL
    plain = statuses(judge(*rows))
    assert plain["max_ece"] is plain["max_brier"] is Status.PASS


def test_scores_that_say_too_much_fail_on_the_test_split(judge: Any) -> None:
    truth, predictions = records(bias=6.0)
    report = judge(truth, predictions, split="test")
    assert statuses(report)["max_ece"] is Status.FAIL
    assert report.metrics["judged_on"] == "as they are"
    assert {verdict.name.partition(".")[0] for verdict in report.verdicts} == {"calibration_test"}


def test_a_calibration_is_judged_on_other_sessions(judge: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    judge(*records(bias=6.0), output=file)
    report = judge(*records(seed=1, bias=6.0), split="test", calibration=file)
    assert report.metrics["judged_on"] == "held out"
    figures = report.metrics["figures"]
    assert figures["after_held_out"]["ece"] < 0.05 < figures["before"]["ece"]
    assert statuses(report)["max_ece"] is Status.PASS
    assert [entry.path for entry in report.inputs][-1] == str(file)


def test_a_calibration_is_not_judged_where_it_was_fitted(judge: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    truth, predictions = records()
    judge(truth, predictions, output=file)
    same = judge(truth, predictions, split="test", calibration=file)
    assert set(statuses(same).values()) == {Status.NOT_MEASURED, Status.WARN}
    assert "fitted on this very ground truth" in same.verdicts[0].detail
    fresh, guesses = records(seed=1)
    mixed = judge(fresh + truth[:5], guesses + predictions[:5], split="test", calibration=file)
    assert statuses(mixed)["max_ece"] is Status.NOT_MEASURED
    assert "fitted on 1 of these sessions (0s0)" in mixed.verdicts[0].detail
    assert mixed.metrics["judged_on"] == "in-sample"


def test_without_sessions_nothing_is_judged(judge: Any, tmp_path: Path) -> None:
    truth, predictions = records()
    for row in truth[:3]:
        del row["session_id"]
    report = judge(truth, predictions, output=tmp_path / "c.json")
    assert statuses(report) == {
        "max_ece": Status.NOT_MEASURED,
        "max_brier": Status.NOT_MEASURED,
        "min_brier_skill": Status.NOT_MEASURED,
    }
    assert "3 of 320 clips have no session_id" in report.verdicts[0].detail
    assert json.loads((tmp_path / "c.json").read_text())["status"] == "not_measured"
    alone = judge(*records(1))
    assert "1 session: none can be left out" in alone.verdicts[0].detail
    assert statuses(judge(truth, predictions, cluster_field="none"))["max_ece"] is Status.PASS


def test_a_missing_prediction_keeps_the_gates_from_being_measured(judge: Any) -> None:
    truth, predictions = records()
    report = judge(truth, predictions[2:])
    assert statuses(report)["max_ece"] is Status.NOT_MEASURED
    assert report.verdicts[0].detail == "2 clips have no prediction"
    assert report.metrics["missing_predictions"] == ["0_0_0", "0_0_1"]
    assert report.metrics["n_clips"] == len(truth) - 2


def test_a_rare_class_is_left_as_it_is_and_named(judge: Any, tmp_path: Path) -> None:
    truth, predictions = records()
    for number, row in enumerate(predictions):
        row["scores"]["ride"] = 0.25
        if number < 4:
            truth[number]["labels"].append("ride")
    report = judge(truth, predictions, output=tmp_path / "c.json")
    ride = json.loads((tmp_path / "c.json").read_text())["classes"]["ride"]
    assert (ride["slope"], ride["intercept"], ride["threshold"]) == (1.0, 0.0, 0.5)
    assert ride["reason"] == "4 clips with it; fitting needs 10"
    verdict = next(v for v in report.verdicts if v.name.endswith("[ride]"))
    assert verdict.status is Status.WARN
    assert verdict.observed is None
    assert verdict.detail == ride["reason"]
    assert "ride is left as it is: 4 clips with it; fitting needs 10" in report.warnings


def test_labels_that_are_not_annotated_are_left_out(judge: Any) -> None:
    truth, predictions = records()
    plain = judge(truth, predictions).metrics["per_class"]
    for row in truth[::2]:
        row["annotated_labels"] = ["kick", "snare"]
    masked = judge(truth, predictions).metrics["per_class"]
    assert masked["crash"]["n"] == plain["crash"]["n"] / 2
    assert masked["kick"] == plain["kick"]
    for row in predictions[::2]:
        row["scores"]["crash"] = 0.999
    assert judge(truth, predictions).metrics["per_class"]["crash"] == masked["crash"]


def test_neither_the_order_of_the_lines_nor_the_run_changes_anything(
    judge: Any, tmp_path: Path
) -> None:
    truth, predictions = records(4)
    first = judge(truth, predictions, output=tmp_path / "a.json").metrics
    again = judge(truth, predictions, output=tmp_path / "b.json").metrics
    assert first == again
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    turned = judge(truth[::-1], predictions[1::2] + predictions[::2]).metrics
    for name, figures in first["figures"].items():
        for key in ("ece", "brier", "nll", "macro_f1"):
            assert turned["figures"][name][key] == pytest.approx(figures[key], abs=1e-6)


def test_objectives_move_the_thresholds(judge: Any) -> None:
    rows = records(20, sharp=1.0, bias=0.0)

    def thresholds(**given: Any) -> list[float]:
        table = judge(*rows, **given).metrics["per_class"]
        return [table[label]["threshold"] for label in LABELS]

    cheap = thresholds(objective="cost", false_alarm_cost=0.1)
    dear = thresholds(objective="cost", false_alarm_cost=10.0)
    for low, high in zip(cheap, dear, strict=True):
        # The best threshold for probabilities is cost / (1 + cost).
        assert low == pytest.approx(1 / 11, abs=0.12)
        assert high == pytest.approx(10 / 11, abs=0.12)
    floor = judge(*rows, objective="recall_floor", min_recall=0.99).metrics["per_class"]
    assert all(floor[label]["after_in_sample"]["recall"] >= 0.99 for label in LABELS)


def test_keep_changes_no_decision(judge: Any) -> None:
    figures = judge(*records(6), objective="keep").metrics["figures"]
    assert figures["after_in_sample"]["macro_f1"] == figures["before"]["macro_f1"]
    assert figures["after_cross_fitted"]["macro_f1"] == figures["before"]["macro_f1"]
    assert figures["after_cross_fitted"]["ece"] < figures["before"]["ece"]


def test_a_fit_that_does_harm_is_warned_of(judge: Any) -> None:
    # Scores as they should be, and too few clips to find that out.
    truth, predictions = records(3, per=16, sharp=4.0, bias=0.0, seed=5)
    asked = {"method": "platt", "objective": "f1"}
    report = judge(truth, predictions, min_examples=5, **asked)
    figures = report.metrics["figures"]
    assert figures["after_cross_fitted"]["nll"] > figures["before"]["nll"]
    assert any("makes the scores worse" in text for text in report.warnings)
    better = judge(*records(20), **asked)
    assert not any("makes the scores worse" in text for text in better.warnings)


def test_the_method_is_that_which_does_best_on_sessions_left_out(judge: Any) -> None:
    # Right as they are; all sharpened alike; and biased apart, which one number cannot mend.
    right = judge(*records(6, sharp=4.0, bias=0.0)).metrics
    sharpened = judge(*records(6, sharp=10.0, bias=0.0)).metrics
    truth, predictions = records(14, sharp=4.0, bias=3.0)
    for row in predictions:
        odds = float(logit(np.array([row["scores"]["snare"]]))[0]) - 6.0
        row["scores"]["snare"] = round(float(1 / (1 + np.exp(-odds))), 6)
    apart = judge(truth, predictions).metrics
    assert right["method"] in ("none", "temperature")
    assert sharpened["method"] == "temperature"
    assert apart["method"] == "platt"
    for metrics in (right, sharpened, apart):
        losses = {name: row["nll"] for name, row in metrics["methods_cross_fitted"].items()}
        assert losses[metrics["method"]] == min(losses.values())
        assert metrics["figures"]["after_cross_fitted"]["nll"] == min(losses.values())
        assert metrics["chosen_because"]["method"] == "the smallest NLL on sessions left out"
    assert judge(*records(6), method="platt").metrics["chosen_because"].keys() == {"objective"}


def test_thresholds_are_chosen_where_there_are_sessions_enough(judge: Any, tmp_path: Path) -> None:
    few = judge(*records(14), output=tmp_path / "few.json").metrics
    assert few["objective"] == "keep"
    assert few["chosen_because"]["objective"] == "fewer than 15 sessions"
    figures = few["figures"]
    assert figures["after_cross_fitted"]["macro_f1"] == figures["before"]["macro_f1"]
    many = judge(*records(15), output=tmp_path / "many.json").metrics
    assert many["objective"] == "f1"
    assert many["figures"]["after_cross_fitted"]["macro_f1"] > many["figures"]["before"]["macro_f1"]
    for name, metrics in (("few", few), ("many", many)):
        written = json.loads((tmp_path / f"{name}.json").read_text())
        assert written["method"] == metrics["method"]
        assert written["objective"]["objective"] == metrics["objective"]
    right = judge(*records(15, sharp=4.0, bias=0.0)).metrics
    after, before = (right["figures"][x]["macro_f1"] for x in ("after_cross_fitted", "before"))
    assert after >= before, "thresholds that hold on no other session are not taken"


def test_without_sessions_to_leave_out_nothing_is_changed(judge: Any, tmp_path: Path) -> None:
    truth, predictions = records(1)
    metrics = judge(truth, predictions, output=tmp_path / "c.json").metrics
    assert (metrics["method"], metrics["objective"]) == ("none", "keep")
    assert set(metrics["chosen_because"].values()) == {"no session to leave out"}
    for each in json.loads((tmp_path / "c.json").read_text())["classes"].values():
        assert (each["slope"], each["intercept"], each["threshold"]) == (1.0, 0.0, 0.5)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_scores_that_say_nothing_do_not_pass_for_calibrated(judge: Any, split: str) -> None:
    """Where most clips are negative, the share of each class has a small ECE and Brier score."""
    rng = np.random.default_rng(0)
    truth, predictions = records(20)
    for row in truth:
        row["labels"] = row["labels"] if rng.random() < 0.1 else []
    for row in predictions:
        row["scores"] = dict.fromkeys(LABELS, 0.032)
    found = statuses(judge(truth, predictions, split=split))
    assert found["max_ece"] is found["max_brier"] is Status.PASS
    assert found["min_brier_skill"] is Status.FAIL
    for row in truth:
        row["labels"] = []
    never = judge(truth, predictions, split=split)
    assert statuses(never)["min_brier_skill"] is Status.NOT_MEASURED
    honest = judge(*records(20, sharp=4.0, bias=0.0), split=split)
    assert statuses(honest)["min_brier_skill"] is Status.PASS


def test_what_makes_no_sense_is_refused(judge: Any, tmp_path: Path) -> None:
    rows = records(2)
    file = tmp_path / "c.json"
    for given, said in (
        ({"split": "test", "output": file}, "--output: nothing is fitted on the test split"),
        ({"calibration": file}, "--calibration: is judged on --split test"),
        ({"false_alarm_cost": 2.0}, "--false-alarm-cost: needs --objective cost"),
        ({"min_recall": 0.5}, "--min-recall: needs --objective recall_floor"),
        ({"folds": 1}, "--folds"),
    ):
        with pytest.raises(DrumgateError, match=said):
            judge(*rows, **given)
    assert not file.exists()


def test_predictions_without_scores_or_with_calibrated_ones_are_refused(
    judge: Any, tmp_path: Path
) -> None:
    truth, predictions = records(2)
    bare = [{"sample_id": row["sample_id"], "labels": ["kick"]} for row in predictions]
    with pytest.raises(InputError, match=r"predictions\.jsonl:1: scores: is required"):
        judge(truth, bare)
    marked = [{**row, "calibration": "0123456789abcdef"} for row in predictions]
    with pytest.raises(InputError, match="calibrated already"):
        judge(truth, marked, output=tmp_path / "c.json")
    with pytest.raises(InputError, match="holds no prediction of any clip"):
        judge(truth, [{**row, "sample_id": "x" + row["sample_id"]} for row in predictions])
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema_version": 2}, "schema_version"),
        ({"classes": {}}, "classes: must name a class"),
        ({"classes": {"kick": {"slope": -1.0}}}, "slope"),
        ({"classes": {"kick": {"slope": "1"}}}, "slope"),
        ({"classes": {"kick": {"threshold": 1.5}}}, "threshold"),
        ({"classes": {"kick": {"cut": 0.5}}}, "is not a known field"),
        ({"calibration_id": "0123456789abcdef"}, "is not that of the slopes and intercepts"),
    ],
)
def test_a_file_that_is_not_right_is_refused(
    change: dict[str, Any], said: str, tmp_path: Path
) -> None:
    content = {"schema_version": 1, "classes": {"kick": {"threshold": 0.4}}}
    path = tmp_path / "c.json"
    path.write_text(json.dumps(content))
    assert load_calibration(path).thresholds(("kick", "snare"), 0.5).tolist() == [0.4, 0.5]
    path.write_text(json.dumps({**content, **change}))
    with pytest.raises(InputError, match=said):
        load_calibration(path)


def test_nan_is_no_json_and_a_missing_file_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"schema_version": 1, "classes": {"kick": {"slope": NaN}}}')
    with pytest.raises(InputError, match="not valid JSON"):
        load_calibration(path)
    with pytest.raises(InputError, match="no such file"):
        load_calibration(tmp_path / "none.json")


def calibrated(predictions: Rows, file: Path) -> Rows:
    """Return predictions as `predict --calibration` would have written them."""
    content = json.loads(file.read_text())
    made = []
    for row in predictions:
        scores = {}
        for label, score in row["scores"].items():
            each = content["classes"][label]
            z = each["slope"] * float(logit(np.array(score))) + each["intercept"]
            scores[label] = round(1 / (1 + float(np.exp(-z))), 6)
        made.append({**row, "scores": scores, "calibration": content["calibration_id"]})
    return made


def test_bootstrap_and_boundary_take_the_file_and_never_scale_twice(
    judge: Any, tmp_path: Path
) -> None:
    file = tmp_path / "c.json"
    judge(*records(20, bias=6.0), output=file)
    truth, predictions = records(8, seed=1, bias=6.0)
    labels = write(tmp_path / "test.jsonl", truth)
    raw = write(tmp_path / "raw.jsonl", predictions)
    done = write(tmp_path / "done.jsonl", calibrated(predictions, file))

    def macro_f1(path: Path, **given: Any) -> float:
        options = bootstrap.Options(ground_truth=labels, predictions=path, iterations=20, **given)
        return float(bootstrap.run(options).metrics["macro_f1"]["point_estimate"])

    def recall(path: Path, **given: Any) -> float:
        options = boundary.Options(ground_truth=labels, predictions=path, iterations=20, **given)
        return float(boundary.run(options).metrics["macro"]["f1"])

    for figure in (macro_f1, recall):
        plain, with_file = figure(raw), figure(raw, calibration=file)
        assert with_file > plain + 0.05
        assert figure(done, calibration=file) == pytest.approx(with_file, abs=0.01)

    report = run(Options(ground_truth=labels, predictions=raw, split="test", calibration=file))
    expected = report.metrics["figures"]["after_held_out"]["macro_f1"]
    assert macro_f1(raw, calibration=file) == pytest.approx(expected, abs=1e-12)
    again = run(Options(ground_truth=labels, predictions=done, split="test", calibration=file))
    assert again.metrics["figures"]["after_held_out"]["ece"] == pytest.approx(
        report.metrics["figures"]["after_held_out"]["ece"], abs=1e-4
    )
    assert "before" not in again.metrics["figures"]


def test_scores_of_another_calibration_are_refused_everywhere(judge: Any, tmp_path: Path) -> None:
    truth, predictions = records()
    file = tmp_path / "c.json"
    judge(truth, predictions, output=file)
    predictions[3]["calibration"] = "0123456789abcdef"
    paths = {
        "ground_truth": write(tmp_path / "a.jsonl", truth),
        "predictions": write(tmp_path / "b.jsonl", predictions),
    }
    with pytest.raises(InputError, match=r"b.jsonl:4: calibration: names another calibration"):
        bootstrap.run(bootstrap.Options(**paths, calibration=file))
    with pytest.raises(InputError, match="names another calibration"):
        boundary.run(boundary.Options(**paths, calibration=file))
    with pytest.raises(InputError, match="names another calibration"):
        run(Options(**paths, calibration=file, split="test"))


def test_the_baseline_has_a_calibration_of_its_own(judge: Any, tmp_path: Path) -> None:
    file = tmp_path / "c.json"
    judge(*records(20, bias=6.0), output=file)
    truth, predictions = records(8, seed=1, bias=6.0)
    paths: dict[str, Any] = {
        "ground_truth": write(tmp_path / "a.jsonl", truth),
        "predictions": write(tmp_path / "b.jsonl", predictions),
    }
    with pytest.raises(DrumgateError, match="--baseline-calibration: needs"):
        bootstrap.run(bootstrap.Options(**paths, baseline_calibration=file))
    paths["baseline_predictions"] = write(tmp_path / "d.jsonl", predictions)

    def difference(**given: Any) -> float:
        report = bootstrap.run(bootstrap.Options(**paths, iterations=20, **given))
        found = report.metrics["comparison"]["difference"]["macro_f1"]["point_estimate"]
        return float(found)

    assert difference(calibration=file) > 0.05
    assert difference(calibration=file, baseline_calibration=file) == 0.0


def test_score_maps_are_the_scaled_scores(judge: Any, tmp_path: Path) -> None:
    truth, predictions = records(4)
    file = tmp_path / "c.json"
    judge(truth, predictions, output=file)
    predictions[0] = {"sample_id": predictions[0]["sample_id"], "labels": ["kick", "tom_high"]}
    path = write(tmp_path / "p.jsonl", predictions)
    maps = load_calibration(file).score_maps(read_records(path, Prediction))
    assert maps[predictions[0]["sample_id"]] == {"kick": 1.0, "tom_high": 1.0}
    expected = calibrated(predictions[1:2], file)[0]["scores"]
    assert maps[predictions[1]["sample_id"]] == pytest.approx(expected, abs=1e-6)


def test_a_class_that_the_file_lacks_and_a_verdict_that_was_not_good_are_warned_of(
    judge: Any, tmp_path: Path
) -> None:
    truth, predictions = records(4)
    file = tmp_path / "c.json"
    judge(truth, predictions, output=file, max_ece=0.0)
    warnings = load_calibration(file).warnings(["kick", "ride"])
    assert "has no entry for ride" in warnings[0]
    assert "its own gates came out as fail" in warnings[1]


def test_the_page_draws_every_class_and_asks_for_nothing(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    truth, predictions = records(4)
    for row in predictions:
        row["scores"]["<b>x"] = 0.3
    paths = (write(tmp_path / "a.jsonl", truth), write(tmp_path / "b.jsonl", predictions))
    page = tmp_path / "r.html"
    said = drumgate(
        "calibrate", "--ground-truth", paths[0], "--predictions", paths[1], "--html-output", page
    )
    assert said.exit_code == 0, said.output
    text = page.read_text()
    for label in ("all classes", *LABELS, "&lt;b&gt;x"):
        assert f'aria-label="reliability of {label}"' in text
    assert "cross-fitted" in text
    assert "<b>x" not in text
    assert "http" not in text.replace("http-equiv", "")
