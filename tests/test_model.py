"""The CNN, its losses, its checkpoints, calibration and unknown scores."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from torch import nn

from training.audio.logmel import FEATURE_PRESETS
from training.errors import DrumgateError, InputError
from training.metrics.classification import clip_counts, summarise
from training.model.checkpoint import MODEL_FORMAT, load_checkpoint, save_checkpoint
from training.model.cnn import DrumClassifier, DrumCNN, ModelConfig, count_parameters
from training.model.inference import (
    OpenSet,
    Predictor,
    _operating_points,
    fit_calibration,
    fit_openset,
    resolve_device,
)
from training.model.losses import DrumLoss, masked_bce, masked_cross_entropy, masked_smooth_l1

FAST = FEATURE_PRESETS["fast"]


def test_parameter_counts() -> None:
    model = DrumCNN(ModelConfig(n_classes=12))
    assert count_parameters(model, heads=False) == 391_884
    assert count_parameters(model) == 392_398
    bare = DrumCNN(ModelConfig(n_classes=12, velocity_head=False, openness_head=False))
    assert count_parameters(bare) == 391_884
    assert count_parameters(DrumClassifier(FAST, ModelConfig())) == 392_398
    assert count_parameters(nn.Linear(3, 2)) == 8


@pytest.mark.parametrize("shape", [(64, 64), (128, 128), (40, 57)])
def test_heads_and_their_shapes(shape: tuple[int, int]) -> None:
    out = DrumCNN(ModelConfig(n_classes=5)).eval()(torch.randn(3, *shape))
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "logits": (3, 5),
        "features": (3, 256),
        "velocity": (3,),
        "openness": (3,),
    }
    for head in ("velocity", "openness"):
        assert torch.all((out[head] > 0) & (out[head] < 1))
    without = ModelConfig(n_classes=5, velocity_head=False, openness_head=False)
    assert set(DrumCNN(without)(torch.randn(2, *shape))) == {"logits", "features"}


def test_pooling_before_relu_changes_nothing() -> None:
    x = torch.randn(2, 4, 8, 8)
    pool, relu = nn.MaxPool2d(2), nn.ReLU()
    assert torch.equal(relu(pool(x)), pool(relu(x)))


def test_an_augmenter_works_only_in_training() -> None:
    class Zero(nn.Module):
        def forward(self, features: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
            assert std.shape == (features.shape[1],)
            return torch.zeros_like(features)

    model = DrumClassifier(FAST, ModelConfig(dropout=0.0), augment=Zero())
    audio = torch.randn(4, FAST.read_samples) * 0.1
    logits = model.train()(audio)["logits"]
    torch.testing.assert_close(logits, logits[:1].expand_as(logits))
    logits = model.eval()(audio)["logits"]
    assert not torch.allclose(logits, logits[:1].expand_as(logits))


def test_impossible_models_are_refused() -> None:
    with pytest.raises(ValueError, match="n_classes"):
        ModelConfig(n_classes=0)
    with pytest.raises(ValueError, match="dropout"):
        ModelConfig(dropout=1.0)


# Losses


def test_masked_bce_by_hand() -> None:
    logits = torch.zeros(1, 2)
    labels, annotated = torch.tensor([[1.0, 0.0]]), torch.ones(1, 2)
    assert float(masked_bce(logits, labels, annotated)) == pytest.approx(np.log(2))
    # With weight 3 on positives the first cell counts three times: (3 + 1) / 2 * log 2.
    weighted = masked_bce(logits, labels, annotated, pos_weight=torch.tensor([3.0, 3.0]))
    assert float(weighted) == pytest.approx(2 * np.log(2))


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_masked_bce_is_the_plain_mean_over_annotated_cells(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(6, 4, generator=generator)
    labels = (torch.rand(6, 4, generator=generator) > 0.5).float()
    annotated = (torch.rand(6, 4, generator=generator) > 0.3).float()
    keep = annotated.bool()
    if not keep.any():
        return
    expected = nn.functional.binary_cross_entropy_with_logits(logits[keep], labels[keep])
    torch.testing.assert_close(masked_bce(logits, labels, annotated), expected)


def test_unannotated_cells_have_no_gradient() -> None:
    logits = torch.zeros(2, 3, requires_grad=True)
    annotated = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    masked_bce(logits, torch.ones(2, 3), annotated).backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad != 0, annotated.bool())


def test_losses_are_zero_where_nothing_is_known() -> None:
    logits = torch.randn(2, 3)
    nothing = torch.zeros(2, 3)
    assert float(masked_bce(logits, nothing, nothing)) == 0.0
    assert float(masked_cross_entropy(logits, nothing, torch.ones(2, 3))) == 0.0
    unknown = torch.full((2,), torch.nan)
    predicted = torch.rand(2, requires_grad=True)
    loss = masked_smooth_l1(predicted, unknown)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert predicted.grad is not None
    assert torch.all(predicted.grad == 0)


def test_cross_entropy_equals_pytorch_on_single_labels() -> None:
    logits = torch.randn(5, 4)
    index = torch.tensor([0, 3, 1, 2, 2])
    labels = nn.functional.one_hot(index, 4).float()
    for smoothing in (0.0, 0.1):
        torch.testing.assert_close(
            masked_cross_entropy(logits, labels, torch.ones(5, 4), label_smoothing=smoothing),
            nn.functional.cross_entropy(logits, index, label_smoothing=smoothing),
        )
    # A clip with two labels is no example for a softmax.
    labels[0, 1] = 1.0
    torch.testing.assert_close(
        masked_cross_entropy(logits, labels, torch.ones(5, 4)),
        nn.functional.cross_entropy(logits[1:], index[1:]),
    )


def test_cross_entropy_leaves_unannotated_classes_out() -> None:
    logits = torch.tensor([[1.0, 2.0, 50.0]])
    labels, annotated = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    expected = nn.functional.cross_entropy(logits[:, :2], torch.tensor([0]))
    torch.testing.assert_close(masked_cross_entropy(logits, labels, annotated), expected)


def test_drum_loss_adds_the_heads_that_are_there() -> None:
    outputs = {
        "logits": torch.zeros(2, 3),
        "velocity": torch.tensor([0.5, 0.5]),
        "openness": torch.tensor([0.5, 0.5]),
    }
    targets = {
        "labels": torch.zeros(2, 3),
        "annotated": torch.ones(2, 3),
        "velocity": torch.tensor([1.0, torch.nan]),
        "openness": torch.tensor([torch.nan, torch.nan]),
    }
    losses = DrumLoss(label_smoothing=0.0, velocity_weight=2.0, openness_weight=1.0)(
        outputs, targets
    )
    assert float(losses["velocity"]) == pytest.approx(0.5 - 0.05)  # |error| - beta / 2
    assert float(losses["openness"]) == 0.0
    assert float(losses["total"]) == pytest.approx(np.log(2) + 2 * 0.45)
    del outputs["velocity"], outputs["openness"]
    assert set(DrumLoss()(outputs, targets)) == {"total", "classes"}
    with pytest.raises(ValueError, match="task"):
        DrumLoss(task="regression")


# Checkpoints


def content() -> dict[str, Any]:
    model = DrumClassifier(FAST, ModelConfig(n_classes=2))
    return {
        "labels": ["kick", "snare"],
        "task": "multilabel",
        "features": FAST.as_dict(),
        "model": model.cnn.config.as_dict(),
        "weights": model.state_dict(),
        "calibration": {"temperature": 2.0, "shift": [0.5, -1.0], "thresholds": [0.6, 0.3]},
        "openset": None,
        "card": {},
    }


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    made = content()
    save_checkpoint(tmp_path / "m.pth", made, format=MODEL_FORMAT)
    back = load_checkpoint(tmp_path / "m.pth", format=MODEL_FORMAT)
    for name, value in made["weights"].items():
        assert torch.equal(back["weights"][name], value)
    assert back["labels"] == made["labels"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]


class Crafted:
    """Unpickling this would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch pwned",)


