"""Learning-rate schedules, each against PyTorch's own or by hand; warm-up, phases, plateaus."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import lr_scheduler
from trainer_makers import small_trainer

from training.loop import Callback, TrainingConfig
from training.loop.callbacks import PhaseInfo
from training.loop.schedule import SCHEDULES, Schedule, learning_rate_factor

STEPS = 200
GAMMA = 0.02 ** (1 / STEPS)


def schedule(name: str, total: int = STEPS, per_epoch: int = 20, **settings: Any) -> Schedule:
    config = TrainingConfig(schedule=name, learning_rate=1.0, **settings)  # type: ignore[arg-type]
    return Schedule(config, steps_per_epoch=per_epoch, total_steps=total)


def rates(made: Schedule, total: int = STEPS) -> list[float]:
    return [made.rate(step, (step + 0.5) / total) for step in range(total)]


def oracle(kind: Any, **settings: Any) -> list[float]:
    """PyTorch's rates at the middle of each step: the mean of its start and its end."""
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = kind(optimiser, **settings)
    found = []
    for _ in range(STEPS + 1):
        found.append(float(scheduler.get_last_lr()[0]))
        optimiser.step()
        scheduler.step()
    return [(a + b) / 2 for a, b in pairwise(found)]


@pytest.mark.parametrize(
    ("name", "ours", "kind", "theirs"),
    [
        ("cosine", {}, lr_scheduler.CosineAnnealingLR, {"T_max": STEPS}),
        ("polynomial", {"power": 3}, lr_scheduler.PolynomialLR, {"total_iters": STEPS, "power": 3}),
        ("linear", {}, lr_scheduler.PolynomialLR, {"total_iters": STEPS, "power": 1.0}),
        ("exponential", {"final_factor": 0.02}, lr_scheduler.ExponentialLR, {"gamma": GAMMA}),
        ("constant", {}, lr_scheduler.ConstantLR, {"factor": 1.0}),
    ],
)  # fmt: skip
def test_they_are_pytorchs(name: str, ours: Any, kind: Any, theirs: Any) -> None:
    assert rates(schedule(name, warmup=0.0, **ours)) == pytest.approx(
        oracle(kind, **theirs), abs=2e-4
    )


@given(
    values=st.lists(st.integers(0, 6), min_size=1, max_size=40),
    patience=st.integers(1, 4),
    mode=st.sampled_from(["max", "min"]),
)
def test_plateau_is_pytorchs(values: list[int], patience: int, mode: str) -> None:
    made = schedule(
        "plateau", warmup=0.0, plateau_patience=patience, plateau_factor=0.5, mode=mode,
        min_delta=0.5, final_factor=0.01,
    )  # fmt: skip
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = lr_scheduler.ReduceLROnPlateau(
        optimiser, mode=mode, factor=0.5, patience=patience, threshold=0.5,
        threshold_mode="abs", min_lr=0.01, eps=0.0,
    )  # fmt: skip
    for value in values:
        made.on_validation(float(value))
        theirs.step(float(value))
        assert made.rate(100, 0.5) == pytest.approx(optimiser.param_groups[0]["lr"])


def test_a_plateau_goes_on_where_it_was() -> None:
    one = schedule("plateau", plateau_patience=2)
    for value in (0.5, 0.4, 0.4):
        one.on_validation(value)
    other = schedule("plateau", plateau_patience=2)
    other.load_state_dict(one.state_dict())
    for each in (one, other):
        each.on_validation(0.4)
    assert one.state_dict() == other.state_dict()
    assert other.reductions == 1


@pytest.mark.parametrize("given_in", [{"warmup_steps": 40}, {"warmup_epochs": 2.0}])
@pytest.mark.parametrize("name", ["cosine", "constant", "plateau", "polynomial", "exponential"])
def test_warm_up_in_steps_and_epochs_is_that_in_shares(name: str, given_in: Any) -> None:
    assert rates(schedule(name, **given_in)) == pytest.approx(rates(schedule(name, warmup=0.2)))


def test_a_warm_up_may_be_longer_than_the_run() -> None:
    found = rates(schedule("cosine", warmup_steps=2 * STEPS))
    assert found == pytest.approx([(step + 0.5) / (2 * STEPS) for step in range(STEPS)])


