"""The training loop: it learns, it can be resumed bit for bit, and it stops for good reasons."""

from __future__ import annotations

import io
import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import clip_makers
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from training.audio.logmel import LogMel
from training.dataset.samplers import EpochSampler
from training.errors import InputError
from training.loop.augment import AugmentConfig, SpectralAugment, WaveAugment
from training.loop.callbacks import Callback, EndInfo, NonFiniteLossError, StepInfo
from training.loop.config import TrainingConfig, load_recipe
from training.loop.feed import ClipFeed, draw_weights
from training.loop.floors import band_energy_floor, most_frequent_floor
from training.loop.metrics import (
    EarlyStopping,
    Evaluation,
    MetricsTracker,
    class_support,
    evaluate_model,
)
from training.loop.progress import ConsoleProgress
from training.loop.schedule import SCHEDULES, learning_rate_factor
from training.loop.setup import feature_statistics, prior_logits
from training.loop.trainer import Trainer
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.losses import DrumLoss

FEATURES = clip_makers.FEATURES


def make_trainer(
    run_file: Path | None = None,
    n: int = 40,
    callbacks: tuple[Callback, ...] = (),
    shuffle_labels: bool = False,
    **settings: Any,
) -> Trainer:
    """A whole trainer on made clips: augmentation, three heads, five batches of 8 an epoch."""
    given = {"epochs": 3, "batch_size": 8, "log_every": 1, "learning_rate": 3e-3} | settings
    config = TrainingConfig(**given)
    train, val = clip_makers.split(n), clip_makers.split(16, seed=1, name="val")
    if shuffle_labels:
        train.labels[:] = np.random.default_rng(config.seed).permutation(train.labels)
    augment = AugmentConfig(overlay=0.3)
    varied = WaveAugment(augment, FEATURES)
    torch.manual_seed(config.seed)
    model = DrumClassifier(
        FEATURES, ModelConfig(n_classes=3, openness_head=False), augment=SpectralAugment(augment)
    )
    model.logmel.set_statistics(torch.full((16,), -30.0), torch.full((16,), 20.0))
    feed = ClipFeed(
        train,
        FEATURES,
        batch_size=config.batch_size,
        sampler=EpochSampler(n, config.batch_size, config.seed, draw_weights(train.labels, 0.5)),
        jitter_ms=3.0,
        margin=varied.margin,
        seed=config.seed,
    )
    val_feed = ClipFeed(val, FEATURES, batch_size=8)
    criterion = DrumLoss()

    def evaluate(candidate: nn.Module) -> Evaluation:
        return evaluate_model(candidate, val_feed, criterion, labels=clip_makers.NAMES)

    return Trainer(
        model,
        feed,
        val_feed,
        config,
        criterion,
        augment=varied,
        evaluate=evaluate,
        callbacks=callbacks,
        run_file=run_file,
        identity={"data": "made"},
        sample_names=train.sample_ids,
    )


class StopAt(Callback):
    """Breaks a run off, as a kill would, or by a signal."""

    def __init__(self, step: int, number: int | None = None) -> None:
        self.step = step
        self.number = number

    def on_step(self, info: StepInfo) -> None:
        if info.step == self.step:
            if self.number is None:
                raise RuntimeError("killed")
            os.kill(os.getpid(), self.number)


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    a, b = one.state_dict(), other.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_it_learns_and_shuffled_labels_do_not() -> None:
    trainer = make_trainer(n=120, epochs=8)
    history = trainer.train()
    assert history[-1]["macro_f1"] > 0.85
    assert trainer.early.best == pytest.approx(max(line["macro_f1"] for line in history), abs=1e-3)

    shuffled = make_trainer(n=120, epochs=8, shuffle_labels=True)
    val = clip_makers.split(16, seed=1)
    chance = 2 * val.labels.mean() / (1 + val.labels.mean())
    assert shuffled.train()[-1]["macro_f1"] < chance + 0.2


