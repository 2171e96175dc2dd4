"""Shared by the tests of validate-manifest: making manifests and audio, and what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from training.checks.validate import Options, Validation, run


def event(sample: str, **fields: Any) -> dict[str, Any]:
    made = {"sample_id": sample, "session_id": "s1", "onset_time": 0.1, "components": []}
    return {**made, **fields}


def checked(folder: Path, *contents: list[Any], **options: Any) -> Validation:
    """Check events (objects, or lines as they stand) given as lists, one list a file."""
    paths = []
    for number, content in enumerate(contents):
        paths.append(folder / f"m{number}.jsonl")
        lines = [line if isinstance(line, str) else json.dumps(line) for line in content]
        paths[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return run(Options(inputs=tuple(paths), **options))


def said(found: Validation) -> list[tuple[Any, ...]]:
    """What was found: rule, file, line, field, and how many events."""
    return [
        (
            each.rule,
            Path(each.problem.path).name,
            each.problem.line,
            each.problem.field,
            each.events,
        )
        for each in found.findings
    ]


def wave(path: Path, *, rate: int = 8000, channels: int = 1, seconds: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((round(rate * seconds), channels)), rate, subtype="PCM_16")
