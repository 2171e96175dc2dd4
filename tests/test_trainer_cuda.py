"""The trainer on a GPU; skipped where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from clip_makers import FEATURES
from trainer_makers import Net, Squares, cut

from training.loop import (
    Trainer,
    TrainingConfig,
)
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.losses import DrumLoss

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# On a GPU


def on_cuda(**settings: Any) -> Trainer:
    torch.manual_seed(0)
    batches = [(x.cuda(), {k: v.cuda() for k, v in y.items()}) for x, y in cut(8)]
    given: dict[str, Any] = {"epochs": 5, "learning_rate": 1e-2, "amp": False} | settings
    return Trainer(Net(), batches, None, TrainingConfig(**given), Squares(), device="cuda")


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd", "rmsprop"])
def test_a_gpu_trains_what_a_cpu_trains(optimiser: str) -> None:
    there = on_cuda(optimiser=optimiser)
    there.train()
    torch.manual_seed(0)
    reference = Trainer(
        Net(), cut(8), None, TrainingConfig(epochs=5, learning_rate=1e-2, optimiser=optimiser),
        Squares(),
    )  # fmt: skip
    reference.train()
    for name, value in reference.model.state_dict().items():
        torch.testing.assert_close(
            there.model.state_dict()[name].cpu(), value, rtol=1e-3, atol=1e-4
        )
    if optimiser != "rmsprop":
        assert all(group["fused"] for group in there.optimiser.param_groups)


@pytest.mark.parametrize("amp_dtype", ["bf16", "fp16"])
def test_a_gpu_learns_in_low_precision(amp_dtype: str) -> None:
    history = on_cuda(amp=True, amp_dtype=amp_dtype, epochs=60).train()
    assert history[-1]["train_loss"] < 0.3 * history[0]["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"compile": True}, {"cuda_graphs": True}])
def test_a_gpu_compiles(settings: Any) -> None:
    torch._dynamo.reset()
    compiled, plain = on_cuda(**settings), on_cuda()
    compiled.train()
    plain.train()
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_a_gpu_is_not_waited_for_between_looks() -> None:
    trainer = on_cuda(log_every=10**6)
    group = [next(iter(trainer.train_loader))]
    trainer._train_step(group)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer._train_step(group)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"amp": True}, {"amp": True, "cuda_graphs": True}])
def test_a_gpu_trains_the_drum_model(settings: Any) -> None:
    """Without anything random its losses are those of a CPU; bf16 is near them."""

    def run(device: str, **named: Any) -> list[dict[str, Any]]:
        torch.manual_seed(0)
        model = DrumClassifier(FEATURES, ModelConfig(n_classes=3, dropout=0.0))
        model.logmel.set_statistics(torch.full((16,), -30.0), torch.full((16,), 20.0))
        audio = torch.randn(32, FEATURES.read_samples, generator=torch.Generator().manual_seed(0))
        targets = {
            "labels": (torch.arange(96).reshape(32, 3) % 4 == 0).float(),
            "annotated": torch.ones(32, 3),
            "velocity": torch.linspace(0, 1, 32),
            "openness": torch.full((32,), torch.nan),
        }
        batches = [
            (0.1 * audio[i : i + 8].to(device), {k: v[i : i + 8] for k, v in targets.items()})
            for i in range(0, 32, 8)
        ]
        config = TrainingConfig(epochs=3, ema_decay=0.9, **{"amp": False, **named})
        return Trainer(
            model, batches, None, config, DrumLoss(), device=device, network=model.cnn
        ).train()

    torch._dynamo.reset()
    here, there = run("cpu"), run("cuda", **settings)
    tolerance = 0.05 if settings else 2e-3
    for one, other in zip(here, there, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=tolerance)
