"""What a training run reads and writes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from training.loop.config import Recipe

__all__ = ["MODEL_FILE", "RUN_FILE", "TrainOptions"]

MODEL_FILE: Final = "best_drum_classifier.pth"
RUN_FILE: Final = "last_run.pth"
HISTORY_FILE: Final = "history.json"
CARD_FILE: Final = "model_card.json"
PAGE_FILE: Final = "model_card.html"
READINESS_FILE: Final = "readiness.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainOptions:
    """What a run reads and writes; how it trains is in the recipe."""

    dataset: Path
    output: Path
    recipe: Recipe
    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""
    readiness: Path | None = None
    """By default `readiness.json` within the dataset."""
    allow_unready: bool = False
    sampling_weights: Path | None = None
    """Artefact of derive-sampling-weights; training clips are then drawn by it, not by
    `recipe.training.balance`."""
    init_from: Path | None = None
    """A model file to start from."""
    freeze: tuple[str, ...] = ()
    """Names of the parts of the model that are left as they are."""
    resume: bool = False
    finish: bool = False
    """Train no further: write the model with the best weights of the run that is resumed."""
    profile: Path | None = None
    """Folder for the times of the sections of a step; None measures none."""
    trace: bool = False
    """With `profile`: record a few steps with torch.profiler, too."""
