"""The loggers that a command line asked for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from training.errors import DrumgateError
from training.loop.callbacks import Callback, EndInfo
from training.loop.loggers.jsonl import LOG_FILE, JsonlLog
from training.loop.loggers.plots import plot_history
from training.loop.loggers.profiler import SectionProfiler, TraceRecorder
from training.loop.loggers.tensorboard import TensorBoardLog
from training.loop.loggers.wandb import WandbLog, WandbSettings
from training.loop.metrics import Evaluation

__all__ = ["LogOptions", "PlotLog", "make_loggers", "make_profiler"]

TENSORBOARD_FOLDER = "tensorboard"
PROFILE_FILE = "profile.json"
TRACE_FILE = "trace.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class LogOptions:
    """What is written of a run beside its results."""

    log_dir: Path
    plots: bool = True
    tensorboard: bool = False
    wandb_project: str | None = None
    wandb_entity: str | None = None
    wandb_tags: tuple[str, ...] = ()
    wandb_mode: Literal["online", "offline", "disabled"] = "online"


class PlotLog(Callback):
    """Draws the history when training has ended.

    Of a resumed run it draws the evaluations since; `train_classifier` draws the whole history
    once more, with F1 a class, when the files are written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._history: list[dict[str, Any]] = []

    def on_validation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """Keep the line of the history."""
        self._history.append(dict(entry))

    def on_end(self, info: EndInfo) -> None:
        """Draw."""
        plot_history(self._history, self.folder)

    def on_files(self, files: Mapping[str, Path]) -> None:
        """Draw the whole history, with F1 a class beside the floor's."""
        from training.manifest import read_json

        history = read_json(files["history"], dict[str, Any])["epochs"]
        card = read_json(files["card"], dict[str, Any])
        judged, floor = (
            {
                label: float(row["f1"])
                for label, row in part["per_class"].items()
                if row["f1"] is not None
            }
            for part in (card["validation"]["operating_point"], card["floors"]["band_energy"])
        )
        plot_history(history, self.folder, per_class=judged, floors=floor)


def make_loggers(options: LogOptions) -> list[Callback]:
    """Return the loggers; nothing is written before the run starts.

    Raises:
        DrumgateError: a package that is needed is not installed, or options do not go together.
    """
    loggers: list[Callback] = [JsonlLog(options.log_dir / LOG_FILE)]
    if options.plots:
        loggers.append(PlotLog(options.log_dir))
    if options.tensorboard:
        loggers.append(TensorBoardLog(options.log_dir / TENSORBOARD_FOLDER))
    if options.wandb_project is not None:
        settings = WandbSettings(
            project=options.wandb_project,
            entity=options.wandb_entity,
            tags=options.wandb_tags,
            mode=options.wandb_mode,
        )
        loggers.append(WandbLog(settings, options.log_dir))
    elif options.wandb_entity or options.wandb_tags:
        raise DrumgateError("--wandb-entity and --wandb-tags need --wandb-project")
    return loggers


def make_profiler(
    folder: Path | None, *, trace: bool, device: torch.device, features: nn.Module | None
) -> SectionProfiler | TraceRecorder | None:
    """Return what times the sections of a run, where a folder for the result is given."""
    if folder is None:
        return None

    def show(table: str) -> None:
        sys.stderr.write(f"{table}\n")

    profiler = SectionProfiler(device, features=features, path=folder / PROFILE_FILE, show=show)
    return TraceRecorder(folder / TRACE_FILE, device, inner=profiler) if trace else profiler
