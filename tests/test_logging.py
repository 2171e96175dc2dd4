"""What watches a run: JSON lines that survive a crash, the view, pictures, and other programs."""

from __future__ import annotations

import io
import json
import math
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.errors import DrumgateError, InputError
from training.loop.callbacks import (
    Callback,
    CheckpointInfo,
    EndInfo,
    PhaseInfo,
    RunInfo,
    StepInfo,
)
from training.loop.confusion import confusions
from training.loop.loggers.event_log import EventLog, read_log
from training.loop.loggers.figures import finite, scalars
from training.loop.loggers.jsonl import JsonlLog
from training.loop.loggers.plots import plot_history
from training.loop.loggers.tensorboard import TensorBoardLog
from training.loop.loggers.wandb import WandbLog, WandbSettings
from training.loop.metrics import Evaluation
from training.loop.progress import ConsoleProgress
from training.metrics.classification import clip_counts, summarise


def run_info(step: int = 0, **changed: Any) -> RunInfo:
    settings: dict[str, Any] = {
        "epochs": 3,
        "steps_per_epoch": 4,
        "total_steps": 12,
        "batch_size": 8,
        "accumulate_steps": 1,
        "world_size": 1,
        "device": "cpu",
        "precision": "float32",
        "compiled": False,
        "parameters": 392_398,
        "step": step,
        "config": {"learning_rate": 1e-3, "schedule": "onecycle"},
    }
    return RunInfo(**settings | changed)


def step_info(step: int, loss: float = 0.5) -> StepInfo:
    return StepInfo(
        step=step,
        total_steps=12,
        epoch=step // 4 + 1,
        epochs=3,
        progress=step / 12,
        loss=loss,
        learning_rate=1e-3,
        clips_per_s=321.0,
        elapsed_s=step / 2,
        losses={"total": loss},
    )


def evaluation() -> Evaluation:
    """Kick is heard twice of three times, snare is taken for kick, crash is dead."""
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=np.float32)
    logits = np.array([[2, -1, -1], [-1, 3, -1], [1, 2, -1], [2, -2, -2]], dtype=np.float32)
    known = np.ones_like(labels)
    counts = clip_counts(labels > 0, logits >= 0, annotated=known > 0)
    summary = summarise(counts, ("kick", "snare", "crash"))
    return Evaluation(
        figures={},
        summary=summary,
        dead=("crash",),
        outputs={"logits": logits},
        targets={"labels": labels, "annotated": known},
    )


def entry(epoch: int, **more: Any) -> dict[str, Any]:
    line = {"epoch": epoch, "step": 4 * epoch, "train_loss": 1 / epoch, "val_loss": 1.1 / epoch}
    return line | {"macro_f1": 0.2 * epoch, "best": epoch == 2, "dead_classes": ["crash"]} | more


def end_info() -> EndInfo:
    return EndInfo(
        reason="all epochs done",
        step=12,
        epoch=3,
        elapsed_s=6.0,
        monitor="macro_f1",
        best=0.6,
        best_epoch=3,
    )


def play(callback: Callback, first: int = 0, last: int = 12, folder: Path = Path()) -> None:
    """Tell a callback of a run from step `first` on, to the end where `last` is 12."""
    callback.on_train_start(run_info(first))
    for step in range(first + 1, last + 1):
        callback.on_step(step_info(step))
        if step % 4 == 0:
            callback.on_validation(entry(step // 4), evaluation())
            callback.on_checkpoint(
                CheckpointInfo(
                    path=folder / "last_run.pth",
                    step=step,
                    epoch=step // 4,
                    why="epoch",
                    seconds=0.1,
                )
            )
    if last == 12:
        callback.on_end(end_info())


def without_time(path: Path, *events: str) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name != "time"}
        for line in read_log(path)
        if line["event"] in events
    ]


# ---------------------------------------------------------------------------------------- JSONL