def test_a_warm_up_of_no_steps_is_none() -> None:
    assert rates(schedule("constant", warmup_steps=0)) == [1.0] * STEPS


def test_under_a_time_budget_the_rest_follows_the_clock() -> None:
    made = schedule("cosine", max_minutes=1.0, warmup_steps=20)
    assert made.rate(9, 0.9) == pytest.approx(9.5 / 20)  # still rising, however late it is
    assert made.rate(50, 1.0) == pytest.approx(0.0)


@pytest.mark.parametrize("name", sorted(set(SCHEDULES) - {"phased"}))
@given(step=st.integers(0, 300), progress=st.floats(0, 1), warmup=st.integers(0, 300))
def test_rates_lie_between_nothing_and_the_whole(
    name: str, step: int, progress: float, warmup: int
) -> None:
    assert 0.0 <= schedule(name, warmup_steps=warmup).rate(step, progress) <= 1.0 + 1e-12


def test_phases_by_hand() -> None:
    made = schedule("phased", phase_learning_rates=(0.1, 0.01, 0.5), phase_steps=(2, 1, 3))
    assert rates(made, 8) == [0.1, 0.1, 0.01, 0.5, 0.5, 0.5, 0.5, 0.5]
    assert [made.phase(step, 0.0) for step in (0, 1, 2, 3)] == [
        "phase 1 of 3", "phase 1 of 3", "phase 2 of 3", "phase 3 of 3",
    ]  # fmt: skip
    warm = schedule(
        "phased", 6, phase_learning_rates=(0.1, 0.01), phase_steps=(4, 2), warmup_steps=2
    )
    assert rates(warm, 6) == pytest.approx([0.025, 0.075, 0.1, 0.1, 0.01, 0.01])


def test_a_phased_run_ends_with_its_phases_and_says_when_they_change() -> None:
    class Phases(Callback):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int, float]] = []

        def on_phase_change(self, phase: PhaseInfo) -> None:
            self.seen.append((phase.name, phase.step, phase.learning_rate))

    phases = Phases()
    trainer = small_trainer(
        callbacks=(phases,),
        schedule="phased",
        phase_learning_rates=(1e-2, 1e-3),
        phase_steps=(7, 4),
    )
    history = trainer.train()
    assert phases.seen == [("phase 1 of 2", 0, 1e-2), ("phase 2 of 2", 7, 1e-3)]
    assert [line["step"] for line in history] == [6, 11]
    assert trainer.why_over == "all epochs done"


def test_other_phases_are_named() -> None:
    made = schedule("plateau", warmup_steps=3, plateau_patience=1)
    assert made.phase(2, 0.01) == "warm-up"
    assert made.phase(3, 0.01) == "main"
    for value in (0.5, 0.5, 0.5):
        made.on_validation(value)
    assert made.phase(9, 0.1) == "plateau 1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "phased"}, "phase_learning_rates and phase_steps of the same length"),
        ({"schedule": "phased", "phase_learning_rates": (0.1,), "phase_steps": (1, 2)}, "1 and 2"),
        ({"schedule": "phased", "phase_learning_rates": (0.0,), "phase_steps": (1,)}, "lie in"),
        ({"schedule": "phased", "phase_learning_rates": (0.1,), "phase_steps": (0,)}, "at least 1"),
        ({"phase_steps": (1,)}, 'need schedule = "phased"'),
        ({"warmup_steps": 1, "warmup_epochs": 1.0}, "not both"),
        ({"warmup_steps": -1}, "warmup_steps must not be negative"),
        ({"warmup_epochs": float("nan")}, "warmup_epochs must not be negative"),
        ({"plateau_factor": 1.0}, "plateau_factor must lie in"),
        ({"final_factor": 0.0}, "final_factor must lie in"),
        ({"power": 0.0}, "power must lie in"),
        (
            {
                "schedule": "phased",
                "phase_learning_rates": (0.1,),
                "phase_steps": (1,),
                "max_minutes": 1.0,
            },
            "cannot follow max_minutes",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**settings)


def test_the_factor_of_a_flat_schedule_is_one_after_its_warm_up() -> None:
    for name in ("constant", "plateau", "phased"):
        assert learning_rate_factor(name, 0.5, 0.1) == 1.0
        assert learning_rate_factor(name, 0.05, 0.1) == pytest.approx(0.5)
