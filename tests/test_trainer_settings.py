"""Settings that change how the trainer computes, and recipes as text."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from clip_makers import FEATURES
from torch import Tensor, nn
from trainer_makers import BATCH, At, Everything, Masked, Net, Numbers, Squares, cut, small_trainer

from training.errors import DrumgateError, InputError
from training.loop import (
    Trainer,
    TrainingConfig,
)
from training.loop.augment import AugmentConfig, WaveAugment
from training.loop.config import PRESETS, load_recipe
from training.loop.config_text import describe_settings, recipe_toml
from training.model.losses import DrumLoss, masked_cross_entropy

# Accumulated batches are one large batch


def trained(
    batches: list[tuple[Tensor, dict[str, Tensor]]], criterion: nn.Module, **settings: Any
) -> Trainer:
    torch.manual_seed(0)
    config = TrainingConfig(epochs=4, learning_rate=1e-2, **settings)
    trainer = Trainer(Net(), batches, None, config, criterion)
    trainer.train()
    return trainer


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd", "rmsprop"])
@pytest.mark.parametrize("holes", [False, True])
def test_accumulated_batches_are_one_large_batch(optimiser: str, holes: bool) -> None:
    criterion = Masked() if holes else Squares()
    large = trained(cut(12, holes), criterion, optimiser=optimiser)
    parts = trained(cut(3, holes), criterion, optimiser=optimiser, accumulate_steps=4)
    assert large.step == parts.step == 8
    for name, value in large.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)
    for one, other in zip(large.history, parts.history, strict=True):
        assert other["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)


def test_a_last_step_of_fewer_batches_weighs_its_clips() -> None:
    # 24 points in batches of 5 (the last of 4), three a step: steps of 15 and of 9.
    ragged = trained(cut(5), Squares(), accumulate_steps=3)
    data = Numbers()
    y = data.x.sum(dim=1)
    whole = [(data.x[:15], {"y": y[:15]}), (data.x[15:], {"y": y[15:]})]
    large = trained(whole, Squares())
    for name, value in large.model.state_dict().items():
        torch.testing.assert_close(ragged.model.state_dict()[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_parts_of_the_drum_loss_add_up(task: str) -> None:
    generator = torch.Generator().manual_seed(1)
    n, classes = 12, 4
    outputs = {
        "logits": torch.randn(n, classes, generator=generator),
        "velocity": torch.rand(n, generator=generator),
    }
    targets = {
        "labels": (torch.rand(n, classes, generator=generator) > 0.7).float(),
        "annotated": (torch.rand(n, classes, generator=generator) > 0.3).float(),
        "velocity": torch.rand(n, generator=generator),
        "openness": torch.full((n,), torch.nan),
    }
    targets["velocity"][:7] = torch.nan
    criterion = DrumLoss(task=task)
    whole = criterion(outputs, targets)
    counts = criterion.counts(targets)
    summed: dict[str, Tensor] = {}
    for part in (slice(0, 5), slice(5, 7), slice(7, 12)):
        losses = criterion(
            {k: v[part] for k, v in outputs.items()},
            {k: v[part] for k, v in targets.items()},
            counts,
        )
        summed = {name: summed.get(name, 0.0) + value for name, value in losses.items()}
    for name, value in whole.items():
        torch.testing.assert_close(summed[name], value)


# Settings that change how it computes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("adamw", torch.optim.AdamW),
        ("adam", torch.optim.Adam),
        ("sgd", torch.optim.SGD),
        ("rmsprop", torch.optim.RMSprop),
    ],
)
def test_optimisers(name: str, kind: type) -> None:
    trainer = small_trainer(optimiser=name, epochs=12, dropout=0.0, noise=0.0, weight_decay=0.0)
    assert type(trainer.optimiser) is kind
    history = trainer.train()
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]
    assert not any(group.get("fused") for group in trainer.optimiser.param_groups)


def test_a_model_without_anything_to_train_is_refused() -> None:
    model = Net().requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        Trainer(model, cut(8), None, TrainingConfig(), Squares())


def test_frozen_parameters_stay() -> None:
    torch.manual_seed(0)
    model = Net()
    model.body.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    Trainer(model, cut(8), None, TrainingConfig(epochs=2), Squares()).train()
    assert torch.equal(model.body.weight, before["body.weight"])
    assert not torch.equal(model.head.weight, before["head.weight"])


def test_cuda_graphs_without_cuda_are_refused() -> None:
    with pytest.raises(DrumgateError, match="cuda_graphs: there are none on cpu"):
        small_trainer(cuda_graphs=True)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(DrumgateError, match=r"needs a C\+\+ compiler"):
        small_trainer(compile=True)


def test_the_network_is_compiled_in_place_and_validated_as_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[str] = []
    compile_ = torch.compile

    def eager(function: Any, *, mode: str, **named: Any) -> Any:
        calls.append(mode)
        return compile_(function, backend="eager", **named)

    monkeypatch.setattr(torch, "compile", eager)
    torch._dynamo.reset()
    compiled = small_trainer(compile=True, dropout=0.0, noise=0.0)
    plain = small_trainer(dropout=0.0, noise=0.0)
    assert compiled.compiled
    compiled.train()
    plain.train()
    assert calls == ["default"]
    assert list(compiled.model.state_dict()) == list(plain.model.state_dict())
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], value)
    assert compiled.history == plain.history


def test_deterministic_algorithms_are_asked_for_and_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    seen: list[bool] = []
    note = At(2, lambda: seen.append(torch.are_deterministic_algorithms_enabled()))
    small_trainer(callbacks=(note,), deterministic=True).train()
    assert seen == [True]
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_has_no_effect_is_said() -> None:
    watching = Everything()
    small_trainer(callbacks=(watching,), accumulate_steps=2, amp_dtype="fp16").train()
    assert watching.run is not None
    said = " ".join(watching.run.notes)
    assert f"batch norm counts {BATCH} clips at a time, not the {2 * BATCH} of a step" in said
    assert "fp16 is for CUDA" in said


def test_a_number_of_steps_ends_the_run() -> None:
    trainer = small_trainer(max_steps=8)
    assert [line["step"] for line in trainer.train()] == [6, 8]
    assert trainer.why_over == "all 8 steps done"


def test_stopping_early_is_not_forgotten_when_resumed(tmp_path: Path) -> None:
    run_file = tmp_path / "run.pth"
    stopped = small_trainer(run_file, epochs=30, patience=2, min_delta=100.0)
    assert len(stopped.train()) == 3
    again = small_trainer(run_file, epochs=30, patience=2, min_delta=100.0)
    again.load_checkpoint(run_file)
    assert len(again.train()) == 3


# Mixup


def mixed(targets: dict[str, Tensor], audio: Tensor, **named: Any) -> Any:
    torch.manual_seed(2)
    config = AugmentConfig(speed=0, gain_db=0, cut=0, mixup=1.0, mixup_alpha=1.0)
    return WaveAugment(config, FEATURES, **named)(audio, targets)


def test_mixup_mixes_audio_and_labels_alike() -> None:
    n = 6
    targets = {
        "labels": torch.eye(n),
        "annotated": torch.ones(n, n),
        "velocity": torch.rand(n),
        "openness": torch.rand(n),
        "row": torch.arange(n),
    }
    targets["annotated"][0, 3] = 0
    audio, found = mixed(targets, torch.eye(n))
    torch.testing.assert_close(audio, found["labels"])  # the same weights in both
    torch.testing.assert_close(found["labels"].sum(dim=1), torch.ones(n))
    assert torch.all(found["labels"].diagonal() >= 0.5)
    partner = (found["labels"] - 2 * torch.eye(n)).argmax(dim=1)
    partner = torch.where(found["labels"].diagonal() == 1.0, torch.arange(n), partner)
    both = targets["annotated"] * targets["annotated"][partner]
    assert torch.equal(found["annotated"], both)
    assert torch.isnan(found["velocity"]).all()
    assert torch.isnan(found["openness"]).all()
    assert torch.equal(found["row"], targets["row"])
    assert torch.equal(targets["labels"], torch.eye(n))


def test_mixup_of_one_class_a_clip_mixes_only_those_with_one() -> None:
    labels = torch.tensor([[1.0, 0, 0], [0, 1.0, 1.0], [0, 0, 1.0], [0, 0, 0], [0, 1.0, 0]])
    targets = {"labels": labels, "annotated": torch.ones(5, 3), "velocity": torch.rand(5)}
    _, found = mixed(targets, torch.randn(5, 9), task="multiclass")
    assert torch.equal(found["labels"][[1, 3]], labels[[1, 3]])
    torch.testing.assert_close(found["labels"][[0, 2, 4]].sum(dim=1), torch.ones(3))
    # The loss of a mean of two labels is the mean of their losses.
    logits = torch.randn(1, 3)
    known = torch.ones(1, 3)
    soft = torch.tensor([[0.7, 0.0, 0.3]])
    parts = [masked_cross_entropy(logits, torch.eye(3)[[k]], known) for k in (0, 2)]
    torch.testing.assert_close(
        masked_cross_entropy(logits, soft, known), 0.7 * parts[0] + 0.3 * parts[1]
    )


# Recipes


@pytest.mark.parametrize("preset", PRESETS)
def test_a_printed_recipe_is_that_recipe(tmp_path: Path, preset: str) -> None:
    recipe = load_recipe(
        preset, assignments=("training.gradient_clip=none", "training.betas=[0.8, 0.9]")
    )
    path = tmp_path / "printed.toml"
    path.write_text(recipe_toml(recipe))
    assert load_recipe(preset, path) == recipe
    assert recipe.training.gradient_clip is None
    assert recipe.training.betas == (0.8, 0.9)


def test_settings_are_described() -> None:
    said = describe_settings(TrainingConfig)
    assert said["epochs"].startswith("Passes over the training clips")
    assert "momentum" in said


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epochs=3", "must read TABLE.KEY=VALUE"),
        ("training.epochs", "must read TABLE.KEY=VALUE"),
        ("training.epocs=3", r"--set: training\.epocs: unknown key; did you mean training\.epochs"),
        ("trainin.epochs=3", "--set: trainin: unknown table; did you mean training"),
        ("training.epochs=many", r"training\.epochs: Expected `int`"),
        ("training.schedule=zigzag", r"training\.schedule: Invalid enum value"),
        ("training.epochs=none", r"training\.epochs: Expected `int`"),
        ("training.monitor='x", "unbalanced|no figure|^$"),
    ],
)
def test_wrong_assignments_are_named(assignment: str, message: str) -> None:
    if assignment.startswith("training.monitor"):
        # What is not TOML is a word: quotes that do not close are part of it.
        assert load_recipe("fast", assignments=(assignment,)).training.monitor == "'x"
        return
    with pytest.raises(InputError, match=message):
        load_recipe("fast", assignments=(assignment,))


def test_assignments_win() -> None:
    recipe = load_recipe(
        "fast", None, {"epochs": 3},
        ("training.epochs=4", "augment.mixup=0.5", "features.hop=70", "training.schedule=cosine",
         "training.compile=true"),
    )  # fmt: skip
    assert (recipe.training.epochs, recipe.augment.mixup, recipe.features.hop) == (4, 0.5, 70)
    assert recipe.training.schedule == "cosine"
    assert recipe.training.compile
