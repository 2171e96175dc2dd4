"""Model files that nobody trained: every part there, in a few milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import clip_makers
import numpy as np
import torch

from training.audio.logmel import FeatureConfig
from training.model.checkpoint import MODEL_FORMAT, save_checkpoint
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.inference import fit_openset

LABELS = ("kick", "snare", "hihat_closed")


def content(
    *,
    labels: tuple[str, ...] = LABELS,
    features: FeatureConfig = clip_makers.FEATURES,
    task: str = "multilabel",
    openset: bool = True,
    heads: bool = True,
    seed: int = 0,
    **changed: Any,
) -> dict[str, Any]:
    """What a model file holds; every entry may be replaced by name."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    config = ModelConfig(n_classes=len(labels), velocity_head=heads, openness_head=heads)
    model = DrumClassifier(features, config)
    mean = torch.full((features.n_mels,), -40.0)
    model.logmel.set_statistics(mean, torch.full_like(mean, 15.0))
    for norm in (m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)):
        norm.running_mean = torch.randn_like(norm.running_mean) * 0.1
        norm.running_var = torch.rand_like(norm.running_var) + 0.5
    sets = np.tile(np.eye(len(labels), dtype=np.uint8), (20, 1))
    fitted = fit_openset(rng.standard_normal((len(sets), 256)), sets) if openset else None
    return {
        "labels": list(labels),
        "task": task,
        "features": features.as_dict(),
        "model": config.as_dict(),
        "weights": model.state_dict(),
        "calibration": {"temperature": 1.3, "shift": [0.2 * i for i in range(len(labels))]},
        "openset": None if fitted is None else fitted.as_dict(),
        "card": {"intended_use": "a test", "data": {"manifest_sha256": "a" * 64}},
        **changed,
    }


def write_model(path: Path, **settings: Any) -> Path:
    """Write a model file and return its path; settings are those of `content`."""
    save_checkpoint(path, content(**settings), format=MODEL_FORMAT)
    return path
