"""The trainer's newer flags from the command line, and a real process that is killed."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip_makers
import pytest
import torch
from click.testing import Result
from conftest import ROOT

from training.loop import NonFiniteLossError, Trainer
from training.loop.run import MODEL_FILE
from training.model.checkpoint import MODEL_FORMAT, RUN_FORMAT, load_checkpoint

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a good readiness report, and the tests' configuration beside it."""
    folder = tmp_path_factory.mktemp("made")
    manifest, made = clip_makers.build_store(folder, {"train": 40, "val": 20})
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    clip_makers.write_readiness(made / "readiness.json", digest)
    (folder / "tiny.toml").write_text(clip_makers.CONFIG)
    return made


def words(store: Path, output: Path, *more: object) -> list[str]:
    given = ["train-classifier", "--dataset", store, "--output", output, "--preset", "fast",
             "--config", store.parent / "tiny.toml", "--device", "cpu", "--batch-size", 8,
             "--epochs", 3, "--no-plots", *more]  # fmt: skip
    return [str(word) for word in given]


def weights(output: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(output / MODEL_FILE, format=MODEL_FORMAT)[
        "weights"
    ]
    return found


def test_the_recipe_is_printed_in_full(drumgate: Run, tmp_path: Path) -> None:
    result = drumgate("train-classifier --preset fast --print-config --lr 0.5 --set augment.cut=0")
    assert result.exit_code == 0, result.stderr
    assert "learning_rate = 0.5\n" in result.stdout
    assert "cut = 0\n" in result.stdout or "cut = 0.0\n" in result.stdout
    assert "# Passes over the training clips" in result.stdout
    again = tmp_path / "all.toml"
    again.write_text(result.stdout)
    assert drumgate(
        "train-classifier", "--preset", "default", "--config", again, "--print-config"
    ).stdout.splitlines()[1:] == result.stdout.splitlines()[1:]  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--set", "training.epocs=3"], "did you mean training.epochs?"),
        (["--set", "training.monitor=recal", "--epochs", "1"], "there is no finite figure recal"),
        (["--cuda-graphs"], "cuda_graphs: there are none on cpu"),
        (["--finish"], "last_run.pth: no such file"),
        (["--set", "training.schedule=phased"], "a phased schedule needs phase_learning_rates"),
    ],
)
def test_bad_settings_are_named(
    store: Path, tmp_path: Path, drumgate: Run, flags: list[str], message: str
) -> None:
    result = drumgate(*words(store, tmp_path / "models"), *flags)
    assert result.exit_code == 2
    assert message in result.stderr


def test_without_a_dataset(drumgate: Run) -> None:
    result = drumgate("train-classifier")
    assert result.exit_code == 2
    assert "--dataset" in result.stderr


def test_settings_reach_the_run(store: Path, tmp_path: Path, drumgate: Run) -> None:
    result = drumgate(
        *words(store, tmp_path, "--accumulate-steps", 2, "--deterministic"),
        "--set", "training.optimiser=sgd", "--set", "training.schedule=phased",
        "--set", "training.phase_learning_rates=[0.01, 0.001]",
        "--set", "training.phase_steps=[3, 2]", "--set", "augment.mixup=0.5",
        "--metrics-json", tmp_path / "run.json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["parameters"]["training"]["optimiser"] == "sgd"
    assert report["parameters"]["augment"]["mixup"] == 0.5
    assert report["metrics"]["steps"] == 5
    line = report["metrics"]["history"][-1]
    assert {"map", "ece", "top_1", "top_3", "class_f1"} <= set(line)
    assert set(report["metrics"]["average_precision"]) == set(clip_makers.NAMES)


def test_a_loss_that_is_not_finite_exits_1_and_names_the_clips(
    store: Path, tmp_path: Path, drumgate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._train_step

    def poison(self: Trainer, group: Any) -> None:
        if self.step == 7:
            group[0][1]["labels"][0, 0] = torch.nan
        step(self, group)

    monkeypatch.setattr(Trainer, "_train_step", poison)
    result = drumgate(*words(store, tmp_path), "--set", "training.save_every=2")
    assert result.exit_code == 1
    assert "the loss is not finite at step 7; the batch held train_" in result.stderr
    assert not (tmp_path / MODEL_FILE).exists()
    kept = load_checkpoint(tmp_path / "last_run.pth", format=RUN_FORMAT)
    assert kept["step"] == 6
    assert all(torch.isfinite(value).all() for value in kept["model"].values())
    assert set(kept["about"]) == {"labels", "recipe", "store_sha256", "readiness"}
    assert issubclass(NonFiniteLossError, Exception)


def test_a_run_that_broke_off_can_be_finished(
    store: Path, tmp_path: Path, drumgate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._train_step

    def interrupt(self: Trainer, group: Any) -> None:
        step(self, group)
        if self.step == 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Trainer, "_train_step", interrupt)
    assert drumgate(*words(store, tmp_path)).exit_code == 130
    monkeypatch.undo()
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"]) == 1
    result = drumgate(*words(store, tmp_path, "--finish"))
    assert result.exit_code == 0, result.stderr
    run = load_checkpoint(tmp_path / "last_run.pth", format=RUN_FORMAT)
    assert run["step"] == 9
    for name, value in weights(tmp_path).items():
        assert torch.equal(run["best_weights"][name], value)
    card = json.loads((tmp_path / "model_card.json").read_text())
    assert card["selected_epoch"] == 1


def test_there_must_be_something_to_finish(
    store: Path, tmp_path: Path, drumgate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Trainer, group: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_train_step", interrupt)
    assert drumgate(*words(store, tmp_path)).exit_code == 130
    monkeypatch.undo()
    result = drumgate(*words(store, tmp_path, "--finish"))
    assert result.exit_code == 2
    assert "holds no validated weights" in result.stderr


@pytest.mark.slow
def test_sigkill_of_the_command(store: Path, tmp_path: Path, drumgate: Run) -> None:
    """Killed twice at random moments after its first checkpoint, it ends at the same weights."""
    config = "training.save_every=1"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert drumgate(*words(store, whole, "--epochs", 12, "--set", config)).exit_code == 0
    resume: list[str] = []
    rng = random.Random(0)
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "training.cli",
             *words(store, killed, "--epochs", 12, "--set", config, *resume)],
            cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        run_file = killed / "last_run.pth"
        before = run_file.stat().st_mtime_ns if run_file.exists() else 0
        while process.poll() is None and (
            not run_file.exists() or run_file.stat().st_mtime_ns == before
        ):
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
        process.wait()
        resume = ["--resume"]
    assert load_checkpoint(run_file, format=RUN_FORMAT)["step"] < 60
    result = drumgate(*words(store, killed, "--epochs", 12, "--set", config, "--resume"))
    assert result.exit_code == 0, result.stderr
    for name, value in weights(whole).items():
        assert torch.equal(weights(killed)[name], value)
    assert (killed / "history.json").read_bytes() == (whole / "history.json").read_bytes()
    assert not list(killed.glob(".*.tmp"))