@pytest.mark.slow
def test_shuffled_labels_teach_nothing_whatever_the_seed() -> None:
    """A model of shuffled labels is worth no more on new clips than the classes' frequencies.

    Worth is the share of the cross-entropy of those frequencies that the model spares. F1 and
    average precision would not do: clips are of a few kinds, and one that happens to be a little
    more frequent under a label is ranked first as a whole.
    """
    val = clip_makers.split(60, seed=9)
    worth: dict[bool, list[float]] = {True: [], False: []}
    for seed in range(3):
        for shuffled, found in worth.items():
            trainer = make_trainer(n=80, epochs=5, shuffle_labels=shuffled, seed=seed)
            trainer._evaluate = trainer.val_loader = None
            trainer.train()
            feed = ClipFeed(val, FEATURES, batch_size=60)
            said = evaluate_model(trainer.model, feed).outputs["logits"].astype(np.float64)
            spent = np.logaddexp(0.0, np.where(val.labels > 0, -said, said)).mean()
            share = trainer.train_loader.split.labels.mean(axis=0)
            known = -np.log(np.where(val.labels > 0, share, 1.0 - share)).mean()
            found.append(float(1.0 - spent / known))
    assert min(worth[False]) > 0.5
    assert max(worth[True]) < 0.2
    assert abs(float(np.mean(worth[True]))) < 0.1


def test_the_same_seed_gives_the_same_run_and_another_another() -> None:
    one, same, other = make_trainer(), make_trainer(), make_trainer(seed=1)
    assert one.train() == same.train()
    assert same_weights(one.model, same.model)
    other.train()
    assert not same_weights(one.model, other.model)


@pytest.mark.parametrize("stop", [2, 5, 7, 13])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, stop: int, ema_decay: float) -> None:
    whole = make_trainer(ema_decay=ema_decay, save_every=1)
    whole.train()

    run_file = tmp_path / "last_run.pth"
    killed = make_trainer(run_file, callbacks=(StopAt(stop),), ema_decay=ema_decay, save_every=1)
    with pytest.raises(RuntimeError, match="killed"):
        killed.train()
    torch.manual_seed(999)  # whatever the generator did meanwhile
    resumed = make_trainer(run_file, ema_decay=ema_decay, save_every=1)
    if run_file.exists():
        resumed.load_checkpoint(run_file)
        assert resumed.step == stop - 1  # the step after the last checkpoint is made again
    resumed.train()
    assert same_weights(whole.model, resumed.model)
    assert resumed.history == whole.history
    assert json.dumps(resumed.history) == json.dumps(whole.history)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_interrupts(tmp_path: Path, number: int) -> None:
    run_file = tmp_path / "last_run.pth"
    whole = make_trainer()
    whole.train()
    before = signal.getsignal(number)
    stopped = make_trainer(run_file, callbacks=(StopAt(7, number),))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    assert signal.getsignal(number) is before
    resumed = make_trainer(run_file)
    resumed.load_checkpoint(run_file)
    assert resumed.step == 7
    resumed.train()
    assert same_weights(whole.model, resumed.model)


def test_a_run_with_other_settings_is_not_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "run.pth"
    make_trainer().save_checkpoint(path)
    with pytest.raises(InputError, match=r"training\.learning_rate differ"):
        make_trainer(learning_rate=1e-2).load_checkpoint(path)
    other = make_trainer()
    other.identity["data"] = "other"
    with pytest.raises(InputError, match="data differ"):
        other.load_checkpoint(path)


def test_a_loss_that_is_not_finite_names_the_batch(tmp_path: Path) -> None:
    run_file = tmp_path / "last_run.pth"
    trainer = make_trainer(run_file, save_every=1)
    whole_step = trainer._train_step

    def poison(group: Any) -> None:
        if trainer.step == 6:
            group[0][1]["labels"][0, 0] = math.nan
        whole_step(group)

    trainer._train_step = poison  # type: ignore[method-assign]
    with pytest.raises(NonFiniteLossError, match="the loss is not finite at step 6") as caught:
        trainer.train()
    rows = next(iter(trainer.train_loader.sampler.batches(1, 1)))
    assert caught.value.rows == tuple(rows)
    assert f"train_{rows[0]}" in str(caught.value)
    # What was saved last is from before.
    resumed = make_trainer(run_file)
    resumed.load_checkpoint(run_file)
    assert resumed.step == 6
    assert all(torch.isfinite(value).all() for value in resumed.model.state_dict().values())


