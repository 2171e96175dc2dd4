"""Shared by the tests of dataset-health: making events, running the check, reading its verdicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from training.checks.health import Options, run
from training.gates import Report, Status


def event(number: int = 0, **fields: Any) -> dict[str, Any]:
    return {
        "sample_id": f"e{number}",
        "session_id": "s",
        "onset_time": float(number),
        "components": [{"label": "kick"}],
        **fields,
    }


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Report]:
    def call(rows: list[dict[str, Any]], **options: Any) -> Report:
        path = tmp_path / "events.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return run(Options(events=path, **options))

    return call


def verdicts(report: Report) -> dict[str, tuple[Status, float | None]]:
    return {verdict.name: (verdict.status, verdict.observed) for verdict in report.verdicts}
