"""Validation on whole recordings: a perfect model, a silent one, one that says everything."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import clip_makers
import numpy as np
import pytest
import torch
from click.testing import Result
from torch import Tensor, nn

from training.dataset.store import StoreSplit
from training.loop.continuous import ContinuousValidation

FEATURES = clip_makers.FEATURES


class Says(nn.Module):
    """Says what it was told to, clip after clip."""

    def __init__(self, said: np.ndarray) -> None:
        super().__init__()
        self.said, self.at = torch.from_numpy(said), 0

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        assert audio.shape[1] == FEATURES.read_samples
        assert audio.dtype == torch.int16
        assert not self.training
        part = self.said[self.at : self.at + len(audio)]
        self.at += len(audio)
        return {"logits": part.float() * 2 - 1}


def at_each_onset(judged: ContinuousValidation, split: StoreSplit) -> np.ndarray:
    """What is annotated at each onset that was found; nothing where none is."""
    seconds = (split.onset - split.segment_start) / split.sample_rate
    away = np.abs(judged._seconds[:, None] - seconds[None])
    return split.labels[away.argmin(axis=1)] * (away.min(axis=1) < 0.02)[:, None].astype(np.float32)


def test_figures_by_hand() -> None:
    split = clip_makers.split(40, seed=5)
    judged = ContinuousValidation(split, FEATURES)
    labels = at_each_onset(judged, split)
    assert labels.sum() == split.labels.sum()  # every hit is found, and maybe a sound's end
    assert judged.hours == pytest.approx(41 * 0.25 / 3600)
    assert judged.figures(Says(labels)) == {"fa_per_hour": 0.0, "onset_recall": 1.0}
    nothing = judged.figures(Says(np.zeros_like(labels)))
    assert nothing == {"fa_per_hour": 0.0, "onset_recall": 0.0}
    everything = judged.figures(Says(np.ones_like(labels)))
    assert everything["onset_recall"] == 1.0
    alarms = labels.size - labels.sum()
    assert everything["fa_per_hour"] == pytest.approx(alarms / judged.hours)


def test_labels_that_are_not_annotated_count_nowhere() -> None:
    split = clip_makers.split(40, seed=5)
    annotated = np.ones_like(split.annotated)
    annotated[:, 1] = 0
    judged = ContinuousValidation(replace(split, annotated=annotated), FEATURES)
    labels = at_each_onset(judged, split)
    everything = judged.figures(Says(np.ones_like(labels)))
    kept = labels[:, [0, 2]]
    assert everything["onset_recall"] == 1.0
    assert everything["fa_per_hour"] == pytest.approx((kept.size - kept.sum()) / judged.hours)


def test_two_recordings_are_heard_apart() -> None:
    one = clip_makers.split(10, seed=1)
    shift = len(one.blob)
    both = replace(
        one,
        blob=np.concatenate([one.blob, one.blob]),
        sample_ids=[*one.sample_ids, *(f"{name}_b" for name in one.sample_ids)],
        session_ids=one.session_ids * 2,
        sources=one.sources * 2,
        onset=np.concatenate([one.onset, one.onset + shift]),
        segment_start=np.concatenate([one.segment_start, one.segment_start + shift]),
        segment_stop=np.concatenate([one.segment_stop, one.segment_stop + shift]),
        **{
            name: np.concatenate([getattr(one, name)] * 2)
            for name in ("labels", "annotated", "velocity", "openness", "is_background")
        },
    )
    judged = ContinuousValidation(both, FEATURES)
    said = np.concatenate([one.labels, np.zeros_like(one.labels)]).astype(np.float32)
    assert judged.figures(Says(said)) == {"fa_per_hour": 0.0, "onset_recall": 0.5}


def test_a_recipe_can_ask_for_false_alarms_then_recall(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    _, store = clip_makers.build_store(tmp_path, {"train": 32, "val": 16, "test": 8})
    config = tmp_path / "tiny.toml"
    more = 'monitor = "onset_recall"\nlimit_figure = "fa_per_hour"\nlimit = 3000.0\n'
    config.write_text(clip_makers.CONFIG + more)
    out = tmp_path / "models"
    result = drumgate(
        "train-classifier", "--dataset", store, "--output", out, "--preset", "fast", "--config",
        config, "--device", "cpu", "--allow-unready", "--epochs", 2, "--batch-size", 8,
        "--no-plots",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    history = json.loads((out / "history.json").read_text())["epochs"]
    assert all({"fa_per_hour", "onset_recall"} <= set(line) for line in history)
    assert "onset_recall" in result.stderr
