"""The parts of the trainer on their own: any model, dividing, figures, choosing, callbacks."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, top_k_accuracy_score
from torch import Tensor, nn
from trainer_makers import BATCH, Everything, Net, Numbers, Squares, cut, small_trainer

import training.loop
from training.dataset.samplers import EpochSampler
from training.errors import DrumgateError
from training.loop import (
    EarlyStopping,
    Evaluation,
    MetricsTracker,
    Trainer,
    TrainingConfig,
    create_train_val_split,
    evaluate_model,
)
from training.loop.draws import class_draws
from training.loop.score_figures import score_figures, top_k_hits
from training.model.losses import DrumLoss

# Any model, any loss


class TwoHeads(nn.Module):
    """Audio in, two heads out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv1d(1, 8, 9, stride=4)
        self.loud = nn.Linear(8, 1)
        self.kind = nn.Linear(8, 3)

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.body(audio[:, None])).mean(dim=2)
        return {"loud": self.loud(hidden), "kind": self.kind(hidden)}


class TwoLosses(nn.Module):
    def forward(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        loud = nn.functional.mse_loss(outputs["loud"].squeeze(1), targets["loud"])
        kind = nn.functional.cross_entropy(outputs["kind"], targets["kind"])
        return {"total": loud + kind, "loud": loud, "kind": kind}


def sounds(n: int = 48) -> list[tuple[Tensor, dict[str, Tensor]]]:
    """Tones of three pitches, some louder than others."""
    generator = torch.Generator().manual_seed(3)
    kind = torch.arange(n) % 3
    loud = torch.rand(n, generator=generator) + 0.5
    pitch = torch.tensor([0.3, 0.9, 2.0])[kind]
    audio = loud[:, None] * torch.sin(pitch[:, None] * torch.arange(64))
    return [
        (audio[i : i + 8], {"loud": loud[i : i + 8], "kind": kind[i : i + 8]})
        for i in range(0, n, 8)
    ]


def test_a_model_with_several_heads_is_trained_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = TrainingConfig(epochs=25, learning_rate=2e-2, monitor="val_loss", mode="min")
    trainer = Trainer(TwoHeads(), sounds(), sounds(), config, TwoLosses())
    before = trainer.evaluate(trainer.model).figures
    line = trainer.train_epoch()
    assert {"train_loss", "train_loud", "train_kind", "val_loss", "val_loud", "val_kind"} <= set(
        line
    )
    trainer.save_checkpoint(tmp_path / "run.pth")
    history = list(trainer.train())
    assert len(history) == 25
    assert history[-1]["val_loss"] < 0.3 * before["val_loss"]
    assert trainer.validate()["val_loss"] == pytest.approx(
        min(e["val_loss"] for e in history), abs=2e-3
    )
    trainer.export_history(tmp_path / "history.json")

    torch.manual_seed(1)
    again = Trainer(TwoHeads(), sounds(), sounds(), config, TwoLosses())
    again.load_checkpoint(tmp_path / "run.pth")
    assert again.train() == history


def test_a_small_batch_is_learnt_by_heart() -> None:
    torch.manual_seed(0)
    batch = [cut(8)[0]]
    config = TrainingConfig(epochs=400, learning_rate=2e-2, weight_decay=0.0, schedule="cosine")
    trainer = Trainer(Net(), batch, None, config, Squares())
    assert trainer.train()[-1]["train_loss"] < 1e-3


def test_labels_that_mean_nothing_are_not_learnt() -> None:
    """Balanced labels drawn by lot: on held-out points the hit rate stays that of a coin."""
    rng = torch.Generator().manual_seed(5)
    x = torch.randn(400, 4, generator=rng)
    labels = (torch.rand(400, 1, generator=rng) > 0.5).float()
    targets = {"labels": labels, "annotated": torch.ones(400, 1)}

    class Says(Net):
        def forward(self, x: Tensor) -> Any:
            return {"logits": super().forward(x)[:, None]}

    def part(rows: slice) -> list[Any]:
        return [(x[rows], {k: v[rows] for k, v in targets.items()})]

    criterion = DrumLoss(velocity_weight=0, openness_weight=0)
    criterion.weights = {}
    torch.manual_seed(0)
    model = Says()
    config = TrainingConfig(epochs=60, learning_rate=1e-2)
    Trainer(model, part(slice(0, 200)), None, config, criterion).train()
    held_out = evaluate_model(model, part(slice(200, 400)), labels=("a",))
    hits = ((held_out.outputs["logits"] >= 0) == (labels[200:].numpy() > 0.5)).mean()
    assert abs(hits - 0.5) < 3 * math.sqrt(0.25 / 200)


# What watches


def test_callbacks_are_told_in_order(tmp_path: Path) -> None:
    watching = Everything()
    trainer = small_trainer(
        tmp_path / "run.pth", callbacks=(watching,), epochs=2, log_every=4, save_every=5,
        warmup_steps=2, schedule="cosine",
    )  # fmt: skip
    trainer.train()
    assert watching.seen == [
        "start", "warm-up", "main", "step", "save_every", "validation", "epoch",
        "step", "save_every", "step", "validation", "epoch", "end",
    ]  # fmt: skip
    assert watching.run is not None
    assert (watching.run.total_steps, watching.run.batch_size) == (12, BATCH)
    assert watching.run.config["weight_decay"] == 0.01
    assert watching.run.precision == "float32"
    assert watching.end is not None
    assert watching.end.best == trainer.early.best
    assert [info.step for info in watching.steps] == [4, 8, 12]
    assert set(watching.steps[0].losses) == {"total"}
    assert all((info.gradient_norm or 0) > 0 for info in watching.steps)


def test_losses_are_looked_at_once_in_log_every_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from training.loop import watched

    looks: list[int] = []
    look = watched.look

    def counted(pending: Any, *more: Any, **named: Any) -> Any:
        if pending:
            looks.append(len(pending))
        return look(pending, *more, **named)

    monkeypatch.setattr(watched, "look", counted)
    small_trainer(log_every=4).train()
    assert looks == [4, 2, 2, 4, 4, 2]  # six steps an epoch; each epoch ends with a look


def test_sections_cover_a_step() -> None:
    from contextlib import contextmanager

    class Sections:
        def __init__(self) -> None:
            self.open: list[str] = []
            self.seen: list[str] = []

        @contextmanager
        def section(self, name: str) -> Iterator[None]:
            assert not self.open, f"{name} within {self.open}"
            self.open.append(name)
            self.seen.append(name)
            yield
            self.open.pop()

        def next_step(self) -> None:
            self.seen.append("|")

    sections = Sections()
    torch.manual_seed(0)
    config = TrainingConfig(epochs=1, accumulate_steps=2)
    Trainer(
        Net(), cut(12), cut(12), config, Squares(), sections=sections, augment=lambda x, y: (x, y)
    ).train()
    assert " ".join(sections.seen) == (
        "data data augment forward backward forward backward optimiser | validation"
    )


# Choosing


def test_an_unknown_figure_to_monitor_is_named() -> None:
    with pytest.raises(
        DrumgateError, match="there is no finite figure recall; there are train_loss, val_loss"
    ):
        small_trainer(monitor="recall").train()
    with pytest.raises(DrumgateError, match="there is no finite figure fa"):
        small_trainer(limit_figure="fa", limit=0.5).train()


def test_a_limit_comes_before_the_figure() -> None:
    stopping = EarlyStopping(patience=9, min_delta=0.01)
    said = [
        stopping.update(value, excess)
        for value, excess in (
            (0.9, 2.0),  # the first
            (0.5, 1.0),  # nearer to the limit
            (0.99, 1.5),  # better, but further from it
            (0.2, 0.0),  # keeps it
            (0.9, 0.1),  # better, but breaks it
            (0.205, 0.0),  # no improvement
            (0.3, 0.0),
        )
    ]
    assert said == [True, True, False, True, False, False, True]
    other = EarlyStopping()
    other.load_state_dict(stopping.state_dict())
    assert other.state_dict() == stopping.state_dict()


def test_weights_are_chosen_within_the_limit() -> None:
    figures = iter([(0.9, 5.0), (0.4, 0.5), (0.8, 0.6), (0.6, 0.4)])

    def evaluate(_: nn.Module) -> Evaluation:
        recall, alarms = next(figures)
        return Evaluation(figures={"recall": recall, "false_alarms_per_hour": alarms})

    config = TrainingConfig(
        epochs=4, monitor="recall", limit_figure="false_alarms_per_hour", limit=0.5
    )
    trainer = Trainer(Net(), cut(8), None, config, Squares(), evaluate=evaluate)
    assert [line["best"] for line in trainer.train()] == [True, True, False, True]
    assert trainer.early.best == 0.6


# Measures


def test_tracked_means_survive_a_checkpoint() -> None:
    tracker = MetricsTracker()
    tracker.update({"a": torch.tensor(1.0)}, weight=torch.tensor(3.0))
    other = MetricsTracker()
    other.load_state_dict(tracker.state_dict(), torch.device("cpu"))
    other.update({"a": torch.tensor(5.0)})
    assert other.means() == {"a": 2.0}


def test_score_figures_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(60, 4))
    labels = np.eye(4)[rng.integers(0, 3, 60)]  # the last class never occurs
    annotated = np.ones((60, 4))
    annotated[:20, 1] = 0
    figures, precisions = score_figures(logits, labels, annotated, "abcd")
    assert set(precisions) == set("abc")
    rows = slice(20, None)
    assert precisions["b"] == pytest.approx(
        average_precision_score(labels[rows, 1], logits[rows, 1])
    )
    assert precisions["a"] == pytest.approx(average_precision_score(labels[:, 0], logits[:, 0]))
    assert figures["map"] == pytest.approx(np.mean(list(precisions.values())))
    whole, _ = score_figures(logits, labels, np.ones((60, 4)), "abcd")
    for k in (1, 3):
        expected = top_k_accuracy_score(labels.argmax(1), logits, k=k, labels=range(4))
        assert whole[f"top_{k}"] == pytest.approx(expected)


