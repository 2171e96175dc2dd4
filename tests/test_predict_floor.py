"""The honest floors as predictions, and what is left of a model whose labels were shuffled."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip_makers
import model_makers
import numpy as np
import pytest
from click.testing import Result
from sklearn.metrics import average_precision_score, f1_score

from training.audio.logmel import LogMel
from training.checks.predict_floor import Options, run
from training.dataset.store import ClipStore
from training.loop.feed import ClipFeed
from training.loop.floors import (
    band_energy_floor,
    band_energy_scores,
    feed_band_energies,
    floor_summary,
    most_frequent_scores,
)

Run = Callable[..., Result]
FEATURES = clip_makers.FEATURES


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    _, store = clip_makers.build_store(folder, {"train": 90, "val": 30, "test": 40})
    model_makers.write_model(folder / "model.pth", features=FEATURES)
    return store


def predicted(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def truth(store: Path, split: str = "test") -> list[dict[str, Any]]:
    return predicted(store / "splits" / f"{split}.jsonl")


def test_the_regression_is_that_of_scikit_learn_on_the_same_energies() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = (
        ClipFeed(clip_makers.split(n, seed=n), FEATURES, batch_size=16) for n in (60, 25)
    )
    train.split.labels[:, 2] = 0  # never there: answered no, everywhere
    train.split.annotated[:20, 1] = 0  # unknown there: those clips teach nothing of it
    logmel = LogMel(FEATURES)
    scores = band_energy_scores(train, test, logmel)
    assert (scores[:, 2] == 0).all()
    x, x_test = (
        feed_band_energies(feed, logmel, np.arange(feed.n_clips)) for feed in (train, test)
    )
    for column, first in ((0, 0), (1, 20)):
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(x[first:], train.split.labels[first:, column])
        np.testing.assert_allclose(scores[:, column], model.predict_proba(x_test)[:, 1])
        np.testing.assert_array_equal(scores[:, column] > 0.5, model.predict(x_test) > 0)
    judged = band_energy_floor(train, test, logmel, clip_makers.NAMES)
    expected = f1_score(test.split.labels, scores > 0.5, average="micro", zero_division=0)
    assert judged.micro.f1 == pytest.approx(expected)


def test_only_the_rows_asked_for_are_fitted() -> None:
    train, test = (
        ClipFeed(clip_makers.split(n, seed=n), FEATURES, batch_size=16) for n in (60, 25)
    )
    logmel = LogMel(FEATURES)
    whole = band_energy_scores(train, test, logmel, among=np.arange(30, 60))
    train.split.labels[:30] = 1 - train.split.labels[:30]  # what is not asked for may be anything
    np.testing.assert_array_equal(
        band_energy_scores(train, test, logmel, among=np.arange(30, 60)), whole
    )


def test_the_most_frequent_set_is_said_everywhere() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1], [1, 0, 1]])
    assert most_frequent_scores(labels, 2).tolist() == [[0.0, 1.0, 1.0]] * 2
    assert most_frequent_scores(labels[:1], 0).shape == (0, 3)
    with pytest.raises(ValueError, match="no training clip"):
        most_frequent_scores(labels[:0], 1)
    known = np.ones((2, 3))
    judged = floor_summary(
        most_frequent_scores(labels, 2), np.array([[0, 1, 1], [1, 0, 0]]), known, ("a", "b", "c")
    )
    assert judged.micro.f1 == pytest.approx(2 * 2 / (2 * 2 + 2 + 1))


@pytest.mark.parametrize("floor", ["band_energy", "most_frequent"])
def test_predictions_are_a_baseline_for_bootstrap_eval(
    floor: str, store: Path, tmp_path: Path, drumgate: Run
) -> None:
    out = tmp_path / "floor.jsonl"
    done = drumgate(
        "predict-floor", "--dataset", store, "--floor", floor, "--output", out,
        "--model", store.parent / "model.pth",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert "fitted on 90 clips of" in done.stdout
    rows, true = predicted(out), truth(store)
    assert [row["sample_id"] for row in rows] == [row["sample_id"] for row in true]
    assert all(set(row["scores"]) == set(ClipStore.open(store).labels) for row in rows)
    options = Options(
        dataset=store,
        output=out,
        floor=floor,
        model=store.parent / "model.pth",  # type: ignore[arg-type]
    )
    found = run(options).metrics
    y = [[name in {c["label"] for c in row["components"]} for name in clip_makers.NAMES]
         for row in true]  # fmt: skip
    said = [[row["scores"][name] >= 0.5 for name in clip_makers.NAMES] for row in rows]
    assert found["micro"]["f1"] == pytest.approx(f1_score(y, said, average="micro"))
    if floor == "band_energy":
        assert found["macro"]["f1"] > 0.8
    else:
        sets = Counter(
            tuple(sorted(c["label"] for c in row["components"])) for row in truth(store, "train")
        )
        top = max(sets.values())
        said_set = tuple(sorted(k for k, v in rows[0]["scores"].items() if v == 1.0))
        assert sets[said_set] == top

    judged = drumgate(
        "bootstrap-eval", "--ground-truth", store / "splits" / "test.jsonl", "--predictions", out,
        "--baseline-predictions", out, "--iterations", 20, "--report", tmp_path / "b.json",
    )  # fmt: skip
    assert judged.exit_code == 0, judged.stderr
    assert json.loads((tmp_path / "b.json").read_text())["metrics"]["micro_f1"][
        "point_estimate"
    ] == pytest.approx(found["micro"]["f1"])
    assert "class" in judged.stdout
    assert "baseline" in judged.stdout


def test_sources_and_splits_are_chosen(store: Path, tmp_path: Path, drumgate: Run) -> None:
    base = ["predict-floor", "--dataset", store, "--output", tmp_path / "f.jsonl"]
    model = ["--model", store.parent / "model.pth"]
    assert drumgate(*base, *model, "--split", "val").exit_code == 0
    assert len(predicted(tmp_path / "f.jsonl")) == 30
    (tmp_path / "f.jsonl").unlink()
    for asked, said in (
        ([*model, "--source", "nobody"], "has no training clip of source 'nobody'"),
        ([*model, "--split", "dev"], "has no split 'dev' (it has train, val, test)"),
        (["--preset", "fast"], "sample_rate: is not the 44100 Hz of preset fast (got 8000)"),
        (["--model", store / "metadata.json"], "metadata.json"),
    ):
        refused = drumgate(*base, *asked)
        assert refused.exit_code == 2, asked
        assert said in refused.stderr
        assert not list(tmp_path.iterdir())
    sources = ClipStore.open(store).split("train").sources
    done = drumgate(*base, *model, "--source", sources[0])
    assert done.exit_code == 0, done.stderr


@pytest.mark.slow
def test_shuffled_labels_leave_a_run_at_chance(tmp_path: Path, drumgate: Run) -> None:
    """The same run learns true labels, and of shuffled ones nothing that holds elsewhere.

    Chance for the average precision is the share of clips that have the label, give or take three
    standard deviations of a ranking at random, found by permutation.
    """
    precision = {}
    for kind in ("true", "shuffled"):
        folder = tmp_path / kind
        manifest, store = clip_makers.build_store(folder, {"train": 240, "val": 60, "test": 240})
        if kind == "shuffled":
            rows = predicted(manifest)
            train = [row for row in rows if row["split"] != "test"]
            order = np.random.default_rng(1).permutation(len(train))
            struck = [train[index]["components"] for index in order]
            for row, components in zip(train, struck, strict=True):
                row["components"] = components
            manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
            again = ["--split-by", "official", "--sample-rate", clip_makers.RATE, "--force"]
            assert drumgate("build-training-dataset", manifest, store, *again).exit_code == 0
        (folder / "tiny.toml").write_text(clip_makers.CONFIG)
        done = drumgate(
            "train-classifier", "--dataset", store, "--output", folder / "models", "--preset",
            "fast", "--config", folder / "tiny.toml", "--device", "cpu", "--allow-unready",
            "--epochs", 8, "--seed", 2, "--no-plots",
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
        out = folder / "test.jsonl"
        done = drumgate(
            "predict", "--model", folder / "models" / "best_drum_classifier.pth", "--events",
            store / "splits" / "test.jsonl", "--audio-root", folder / "audio", "--output", out,
        )  # fmt: skip
        assert done.exit_code == 0, done.stderr
        rows, true = predicted(out), truth(store)
        scores = np.array([[row["scores"][name] for name in clip_makers.NAMES] for row in rows])
        y = np.array(
            [[name in {c["label"] for c in row["components"]} for name in clip_makers.NAMES]
             for row in true]
        )  # fmt: skip
        precision[kind] = average_precision_score(y, scores, average="macro")
    rng = np.random.default_rng(0)
    chance = [average_precision_score(y, rng.random(y.shape), average="macro") for _ in range(200)]
    assert precision["true"] > 0.95
    assert abs(precision["shuffled"] - np.mean(chance)) < 3 * np.std(chance)
