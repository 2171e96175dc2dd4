"""Starting from another model and freezing part of one: what moves, what stays, what is said."""

from __future__ import annotations

import copy
from pathlib import Path

import clip_makers
import pytest
import torch
from model_makers import content, write_model
from torch import nn

from training.errors import DrumgateError, InputError
from training.loop.transfer import Frozen, freeze, load_weights, start_from
from training.model.cnn import DrumClassifier, ModelConfig


def fresh(n_classes: int = 3, **heads: bool) -> DrumClassifier:
    torch.manual_seed(99)
    return DrumClassifier(clip_makers.FEATURES, ModelConfig(n_classes=n_classes, **heads))


def test_a_model_of_the_same_kind_is_taken_over_whole(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.pth")
    model = fresh()
    found = start_from(
        model, path, ("kick", "snare", "hihat_closed"), features=clip_makers.FEATURES.as_dict()
    )
    theirs = content()["weights"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, theirs[name]), name
    assert set(found.loaded) == set(theirs)
    assert not [*found.missing, *found.unused, *(found.other_shape or ()), *found.other_features]
    assert found.source_sha256
    assert found.as_dict()["loaded"] == found.loaded


def test_class_rows_go_by_name(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.pth")
    theirs = content()["weights"]
    model = fresh(4)
    before = copy.deepcopy(model.state_dict())
    found = start_from(model, path, ("crash", "snare", "ride", "kick"))
    after = model.state_dict()
    for part in ("weight", "bias"):
        name = f"cnn.classes.{part}"
        assert torch.equal(after[name][1], theirs[name][1])
        assert torch.equal(after[name][3], theirs[name][0])
        assert torch.equal(after[name][0], before[name][0])
        assert torch.equal(after[name][2], before[name][2])
        assert name not in found.loaded
    assert found.classes_loaded == ("snare", "kick")
    assert found.classes_new == ("crash", "ride")
    assert found.classes_dropped == ("hihat_closed",)
    said = "\n".join(found.lines())
    assert "class rows taken over: snare, kick" in said
    assert "class rows that start anew: crash, ride" in said


def test_what_does_not_fit_is_said_and_left_alone(tmp_path: Path) -> None:
    weights = content()["weights"]
    weights["cnn.trunk.0.weight"] = torch.zeros(8, 1, 3, 3)
    weights["cnn.other"] = torch.zeros(1)
    del weights["cnn.trunk.0.bias"]
    path = write_model(tmp_path / "m.pth", weights=weights)
    model = fresh(velocity_head=False)
    before = copy.deepcopy(model.state_dict())
    settings = clip_makers.FEATURES.as_dict() | {"hop": 32}
    found = start_from(model, path, ("kick", "snare", "hihat_closed"), features=settings)
    assert found.missing == ("cnn.trunk.0.bias",)
    assert set(found.unused) == {"cnn.velocity.weight", "cnn.velocity.bias", "cnn.other"}
    assert found.other_shape == {"cnn.trunk.0.weight": "(8, 1, 3, 3) is not (32, 1, 3, 3)"}
    assert found.other_features == ("hop (64 there, 32 here)",)
    for name in ("cnn.trunk.0.weight", "cnn.trunk.0.bias"):
        assert torch.equal(model.state_dict()[name], before[name])
    assert len(found.lines()) == 5


def test_files_that_cannot_serve_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        start_from(fresh(), tmp_path / "none.pth", ("kick",))
    for changed in (
        {"weights": 3},
        {"weights": {"a": 1}},
        {"labels": "kick"},
        {"labels": ["a"] * 2},
        {"labels": [["a"]]},
    ):
        path = write_model(tmp_path / "m.pth", **changed)
        with pytest.raises(InputError, match="not a complete model file"):
            start_from(fresh(), path, ("kick", "snare", "hihat_closed"))
    path = write_model(tmp_path / "m.pth", weights={"other": torch.zeros(2)})
    with pytest.raises(InputError, match="no weights that fit"):
        start_from(fresh(), path, ("kick", "snare", "hihat_closed"))


def test_any_model_can_be_started() -> None:
    one, other = nn.Linear(3, 2), nn.Linear(3, 2)
    found = load_weights(one, other.state_dict(), ("a", "b"), ("a", "b"), class_layer=())
    assert found.loaded == ("weight", "bias")
    assert torch.equal(one.weight, other.weight)


def step(model: DrumClassifier) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    audio = torch.randn(8, clip_makers.FEATURES.read_samples)
    model.train()
    for _ in range(2):
        out = model(audio)
        (out["logits"].square().sum() + out["velocity"].sum()).backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)


def test_what_is_frozen_does_not_change_and_the_rest_does() -> None:
    model = fresh()
    before = copy.deepcopy(model.state_dict())
    found = freeze(model, ["cnn.trunk.0", "cnn.trunk.1", "cnn.velocity"])
    step(model)
    after = model.state_dict()
    frozen = ("cnn.trunk.0.", "cnn.trunk.1.", "cnn.velocity.")
    for name in before:
        same = torch.equal(before[name], after[name])
        if name.startswith(frozen) or name.startswith("logmel."):
            assert same, name
        elif not name.startswith("cnn.openness"):  # takes no part in this loss
            assert not same, name
    assert found.norms == ("cnn.trunk.1",)
    assert found.parameters == 32 * 9 + 32 + 2 * 32 + 257
    assert found.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_frozen_batch_norms_normalise_with_what_they_have() -> None:
    model = fresh()
    freeze(model, ["cnn.trunk"])
    audio = torch.randn(4, clip_makers.FEATURES.read_samples)
    model.eval()
    expected = model(audio)["features"]
    model.train()
    torch.testing.assert_close(model(audio)["features"], expected)
    copied = copy.deepcopy(model).train()  # as for averaged weights
    torch.testing.assert_close(copied(audio)["features"], expected)
    assert list(copied.state_dict()) == list(fresh().state_dict())
    freeze(model, ["cnn.trunk"])  # twice is once
    assert type(model.cnn.trunk[1]).__name__ == "FrozenBatchNorm2d"


def test_prefixes_end_at_a_dot_and_unknown_ones_name_the_nearest() -> None:
    model = fresh()
    freeze(model, ["cnn.trunk.1"])
    trunk = model.cnn.trunk
    assert not trunk[1].weight.requires_grad
    assert trunk[12].weight.requires_grad
    with pytest.raises(DrumgateError, match=r"--freeze cnn\.trunc: .*did you mean cnn\.trunk\?"):
        freeze(model, ["cnn.trunc"])
    with pytest.raises(DrumgateError, match="nothing would be left to train"):
        freeze(fresh(), ["cnn"])


def test_no_prefix_freezes_nothing() -> None:
    model = fresh()
    found = freeze(model, [])
    assert found == Frozen(trainable=sum(p.numel() for p in model.parameters()))
    assert all(p.requires_grad for p in model.parameters())