def test_best_weights_come_back() -> None:
    trainer = make_trainer(epochs=4)
    figures = iter([0.2, 0.9, 0.3, 0.4])
    seen: list[dict[str, Tensor]] = []

    def evaluate(model: nn.Module) -> Evaluation:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Evaluation(figures={"macro_f1": next(figures)})

    trainer._evaluate = evaluate
    history = trainer.train()
    assert [line["best"] for line in history] == [True, True, False, False]
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, seen[1][name])


def test_training_stops_when_nothing_improves() -> None:
    trainer = make_trainer(epochs=50, patience=2)
    trainer._evaluate = lambda _: Evaluation(figures={"macro_f1": 0.5})
    assert len(trainer.train()) == 3


def test_a_time_budget_ends_the_run_annealed() -> None:
    trainer = make_trainer(epochs=10_000, max_minutes=0.02)
    history = trainer.train()
    assert len(history) < 10_000
    assert trainer.elapsed_s == pytest.approx(1.2, abs=0.6)
    assert history[-1]["learning_rate"] < 3e-3 * 0.1


class TwoHeads(nn.Module):
    """A model of another kind: a tensor in, a dict of heads out."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 8)
        self.sign = nn.Linear(8, 1)
        self.size = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = torch.relu(self.body(x))
        return {"sign": self.sign(hidden), "size": self.size(hidden)}


class TwoLosses(nn.Module):
    def forward(self, outputs: dict[str, Tensor], targets: dict[str, Tensor]) -> dict[str, Tensor]:
        sign = nn.functional.binary_cross_entropy_with_logits(outputs["sign"], targets["sign"])
        size = nn.functional.mse_loss(outputs["size"], targets["size"])
        return {"total": sign + size, "sign": sign, "size": size}


class SumLoss(nn.Module):
    def forward(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"total": nn.functional.mse_loss(output, target)}


def test_any_model_with_heads_can_be_trained(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 4)
    targets = {"sign": (x[:, :1] > 0).float(), "size": x.sum(dim=1, keepdim=True)}
    batches = [
        (x[i : i + 8], {name: value[i : i + 8] for name, value in targets.items()})
        for i in range(0, 64, 8)
    ]
    config = TrainingConfig(epochs=30, learning_rate=1e-2, monitor="val_loss", mode="min")
    trainer = Trainer(TwoHeads(), batches, batches, config, TwoLosses())
    history = trainer.train()
    assert {"train_loss", "train_sign", "val_loss", "val_size"} <= set(history[0])
    assert history[-1]["val_loss"] < 0.3 * history[0]["val_loss"]
    trainer.export_history(tmp_path / "history.json")
    assert len(json.loads((tmp_path / "history.json").read_text())["epochs"]) == 30


def test_a_model_that_returns_a_tensor_can_be_trained_and_unknown_monitors_use_the_loss() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 4)
    batches = [(x[i : i + 8], x[i : i + 8].sum(dim=1, keepdim=True)) for i in range(0, 32, 8)]
    trainer = Trainer(
        nn.Linear(4, 1),
        batches,
        batches,
        TrainingConfig(epochs=20, learning_rate=0.1, schedule="constant"),
        SumLoss(),
    )
    history = trainer.train()
    assert history[-1]["val_loss"] < history[0]["val_loss"]
    assert sum(line["best"] for line in history) > 1


# Schedules


@pytest.mark.parametrize("schedule", SCHEDULES)
@given(progress=st.floats(-1, 2), warmup=st.floats(0, 0.9))
def test_factors_lie_in_the_unit_interval(schedule: str, progress: float, warmup: float) -> None:
    assert 0.0 <= learning_rate_factor(schedule, progress, warmup) <= 1.0


def test_schedules_by_hand() -> None:
    assert learning_rate_factor("cosine", 0.05, 0.1) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 0.1, 0.1) == 1.0
    assert learning_rate_factor("cosine", 0.55, 0.1) == pytest.approx(0.5)
    assert learning_rate_factor("cosine", 1.0, 0.1) == pytest.approx(0.0)
    assert learning_rate_factor("linear", 0.75, 0.5) == pytest.approx(0.5)
    assert learning_rate_factor("constant", 0.9, 0.1) == 1.0
    with pytest.raises(ValueError, match="schedule"):
        learning_rate_factor("zigzag", 0.5, 0.1)


def test_onecycle_is_pytorchs() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    steps = 1000
    oracle = torch.optim.lr_scheduler.OneCycleLR(
        optimiser,
        max_lr=1.0,
        total_steps=steps + 1,
        pct_start=0.3,
        div_factor=25,
        final_div_factor=1e4 / 25,
    )
    for step in range(steps):
        ours = learning_rate_factor("onecycle", step / steps, 0.3)
        assert ours == pytest.approx(oracle.get_last_lr()[0], abs=5e-3)
        optimiser.step()
        oracle.step()


# Configuration


def test_presets_are_read_and_overrides_win(tmp_path: Path) -> None:
    assert load_recipe("default").features.window_samples == 25_400
    fast = load_recipe("fast")
    assert (fast.features.n_mels, fast.features.frames) == (64, 64)
    assert load_recipe("short").features.preroll_ms == 25.0
    overlay = tmp_path / "mine.toml"
    overlay.write_text("[training]\nepochs = 7\nbatch_size = 4\n[features]\nn_mels = 32\n")
    mixed = load_recipe("fast", overlay, {"epochs": 9, "batch_size": None})
    assert (mixed.training.epochs, mixed.training.batch_size) == (9, 4)
    assert (mixed.features.n_mels, mixed.features.hop) == (32, fast.features.hop)
    assert mixed.signature != fast.signature == load_recipe("fast").signature


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepocs = 3\n", r"training\.epocs: unknown key; did you mean training\.epochs"),
        ("[trainin]\nepochs = 3\n", "trainin: unknown table; did you mean training"),
        ("[training]\nepochs = 2.5\n", r"training\.epochs: Expected `int`"),
        ("[training]\nepochs = '3'\n", r"training\.epochs: Expected `int`"),
        ("[training]\nepochs = 0\n", "epochs must be at least 1"),
        ("[training]\nlearning_rate = nan\n", "learning_rate must lie in"),
        ("[training]\nschedule = 'zigzag'\n", r"training\.schedule: Invalid"),
        ("[augment]\ncut = 2.0\n", r"cut must lie in \[0, 1\]"),
        ("[features]\nn_fft = 3\n", "n_fft must be even"),
        ("training = 3\n", "must be a table"),
        ("[training\n", "not TOML"),
    ],
)
def test_wrong_configurations_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_recipe("fast", path)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        load_recipe("fast", tmp_path / "none.toml")


# Feeding and augmentation


def test_the_feed_depends_on_seed_epoch_and_batch_only() -> None:
    train = clip_makers.split(20)
    feed = ClipFeed(
        train, FEATURES, batch_size=6, sampler=EpochSampler(20, 6, 3), jitter_ms=5.0, seed=3
    )
    all_of_it = list(feed.batches(1))
    assert len(all_of_it) == len(feed) == 4
    for (audio, targets), (again, same) in zip(
        all_of_it[2:], feed.batches(1, start=2), strict=True
    ):
        assert torch.equal(audio, again)
        assert torch.equal(targets["row"], same["row"])
    assert not torch.equal(all_of_it[0][0], next(feed.batches(2))[0])


def test_a_feed_without_sampler_is_in_order_and_unshifted() -> None:
    val = clip_makers.split(10)
    rows, clips = [], []
    for audio, targets in ClipFeed(val, FEATURES, batch_size=4, jitter_ms=5.0):
        rows += targets["row"].tolist()
        clips.append(audio.numpy())
    assert rows == list(range(10))
    start = val.onset - FEATURES.read_before
    expected = np.stack([val.blob[first : first + FEATURES.read_samples] for first in start])
    np.testing.assert_array_equal(np.concatenate(clips), expected)


def test_draw_weights_by_hand() -> None:
    labels = np.array([[1, 0], [1, 0], [1, 1], [0, 0]], dtype=np.uint8)
    assert draw_weights(labels, 0.0) is None
    # Frequencies 3/4, 1/4, and 1/4 for the clip without a label.
    assert draw_weights(labels, 1.0) == pytest.approx([4 / 3, 4 / 3, 4, 4])
    assert draw_weights(labels, 0.5) == pytest.approx(np.sqrt([4 / 3, 4 / 3, 4, 4]))


def test_no_augmentation_changes_nothing() -> None:
    off = AugmentConfig(
        jitter_ms=0, speed=0, gain_db=0, overlay=0, cut=0, eq_db=0, time_mask=0, frequency_mask=0
    )
    audio, targets = next(iter(ClipFeed(clip_makers.split(8), FEATURES, batch_size=8)))
    varied, same = WaveAugment(off, FEATURES)(audio, targets)
    torch.testing.assert_close(varied, audio.float() / 32768.0)
    assert same is targets
    features = torch.randn(2, 16, 16)
    assert torch.equal(SpectralAugment(off).train()(features, torch.ones(16)), features)
    everything = SpectralAugment(AugmentConfig(mask_share=1.0))
    assert torch.equal(everything.eval()(features, torch.ones(16)), features)
    assert not torch.equal(everything.train()(features, torch.ones(16)), features)


def test_overlays_add_audio_and_join_labels() -> None:
    torch.manual_seed(0)
    config = AugmentConfig(speed=0, gain_db=0, overlay=1.0, overlay_gain_db=0.0, cut=0)
    audio = torch.eye(4).repeat(1, 3)
    targets = {
        "labels": torch.eye(4),
        "annotated": torch.ones(4, 4),
        "velocity": torch.rand(4),
        "openness": torch.rand(4),
    }
    mixed, joined = WaveAugment(config, FEATURES)(audio, targets)
    assert torch.equal((mixed[:, :4] > 0).float(), joined["labels"])
    assert torch.isnan(joined["velocity"]).all()
    assert torch.equal(targets["labels"], torch.eye(4))


def test_cuts_silence_one_side_and_keep_the_attack() -> None:
    torch.manual_seed(0)
    config = AugmentConfig(speed=0, gain_db=0, cut=1.0, cut_after_ms=5.0)
    audio = torch.ones(400, FEATURES.read_samples)
    varied, _ = WaveAugment(config, FEATURES)(audio, {})
    onset, least = FEATURES.read_before, round(0.005 * FEATURES.sample_rate)
    assert torch.all(varied[:, onset : onset + least] == 1.0)
    first, last = varied[:, 0] == 0, varied[:, -1] == 0
    assert not torch.any(first & last)
    assert 120 < int(first.sum()) < 280
    assert 120 < int(last.sum()) < 280
    # What is left is one stretch.
    assert int((varied.diff(dim=1) != 0).sum(dim=1).max()) <= 1


def test_playing_faster_moves_the_pitch_and_keeps_the_onset() -> None:
    torch.manual_seed(0)
    config = AugmentConfig(speed=0.1, gain_db=0, cut=0)
    augment = WaveAugment(config, FEATURES)
    length, onset = FEATURES.read_samples + 2 * augment.margin, FEATURES.read_before
    t = (torch.arange(length) - augment.margin - onset) / FEATURES.sample_rate
    tone = torch.where(t >= 0, torch.sin(2 * torch.pi * 500 * t + 1.0), 0.0)
    varied, _ = augment(tone.repeat(200, 1), {})
    assert varied.shape == (200, FEATURES.read_samples)
    assert torch.all(varied[:, : onset - 1] == 0)
    torch.testing.assert_close(varied[:, onset], tone[augment.margin + onset].expand(200))
    # The tone's pitch, from its zero crossings, lies within 10 % of 500 Hz and fills that range.
    after = varied[:, onset:]
    crossings = ((after[:, 1:] > 0) != (after[:, :-1] > 0)).sum(dim=1)
    pitch = crossings / 2 / (after.shape[1] / FEATURES.sample_rate)
    assert 440 < float(pitch.min()) < 465
    assert 535 < float(pitch.max()) < 560
    # To the very end there is audio: the margin suffices.
    assert torch.all(after[:, -20:].abs().amax(dim=1) > 0.5)


def test_equalisation_is_smooth_and_within_its_limit() -> None:
    torch.manual_seed(0)
    config = AugmentConfig(eq_db=6.0, time_mask=0, frequency_mask=0)
    std = torch.full((64,), 10.0)
    moved = SpectralAugment(config).train()(torch.zeros(50, 64, 8), std)
    assert float(moved.abs().max()) <= 0.6
    assert torch.equal(moved[:, :, 0], moved[:, :, 7])
    assert float(moved[:, :, 0].diff(dim=1).abs().max()) <= 1.2 * 5 / 63 + 1e-6


# Metrics and floors


def test_tracker_weights_batches_by_their_size() -> None:
    tracker = MetricsTracker()
    assert tracker.means() == {}
    tracker.update({"total": torch.tensor(1.0)}, weight=3)
    tracker.update({"total": torch.tensor(5.0)}, weight=1)
    assert tracker.means() == {"total": 2.0}


def test_early_stopping_by_hand() -> None:
    stopping = EarlyStopping(patience=2, min_delta=0.01)
    assert [stopping.update(value) for value in (0.5, 0.505, 0.6)] == [True, False, True]
    assert not stopping.stopped
    stopping.update(0.6)
    stopping.update(0.59)
    assert stopping.stopped
    assert EarlyStopping(mode="min").update(3.0)
    with pytest.raises(ValueError, match="mode"):
        EarlyStopping(mode="best")


class Says(nn.Module):
    """A model whose logits are its input."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"logits": x}