def test_a_crafted_pickle_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"format": MODEL_FORMAT, "version": 1, "x": Crafted()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Crafted()))
    for name in ("zip.pth", "plain.pth"):
        with pytest.raises(InputError, match="refused"):
            Predictor.load(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def test_files_that_are_no_checkpoint_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    with pytest.raises(InputError, match="no such file"):
        Predictor.load(path)
    for garbage in (b"", b"not a model", b"PK\x03\x04 cut short"):
        path.write_bytes(garbage)
        with pytest.raises(InputError, match=r"m\.pth: "):
            Predictor.load(path)
    save_checkpoint(path, content(), format=MODEL_FORMAT)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match=r"m\.pth: "):
        Predictor.load(path)
    torch.save({"format": "another", "version": 1}, path)
    with pytest.raises(InputError, match="of the kind drumgate-model"):
        Predictor.load(path)
    torch.save({"format": MODEL_FORMAT, "version": 99}, path)
    with pytest.raises(InputError, match="version"):
        Predictor.load(path)


@pytest.mark.parametrize("missing", ["labels", "weights", "features", "calibration", "openset"])
def test_an_incomplete_model_file_is_refused(tmp_path: Path, missing: str) -> None:
    made = content()
    del made[missing]
    save_checkpoint(tmp_path / "m.pth", made, format=MODEL_FORMAT)
    with pytest.raises(InputError, match="not a complete model"):
        Predictor.load(tmp_path / "m.pth")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    save_checkpoint(path, {"x": 1}, format=MODEL_FORMAT)
    before = path.read_bytes()
    with pytest.raises((AttributeError, pickle.PicklingError, TypeError)):
        save_checkpoint(path, {"x": lambda: None}, format=MODEL_FORMAT)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["m.pth"]