def test_each_event_is_a_line(tmp_path: Path) -> None:
    log = JsonlLog(tmp_path / "logs" / "train_log.jsonl")
    log.on_train_start(run_info())
    log.on_phase_change(PhaseInfo(name="warm-up", step=0, learning_rate=1e-4))
    log.on_step(step_info(1, loss=math.nan))
    log.on_validation(entry(1), evaluation())
    log.on_end(end_info())
    log.on_files({"model": tmp_path / "model.pth"})
    log.close()
    log.close()
    lines = read_log(log.log.path)
    assert [line["event"] for line in lines] == [
        "start", "phase", "step", "validation", "end", "files",
    ]  # fmt: skip
    assert lines[0]["config"]["schedule"] == "onecycle"
    assert "loss" not in lines[2]  # it was not a number
    assert lines[3]["macro_f1"] == 0.2
    assert lines[4]["best"] == 0.6
    assert lines[5]["files"] == {"model": str(tmp_path / "model.pth")}
    assert all(line["time"].endswith("+00:00") for line in lines)


@pytest.mark.parametrize("killed_at", range(1, 12))
@pytest.mark.parametrize("resumed_from", [0, 4, 8])
def test_a_resumed_run_is_logged_once(tmp_path: Path, killed_at: int, resumed_from: int) -> None:
    whole, broken = JsonlLog(tmp_path / "whole.jsonl"), JsonlLog(tmp_path / "broken.jsonl")
    play(whole, folder=tmp_path)
    play(broken, last=killed_at, folder=tmp_path)
    resumed_from = min(resumed_from, killed_at // 4 * 4)
    broken = JsonlLog(tmp_path / "broken.jsonl")  # another process
    play(broken, first=resumed_from, folder=tmp_path)
    kinds = ("step", "validation", "checkpoint", "end")
    found = without_time(tmp_path / "broken.jsonl", *kinds)
    assert found == without_time(tmp_path / "whole.jsonl", *kinds)
    starts = without_time(tmp_path / "broken.jsonl", "start")
    assert [line["step"] for line in starts] == ([0, resumed_from] if resumed_from else [0])


def test_a_validation_that_is_made_again_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    play(JsonlLog(path), last=4, folder=tmp_path)
    log = JsonlLog(path)  # killed before the checkpoint that follows the validation
    log.on_train_start(run_info(4))
    log.on_validation(entry(1), evaluation())
    log.on_validation(entry(2), evaluation())
    assert [line["epoch"] for line in read_log(path) if line["event"] == "validation"] == [1, 2]


@given(cut=st.integers(min_value=0))
def test_a_crash_can_cut_only_the_last_line(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    log = EventLog(path)
    log.start(step=0)
    for step in range(1, 6):
        log.write("step", step, {"loss": 0.1, "name": "Ünïcode\n"})
    log.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % (len(whole) + 1)])
    left = read_log(path)
    assert left == [
        {"event": "step", "step": step, "loss": 0.1, "name": "Ünïcode\n"}
        for step in range(1, len(left) + 1)
    ]
    log.start(step=5)
    log.write("step", 6, {})
    log.close()
    assert [line["step"] for line in read_log(path)] == [*range(1, len(left) + 1), 6]


@pytest.mark.parametrize("line", ["{", "[]", "3", '{"event": "step"}', '{"event": 1, "step": 2}'])
def test_a_log_that_is_none_is_refused_and_left_alone(tmp_path: Path, line: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(InputError, match=r"log\.jsonl:1: is not an event"):
        EventLog(path).start(step=3)
    assert path.read_text() == f"{line}\n"
    EventLog(path).write("step", 1, {})  # not open: nothing is written
    assert path.read_text() == f"{line}\n"


@given(
    st.dictionaries(
        st.text(max_size=3),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=3),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
            max_leaves=8,
        ),
        max_size=4,
    )
)
def test_nothing_that_json_cannot_hold_is_left(fields: dict[str, Any]) -> None:
    json.dumps(finite(fields), allow_nan=False)
    assert all(math.isfinite(value) for value in scalars(fields).values())


# ------------------------------------------------------------------------------------- the view


def test_confusions_by_hand() -> None:
    assert confusions(evaluation()) == {"kick": {"snare": 1}}
    assert confusions(Evaluation(figures={})) == {}
    unknown = evaluation()
    unknown.targets["annotated"][1, 1] = 0.0  # the snare was not annotated there
    assert confusions(unknown) == {}


