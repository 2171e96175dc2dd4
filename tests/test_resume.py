"""A run that was stopped anywhere goes on bit for bit; a file that would run code is refused."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from trainer_makers import At, Net, assert_same, small_trainer

from training.errors import InputError
from training.loop import Callback, NonFiniteLossError, Trainer
from training.loop.callbacks import CheckpointInfo
from training.loop.runstate import random_state, restore_random_state
from training.model import checkpoint
from training.model.checkpoint import RUN_FORMAT, clear_leftovers, load_checkpoint, save_checkpoint

STEPS = 18
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "averaged": {"ema_decay": 0.9},
    "accumulated": {"accumulate_steps": 4},
    "sgd on a plateau": {
        "optimiser": "sgd",
        "schedule": "plateau",
        "plateau_patience": 1,
        "min_delta": 5.0,
    },
    "rmsprop, phased": {
        "optimiser": "rmsprop",
        "schedule": "phased",
        "phase_learning_rates": (1e-2, 1e-3),
        "phase_steps": (5, 8),
    },
    "adam, few steps": {"optimiser": "adam", "max_steps": 10, "warmup_steps": 3},
    "seldom saved": {"save_every": 4},
    "stopped early": {"patience": 1, "min_delta": 5.0},
}


class Killed(Exception):
    pass


def kill() -> None:
    raise Killed


def go_on(run_file: Path, **settings: Any) -> Trainer:
    """A new process, as far as that can be had in this one: other random states, a new trainer."""
    trainer = small_trainer(run_file, **settings)
    torch.manual_seed(999)
    if run_file.exists():
        trainer.load_checkpoint(run_file)
    trainer.train()
    return trainer


@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_at_every_step(tmp_path: Path, variant: str) -> None:
    settings = VARIANTS[variant]
    whole = small_trainer(**settings)
    whole.train()
    assert whole.step > 2
    for step in range(1, whole.step + 1):
        run_file = tmp_path / f"{step}.pth"
        with pytest.raises(Killed):
            small_trainer(run_file, callbacks=(At(step, kill),), **settings).train()
        assert_same(go_on(run_file, **settings), whole)


def test_killed_again_and_again(tmp_path: Path) -> None:
    whole = small_trainer()
    whole.train()
    run_file = tmp_path / "run.pth"
    for step in range(2, STEPS + 1):
        trainer = small_trainer(run_file, callbacks=(At(step, kill),))
        if run_file.exists():
            trainer.load_checkpoint(run_file)
        with pytest.raises(Killed):
            trainer.train()
    assert_same(go_on(run_file), whole)


@pytest.mark.parametrize("epoch", [1, 2, 3])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_a_validation(tmp_path: Path, epoch: int, after: bool) -> None:
    whole = small_trainer()
    whole.train()
    run_file = tmp_path / "run.pth"

    class Stop(Callback):
        def on_validation(self, entry: dict[str, Any], evaluation: Any) -> None:
            if entry["epoch"] == epoch and not after:
                raise Killed

        def on_checkpoint(self, info: CheckpointInfo) -> None:
            if info.why == "epoch" and info.epoch == epoch and after:
                raise Killed

    with pytest.raises(Killed):
        small_trainer(run_file, callbacks=(Stop(),)).train()
    assert_same(go_on(run_file), whole)


@pytest.mark.parametrize("write", range(1, 22, 4))
def test_broken_off_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: int
) -> None:
    whole = small_trainer()
    whole.train()
    run_file = tmp_path / "run.pth"
    save, writes = torch.save, iter(range(1, 1000))

    def half(content: Any, file: Any) -> None:
        save(content, file)
        if next(writes) == write:
            file.truncate(file.tell() // 2)
            raise Killed

    monkeypatch.setattr(checkpoint.torch, "save", half)
    with pytest.raises(Killed):
        small_trainer(run_file).train()
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == (["run.pth"] if write > 1 else [])
    assert_same(go_on(run_file), whole)


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    run_file = tmp_path / "run.pth"
    whole = small_trainer(run_file)
    whole.train()
    assert_same(go_on(run_file), whole)


@pytest.mark.slow
def test_sigkill(tmp_path: Path) -> None:
    """Forked processes kill themselves: between steps, in a write, before and after the rename."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("kill_driver.py")), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) >= 40
    assert {tuple(outcome) for outcome in outcomes.values()} == {("killed", "same")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [1, 6, 9])
def test_signals_save_and_go_on(tmp_path: Path, number: int, step: int) -> None:
    whole = small_trainer()
    whole.train()
    run_file = tmp_path / "run.pth"
    at = At(step, lambda: os.kill(os.getpid(), number))
    stopped = small_trainer(run_file, callbacks=(at,), save_every=1000)
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    content = load_checkpoint(run_file, format=RUN_FORMAT)
    assert content["step"] == step
    assert_same(go_on(run_file), whole)