def test_score_figures_of_nothing() -> None:
    empty = np.zeros((0, 3))
    assert score_figures(empty, empty, empty, "abc") == ({}, {})
    lost = np.full((2, 3), np.nan)
    assert score_figures(lost, np.ones((2, 3)), np.ones((2, 3)), "abc") == ({}, {})
    some = np.zeros((2, 3))
    figures, precisions = score_figures(some, some, np.ones((2, 3)), "abc")
    assert precisions == {}
    assert set(figures) == {"ece"}
    assert figures["ece"] == pytest.approx(0.5)  # it says 0.5, and nothing is there


def test_hits_leave_out_what_is_not_annotated() -> None:
    scores = np.array([[3.0, 2.0, 1.0]])
    truth = np.array([[False, True, False]])
    assert top_k_hits(scores, truth, np.ones((1, 3), bool), 1) == 0.0
    assert top_k_hits(scores, truth, np.array([[False, True, True]]), 1) == 1.0
    assert top_k_hits(scores, truth, np.array([[True, False, True]]), 1) is None


# Dividing


def test_groups_stay_together() -> None:
    data = Numbers(100)
    groups = [f"session {i % 9}" for i in range(100)]
    train, val = create_train_val_split(data, 0.3, groups=groups, seed=4)
    assert sorted([*train.indices, *val.indices]) == list(range(100))
    assert not {groups[i] for i in train.indices} & {groups[i] for i in val.indices}
    assert 0.15 < len(val) / 100 < 0.45
    again = create_train_val_split(data, 0.3, groups=groups, seed=4)
    assert again[1].indices == val.indices
    assert create_train_val_split(data, 0.3, groups=groups, seed=5)[1].indices != val.indices