@pytest.mark.parametrize("live", [False, True])
def test_the_view_tells_the_whole_story(live: bool, tmp_path: Path) -> None:
    stream = io.StringIO()
    shown = ConsoleProgress(stream, live=live)
    shown.on_train_start(run_info(4, notes=("amp: off on a CPU",), world_size=2))
    shown.on_phase_change(PhaseInfo(name="main", step=5, learning_rate=1e-3))
    shown.on_step(step_info(5))
    shown.on_validation(entry(2), evaluation())
    shown.on_checkpoint(
        CheckpointInfo(path=tmp_path / "last_run.pth", step=8, epoch=2, why="epoch", seconds=0.1)
    )
    shown.on_end(end_info())
    shown.close()
    said = " ".join(stream.getvalue().split())
    assert "training 392,398 parameters on cpu (float32) on each of 2 processes: 3 epochs" in said
    assert "8 clips a step, going on after step 4" in said
    assert "amp: off on a CPU" in said
    assert "step 5: main, learning rate 1.00e-03" in said
    assert "epoch 2 train_loss 0.5000 val_loss 0.5500 macro_f1 0.4000 (best so far)" in said
    assert "dead classes (events, but F1 = 0): crash" in said
    assert "best macro_f1 0.6000 in epoch 3" in said
    assert ("saved last_run.pth" in said) == live


def test_the_view_shows_every_class_and_escapes_names() -> None:
    from rich.console import Console

    from training.loop.progress import _class_table

    judged = evaluation()
    assert judged.summary is not None
    stream = io.StringIO()
    Console(file=stream, width=100).print(_class_table(judged))
    lines = [line.split() for line in stream.getvalue().splitlines()]
    assert lines[0] == ["class", "precision", "recall", "F1", "events", "taken", "for"]
    assert lines[1] == ["kick", "0.667", "0.667", "0.667", "3", "snare", "1"]
    assert lines[3] == ["crash", "-", "0.000", "0.000", "1"]
    shown = ConsoleProgress(stream, live=False)
    shown.on_validation(entry(1), Evaluation(figures={}, dead=("\x1b[31mred",)))
    assert "\x1b" not in stream.getvalue()


def test_no_colour_means_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert ConsoleProgress(Terminal()).live
    monkeypatch.setenv("NO_COLOR", "1")
    assert not ConsoleProgress(Terminal()).live
    monkeypatch.delenv("NO_COLOR")
    assert not ConsoleProgress(io.StringIO()).live


# ------------------------------------------------------------------------------------- pictures


