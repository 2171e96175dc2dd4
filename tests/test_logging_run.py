"""Logs, starting from another model and freezing, through the trainer's command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import clip_makers
import pytest
import torch
from click.testing import Result

from training.loop.callbacks import Callback, StepInfo
from training.loop.config import load_recipe
from training.loop.loggers.event_log import read_log
from training.loop.loggers.jsonl import LOG_FILE, JsonlLog
from training.loop.run import MODEL_FILE, TrainOptions, train_classifier
from training.model.checkpoint import MODEL_FORMAT, load_checkpoint

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A store, and a model trained on it with everything written."""
    from click.testing import CliRunner

    from training.cli import main

    folder = tmp_path_factory.mktemp("made")
    _, store = clip_makers.build_store(folder, {"train": 48, "val": 24, "test": 8})
    (folder / "tiny.toml").write_text(clip_makers.CONFIG)
    first = [*words(store, folder / "first", 2), "--log-dir", str(folder / "logs"), "--profile"]
    result = CliRunner().invoke(main, first, catch_exceptions=False)
    assert result.exit_code == 0, result.stderr
    (folder / "said.txt").write_text(result.stderr)
    return store, folder


def words(store: Path, output: Path, epochs: int) -> list[str]:
    return [
        "train-classifier", "--dataset", str(store), "--output", str(output), "--preset", "fast",
        "--config", str(store.parent / "tiny.toml"), "--device", "cpu", "--allow-unready",
        "--epochs", str(epochs), "--batch-size", "8", "--no-plots",
    ]  # fmt: skip


def test_a_run_writes_its_log_and_its_profile(made: tuple[Path, Path]) -> None:
    _, folder = made
    lines = read_log(folder / "logs" / LOG_FILE)
    kinds = [line["event"] for line in lines]
    assert kinds[0] == "start"
    assert kinds[-2:] == ["end", "files"]
    steps = [line["step"] for line in lines if line["event"] == "step"]
    assert steps == list(range(1, 13))
    history = json.loads((folder / "first" / "history.json").read_text())["epochs"]
    logged = [line for line in lines if line["event"] == "validation"]
    assert [line["macro_f1"] for line in logged] == [line["macro_f1"] for line in history]
    profile = json.loads((folder / "logs" / "profile.json").read_text())
    assert profile["steps"] == 12 - 5
    assert {"data", "features", "forward", "backward", "optimiser"} <= set(profile["sections"])
    said = (folder / "said.txt").read_text()
    assert "training 392,141 parameters on cpu" in said
    assert "section         wall ms a step" in said
    page = (folder / "first" / "model_card.html").read_text()
    assert "Model card" in page
    assert "<script" not in page


class Kill(Callback):
    def on_step(self, info: StepInfo) -> None:
        if info.step == 9:
            raise RuntimeError("killed")


def test_a_killed_run_goes_on_in_the_same_log(made: tuple[Path, Path], tmp_path: Path) -> None:
    store, folder = made
    overrides = {"epochs": 2, "batch_size": 8, "save_every": 4}
    recipe = load_recipe("fast", folder / "tiny.toml", overrides)
    options: dict[str, Any] = {
        "dataset": store,
        "output": tmp_path,
        "recipe": recipe,
        "device": "cpu",
        "allow_unready": True,
    }
    path = tmp_path / LOG_FILE
    with pytest.raises(RuntimeError, match="killed"):
        train_classifier(TrainOptions(**options), callbacks=[JsonlLog(path), Kill()])
    train_classifier(TrainOptions(**options, resume=True), callbacks=[JsonlLog(path)])
    lines = read_log(path)
    assert [line["step"] for line in lines if line["event"] == "start"] == [0, 8]
    steps = [line for line in lines if line["event"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 13))
    whole = [line for line in read_log(folder / "logs" / LOG_FILE) if line["event"] == "step"]
    assert [line["loss"] for line in steps] == [line["loss"] for line in whole]
    epochs = [line["epoch"] for line in lines if line["event"] == "validation"]
    assert epochs == [1, 2]


def test_a_run_starts_from_another_and_leaves_the_trunk(
    made: tuple[Path, Path], tmp_path: Path, drumgate: Run
) -> None:
    store, folder = made
    first = folder / "first" / MODEL_FILE
    out = tmp_path / "second"
    report = tmp_path / "run.json"
    result = drumgate(
        *words(store, out, 1), "--init-from", first, "--freeze", "cnn.trunk",
        "--metrics-json", report,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert f"started from {first}: " in result.stderr
    assert "below cnn.trunk; 3,341 are trained" in result.stderr
    one, other = (
        load_checkpoint(path, format=MODEL_FORMAT)["weights"] for path in (first, out / MODEL_FILE)
    )
    for name, value in one.items():
        same = torch.equal(value, other[name])
        assert same == name.startswith(("cnn.trunk.", "logmel.")), name
    card = json.loads((out / "model_card.json").read_text())
    assert card["transfer"]["source_sha256"]
    assert card["transfer"]["missing"] == []
    assert card["frozen"]["prefixes"] == ["cnn.trunk"]
    assert card["frozen"]["trainable"] < 4000
    assert card["parameters"]["trunk_and_class_head"] == 391_884
    inputs = json.loads(report.read_text())["inputs"]
    assert any(each["sha256"] == card["transfer"]["source_sha256"] for each in inputs)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--init-from", "none.pth"], "none.pth: no such file"),
        (["--freeze", "cnn.trank"], "did you mean cnn.trunk?"),
        (["--freeze", "cnn"], "nothing would be left to train"),
        (["--wandb-tags", "prod"], "need --wandb-project"),
        (["prod"], "unexpected extra argument (prod)"),
    ],
)
def test_bad_input_is_named_and_leaves_nothing(
    made: tuple[Path, Path], tmp_path: Path, drumgate: Run, flags: list[str], message: str
) -> None:
    result = drumgate(*words(made[0], tmp_path / "out", 1), *flags)
    assert result.exit_code == 2, result.stdout
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_run_that_breaks_off_leaves_its_profile_and_its_trace(
    made: tuple[Path, Path], tmp_path: Path
) -> None:
    store, folder = made
    recipe = load_recipe("fast", folder / "tiny.toml", {"epochs": 2, "batch_size": 8})
    options = TrainOptions(
        dataset=store, output=tmp_path, recipe=recipe, device="cpu", allow_unready=True,
        profile=tmp_path, trace=True,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="killed"):
        train_classifier(options, callbacks=[Kill()])
    assert json.loads((tmp_path / "profile.json").read_text())["steps"] == 3
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any(event.get("name") == "drumgate:backward" for event in events)