def test_what_a_checkpoint_holds(tmp_path: Path) -> None:
    path = tmp_path / "run.pth"
    trainer = small_trainer(ema_decay=0.9)
    trainer.about = {"labels": ["kick"]}
    trainer.train_epoch()
    trainer.save_checkpoint(path)
    content = load_checkpoint(path, format=RUN_FORMAT)
    assert set(content) == {
        "format", "version", "identity", "about", "world_size", "model", "averaged", "optimiser",
        "schedule", "scaler", "random", "best_weights", "early", "tracker", "history", "step",
        "epoch", "batch_in_epoch", "elapsed_s",
    }  # fmt: skip
    assert content["identity"]["training"]["learning_rate"] == 1e-2
    assert content["about"] == {"labels": ["kick"]}
    assert content["history"] == trainer.history


def test_random_states_come_back() -> None:
    import random

    import numpy as np

    state = random_state()
    drawn = random.random(), float(np.random.random()), float(torch.rand(()))
    restore_random_state(state)
    assert (random.random(), float(np.random.random()), float(torch.rand(()))) == drawn


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.marker}",))


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_crafted_file_is_refused_and_runs_nothing(tmp_path: Path, how: str) -> None:
    path, marker = tmp_path / "run.pth", tmp_path / "ran"
    content = {"format": RUN_FORMAT, "version": 2, "identity": RunsCode(marker)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"run\.pth: (holds more|is not a readable)"):
        small_trainer().load_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b""), "is not a readable checkpoint|holds more"),
        (lambda path: path.write_bytes(path.read_bytes()[:-200]), "is not a readable checkpoint"),
        (lambda path: zipfile.ZipFile(path, "w").close(), "is not a readable|holds more"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "run.pth"
    small_trainer().save_checkpoint(path)
    damage(path)
    with pytest.raises(InputError, match=message):
        small_trainer().load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {}}, "is not a complete run of this model"),
        ({"early": {}}, "is not a complete run of this model"),
        ({"random": {}}, "is not a complete run of this model"),
        ({"identity": None}, "identity: is not a complete run"),
        ({"version": 1}, "version: must be of version 2"),
        ({"model": Net(norm=False).state_dict()}, "is not a complete run of this model"),
    ],
)
def test_an_incomplete_run_is_named(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "run.pth"
    trainer = small_trainer()
    trainer.save_checkpoint(path)
    content = load_checkpoint(path, format=RUN_FORMAT)
    del content["format"]
    version = {k: v for k, v in change.items() if k == "version"}
    save_checkpoint(path, content | change, format=RUN_FORMAT)
    if version:
        torch.save(content | change | {"format": RUN_FORMAT}, path)
    with pytest.raises(InputError, match=message):
        small_trainer().load_checkpoint(path)


def test_leftovers_of_killed_writers_are_cleared(tmp_path: Path) -> None:
    for name in (".run.pth.abc.tmp", ".run.pth.x1.tmp", ".other.pth.abc.tmp", "run.pth"):
        (tmp_path / name).write_text("x")
    clear_leftovers(tmp_path / "run.pth")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.pth.abc.tmp", "run.pth"]


# What is not finite


@pytest.mark.parametrize("log_every", [1, 5])
def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(
    tmp_path: Path, log_every: int
) -> None:
    run_file = tmp_path / "run.pth"
    trainer = small_trainer(run_file, log_every=log_every, shuffle=False, noise=0.0)
    trainer.train_loader.dataset.x[9] = torch.inf  # in the third batch
    with pytest.raises(NonFiniteLossError, match="the loss is not finite at step 2") as caught:
        trainer.train()
    assert caught.value.rows == (8, 9, 10, 11)
    assert "clip_9" in str(caught.value)
    content = load_checkpoint(run_file, format=RUN_FORMAT)
    assert content["step"] == 2
    assert all(torch.isfinite(value).all() for value in content["model"].values())


def test_a_weight_that_is_not_finite_is_not_saved(tmp_path: Path) -> None:
    trainer = small_trainer()
    with torch.no_grad():
        trainer.model.head.bias.fill_(torch.nan)
    with pytest.raises(NonFiniteLossError, match=r"the weight head\.bias is not finite"):
        trainer.save_checkpoint(tmp_path / "run.pth")
    assert not list(tmp_path.iterdir())


def test_a_gradient_that_is_not_finite_is_named() -> None:
    trainer = small_trainer(noise=0.0)
    trainer.model.head.weight.register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(NonFiniteLossError, match="the gradient is not finite at step 0"):
        trainer.train()