def test_evaluation_by_hand_and_its_dead_classes() -> None:
    logits = torch.tensor([[2.0, -1.0, -1.0], [2.0, -1.0, -1.0], [-2.0, -1.0, 3.0]])
    targets = {
        "labels": torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 0]]),
        "annotated": torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 0]]),
    }
    found = evaluate_model(Says(), [(logits, targets)], labels=("a", "b", "c"))
    assert found.dead == ("b",)  # c has no events; its false alarm is where it is not annotated
    assert found.figures["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)
    assert found.figures["micro_f1"] == pytest.approx(2 / (2 + 1 + 1))
    best = evaluate_model(Says(), [(logits, targets)], labels=("a", "b", "c"), task="multiclass")
    assert best.summary is not None
    assert best.summary.per_class[0].f1 == pytest.approx(2 / 3)


def test_evaluation_does_not_change_the_model() -> None:
    trainer = make_trainer()
    trainer.model.train()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.evaluate(trainer.model)
    assert trainer.model.training
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_support_counts_events_and_recordings() -> None:
    labels = np.array([[1, 0], [1, 1], [1, 0]])
    rows = class_support(labels, ["a", "a", "b"], ("x", "y"))
    assert [(row.events, row.recordings) for row in rows] == [(3, 2), (1, 1)]


def test_floors_are_honest() -> None:
    train, val = clip_makers.split(150), clip_makers.split(60, seed=1, name="val")
    names = clip_makers.NAMES
    frequent = most_frequent_floor(train.labels, val.labels, val.annotated, names)
    sets = {tuple(row): int((train.labels == row).all(axis=1).sum()) for row in train.labels}
    top = np.array(max(sets, key=lambda key: sets[key]))
    tp = (val.labels & top).sum()
    expected = 2 * tp / (val.labels.sum() + top.sum() * len(val.labels))
    assert frequent.micro.f1 == pytest.approx(expected)

    model = DrumClassifier(FEATURES, ModelConfig(n_classes=3))
    feeds = [ClipFeed(each, FEATURES, batch_size=32) for each in (train, val)]
    bands = band_energy_floor(feeds[0], feeds[1], model.logmel, names)
    assert (bands.macro.f1 or 0) > 0.8
    train.labels[:] = np.random.default_rng(0).permutation(train.labels)
    noise = band_energy_floor(feeds[0], feeds[1], model.logmel, names)
    assert (noise.macro.f1 or 0) < (bands.macro.f1 or 0) - 0.15


def test_settings_out_of_range_are_refused() -> None:
    config = TrainingConfig()
    for name, value in {
        "epochs": 0,
        "dropout": 1.0,
        "warmup": -0.1,
        "weight_decay": -1.0,
        "max_minutes": 0.0,
        "gradient_clip": float("nan"),
        "pos_weight_max": 0.5,
    }.items():
        with pytest.raises(ValueError, match=name):
            replace(config, **{name: value})


def test_first_biases_are_the_log_odds_of_the_clips_as_drawn() -> None:
    split = clip_makers.split(4)
    split.labels[:] = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    # Shares 1/2, 1/4 and 0, the last held to odds of 1:100.
    expected = np.log([1.0, 1 / 3, 1 / 100])
    assert prior_logits(split, 0.0).numpy() == pytest.approx(expected, abs=1e-6)
    # Weights 2 for a clip with the first label alone or without any, 4 with the second label.
    expected = np.log([6 / 4, 4 / 6, 1 / 100]).clip(max=0.0)
    assert prior_logits(split, 1.0).numpy() == pytest.approx(expected, abs=1e-6)
    split.annotated[:, 2] = 0
    assert np.isfinite(prior_logits(split, 1.0).numpy()).all()


def test_feature_statistics_are_those_of_all_values() -> None:
    feed = ClipFeed(clip_makers.split(12), FEATURES, batch_size=4)
    logmel = LogMel(FEATURES)
    mean, std = feature_statistics(feed, logmel, seed=0)
    values = torch.cat([logmel.decibels(audio) for audio, _ in feed])
    torch.testing.assert_close(mean, torch.full((16,), float(values.mean())))
    torch.testing.assert_close(std, torch.full((16,), float(values.std())), rtol=1e-3, atol=0)


@pytest.mark.parametrize("live", [False, True])
def test_progress_shows_steps_epochs_and_the_alarm(live: bool) -> None:
    stream = io.StringIO()
    shown = ConsoleProgress(stream, live=live)
    shown.on_step(
        StepInfo(
            step=20,
            total_steps=100,
            epoch=1,
            epochs=5,
            progress=0.2,
            loss=0.5,
            learning_rate=1e-3,
            clips_per_s=321.0,
            elapsed_s=10.0,
        )
    )
    entry = {"epoch": 1, "train_loss": 0.5, "macro_f1": 0.25, "best": True}
    shown.on_validation(entry, Evaluation(figures={}, dead=("crash",)))
    shown.on_end(
        EndInfo(
            reason="all epochs done",
            step=100,
            epoch=5,
            elapsed_s=50.0,
            monitor="macro_f1",
            best=0.25,
            best_epoch=1,
        )
    )
    said = stream.getvalue()
    assert "epoch 1  train_loss 0.5000  macro_f1 0.2500  (best so far)" in said
    assert "dead classes (events, but F1 = 0): crash" in said
    assert "training ended: all epochs done" in said
    if not live:
        assert "epoch 1/5  step 20  loss 0.5000  lr 1.00e-03  321 clips/s  0:40 left" in said