@pytest.mark.parametrize("ratio", [0.01, 0.2, 0.5, 0.99])
def test_single_examples_are_divided_by_number(ratio: float) -> None:
    train, val = create_train_val_split(Numbers(50), ratio)
    assert len(train) + len(val) == 50
    assert len(val) == min(max(round(50 * ratio), 1), 49)


def test_labels_are_spread() -> None:
    rng = np.random.default_rng(0)
    groups = list(np.repeat(np.arange(12), 10))
    labels = np.zeros((120, 2), dtype=int)
    labels[:, 0] = 1
    labels[np.isin(groups, [3, 7, 8]), 1] = rng.integers(1, 2, 30)
    train, val = create_train_val_split(Numbers(120), 0.3, groups=groups, labels=labels)
    assert labels[train.indices, 1].any()
    assert labels[val.indices, 1].any()


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"val_ratio": 0.0}, "val_ratio must lie in"),
        ({"groups": ["a"]}, "groups must have 24 entries, got 1"),
        ({"groups": ["a"] * 24}, "at least two groups"),
        ({"labels": np.zeros((3, 2))}, "labels must have the shape"),
    ],
)
def test_what_cannot_be_divided(named: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_train_val_split(Numbers(), **named)


def test_draws_are_counted_by_hand() -> None:
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 1]])
    everything = EpochSampler(4, 2, 0)
    history = [{"step": 2}, {"step": 3}]
    found = class_draws(labels, ("a", "b"), everything, None, history)
    assert found["clips"] == 6
    early = labels[everything.order(1)[:2]].sum(axis=0)
    assert [found["per_class"][name]["realised"] for name in "ab"] == list(2 + early)
    assert found["per_class"]["a"]["expected"] == 3.0
    weights = np.array([0.0, 0.0, 1.0, 3.0])
    weighted = EpochSampler(4, 2, 0, weights)
    found = class_draws(labels, ("a", "b"), weighted, weights, [{"step": 1}], accumulate_steps=2)
    assert found["per_class"]["a"] == {"expected": 0.0, "realised": 0}
    assert found["per_class"]["b"]["expected"] == 3.0
    assert found["per_class"]["b"]["realised"] == (weighted.order(0) == 3).sum()
    nothing = class_draws(labels, ("a", "b"), everything, None, [])
    assert nothing["per_class"]["a"] == {"expected": 0.0, "realised": 0}


def test_pairs_of_runs_with_other_seeds_differ() -> None:
    runs = [small_trainer(seed=seed).train() for seed in range(3)]
    assert all(one != other for one, other in pairwise(runs))


def test_the_package_loads_what_is_asked_for() -> None:
    code = (
        "import sys, training.loop, training.loop.readiness; print('torch' in sys.modules)\n"
        "from training.loop import EarlyStopping; print('torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "True"]
    with pytest.raises(AttributeError, match="has no attribute 'Coach'"):
        training.loop.Coach  # noqa: B018
