"""Where the time goes: sections add up, features are told apart, a trace can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from test_logging import end_info, run_info
from torch import nn

from training.loop.loggers.profiler import SectionProfiler, TraceRecorder, profile_table


class Clock:
    """A clock that stands still until it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Timed(nn.Module):
    """Takes a second of a clock."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        super().__init__()
        self.clock, self.seconds = clock, seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.clock.now += self.seconds
        return x


def run(profiler: SectionProfiler | TraceRecorder, clock: Clock, model: nn.Module, n: int) -> None:
    for step in range(n):
        with profiler.section("data"):
            clock.now += 1.0
        with profiler.section("forward"):
            clock.now += 0.5
            model(torch.zeros(1))
        with profiler.section("backward"):
            clock.now += 4.0
        with profiler.section("optimiser"):
            clock.now += 2.0
        clock.now += 0.25  # of nobody
        profiler.next_step()
        if step == n - 2:
            with profiler.section("validation"):
                model.eval()
                model(torch.zeros(1))
                model.train()
                clock.now += 50.0


def test_sections_by_hand(tmp_path: Path) -> None:
    clock = Clock()
    logmel = Timed(clock, 1.5)
    model = nn.Sequential(logmel, Timed(clock, 3.0))
    profiler = SectionProfiler(
        features=logmel, path=tmp_path / "profile.json", warm_up=2, clock=clock
    )
    profiler.on_train_start(run_info())
    run(profiler, clock, model, 5)
    profiler.on_end(end_info())
    summary = profiler.summary()
    assert summary["steps"] == 3
    found = {name: row["wall_ms_a_step"] for name, row in summary["sections"].items()}
    assert found == {
        "data": 1000.0,
        "features": 1500.0,
        "forward": 3500.0,
        "backward": 4000.0,
        "optimiser": 2000.0,
        "other": pytest.approx(250.0),
    }
    assert list(found)[1] == "features"
    assert sum(row["wall_share"] for row in summary["sections"].values()) == pytest.approx(1.0)
    assert summary["beside_wall_s"] == {"validation": 54.5}
    assert json.loads((tmp_path / "profile.json").read_text()) == summary
    table = profile_table(summary)
    assert "backward" in table
    assert "(3 steps on cpu)" in table
    assert not logmel._forward_hooks


def test_too_short_a_run_has_no_profile() -> None:
    clock = Clock()
    profiler = SectionProfiler(clock=clock)
    run(profiler, clock, Timed(clock, 1.0), 5)
    assert profiler.summary()["sections"] == {}
    assert "too few steps" in profile_table(profiler.summary())


def test_a_compiled_model_is_left_alone() -> None:
    clock = Clock()
    logmel = Timed(clock, 1.0)
    profiler = SectionProfiler(features=logmel, warm_up=1, clock=clock)
    profiler.on_train_start(run_info(compiled=True))
    run(profiler, clock, logmel, 3)
    profiler.close()
    assert "features" not in profiler.summary()["sections"]


def test_many_steps_are_read_in_blocks() -> None:
    clock = Clock()
    profiler = SectionProfiler(warm_up=1, clock=clock)
    run(profiler, clock, nn.Identity(), 200)
    assert profiler.summary()["sections"]["data"]["wall_s"] == 199.0


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_trace_can_be_read(tmp_path: Path) -> None:
    clock = Clock()
    model = nn.Linear(1, 1)
    inner = SectionProfiler(warm_up=1, clock=clock)
    recorder = TraceRecorder(tmp_path / "trace.json", inner=inner, after=1, steps=2)
    recorder.on_train_start(run_info())
    run(recorder, clock, model, 5)
    recorder.on_end(end_info())
    recorder.close()
    assert recorder.written
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("drumgate:backward") >= 2
    assert any("linear" in str(name) for name in names)
    assert inner.summary()["steps"] == 4


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_a_trace_of_a_short_run_is_written_at_its_end(tmp_path: Path) -> None:
    clock = Clock()
    recorder = TraceRecorder(tmp_path / "trace.json", after=1, steps=50)
    recorder.on_train_start(run_info())
    run(recorder, clock, nn.Linear(1, 1), 3)
    recorder.close()
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    short = TraceRecorder(tmp_path / "none.json", after=50)
    run(short, clock, nn.Linear(1, 1), 2)
    short.close()
    assert not (tmp_path / "none.json").exists()
