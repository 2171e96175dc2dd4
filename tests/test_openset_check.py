"""The open-set check on files: which score is judged, thresholds, bad input, the page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from jsonl import write

from training.checks import openset
from training.errors import DrumgateError, InputError
from training.gates import Report, Status

Run = Callable[..., Result]
LABELS = ("kick", "snare", "ride")


class Made:
    """Truth and predictions of clips in sessions, written to a folder."""

    def __init__(
        self, folder: Path, *, seed: int = 0, name: str = "t", sessions: int = 12, each: int = 12
    ) -> None:
        rng = np.random.default_rng(seed)
        self.folder, self.truth, self.predictions = folder / name, [], []
        self.folder.mkdir()
        self.features = []
        for number in range(sessions * each):
            unknown = number % 3 == 0
            group = ("near", "far")[number % 2]
            label = LABELS[number % 3] if not unknown else ("speech", "clap")[number % 2]
            logits = rng.normal(-4, 1, 3)
            logits[number % 3] += {"near": 3.5, "far": 0.5}[group] if unknown else 8.0
            sample = f"{name}_{number:04d}"
            self.truth.append(
                {
                    "sample_id": sample,
                    "session_id": f"{name}_s{number // each}",
                    "labels": [label],
                    "is_known": not unknown,
                    **({"unknown_group": group} if unknown else {}),
                }
            )
            p = 1 / (1 + np.exp(-logits))
            self.predictions.append(
                {
                    "sample_id": sample,
                    "scores": {a: round(float(b), 6) for a, b in zip(LABELS, p, strict=True)},
                    "logits": dict(zip(LABELS, logits.tolist(), strict=True)),
                    "unknown_score": 1 - float(p.max()),
                    "confidence": float(p.max()),
                }
            )
            far = np.array([0, 0, 0, 0, 6.0, 0]) if unknown else np.zeros(6)
            side = -3 if unknown else 3
            self.features.append(np.eye(6)[number % 3] * side + far + rng.normal(0, 0.5, 6))

    def options(self, **more: Any) -> openset.Options:
        return openset.Options(
            ground_truth=write(self.folder / "truth.jsonl", self.truth),
            predictions=write(self.folder / "predictions.jsonl", self.predictions),
            **{"iterations": 100, **more},
        )

    def run(self, **more: Any) -> Report:
        return openset.run(self.options(**more))

    def calibration(self) -> dict[str, Path]:
        options = self.options()
        return {
            "calibration_ground_truth": options.ground_truth,
            "calibration_predictions": options.predictions,
        }


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path)


def verdict(report: Report, name: str) -> Any:
    return next(each for each in report.verdicts if each.name == f"openset.{name}")


def test_every_figure_has_its_interval(made: Made) -> None:
    report = made.run()
    figures = report.metrics
    for name, interval in figures["intervals"].items():
        assert interval["ci_lower"] <= figures[name] <= interval["ci_upper"], name
        assert interval["n_clusters"] == 12
    assert verdict(report, "min_auroc").ci is not None
    assert list(figures["conventions"]) == ["unknown_positive", "known_positive"]
    assert figures["conventions"]["known_positive"]["aupr"] == figures["aupr_in"]
    assert figures["tnr_at_95tpr"] == 1 - figures["fpr_at_95tpr"]
    assert report.seed == 0


def test_near_and_far_and_each_class_are_told_apart(made: Made) -> None:
    figures = made.run().metrics
    groups, classes = figures["per_unknown_group"], figures["per_unknown_class"]
    assert set(groups) == {"near", "far"}
    assert set(classes) == {"speech", "clap"}
    assert groups["near"]["auroc"] < groups["far"]["auroc"]
    assert sum(row["n"] for row in classes.values()) == figures["n_unknown"] == 48
    # All unknown sounds together are rejected at 95 %, by the choice of the threshold.
    whole = sum(row["n"] * row["rejected"] for row in groups.values()) / 48
    assert whole == pytest.approx(46 / 48)
    known = figures["per_known_class"]
    lost = sum(row["n"] * row["rejected"] for row in known.values()) / figures["n_known"]
    assert lost == pytest.approx(figures["fpr_at_95tpr"])
    assert figures["class_threshold"]["chosen_on"] == "test file"
    assert set(figures["score_histogram"]["groups"]) == {"near", "far"}


def test_derived_scores_are_those_of_the_outputs(made: Made) -> None:
    explicit = made.run().metrics
    by_logits = made.run(method="max_probability").metrics
    assert by_logits["auroc"] == pytest.approx(explicit["auroc"])
    assert by_logits["outputs"]["outputs"] == "logits"
    for row in made.predictions:
        del row["logits"], row["unknown_score"]
    by_scores = made.run(method="max_probability").metrics
    assert by_scores["outputs"]["outputs"] == "scores"
    assert by_scores["auroc"] == pytest.approx(explicit["auroc"], abs=1e-3)


def test_another_field_and_its_direction(made: Made) -> None:
    expected = made.run().metrics["auroc"]
    turned = made.run(rejection_field="confidence", higher_is="known")
    assert turned.metrics["auroc"] == pytest.approx(expected, abs=1e-12)
    wrong = made.run(rejection_field="confidence")
    assert wrong.metrics["auroc"] == pytest.approx(1 - expected, abs=1e-12)
    assert wrong.status is Status.FAIL
    assert any("--higher-is known" in text for text in wrong.warnings)
    for bad in ("high", True, [1]):
        made.predictions[4]["confidence"] = bad
        with pytest.raises(InputError, match=r"predictions.jsonl:5: confidence: must be a number"):
            made.run(rejection_field="confidence")
    del made.predictions[4]["confidence"]
    with pytest.raises(InputError, match=r"predictions.jsonl:5: confidence: is required"):
        made.run(rejection_field="confidence")


def test_all_ranks_what_can_be_had_and_says_what_cannot(made: Made) -> None:
    report = made.run(method="all")
    ranking = report.metrics["ranking"]
    assert [row["method"] for row in ranking if row["judged"]] == ["explicit"]
    assert {row["method"] for row in ranking} == {
        "explicit", "max_probability", "max_logit", "energy", "entropy", "gen",
    }  # fmt: skip
    scores = [row["auroc"] for row in ranking]
    assert scores == sorted(scores, reverse=True)
    assert [row["rank"] for row in ranking] == list(range(1, 7))
    assert set(report.metrics["methods_unavailable"]) == {
        "mahalanobis", "relative_mahalanobis", "knn", "vim",
    }  # fmt: skip
    assert any("would flatter itself" in text for text in report.warnings)


def test_the_threshold_comes_from_the_calibration_file(tmp_path: Path) -> None:
    held, test = Made(tmp_path, seed=1, name="c"), Made(tmp_path, seed=2)
    report = test.run(method="all", **held.calibration())
    found = report.metrics["calibrated"]
    unknown = [r["unknown_score"] for r, t in zip(held.predictions, held.truth, strict=True)
               if not t["is_known"]]  # fmt: skip
    method = report.metrics["method"]
    assert "best AUROC on the calibration file" in report.metrics["method_chosen_by"]
    judged = test.run(method="explicit", **held.calibration()).metrics["calibrated"]
    # 46 of 48 is the least share above 0.95.
    assert judged["threshold"] == sorted(unknown, reverse=True)[45]
    assert judged["calibration"]["tpr"] == pytest.approx(46 / 48)
    rejected = [r["unknown_score"] >= judged["threshold"] for r in test.predictions]
    truth = [not t["is_known"] for t in test.truth]
    hits = sum(a and b for a, b in zip(rejected, truth, strict=True))
    assert judged["test"]["tpr"] == pytest.approx(hits / 48)
    assert judged["test"]["fpr"] == pytest.approx((sum(rejected) - hits) / 96)
    assert judged["test"]["tnr"] == pytest.approx(1 - judged["test"]["fpr"])
    assert found["threshold"] is not None
    assert [row["method"] for row in report.metrics["ranking"] if row["judged"]] == [method]
    assert {each.name for each in report.verdicts} == {
        "openset.min_auroc", "openset.max_fpr_at_95tpr",
        "openset.min_calibrated_tpr", "openset.max_calibrated_fpr",
    }  # fmt: skip
    assert test.run().metrics["calibrated"] is None


def test_a_threshold_that_does_not_hold_fails(tmp_path: Path) -> None:
    held, test = Made(tmp_path, seed=1, name="c"), Made(tmp_path, seed=2)
    for row in held.predictions:  # the calibration file was scored by something else
        row["unknown_score"] += 5.0
    report = test.run(**held.calibration())
    assert verdict(report, "min_calibrated_tpr").status is Status.FAIL
    assert verdict(report, "min_auroc").status is Status.PASS
    for row in held.predictions:
        row["unknown_score"] -= 10.0
    report = test.run(**held.calibration())
    assert verdict(report, "max_calibrated_fpr").status is Status.FAIL
    assert verdict(report, "max_calibrated_fpr").observed == 1.0


@pytest.mark.parametrize("fault", ["shared", "one_class", "missing", "few"])
def test_a_threshold_that_may_not_be_used_is_not_measured(tmp_path: Path, fault: str) -> None:
    held, test = Made(tmp_path, seed=1, name="c"), Made(tmp_path, seed=2)
    if fault == "shared":
        held.truth[0]["sample_id"] = held.predictions[0]["sample_id"] = "t_0000"
    elif fault == "one_class":
        for row in held.truth:
            row["is_known"] = True
    elif fault == "missing":
        del held.predictions[3]
    else:
        for row in held.truth[30:]:
            row["is_known"] = True
    said = {
        "shared": "1 examples stand in the calibration file and in the test file",
        "one_class": "the calibration file holds no unknown example",
        "missing": "1 examples of the calibration file have no prediction",
        "few": "the calibration file holds 10 unknown examples, a threshold needs 11",
    }[fault]
    report = test.run(min_examples=11, **held.calibration())
    for gate in ("min_calibrated_tpr", "max_calibrated_fpr"):
        assert verdict(report, gate).status is Status.NOT_MEASURED
        assert said in verdict(report, gate).detail
    assert verdict(report, "min_auroc").status is Status.PASS
    assert report.blocks


def test_a_calibration_file_that_ranks_no_score_blocks(tmp_path: Path) -> None:
    held, test = Made(tmp_path, seed=1, name="c"), Made(tmp_path, seed=2)
    for row in held.truth:
        row["is_known"] = True
    report = test.run(method="all", **held.calibration())
    assert "ranks none" in report.metrics["method_chosen_by"]
    assert verdict(report, "min_calibrated_tpr").status is Status.NOT_MEASURED
    for row in held.predictions:
        del row["scores"], row["logits"], row["unknown_score"]
        row["labels"] = ["kick"]
    with pytest.raises(DrumgateError, match="on both the calibration and the test file"):
        test.run(method="all", **held.calibration())


def test_shared_sessions_are_named(tmp_path: Path) -> None:
    held, test = Made(tmp_path, seed=1, name="c"), Made(tmp_path, seed=2)
    held.truth[0]["session_id"] = "t_s0"
    assert any("1 sessions are in" in text for text in test.run(**held.calibration()).warnings)


def test_too_few_examples_and_too_few_sessions(tmp_path: Path) -> None:
    few = Made(tmp_path, sessions=2, each=12)
    report = few.run()
    assert report.metrics["n_unknown"] == 8
    assert report.metrics["auroc"] is not None
    for each in report.verdicts:
        assert each.status is Status.NOT_MEASURED
        assert "there are 8 unknown examples, a gate needs 10" in each.detail
    assert report.metrics["intervals"]["auroc"]["ci_lower"] is None
    assert few.run(min_examples=8).verdicts[0].status is Status.PASS
    del few.truth[0]["session_id"]
    report = few.run(min_examples=8)
    assert "1 of 24 examples have no session_id" in report.metrics["intervals"]["auroc"]["reason"]
    assert few.run(cluster_field="none").metrics["intervals"]["auroc"]["ci_lower"] is not None


def test_a_bound_that_decides_needs_an_interval(tmp_path: Path) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text('[openset.min_auroc]\ndecide_on = "lower"\nreason = "surely good enough"\n')
    few = Made(tmp_path, sessions=4, each=12)
    found = verdict(few.run(gates=gates), "min_auroc")
    assert found.status is Status.NOT_MEASURED
    assert "4 clusters, an interval needs 5" in found.detail
    many = Made(tmp_path, name="m")
    found = verdict(many.run(gates=gates), "min_auroc")
    assert found.observed == found.ci.lower


def test_the_report_does_not_depend_on_the_order_of_the_rows(made: Made) -> None:
    first = made.run(method="all").metrics
    made.truth.reverse()
    made.predictions.sort(key=lambda row: row["unknown_score"])
    assert made.run(method="all").metrics == first


def archives(made: Made, seed: int = 9) -> dict[str, Path]:
    """Features of the examples and of 200 training clips; unknown sounds lie off to one side."""
    rng = np.random.default_rng(seed)
    which = rng.integers(3, size=200)
    paths = {name: made.folder / f"{name}.npz" for name in ("features", "statistics")}
    np.savez(
        paths["features"],
        sample_id=np.array([row["sample_id"] for row in made.truth]),
        features=np.array(made.features, dtype=np.float32),
    )
    np.savez(
        paths["statistics"],
        features=(np.eye(6)[which] * 3 + rng.normal(0, 0.5, (200, 6))).astype(np.float32),
        targets=np.eye(3, dtype=np.int8)[which],
        weight=np.eye(3, 6, dtype=np.float32),
        bias=np.full(3, -1.0, dtype=np.float32),
    )
    return paths


def test_features_find_what_the_outputs_do_not(made: Made) -> None:
    for method in ("mahalanobis", "relative_mahalanobis", "knn", "vim"):
        assert made.run(method=method, **archives(made)).metrics["auroc"] > 0.99, method
    report = made.run(method="all", **archives(made))
    assert report.metrics["methods_unavailable"] == {}
    assert len(report.metrics["ranking"]) == 10
    assert len(report.inputs) == 4


def test_a_bad_archive_is_refused(made: Made) -> None:
    paths = archives(made)
    for options, said in (
        ({"features": paths["features"]}, "give both --features and --statistics"),
        ({**paths, "features": made.folder / "no.npz"}, "no such file"),
    ):
        with pytest.raises(DrumgateError, match=said):
            made.run(method="knn", **options)

    def refused(said: str, method: str = "knn", which: str = "statistics", **arrays: Any) -> None:
        bad = made.folder / "bad.npz"
        np.savez(bad, **arrays)
        with pytest.raises(InputError, match=said):
            made.run(method=method, **{**paths, which: bad})

    objects = np.array([{}, "x"], dtype=object)
    refused("plain numbers and text", features=objects)
    refused("features: is not there", other=np.zeros(3))
    refused("must hold numbers with 2 axes", features=np.zeros(3))
    refused("must hold numbers", features=np.full((3, 6), "x"))
    refused("1 values that are not finite", features=np.array([[np.nan, 0, 0, 0, 0, 0]]))
    refused("has shape", features=np.zeros((3, 5)))
    refused("has shape", features=np.zeros((0, 6)))
    refused("targets: is not there", "mahalanobis", features=np.ones((3, 6)))
    refused("weight: is not there", "vim", features=np.ones((3, 6)))
    ids = np.array([row["sample_id"] for row in made.truth])
    features = np.array(made.features)
    refused("no row for 1 examples", which="features", sample_id=ids[1:], features=features[1:])
    refused("sample_id twice", which="features", sample_id=ids[[0, 0]], features=features[:2])
    refused("must be a list of text", which="features", features=features)
    refused("rows for", which="features", sample_id=ids, features=features[1:])
    np.save(made.folder / "single.npy", features)
    (made.folder / "noise.npz").write_bytes(b"PK\x03\x04 not really")
    for name in ("single.npy", "noise.npz"):
        with pytest.raises(InputError, match="NumPy archive"):
            made.run(method="knn", **{**paths, "statistics": made.folder / name})


def test_archives_of_two_models_do_not_mix(made: Made) -> None:
    paths = archives(made)
    found = dict(np.load(paths["features"]))
    np.savez(paths["features"], **found, weight=np.ones((3, 6)))
    with pytest.raises(InputError, match="is of another model"):
        made.run(method="knn", **paths)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"logits": {"kick": 1.0}}, "logits of t_0005 are of other labels than those of t_0000"),
        ({"logits": {"kick": "1"}}, r"predictions.jsonl:6: logits"),
    ],
)
def test_bad_outputs_are_refused(made: Made, change: dict[str, Any], said: str) -> None:
    made.predictions[5] |= change
    with pytest.raises(InputError, match=said):
        made.run(method="energy")


def test_a_softmax_must_sum_to_one(made: Made) -> None:
    for row in made.predictions:
        del row["logits"]
    with pytest.raises(InputError, match="sum to"):
        made.run(method="entropy", task="multiclass")
    for row in made.predictions:
        total = sum(row["scores"].values())
        row["scores"] = {name: score / total for name, score in row["scores"].items()}
    assert made.run(method="entropy", task="multiclass").metrics["auroc"] is not None
    with pytest.raises(DrumgateError, match="energy of a softmax needs logits"):
        made.run(method="energy", task="multiclass")


@pytest.mark.parametrize(
    "bad",
    [
        {"method": "msp"},
        {"higher_is": "up"},
        {"task": "both"},
        {"cluster_field": "kit_id"},
        {"calibration_tpr": 0.0},
        {"confidence": 1.0},
        {"calibration_predictions": Path("x")},
    ],
)
def test_options_that_make_no_sense(made: Made, bad: dict[str, Any]) -> None:
    with pytest.raises(DrumgateError):
        made.run(**bad)


def test_the_page_shows_it_all_from_the_report_alone(
    tmp_path: Path, made: Made, drumgate: Run
) -> None:
    held = Made(tmp_path, seed=1, name="c")
    options, others = made.options(), held.calibration()
    result = drumgate(
        "openset-eval", "--ground-truth", options.ground_truth,
        "--predictions", options.predictions, "--method", "all", "--iterations", 50,
        "--calibration-ground-truth", others["calibration_ground_truth"],
        "--calibration-predictions", others["calibration_predictions"],
        "--report", tmp_path / "r.json", "--html-output", tmp_path / "r.html",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "r.html").read_text()
    for text in (
        "ROC curve", "Precision and recall, unknown positive", "Unknown scores by kind",
        "The threshold to release with", "Unknown scores, ranked", "known positive", "speech",
    ):  # fmt: skip
        assert text in page
    assert "NaN" not in page
    old = json.loads((tmp_path / "r.json").read_text())
    for name in ("conventions", "intervals", "ranking", "calibrated"):
        del old["metrics"][name]
    (tmp_path / "old.json").write_text(json.dumps(old))
    shown = drumgate("show-report", tmp_path / "old.json", "--format", "html")
    assert shown.exit_code == 0, shown.output


@pytest.mark.parametrize("scores", [(-1e308, 1e308), (1e16, 1e16 + 2), (0.0, 5e-324), (0.5, 0.5)])
def test_scores_at_the_ends_of_floating_point(
    made: Made, tmp_path: Path, scores: tuple[float, float], drumgate: Run
) -> None:
    for row, truth in zip(made.predictions, made.truth, strict=True):
        row["unknown_score"] = scores[not truth["is_known"]]
    options = made.options()
    result = drumgate(
        "openset-eval", "--ground-truth", options.ground_truth,
        "--predictions", options.predictions, "--iterations", 20,
        "--html-output", tmp_path / "r.html",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert made.run().metrics["auroc"] == (1.0 if scores[0] < scores[1] else 0.5)


def test_logits_that_overflow_are_not_measured(made: Made) -> None:
    for row in made.predictions[:3]:
        row["logits"] = dict.fromkeys(LABELS, 1.7e308)
    report = made.run(method="energy")
    assert verdict(report, "min_auroc").status is Status.NOT_MEASURED
    assert "3 of 144 scores are not finite" in verdict(report, "min_auroc").detail
    assert report.metrics["auroc"] is None
