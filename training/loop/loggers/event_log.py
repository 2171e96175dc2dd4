"""A log that a crash cannot spoil and a resumed run goes on with: one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from training.errors import InputError
from training.loop.loggers.figures import finite
from training.manifest import atomic_write

__all__ = ["EventLog", "read_log"]

SYNCED: Final = frozenset({"start", "validation", "checkpoint", "end"})
"""Events after which the log is on disk, whatever happens to the machine."""


class EventLog:
    """Appends events to a file, each with one write, so that a crash can cut only the last line.

    Args:
        path: the file; a missing folder is made by `start`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._handle: int | None = None
        self._validated: set[Any] = set()

    def start(self, *, step: int) -> None:
        """Open the log for a run that goes on after `step` steps.

        What an earlier run logged of later steps will be done again and is taken out, and so is a
        line that was cut short; a run from the first step on starts a new log.

        Raises:
            InputError: the file cannot be read or written.
        """
        kept = []
        if step > 0 and self.path.exists():
            kept = [
                entry
                for entry in read_log(self.path)
                if entry["step"] <= step and entry["event"] not in ("end", "files")
            ]
        self._validated = {e.get("epoch") for e in kept if e["event"] == "validation"}
        with atomic_write(self.path) as file:
            file.writelines(_line(entry) for entry in kept)
        try:
            self._handle = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        except OSError as error:
            raise InputError.at(self.path, f"cannot be written: {error.strerror}") from error

    def write(self, event: str, step: int, fields: Mapping[str, Any]) -> None:
        """Append an event; figures that are not finite are left out.

        Nothing is written before `start` or after `close`, nor the validation of an epoch that is
        in the log already: a run that was killed between its last step and the checkpoint after
        the validation makes it again.
        """
        again = event == "validation" and fields.get("epoch") in self._validated
        if self._handle is None or again:
            return
        line = _line({"event": event, "step": step, **finite(fields)}).encode()
        while line:  # a full disk raises; a signal may cut a write short
            line = line[os.write(self._handle, line) :]
        if event in SYNCED:
            os.fsync(self._handle)

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the events of a log, in order; a last line that a crash cut short is left out.

    Raises:
        InputError: the file cannot be read, or a line within it is no event.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError.at(path, f"cannot be read ({error.strerror})") from error
    events = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            entry = json.loads(line)
            sound = isinstance(entry["event"], str) and isinstance(entry["step"], int)
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise InputError.at(path, "is not an event of a training log", line=number)
        events.append(entry)
    return events


def _line(entry: Mapping[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n"