def test_pictures_are_whole_and_the_same_again(tmp_path: Path) -> None:
    history = [entry(epoch, learning_rate=1e-3 / epoch) for epoch in (1, 2, 3)]
    figures = {"kick": 0.9, "<script>": 0.1}
    made = [
        plot_history(history, tmp_path / name, per_class=figures, floors={"kick": 0.4})
        for name in ("one", "two")
    ]
    assert [path.name for path in made[0]] == ["history.png", "history.svg"]
    assert made[0][0].read_bytes().startswith(b"\x89PNG")
    svg = made[0][1].read_text()
    assert "macro_f1" in svg
    assert "<script>" not in svg
    for one, two in zip(*made, strict=True):
        assert one.read_bytes() == two.read_bytes()
    assert plot_history([], tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_a_history_with_holes_can_be_drawn(tmp_path: Path) -> None:
    history = [{"epoch": 1, "step": 1}, {"epoch": 2, "step": 2, "val_loss": math.nan}]
    assert len(plot_history(history, tmp_path)) == 2


# ------------------------------------------------------------------------- TensorBoard and W&B


def scalars_of(folder: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_back_what_was_logged(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    log = TensorBoardLog(tmp_path)
    play(log, last=6, folder=tmp_path)
    log.close()
    again = TensorBoardLog(tmp_path)
    play(again, first=4, folder=tmp_path)
    again.close()
    found = scalars_of(tmp_path)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 13))
    assert found["validation/macro_f1"] == [
        (4, pytest.approx(0.2)), (8, pytest.approx(0.4)), (12, pytest.approx(0.6)),
    ]  # fmt: skip
    assert found["f1/kick"][0] == (4, pytest.approx(2 / 3))
    assert "validation/best" not in found


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(DrumgateError, match=r"pip install 'drumgate\[tensorboard\]'"):
        TensorBoardLog(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DrumgateError, match=r"pip install 'drumgate\[wandb\]'"):
        WandbLog(WandbSettings(project="p"), tmp_path)


class FakeRun:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.id = settings["id"] or "made1"
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.summary: dict[str, Any] = {}
        self.artifacts: list[Any] = []
        self.finished: list[int | None] = []

    def log(self, figures: dict[str, Any], step: int) -> None:
        self.logged.append((step, figures))

    def log_artifact(self, artifact: Any) -> None:
        self.artifacts.append(artifact)

    def finish(self, exit_code: int | None = None) -> None:
        self.finished.append(exit_code)


class FakeArtifact:
    def __init__(self, name: str, type: str) -> None:
        self.name, self.type, self.files = name, type, []

    def add_file(self, path: str) -> None:
        self.files.append(Path(path).name)


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    runs: list[FakeRun] = []
    module: Any = types.ModuleType("wandb")

    def init(**settings: Any) -> FakeRun:
        if settings["project"] == "unreachable":
            raise OSError("no network")
        runs.append(FakeRun(**settings))
        return runs[-1]

    module.init, module.Artifact = init, FakeArtifact
    monkeypatch.setitem(sys.modules, "wandb", module)
    return runs


def test_wandb_is_told_everything_once(tmp_path: Path, fake_wandb: list[FakeRun]) -> None:
    settings = WandbSettings(project="drums", entity="me", tags=("prod", "retrain"), mode="offline")
    log = WandbLog(settings, tmp_path)
    play(log, last=6, folder=tmp_path)
    log.close()
    run = fake_wandb[0]
    assert run.settings["project"] == "drums"
    assert run.settings["entity"] == "me"
    assert run.settings["tags"] == ["prod", "retrain"]
    assert run.settings["mode"] == "offline"
    assert run.settings["config"]["learning_rate"] == 1e-3
    assert [step for step, figures in run.logged if "train/loss" in figures] == [*range(1, 7)]
    assert run.finished == [1]  # the run broke off

    resumed = WandbLog(settings, tmp_path)
    play(resumed, first=4, folder=tmp_path)
    model = tmp_path / "model.pth"
    model.write_bytes(b"weights")
    resumed.on_files({"model": model, "card": tmp_path / "missing.json"})
    resumed.close()
    resumed.close()
    run = fake_wandb[1]
    assert run.id == "made1"
    assert run.summary["best_macro_f1"] == 0.6
    assert run.artifacts[0].files == ["model.pth"]
    assert run.artifacts[0].type == "model"
    assert run.finished == [0]
    assert WandbLog(settings, tmp_path).settings is settings
    another = WandbLog(settings, tmp_path)
    play(another, folder=tmp_path)
    assert fake_wandb[2].settings["id"] is None  # a run from the first step on is another one


def test_wandb_that_cannot_start_says_how_to_go_without(
    tmp_path: Path, fake_wandb: list[FakeRun]
) -> None:
    log = WandbLog(WandbSettings(project="unreachable"), tmp_path)
    with pytest.raises(DrumgateError, match=r"no network.*--wandb-mode offline"):
        log.on_train_start(run_info())
    log.close()


@pytest.mark.slow
def test_wandb_itself_writes_offline_and_sends_nothing(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    code = (
        "import socket, sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_logging import WandbLog, WandbSettings, play\n"
        "class Refused(Exception): pass\n"
        "real = socket.socket.connect\n"
        "def connect(self, address):\n"
        "    near = ('127.0.0.1', '::1', 'localhost')\n"
        "    if isinstance(address, tuple) and address[0] not in near:\n"
        "        raise Refused(address)\n"
        "    return real(self, address)\n"
        "socket.socket.connect = connect\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "(folder / 'model.pth').write_bytes(b'weights')\n"
        "log = WandbLog(WandbSettings(project='p', tags=('a',), mode='offline'), folder)\n"
        "play(log, folder=folder); log.on_files({'model': folder / 'model.pth'}); log.close()\n"
    )
    environment = {**os.environ, "WANDB_ERROR_REPORTING": "false", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    runs = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 1
    assert b"macro_f1" in runs[0].read_bytes()
