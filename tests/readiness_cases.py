"""Inputs with which each check of a readiness run passes, and others with which it fails."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import clip_makers
import pytest
from conftest import ROOT

EXAMPLES = ROOT / "examples"


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a check is given, and a gate of it that the bad input fails."""

    check: str
    module: str
    good: dict[str, Path]
    bad: dict[str, Path]
    gate: str
    options: dict[str, Any] = field(default_factory=dict)
    gates: dict[str, float] = field(default_factory=dict)


def pair(good: str, bad: str, truth: str = "labels.jsonl") -> dict[str, dict[str, Path]]:
    """Truth and predictions out of two example folders."""
    return {
        kind: {
            "ground_truth": EXAMPLES / folder / truth,
            "predictions": EXAMPLES / folder / "predictions.jsonl",
        }
        for kind, folder in (("good", good), ("bad", bad))
    }


CASES = {
    case.check: case
    for case in (
        Case(
            check="alignment",
            module="training.checks.alignment",
            good={"manifests": EXAMPLES / "align_qc/pass/aligned/session.json"},
            bad={"manifests": EXAMPLES / "align_qc/fail/late_by_1_ms/session.json"},
            gate="alignment.max_delay_ms[session_001/overhead]",
        ),
        Case(
            check="health",
            module="training.checks.health",
            good={"events": EXAMPLES / "events_health_example.jsonl"},
            bad={"events": EXAMPLES / "dataset_health/fail/unknown_labels/events.jsonl"},
            gate="health.max_unknown_labels",
            gates={"max_unknown_labels": 0},
        ),
        Case(
            check="boundary",
            module="training.checks.boundary",
            **pair("boundary_eval/pass/all_found", "boundary_eval/fail/deaf_before_the_end"),
            gate="boundary.min_macro_recall",
            options={"iterations": 50},
        ),
        Case(
            check="openset",
            module="training.checks.openset",
            **pair("openset_eval/pass/separated", "openset_eval/fail/overlapping"),
            gate="openset.min_auroc",
            options={"iterations": 50},
        ),
        Case(
            check="bootstrap",
            module="training.checks.bootstrap",
            **pair(
                "bootstrap_eval/pass/eight_sessions", "bootstrap_eval/fail/poor_model", "test.jsonl"
            ),
            gate="bootstrap.min_macro_f1",
            options={"iterations": 100},
        ),
        Case(
            check="calibration",
            module="training.checks.calibrate",
            good={
                "ground_truth": EXAMPLES / "calibrate/pass/hand_written_on_test/validation.jsonl",
                "predictions": EXAMPLES / "calibrate/pass/hand_written_on_test/predictions.jsonl",
                "calibration": EXAMPLES / "calibrate/pass/hand_written_on_test/calibration.json",
            },
            bad={
                "ground_truth": EXAMPLES / "calibrate/fail/too_sure_on_test/validation.jsonl",
                "predictions": EXAMPLES / "calibrate/fail/too_sure_on_test/predictions.jsonl",
            },
            gate="calibration_test.max_ece",
        ),
        Case(
            check="manifest",
            module="training.checks.validate",
            good={"events": EXAMPLES / "events_health_example.jsonl"},
            bad={"events": EXAMPLES / "validate_manifest/fail/contradictions/a.jsonl"},
            gate="manifest.max_errors",
        ),
        Case(
            check="store",
            module="training.checks.build_dataset",
            good={"store": Path("store"), "events": Path("events.jsonl")},
            bad={"store": Path("spoilt"), "events": Path("events.jsonl")},
            gate="dataset.max_store_problems",
        ),
        Case(
            check="health_compare",
            module="training.checks.health_compare",
            good={
                name: EXAMPLES / f"compare_health_reports/pass/small_drop/{name}.json"
                for name in ("baseline", "candidate")
            },
            bad={
                name: EXAMPLES / f"compare_health_reports/fail/drop/{name}.json"
                for name in ("baseline", "candidate")
            },
            gate="health_compare.max_drop[kick]",
            options={"ignore_labels": ["aux_percussion"]},
            gates={"max_drop": 25},
        ),
    )
}


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a clip store, the events that it was made of, and a spoilt copy of it."""
    folder = tmp_path_factory.mktemp("stores")
    manifest, made = clip_makers.build_store(folder, {"train": 6, "val": 4})
    shutil.copy(manifest, folder / "events.jsonl")
    made.rename(folder / "store")
    shutil.copytree(folder / "store", folder / "spoilt")
    with (folder / "spoilt" / "train.pcm").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x55")
    return folder


def table(case: Case, kind: str, stores: Path, **keys: Any) -> str:
    """The table of a check in a configuration whose root is `/`."""
    check = case.check
    inputs = case.good if kind == "good" else case.bad
    lines = [f"[{check}]", *(f"{name} = {json.dumps(value)}" for name, value in keys.items())]
    lines.append(f"[{check}.inputs]")
    for name, path in inputs.items():
        lines.append(f"{name} = {json.dumps(str(stores / path).lstrip('/'))}")
    lines.append(f"[{check}.options]")
    lines += [f"{name} = {json.dumps(value)}" for name, value in case.options.items()]
    for name, value in case.gates.items():
        lines += [f"[{check}.gates.{name}]", f"value = {value}", 'reason = "for the test"']
    return "\n".join(lines) + "\n"
