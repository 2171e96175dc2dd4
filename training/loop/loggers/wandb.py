"""A run on Weights & Biases (the extra ``wandb``): online, offline, or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from training.errors import DrumgateError
from training.loop.callbacks import Callback, CheckpointInfo, EndInfo, RunInfo, StepInfo
from training.loop.loggers.figures import scalars
from training.loop.metrics import Evaluation

__all__ = ["WandbLog", "WandbSettings"]

ID_FILE: Final = "wandb_run_id.txt"


@dataclass(frozen=True, kw_only=True, slots=True)
class WandbSettings:
    """Where a run is shown."""

    project: str
    entity: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["online", "offline", "disabled"] = "online"
    """``offline`` writes to disk, for `wandb sync`; nothing is sent."""


class WandbLog(Callback):
    """Logs steps and evaluations, and uploads the model, its card and its history at the end.

    The run's id is kept in the folder, so that a resumed run goes on under the same one.

    Raises:
        DrumgateError: when it is made, where wandb is not installed; at the start of the run,
            where it cannot be reached.
    """

    def __init__(self, settings: WandbSettings, folder: Path) -> None:
        try:
            import wandb
        except ImportError as error:
            raise DrumgateError(
                "--wandb-project needs Weights & Biases: pip install 'drumgate[wandb]'"
            ) from error
        self._wandb: Any = wandb
        self.settings = settings
        self.folder = folder
        self._run: Any = None
        self._ended = False

    def on_train_start(self, info: RunInfo) -> None:
        """Start the run, or take it up again."""
        self.folder.mkdir(parents=True, exist_ok=True)
        id_file = self.folder / ID_FILE
        known = id_file.read_text(encoding="utf-8").strip() if id_file.exists() else None
        os.environ.setdefault("WANDB_SILENT", "true")
        try:
            self._run = self._wandb.init(
                project=self.settings.project,
                entity=self.settings.entity,
                tags=list(self.settings.tags),
                mode=self.settings.mode,
                dir=str(self.folder),
                config=info.config,
                id=known if info.step else None,
                resume="allow",
            )
        except Exception as error:
            raise DrumgateError(
                f"Weights & Biases could not be started ({error}); "
                "--wandb-mode offline writes to disk and sends nothing"
            ) from error
        id_file.write_text(f"{self._run.id}\n", encoding="utf-8")

    def on_step(self, info: StepInfo) -> None:
        """Log losses, rate and speed."""
        figures = {
            "train/loss": info.loss,
            "train/learning_rate": info.learning_rate,
            "train/clips_per_s": info.clips_per_s,
        }
        self._run.log(scalars(figures), step=info.step)

    def on_validation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """Log the figures of the evaluation, with F1 a class."""
        figures = {f"validation/{name}": value for name, value in scalars(entry).items()}
        if evaluation.summary is not None:
            rows = evaluation.summary.per_class
            figures |= {f"f1/{row.label}": row.f1 for row in rows if row.f1 is not None}
        self._run.log(figures, step=int(entry["step"]))

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        """Note the last checkpoint; it is not uploaded."""
        self._run.summary["last_checkpoint_step"] = info.step

    def on_end(self, info: EndInfo) -> None:
        """Note why training ended and what was best."""
        self._ended = True
        self._run.summary["end"] = info.reason
        if info.best is not None:
            self._run.summary[f"best_{info.monitor}"] = info.best

    def on_files(self, files: Mapping[str, Path]) -> None:
        """Upload the files as one artefact of the run."""
        artifact = self._wandb.Artifact(f"model-{self._run.id}", type="model")
        for path in files.values():
            if path.is_file():
                artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        """End the run; one that broke off shows as failed."""
        if self._run is not None:
            self._run.finish(exit_code=0 if self._ended else 1)
            self._run = None
