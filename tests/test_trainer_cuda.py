"""The trainer on a GPU; skipped where there is none."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_makers import FEATURES
from trainer_makers import Net, Squares, cut

from training.loop import Trainer, TrainingConfig
from training.loop.augment import AugmentConfig, SpectralAugment, WaveAugment
from training.loop.loggers.profiler import SectionProfiler
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.losses import DrumLoss
from training.model.precision import whole_float32

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    # Said once by PyTorch, here about nothing that is wrong.
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),
    pytest.mark.filterwarnings("ignore:Please use the new API settings"),
]
compiles = pytest.mark.filterwarnings("default")
"""Compilers warn of what they do themselves."""


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


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"compile": True}, {"cuda_graphs": True}])
def test_a_gpu_compiles(settings: Any) -> None:
    torch._dynamo.reset()
    compiled, plain = on_cuda(**settings), on_cuda()
    compiled.train()
    plain.train()
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def drum_trainer(device: str, augment: AugmentConfig | None = None, **settings: Any) -> Trainer:
    """The drum model on 28 clips of noise, the last batch smaller than the others."""
    torch.manual_seed(0)
    model = DrumClassifier(
        FEATURES,
        ModelConfig(n_classes=3, dropout=0.0),
        augment=None if augment is None else SpectralAugment(augment),
    )
    model.logmel.set_statistics(torch.full((16,), -30.0), torch.full((16,), 20.0))
    varied = None if augment is None else WaveAugment(augment, FEATURES)
    length = FEATURES.read_samples + (0 if varied is None else 2 * varied.margin)
    audio = 0.1 * torch.randn(28, length, generator=torch.Generator().manual_seed(0))
    targets = {
        "labels": (torch.arange(84).reshape(28, 3) % 4 == 0).float(),
        "annotated": torch.ones(28, 3),
        "velocity": torch.linspace(0, 1, 28),
        "openness": torch.full((28,), torch.nan),
    }
    batches = [
        (
            audio[i : i + 8].to(device),
            {name: value[i : i + 8].to(device) for name, value in targets.items()},
        )
        for i in range(0, 28, 8)
    ]
    heard = [(clips[:, : FEATURES.read_samples], truth) for clips, truth in batches]
    given: dict[str, Any] = {
        "epochs": 3,
        "ema_decay": 0.9,
        "amp": False,
        "monitor": "val_loss",
        "mode": "min",
    }
    return Trainer(
        model, batches, heard, TrainingConfig(**given | settings), DrumLoss(), augment=varied,
        device=device, network=model.cnn,
    )  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [{}, {"amp": True}, {"accumulate_steps": 2}, {"amp": True, "amp_dtype": "fp16"}],
)
def test_a_gpu_is_not_waited_for_between_looks(settings: Any) -> None:
    augment = AugmentConfig(mixup=0.5, overlay=0.5)
    trainer = drum_trainer("cuda", augment, log_every=10**6, **settings)
    group = list(trainer.train_loader)[: trainer.config.accumulate_steps]
    trainer._train_step(group)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            trainer._train_step(group)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@compiles
@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"amp": True}, {"amp": True, "cuda_graphs": True}])
def test_a_gpu_trains_the_drum_model(settings: Any) -> None:
    """Without anything random its losses are those of a CPU; bf16 is near them."""
    torch._dynamo.reset()
    here, there = drum_trainer("cpu"), drum_trainer("cuda", **settings)
    tolerance = 0.05 if settings else 2e-3
    for one, other in zip(here.train(), there.train(), strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=tolerance)
        assert other["val_loss"] == pytest.approx(one["val_loss"], rel=tolerance)
    # What is measured after training is measured as it was during it.
    best = min(line["val_loss"] for line in there.history)
    assert there.evaluate(there.model).figures["val_loss"] == pytest.approx(best, rel=1e-3)


def test_float32_on_a_gpu_is_that_of_a_cpu() -> None:
    """Convolutions are not rounded to TF32, whose ten bits would be seen here."""
    here, there = drum_trainer("cpu"), drum_trainer("cuda")
    clips, _ = next(iter(here.train_loader))
    with torch.no_grad(), whole_float32(there.device):
        found = there.model.eval()(clips[:, : FEATURES.read_samples].cuda())
        expected = here.model.eval()(clips[:, : FEATURES.read_samples])
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value, rtol=1e-4, atol=1e-5)


def state_devices(trainer: Trainer) -> list[torch.device]:
    """Where each tensor of the optimiser lies."""
    states = trainer.optimiser.state.values()
    return [v.device for s in states for v in s.values() if isinstance(v, torch.Tensor)]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"fused": False},
        {"optimiser": "rmsprop"},
        {"optimiser": "sgd"},
        {"amp": True, "amp_dtype": "fp16"},
    ],
)
def test_a_gpu_goes_on_where_it_stopped(settings: Any, tmp_path: Path) -> None:
    whole, first, second = (drum_trainer("cuda", deterministic=True, **settings) for _ in range(3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # operations without a deterministic form
        whole.train()
        first.train_epoch()
        first.save_checkpoint(tmp_path / "run.pth")
        places = state_devices(first)
        second.load_checkpoint(tmp_path / "run.pth")
        assert (
            state_devices(second) == places
        )  # counts of steps that lay in main memory lie there again
        second.train()
    for one, other in zip(whole.history, second.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value, rtol=1e-2, atol=1e-3)


def test_sections_are_timed_on_the_gpu_too() -> None:
    profiler = SectionProfiler("cuda", warm_up=1)
    trainer = drum_trainer("cuda")
    trainer._sections = profiler
    trainer.callbacks = (profiler,)
    trainer.train()
    row = profiler.summary()["sections"]["backward"]
    assert row["device_ms_a_step"] > 0
    assert row["wall_ms_a_step"] > 0
