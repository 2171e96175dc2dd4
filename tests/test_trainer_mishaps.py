"""What the trainer says when something is amiss: full disks, other settings, one-sided data."""

from __future__ import annotations

import io
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import clip_makers
import numpy as np
import pytest
import torch
from click.testing import Result
from clip_makers import NAMES
from test_logging import run_info

from training.loop.callbacks import CheckpointInfo
from training.loop.card import _one_sided
from training.loop.config import load_recipe
from training.loop.identity import differences
from training.loop.progress import ConsoleProgress
from training.model.checkpoint import RUN_FORMAT, load_checkpoint, save_checkpoint

Run = Callable[..., Result]


@pytest.mark.parametrize("room", [0, 1000, 100_000])
def test_a_full_disk_is_told_as_one_and_the_old_file_stays(tmp_path: Path, room: int) -> None:
    path = tmp_path / "run.pth"
    save_checkpoint(path, {"x": 1}, format=RUN_FORMAT)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    content = {"x": torch.zeros(100_000), "y": list(range(1000))}
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(path, content, format=RUN_FORMAT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [each.name for each in tmp_path.iterdir()] == ["run.pth"]
    assert load_checkpoint(path, format=RUN_FORMAT)["x"] == 1


def test_what_cannot_be_saved_at_all_is_no_full_disk(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="lambda"):
        save_checkpoint(tmp_path / "run.pth", {"x": lambda: None}, format=RUN_FORMAT)
    assert not list(tmp_path.iterdir())


def test_settings_that_differ_are_named_with_both_values() -> None:
    one: dict[str, Any] = {"training": {"lr": 0.1, "mode": "max"}, "freeze": []}
    other: dict[str, Any] = {"training": {"lr": 0.2, "mode": "max"}, "freeze": ["x" * 40]}
    assert differences(one, other) == [
        f'freeze differs ([] there, ["{"x" * 22}… here)',
        "training.lr differs (0.1 there, 0.2 here)",
    ]
    assert differences(one, one) == []
    assert differences({"a": {}}, {}) == ["a differs ({} there, null here)"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--lr", "1e9"], "--lr: training: learning_rate must lie in (0, 10)"),
        (["--set", "training.warmup=3"], "--set: training: warmup must lie in [0, 1)"),
        (["--set", "training.seed=a"], "--set: training.seed: Expected `int`"),
        (["--set", "features.hop=0"], "--set: features: hop must be a whole number"),
        (["--seed", "3"], "mine.toml: training: dropout must lie in [0, 1)"),
    ],
)
def test_a_bad_value_is_blamed_on_what_set_it(
    flags: list[str], message: str, tmp_path: Path, drumgate: Run
) -> None:
    words = ["train-classifier", "--print-config", *flags]
    if "--seed" in flags:
        (tmp_path / "mine.toml").write_text("[training]\ndropout = 2.0\n")
        words += ["--config", str(tmp_path / "mine.toml")]
    result = drumgate(*words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_flags_go_before_files(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("[training]\nlearning_rate = 50.0\n")
    recipe = load_recipe("fast", tmp_path / "mine.toml", {"learning_rate": 0.5})
    assert recipe.training.learning_rate == 0.5


def test_an_earlier_run_is_not_replaced_in_silence(tmp_path: Path, drumgate: Run) -> None:
    _, store = clip_makers.build_store(tmp_path / "made", {"train": 16, "val": 8})
    (tmp_path / "tiny.toml").write_text(clip_makers.CONFIG)
    words = [
        "train-classifier", "--dataset", store, "--output", tmp_path / "models", "--preset", "fast",
        "--config", tmp_path / "tiny.toml", "--device", "cpu", "--allow-unready", "--epochs", 1,
        "--no-plots",
    ]  # fmt: skip
    said = "last_run.pth is of an earlier run and will be replaced"
    for more, expected in (([], False), ([], True), (["--resume"], False)):
        result = drumgate(*words, *more)
        assert result.exit_code == 0, result.stderr
        assert (said in result.stderr) == expected
    result = drumgate(*words, "--resume", "--lr", 0.1)
    assert result.exit_code == 2
    assert "training.learning_rate differs (0.003 there, 0.1 here)" in result.stderr


@pytest.mark.parametrize("live", [True, False])
def test_who_breaks_off_is_told_where_to_go_on(live: bool) -> None:
    stream = io.StringIO()
    view = ConsoleProgress(stream, live=live)
    view.on_train_start(run_info())
    for why in ("save_every", "interrupted"):
        view.on_checkpoint(
            CheckpointInfo(path=Path("m/last_run.pth"), step=7, epoch=1, why=why, seconds=0.1)
        )
    view.close()
    assert stream.getvalue().count("step 7: saved last_run.pth; --resume goes on from here") == 1


def test_classes_that_data_cannot_teach_or_show_are_named() -> None:
    train, val = clip_makers.split(20), clip_makers.split(10, seed=1)
    assert _one_sided(train, val, NAMES) == ()
    labels = train.labels.copy()
    labels[:, 1] = 0
    assert _one_sided(replace(train, labels=labels), val, NAMES) == (
        "validated, but in no training clip: snare",
    )
    always = val.labels.copy()
    always[:, 0] = 1
    (said,) = _one_sided(train, replace(val, labels=always), NAMES)
    assert said == "in every validation clip, so that always saying it is right: kick"
    # Where a label is not annotated, its absence says nothing.
    annotated = np.ones_like(val.annotated)
    annotated[val.labels[:, 2] == 0, 2] = 0
    (said,) = _one_sided(train, replace(val, annotated=annotated), NAMES)
    assert said.endswith("right: hihat_closed")
