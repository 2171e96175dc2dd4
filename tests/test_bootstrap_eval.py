"""The bootstrap check: reading, joining, clustering, judging, and each gate seen failing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from training.checks.bootstrap import Options, run
from training.errors import DrumgateError, InputError
from training.gates import Report, Status, Verdict

Rows = list[dict[str, Any]]


def records(
    n_sessions: int = 10, per_session: int = 20, *, wrong_every: int = 0
) -> tuple[Rows, Rows]:
    """Make clips of kick or snare; every `wrong_every`-th is predicted as the other one."""
    truth, predictions = [], []
    for session in range(n_sessions):
        for clip in range(per_session):
            name = f"{session}_{clip}"
            label, other = ("kick", "snare") if clip % 2 else ("snare", "kick")
            flip = wrong_every and (session * per_session + clip) % wrong_every == 0
            truth.append({"sample_id": name, "session_id": f"s{session}", "labels": [label]})
            first = other if flip else label
            predictions.append(
                {
                    "sample_id": name,
                    "scores": {"kick": 0.1, "snare": 0.1} | {first: 0.9},
                }
            )
    return truth, predictions


@pytest.fixture
def judge(tmp_path: Path) -> Any:
    """Write truth and predictions, run the check, return its report."""

    def call(truth: Rows, predictions: Rows, baseline: Rows | None = None, **given: Any) -> Report:
        paths = {}
        for name, rows in (("truth", truth), ("predictions", predictions), ("baseline", baseline)):
            if rows is not None:
                paths[name] = tmp_path / f"{name}.jsonl"
                paths[name].write_text("".join(json.dumps(row) + "\n" for row in rows))
        defaults: dict[str, Any] = {"iterations": 200} | given
        return run(
            Options(
                ground_truth=paths["truth"],
                predictions=paths["predictions"],
                baseline_predictions=paths.get("baseline"),
                **defaults,
            )
        )

    return call


def verdict(report: Report, name: str) -> Verdict:
    return next(v for v in report.verdicts if v.name == f"bootstrap.{name}")


def test_a_good_model_passes_on_its_lower_bound(judge: Any) -> None:
    report = judge(*records(wrong_every=37))
    found = verdict(report, "min_macro_f1")
    entry = report.metrics["macro_f1"]
    assert found.status is Status.PASS
    assert found.observed == entry["ci_lower"] < entry["point_estimate"] < entry["ci_upper"]
    assert entry["n_clusters"] == 10
    assert report.metrics["per_class"]["kick"]["n_events"] == 100
    assert report.metrics["per_class"]["kick"]["f1"]["n_clusters"] == 10
    assert len(report.verdicts) == 1
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_poor_model_fails(judge: Any) -> None:
    assert verdict(judge(*records(wrong_every=4)), "min_macro_f1").status is Status.FAIL


def test_too_few_sessions_are_undecidable(judge: Any) -> None:
    found = verdict(judge(*records(3, wrong_every=7)), "min_macro_f1")
    assert found.status is Status.NOT_MEASURED
    assert "undecidable: about" in found.detail
    assert found.fix.startswith("About 2 more sessions needed in the test set to tell on which")
    assert "more sessions needed (3 clusters, an interval needs 5)" in found.detail


def test_the_report_is_the_same_from_run_to_run_and_changes_with_the_seed(judge: Any) -> None:
    first, again = (judge(*records(wrong_every=7)).metrics for _ in range(2))
    other = judge(*records(wrong_every=7), seed=1).metrics
    assert first == again
    assert first["macro_f1"]["ci_lower"] != other["macro_f1"]["ci_lower"]


def test_the_order_of_the_lines_does_not_matter(judge: Any) -> None:
    truth, predictions = records(wrong_every=7)
    turned = judge(truth[::-1], predictions[::3] + predictions[1::3] + predictions[2::3])
    assert turned.metrics["macro_f1"] == judge(truth, predictions).metrics["macro_f1"]


def test_clips_without_a_prediction_count_as_missed(judge: Any) -> None:
    truth, predictions = records()
    report = judge(truth, predictions[1:], threshold=0.0)
    assert report.metrics["missing_predictions"] == ["0_0"]
    assert report.metrics["micro_recall"]["point_estimate"] == pytest.approx(199 / 200)
    assert "1 of 200 clips have no prediction and count as missed" in report.warnings


def test_predictions_of_other_clips_are_left_out_and_counted(judge: Any) -> None:
    truth, predictions = records()
    report = judge(truth, [*predictions, {"sample_id": "else", "labels": ["kick"]}])
    assert report.metrics["surplus_predictions_total"] == 1
    assert report.metrics["macro_f1"]["point_estimate"] == 1.0


def test_aliases_and_background_labels(judge: Any) -> None:
    truth, predictions = records()
    truth[0]["labels"] = ["cowbell"]
    truth[1]["labels"] = ["bass_drum"]
    predictions[0]["scores"] = {"snare": 0.1, "tambourine": 0.9}
    predictions[1]["scores"] = {"bd": 0.2, "kick": 0.9}
    report = judge(truth, predictions)
    assert report.metrics["macro_f1"]["point_estimate"] == 1.0
    assert report.metrics["background_labels_left_out"] == {"aux_percussion": 1}
    assert set(report.metrics["per_class"]) == {"kick", "snare"}
    assert "crash" in report.metrics["classes_without_reference"]


def test_labels_of_another_taxonomy_are_classes_unless_the_classes_are_given(judge: Any) -> None:
    truth, predictions = records()
    truth[0]["labels"] = ["gong"]
    predictions[0]["scores"] = {"gong": 0.9}
    report = judge(truth, predictions)
    assert set(report.metrics["per_class"]) == {"kick", "snare", "gong"}
    assert "classes that the taxonomy does not know: gong" in report.warnings
    with pytest.raises(InputError, match=r"truth.jsonl:1: labels: is none of the classes") as error:
        judge(truth, predictions, labels=("kick", "snare"))
    assert len(error.value.problems) == 2


def test_unannotated_labels_are_masked_out(judge: Any) -> None:
    truth, predictions = records()
    for row in truth:
        row["annotated_labels"] = row["labels"]
    for row in predictions:
        row["scores"] = {"kick": 0.9, "snare": 0.9}
    assert judge(truth, predictions).metrics["macro_f1"]["point_estimate"] == 1.0


def test_without_sessions_nothing_is_decided(judge: Any) -> None:
    truth, predictions = records()
    del truth[5]["session_id"]
    report = judge(truth, predictions)
    found = verdict(report, "min_macro_f1")
    assert found.status is Status.NOT_MEASURED
    assert "1 of 200 clips have no session_id" in found.detail
    clips = judge(truth, predictions, cluster_field="none")
    assert clips.metrics["macro_f1"]["n_clusters"] == 200
    assert verdict(clips, "min_macro_f1").status is Status.PASS


def test_any_text_field_clusters_and_stratifies(judge: Any) -> None:
    truth, predictions = records(wrong_every=7)
    for row in truth:
        row["drummer_id"] = row["session_id"]
        row["source_set"] = "a" if row["session_id"] < "s5" else "b"
    plain = judge(truth, predictions).metrics
    by_drummer = judge(truth, predictions, cluster_field="drummer_id").metrics
    assert by_drummer["macro_f1"] == plain["macro_f1"]
    stratified = judge(truth, predictions, stratify_field="source_set").metrics
    assert stratified["macro_f1"]["point_estimate"] == plain["macro_f1"]["point_estimate"]
    # One session a stratum leaves nothing to draw.
    alone = judge(truth, predictions, stratify_field="session_id").metrics["macro_f1"]
    assert alone["ci_lower"] is alone["ci_upper"] is None
    assert alone["reason"] == "10 clusters in 10 strata, an interval needs 14"
    truth[0]["source_set"] = "b"
    with pytest.raises(InputError, match="source_set: differs within one cluster"):
        judge(truth, predictions, stratify_field="source_set")
    truth[0]["drummer_id"] = 7
    with pytest.raises(InputError, match=r"truth.jsonl:1: drummer_id: must be text \(got 7\)"):
        judge(truth, predictions, cluster_field="drummer_id")


def test_a_clear_drop_below_the_baseline_blocks(judge: Any) -> None:
    truth, good = records()
    _, bad = records(wrong_every=9)
    report = judge(truth, bad, good, min_macro_f1=0.5)
    found = verdict(report, "max_macro_f1_drop")
    assert found.status is Status.FAIL
    assert found.observed is not None
    assert found.observed > 0.03
    assert report.metrics["comparison"]["clips_broken_total"] == 23
    assert report.metrics["comparison"]["clips_fixed_total"] == 0
    per_class = report.metrics["comparison"]["per_class_f1"]["kick"]
    assert per_class["p_holm"] >= per_class["p_value"]
    assert verdict(judge(truth, good, bad), "max_macro_f1_drop").status is Status.PASS


def test_a_drop_within_the_interval_warns(judge: Any) -> None:
    truth, good = records()
    bad = [dict(row) for row in good]
    for clip in range(20):  # one session goes wrong as a whole
        bad[clip] = bad[clip] | {"scores": {"kick": 0.9, "snare": 0.9}}
    report = judge(truth, bad, good, min_macro_f1=0.1)
    assert verdict(report, "max_macro_f1_drop").status is Status.PASS
    assert any("max_macro_f1_drop passes on the bound" in text for text in report.warnings)


def test_a_baseline_that_says_too_little_cannot_flatter_the_candidate(judge: Any) -> None:
    truth, good = records(wrong_every=37)
    _, bad = records(wrong_every=7)
    report = judge(truth, bad, good[::2], min_macro_f1=0.5)
    found = verdict(report, "max_macro_f1_drop")
    assert found.status is Status.NOT_MEASURED
    assert (found.observed, found.ci) == (None, None)
    assert found.detail == "100 clips have no prediction from the baseline"
    assert any("have no prediction in " in text for text in report.warnings)
    assert all(
        " and count as missed" in text for text in report.warnings if "no prediction" in text
    )


def test_a_file_compared_with_itself_is_named(judge: Any) -> None:
    truth, good = records(wrong_every=37)
    assert any("compared with itself" in w for w in judge(truth, good, good).warnings)
    assert not any("with itself" in w for w in judge(truth, good, good[::-1]).warnings)


def test_what_can_only_be_right_is_not_measured(judge: Any) -> None:
    truth, predictions = records()
    for row in truth:
        row["labels"] = ["kick"]
    for row in predictions:
        row["scores"] = {"kick": 0.9}
    found = verdict(judge(truth, predictions), "min_macro_f1")
    assert found.status is Status.NOT_MEASURED
    assert "a false alarm could not show" in found.detail
    truth[0]["labels"] = []
    assert verdict(judge(truth, predictions), "min_macro_f1").status is Status.PASS
    truth[0]["weight"] = 0.0
    assert verdict(judge(truth, predictions), "min_macro_f1").status is Status.NOT_MEASURED


def test_alarms_of_classes_that_are_never_there_are_named(judge: Any) -> None:
    truth, predictions = records()
    for row in predictions[:3]:
        row["scores"]["crash"] = 0.5
    report = judge(truth, predictions)
    assert report.metrics["macro_f1"]["point_estimate"] == 1.0
    assert (
        "predicted without any reference event, which the macro figures leave out: crash (3)"
        in report.warnings
    )


def test_what_to_do_about_an_undecided_gate_names_the_sessions(judge: Any) -> None:
    truth, predictions = records(wrong_every=9)
    found = verdict(judge(truth, predictions, min_macro_f1=0.88), "min_macro_f1")
    assert found.status is Status.FAIL
    assert found.detail.startswith("undecidable: about ")
    said = found.detail.partition("about ")[2].partition(" needed")[0]
    assert found.fix.startswith(f"About {said} needed in the test set")


def with_openness(truth: Rows, predictions: Rows, error: float) -> tuple[Rows, Rows]:
    truth = [row | {"openness": 0.5} for row in truth]
    return truth, [row | {"openness_pred": 0.5 + error} for row in predictions]


def test_a_rise_of_the_openness_error_blocks(judge: Any) -> None:
    truth, good = with_openness(*records(), 0.01)
    _, bad = with_openness(*records(), 0.05)
    report = judge(truth, bad, good)
    found = verdict(report, "max_openness_mae_rise")
    assert found.status is Status.FAIL
    assert found.observed == pytest.approx(0.04)
    assert report.metrics["openness_mae"]["point_estimate"] == pytest.approx(0.05)
    assert report.metrics["openness_r2"]["point_estimate"] is None


def test_a_model_may_not_choose_where_its_openness_is_compared(judge: Any) -> None:
    truth, good = with_openness(*records(), 0.05)
    partial = [dict(row) for row in good]
    del partial[3]["openness_pred"]
    found = verdict(judge(truth, partial, good), "max_openness_mae_rise")
    assert found.status is Status.NOT_MEASURED
    assert "1 clips have an openness from the baseline and none" in found.detail


def test_openness_and_velocity_come_from_components(judge: Any) -> None:
    truth, predictions = records()
    for row in truth:
        label = row.pop("labels")[0]
        row["components"] = [
            {"label": label, "velocity": 0.4},
            {"label": "tambourine", "velocity": 0.8, "openness": 0.25},
        ]
    for row in predictions:
        row |= {"openness_pred": 0.5, "velocity_pred": 0.7}
    metrics = judge(truth, predictions).metrics
    assert metrics["openness_mae"]["point_estimate"] == pytest.approx(0.25)
    assert metrics["velocity_mae"]["point_estimate"] == pytest.approx(0.1)


def test_labels_without_scores_are_said_to_be_so(judge: Any) -> None:
    truth, _ = records()
    labelled = [{"sample_id": row["sample_id"], "labels": row["labels"]} for row in truth]
    report = judge(truth, labelled)
    assert report.metrics["macro_f1"]["point_estimate"] == 1.0
    assert any("200 predictions give labels without scores" in text for text in report.warnings)


def test_no_reference_event_is_not_measured(judge: Any) -> None:
    truth, predictions = records()
    for row in truth:
        row["labels"] = []
    found = verdict(judge(truth, predictions), "min_macro_f1")
    assert found.status is Status.NOT_MEASURED
    assert found.detail == "there is no reference event of any class"


def test_only_the_metrics_asked_for_and_those_of_the_gates(judge: Any) -> None:
    metrics = judge(*records(), metrics=("map",)).metrics
    assert {"map", "macro_f1"} <= set(metrics)
    assert "ece" not in metrics
    with pytest.raises(DrumgateError, match="accuracy is not a figure"):
        judge(*records(), metrics=("accuracy",))


def test_an_overlay_moves_the_gate_and_shows_production(judge: Any, tmp_path: Path) -> None:
    overlay = tmp_path / "gates.toml"
    overlay.write_text('[bootstrap.min_macro_f1]\nvalue = 0.4\nreason = "a small demo"\n')
    found = verdict(judge(*records(wrong_every=4), gates=overlay), "min_macro_f1")
    assert found.status is Status.PASS
    assert (found.threshold, found.production_threshold) == (0.4, 0.9)