# Calibration, unknown scores, prediction


def noisy_scores(
    n: int, offset: float, scale: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right up to a scale and an offset."""
    rng = np.random.default_rng(seed)
    true_logit = rng.normal(-1.0, 2.0, size=(n, 1))
    labels = rng.random((n, 1)) < 1 / (1 + np.exp(-true_logit))
    return true_logit * scale + offset, labels.astype(np.uint8)


def test_temperature_undoes_overconfidence() -> None:
    logits, labels = noisy_scores(4000, 0.0, 3.0)
    found = fit_calibration(logits, labels, np.ones_like(labels), task="multilabel")
    assert found.temperature == pytest.approx(3.0, rel=0.15)


def test_the_operating_point_is_nearly_the_best_cut() -> None:
    logits, labels = noisy_scores(600, -1.0, 1.0)
    known = np.ones_like(labels)
    found = fit_calibration(logits, labels, known, task="multilabel")
    shifted = logits / found.temperature - found.shift
    f1 = [summarise(clip_counts(labels, z >= 0), ["a"]).macro.f1 or 0.0 for z in (logits, shifted)]
    assert f1[1] > f1[0]
    best = max(oracle.f1_score(labels[:, 0], logits[:, 0] >= cut) for cut in logits[:, 0])
    assert f1[1] >= best - 0.02
    assert found.thresholds[0] == pytest.approx(1 / (1 + np.exp(-found.shift[0])))


def test_thresholds_lie_halfway_between_a_shared_and_an_own_one() -> None:
    # Two classes that any cut in a gap separates: gaps around 0 and around -1.
    y = np.repeat([[1, 1], [0, 0]], 20, axis=0).astype(bool)
    z = np.where(y, [[0.55, -0.45]], [[-0.55, -1.55]])
    both = _operating_points(z, y, np.ones_like(y))
    # Shared: -0.5 is the cut nearest to 0 in both gaps; own: 0 for the first, -0.5 for the second.
    assert both == pytest.approx([-0.25, -0.5])
    # A class with too few positives shares in the shared threshold, and has none of its own.
    y[1:20, 0] = False
    z[1:20, 0] = -0.55
    assert _operating_points(z, y, np.ones_like(y)) == pytest.approx([-0.25, -0.5])
    nothing = _operating_points(z, np.zeros_like(y), np.ones_like(y))
    assert nothing.tolist() == [0.0, 0.0]


def test_calibration_ignores_unannotated_cells() -> None:
    logits, labels = noisy_scores(400, -1.0, 2.0)
    known = np.ones_like(labels)
    known[200:] = 0
    alone = fit_calibration(logits[:200], labels[:200], known[:200], task="multilabel")
    labels[200:] = 1 - labels[200:]
    both = fit_calibration(logits, labels, known, task="multilabel")
    assert both.temperature == pytest.approx(alone.temperature)
    assert both.shift == pytest.approx(alone.shift)
    nothing = fit_calibration(logits, labels, np.zeros_like(labels), task="multilabel")
    assert (nothing.temperature, nothing.shift.tolist()) == (1.0, [0.0])


def test_relative_mahalanobis_by_numpy_and_far_is_unknown() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 4.0, 0]])
    labels = np.eye(3, dtype=np.uint8)[rng.integers(0, 3, 900)]
    x = centres[labels.argmax(axis=1)] + rng.normal(size=(900, 4)) * [1, 1, 1, 0.1]
    found = fit_openset(x, labels)
    assert found is not None
    assert found.means.shape == (3, 4)
    probe = np.array([[4.0, 0, 0, 0], [0, 0, 0, 3.0]], dtype=np.float32)
    scores = found.score(torch.from_numpy(probe)).numpy()
    precision, background = found.precision.numpy(), found.background.numpy()
    for point, score in zip(probe, scores, strict=True):
        near = min((point - mean) @ precision @ (point - mean) for mean in found.means.numpy())
        off = point - found.centre.numpy()
        assert score == pytest.approx(near - off @ background @ off, rel=1e-4)
    known = found.score(torch.from_numpy(x.astype(np.float32))).numpy()
    assert scores[1] > np.quantile(known, 0.999)


def test_openset_statistics_need_examples() -> None:
    few = np.zeros((5, 3)), np.eye(3, dtype=np.uint8)[[0, 1, 2, 0, 1]]
    assert fit_openset(*few) is None
    background_only = np.zeros((50, 3)), np.zeros((50, 3), dtype=np.uint8)
    assert fit_openset(*background_only) is None


def test_scores_are_shifted_to_the_operating_point(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "m.pth", content(), format=MODEL_FORMAT)
    predictor = Predictor.load(tmp_path / "m.pth")
    audio = torch.randn(3, FAST.read_samples) * 0.1
    with torch.no_grad():
        logits = predictor.model(audio)["logits"]
    said = predictor.predict(audio, unknown_score="energy")
    expected = torch.sigmoid(logits / 2.0 - torch.tensor([0.5, -1.0]))
    torch.testing.assert_close(torch.from_numpy(said.scores), expected)
    torch.testing.assert_close(
        torch.from_numpy(said.unknown), -nn.functional.softplus(logits / 2.0).sum(dim=1)
    )
    said = predictor.predict(audio, unknown_score="max_probability")
    torch.testing.assert_close(
        torch.from_numpy(said.unknown), 1 - torch.sigmoid(logits / 2.0).amax(dim=1)
    )
    with pytest.raises(ValueError, match="unknown_score"):
        predictor.predict(audio, unknown_score="mahalanobis")


def test_openset_statistics_come_back(tmp_path: Path) -> None:
    made = content()
    rng = np.random.default_rng(0)
    labels = np.eye(2, dtype=np.uint8)[rng.integers(0, 2, 600)]
    stats = fit_openset(rng.normal(size=(600, 256)), labels)
    assert stats is not None
    made["openset"] = stats.as_dict()
    save_checkpoint(tmp_path / "m.pth", made, format=MODEL_FORMAT)
    predictor = Predictor.load(tmp_path / "m.pth")
    assert isinstance(predictor.openset, OpenSet)
    said = predictor.predict(torch.zeros(2, FAST.read_samples))
    assert np.isfinite(said.unknown).all()


def test_asking_for_cuda_where_there_is_none_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DrumgateError, match="use --device cpu"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")
