"""The trainer from the command line: readiness, what it writes, resuming, bad input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import clip_makers
import pytest
import torch
from click.testing import Result

from training.errors import BlockedError, InputError
from training.loop.callbacks import Callback, StepInfo
from training.loop.config import load_recipe
from training.loop.readiness import check_readiness, require_readiness
from training.loop.run import MODEL_FILE, TrainOptions, train_classifier
from training.model.checkpoint import MODEL_FORMAT, load_checkpoint
from training.model.inference import Predictor

Run = Callable[..., Result]
HASH = "a" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest and a store with a good readiness report, and the tests' configuration."""
    folder = tmp_path_factory.mktemp("made")
    manifest, store = clip_makers.build_store(folder, {"train": 80, "val": 40, "test": 20})
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    clip_makers.write_readiness(store / "readiness.json", digest)
    (folder / "tiny.toml").write_text(clip_makers.CONFIG)
    return manifest, store


def words(store: Path, output: Path, *more: object) -> list[object]:
    config = store.parent / "tiny.toml"
    return ["train-classifier", "--dataset", store, "--output", output, "--preset", "fast",
            "--config", config, "--device", "cpu", *more]  # fmt: skip


def test_a_run_writes_a_model_its_card_and_its_history(
    made: tuple[Path, Path], tmp_path: Path, drumgate: Run
) -> None:
    manifest, store = made
    out = tmp_path / "models"
    report_file = tmp_path / "reports" / "run.json"
    result = drumgate(
        *words(store, out, "--epochs", 6, "--batch-size", 16, "--lr", 0.003, "--seed", 3),
        "--metrics-json", report_file,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert {path.name for path in out.iterdir()} == {
        MODEL_FILE,
        "history.json",
        "history.png",
        "history.svg",
        "last_run.pth",
        "model_card.html",
        "model_card.json",
        "train_log.jsonl",
    }
    for shown in ("logistic regression, 7 bands", "most frequent label set", "events  recordings"):
        assert shown in result.stdout
    assert "epoch 6" in result.stderr

    card = json.loads((out / "model_card.json").read_text())
    assert card["parameters"]["trunk_and_class_head"] == 391_884
    assert card["heads"] == ["velocity"]  # no clip has an openness
    assert card["readiness"]["ready"]
    assert not card["readiness"]["allowed_unready"]
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert card["data"]["manifest_sha256"] == digest
    assert card["validation"]["support"]["kick"]["recordings"] == 1
    assert card["validation"]["operating_point"]["macro"]["f1"] > 0.6
    assert card["floors"]["most_frequent"]["macro"]["f1"] < 0.6

    report = json.loads(report_file.read_text())
    assert report["tool"] == "train-classifier"
    assert report["seed"] == 3
    assert report["parameters"]["training"]["batch_size"] == 16
    assert report["parameters"]["augment"]["cut"] >= 0  # every default is there
    assert len(report["metrics"]["history"]) == 6
    assert json.loads((out / "history.json").read_text())["epochs"] == report["metrics"]["history"]

    content = load_checkpoint(out / MODEL_FILE, format=MODEL_FORMAT)
    assert content["card"] == card
    predictor = Predictor.load(out / MODEL_FILE)
    assert len(predictor.labels) == 12
    assert predictor.features == clip_makers.FEATURES
    assert float(predictor.model.logmel.std.min()) >= 1.0


def test_a_dataset_without_readiness_blocks_and_may_be_let_through(
    made: tuple[Path, Path], tmp_path: Path, drumgate: Run
) -> None:
    _, store = made
    missing = tmp_path / "none.json"
    out = tmp_path / "models"
    asked = words(store, out, "--readiness", missing, "--epochs", 1)
    result = drumgate(*asked)
    assert result.exit_code == 1
    assert "no readiness report" in result.stderr
    assert "run-readiness-checks" in result.stderr
    assert not out.exists()

    result = drumgate(*asked, "--allow-unready")
    assert result.exit_code == 0
    card = json.loads((out / "model_card.json").read_text())
    assert card["readiness"]["allowed_unready"]
    assert "no readiness report" in card["readiness"]["why"]
    assert "not known to be ready" in result.stdout
    assert load_checkpoint(out / MODEL_FILE, format=MODEL_FORMAT)["card"] == card


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": "fail"}, r"status: is 'fail', not pass \(health\.min_class_count\)"),
        ({"status": "not_measured"}, "not pass"),
        ({"status": None}, "not pass"),
        ({"tool": "dataset-health"}, "tool: is not a report of run_readiness_checks"),
        ({"inputs": []}, "stale or about another dataset"),
        ({"inputs": [{"sha256": "b" * 64}]}, "stale or about another dataset"),
        ({"inputs": "none"}, "stale or about another dataset"),
    ],
)
def test_what_blocks(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    status = change.pop("status", "pass")
    path = clip_makers.write_readiness(tmp_path / "r.json", HASH, status=status, **change)
    with pytest.raises(BlockedError, match=why):
        require_readiness(path, (HASH,), allow_unready=False)
    assert require_readiness(path, (HASH,), allow_unready=True).allowed_unready


@pytest.mark.parametrize("status", ["pass", "warn"])
def test_what_does_not_block(tmp_path: Path, status: str) -> None:
    path = clip_makers.write_readiness(tmp_path / "r.json", HASH, status=status)
    found = require_readiness(path, (HASH,), allow_unready=True)
    assert found.ready
    assert not found.allowed_unready
    assert not check_readiness(path, ()).ready
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        check_readiness(path, (HASH,))


class Kill(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, info: StepInfo) -> None:
        if info.step == self.step:
            raise RuntimeError("killed")


@pytest.mark.parametrize("step", [4, 7])
def test_resuming_gives_the_same_model_file(
    made: tuple[Path, Path], tmp_path: Path, step: int
) -> None:
    _, store = made
    recipe = load_recipe("fast", store.parent / "tiny.toml", {"epochs": 3, "batch_size": 16})
    recipe = replace(recipe, training=replace(recipe.training, save_every=2))
    options = TrainOptions(dataset=store, output=tmp_path / "whole", recipe=recipe, device="cpu")
    whole = train_classifier(options)

    broken = replace(options, output=tmp_path / "broken")
    with pytest.raises(RuntimeError, match="killed"):
        train_classifier(broken, callbacks=[Kill(step)])
    resumed = train_classifier(replace(broken, resume=True))
    assert resumed.metrics == whole.metrics
    one, other = (
        load_checkpoint(tmp_path / name / MODEL_FILE, format=MODEL_FORMAT)
        for name in ("whole", "broken")
    )
    for name, value in one["weights"].items():
        assert torch.equal(other["weights"][name], value)
    assert other["calibration"] == one["calibration"]
    for name, value in one["openset"].items():
        assert torch.equal(other["openset"][name], value)


def test_multiclass_is_trained_with_softmax(made: tuple[Path, Path], tmp_path: Path) -> None:
    _, store = made
    overrides = {"epochs": 2, "batch_size": 16, "task": "multiclass"}
    recipe = load_recipe("fast", store.parent / "tiny.toml", overrides)
    train_classifier(TrainOptions(dataset=store, output=tmp_path, recipe=recipe, device="cpu"))
    predictor = Predictor.load(tmp_path / MODEL_FILE)
    said = predictor.predict(torch.randn(3, clip_makers.FEATURES.read_samples) * 0.1)
    assert said.scores.sum(axis=1) == pytest.approx([1.0, 1.0, 1.0], abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dataset", "none"], "none: no such folder"),
        (["--dataset", "."], "is not a clip store"),
        (["--config", "none.toml"], "none.toml: cannot be read"),
        (["--resume"], "last_run.pth: no such file"),
        (["--lr", "20"], "learning_rate must lie in (0, 10)"),
        (["--epochs", "0"], "--epochs"),
        (["--config", "plain.toml"], "metadata.json: sample_rate: is not the preset's 44100 Hz"),
        (["--readiness", "damaged.json"], "damaged.json:1: is not valid JSON"),
    ],
)
def test_bad_input_is_named(
    made: tuple[Path, Path],
    tmp_path: Path,
    drumgate: Run,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.toml").write_text("[training]\nepochs = 1\n")
    Path("damaged.json").write_text("{")
    result = drumgate(*words(made[1], tmp_path / "models"), *flags)
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr
    assert not (tmp_path / "models").exists()


def test_cuda_where_there_is_none(
    made: tuple[Path, Path], tmp_path: Path, drumgate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = drumgate(*words(made[1], tmp_path / "m"), "--device", "cuda")
    assert result.exit_code == 2
    assert "use --device cpu" in result.stderr


def test_a_store_without_validation_says_how_to_make_one(tmp_path: Path, drumgate: Run) -> None:
    _, store = clip_makers.build_store(tmp_path, {"train": 20, "test": 10})
    (tmp_path / "tiny.toml").write_text(clip_makers.CONFIG)
    result = drumgate(*words(store, tmp_path / "m", "--allow-unready"))
    assert result.exit_code == 2
    assert "--val-ratio above 0" in result.stderr
