"""Every event of a run as a line of JSON, for programs to follow while it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from training.loop.callbacks import (
    Callback,
    CheckpointInfo,
    EndInfo,
    PhaseInfo,
    RunInfo,
    StepInfo,
)
from training.loop.loggers.event_log import EventLog
from training.loop.metrics import Evaluation

__all__ = ["LOG_FILE", "JsonlLog"]

LOG_FILE: Final = "train_log.jsonl"


class JsonlLog(Callback):
    """Writes ``start``, ``phase``, ``step``, ``validation``, ``checkpoint``, ``end`` and ``files``.

    Each line has ``event``, ``step`` and ``time`` (UTC), and the fields of the event. A resumed run
    goes on in the same file: what it does again is there once, and its ``start`` names the step.
    """

    def __init__(self, path: Path) -> None:
        self.log = EventLog(path)
        self._step = 0

    def on_train_start(self, info: RunInfo) -> None:
        """Open the log and say what is about to run."""
        self.log.start(step=info.step)
        self._write("start", info.step, asdict(info))

    def on_phase_change(self, phase: PhaseInfo) -> None:
        """Log the phase."""
        self._write("phase", phase.step, asdict(phase))

    def on_step(self, info: StepInfo) -> None:
        """Log losses, rate and speed."""
        self._write("step", info.step, asdict(info))

    def on_validation(self, entry: dict[str, Any], evaluation: Evaluation) -> None:
        """Log the line of the history."""
        self._write("validation", int(entry["step"]), entry)

    def on_checkpoint(self, info: CheckpointInfo) -> None:
        """Log where and why."""
        self._write("checkpoint", info.step, {**asdict(info), "path": str(info.path)})

    def on_end(self, info: EndInfo) -> None:
        """Log why training ended."""
        self._write("end", info.step, asdict(info))

    def on_files(self, files: Mapping[str, Path]) -> None:
        """Log which files were written."""
        self._write("files", self._step, {"files": {kind: str(p) for kind, p in files.items()}})

    def close(self) -> None:
        """Close the log."""
        self.log.close()

    def _write(self, event: str, step: int, fields: Mapping[str, Any]) -> None:
        self._step = step
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        rest = {name: value for name, value in fields.items() if name != "step"}
        self.log.write(event, step, {"time": now, **rest})
