"""The calibration check as a gate of a release: scores judged on clips that nothing was fitted on.

It is `training.checks.calibrate` on the test split, without what only a fit can be given.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from training.checks import calibrate
from training.gates import GatesSource, Report


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What is judged; see the options of `training.checks.calibrate`."""

    ground_truth: Path
    predictions: Path
    calibration: Path | None = None
    cluster_field: str = "session_id"
    labels: tuple[str, ...] = ()
    components: Path | None = None
    max_ece: float | None = None
    max_brier: float | None = None
    gates: GatesSource | None = None


def run(options: Options) -> Report:
    """Judge scores on the test split, as a calibration file makes them or as they are.

    Raises:
        DrumgateError, InputError: as `training.checks.calibrate.run`.
    """
    same: dict[str, Any] = {each.name: getattr(options, each.name) for each in fields(options)}
    return calibrate.run(calibrate.Options(**same, split="test"))
