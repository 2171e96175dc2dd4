"""The one report that every tool writes, and where it came from."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training import __version__
from training.gates.judge import overall
from training.gates.model import Status, Verdict
from training.manifest import InputFile

SCHEMA_VERSION = 1
_STARTED = time.monotonic()
_CHECKOUT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a tool measured and how it judged it.

    All but `provenance` is the same from run to run on the same inputs. `parameters` holds every
    parameter with the value that was used, defaults included.
    """

    tool: str
    inputs: Sequence[InputFile]
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any]
    verdicts: Sequence[Verdict] = ()
    warnings: Sequence[str] = ()
    seed: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=lambda: provenance())

    @property
    def status(self) -> Status:
        """The worst verdict; `not_measured` when no gate was asked for."""
        return overall(self.verdicts)

    @property
    def blocks(self) -> bool:
        """Whether some gate stops a release."""
        return any(not verdict.passed for verdict in self.verdicts)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as the JSON object of docs/reports.md."""
        return {
            "schema_version": SCHEMA_VERSION,
            "tool": self.tool,
            "version": __version__,
            "status": str(self.status),
            "gating_results": [_row(verdict) for verdict in self.verdicts],
            "metrics": dict(self.metrics),
            "warnings": list(self.warnings),
            "parameters": {name: _plain(value) for name, value in self.parameters.items()},
            "seed": self.seed,
            "inputs": [asdict(file) for file in self.inputs],
            "provenance": dict(self.provenance),
        }


def provenance() -> dict[str, Any]:
    """Return when, where and from which code a report was made: all that differs between runs."""
    return {
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "elapsed_s": round(time.monotonic() - _STARTED, 3),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "git_revision": _git_revision(),
    }


def _row(verdict: Verdict) -> dict[str, Any]:
    row = asdict(verdict)
    for name in ("waiver", "place"):
        if row[name] is None:
            del row[name]  # only rows that are waived, or know their place, have one
    return {
        "name": row.pop("name"),
        "status": str(row.pop("status")),
        "passed": verdict.passed,
        **row,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def _git_revision() -> str | None:
    """The revision of the code, where it runs from its own checkout; `-dirty` if it was changed.

    An installed copy has none, also where it lies inside somebody else's repository.
    """
    if not (_CHECKOUT / ".git").exists():
        return None
    ask = ["git", "--no-optional-locks", "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        found = subprocess.run(
            [*ask, "--exclude=*"],
            cwd=_CHECKOUT,
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
