"""The demo's road in miniature; spoiling one thing makes its readiness fail with exit 1."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from conftest import ROOT

pytestmark = pytest.mark.slow


def make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    """Run a target of demo.mk on data of its own, small enough for a test."""
    settings = {
        "RUN": f"{sys.executable} -m training.cli",
        "INSTALLED": "",
        "DEMO": folder,
        "PAGES": folder / "pages",
        "GATES": ROOT / "tests" / "gates_mini.toml",
        "SESSIONS": 10,
        "DRUMMERS": 4,
        "KITS": 5,
        "DURATION_S": 20,
        "EPOCHS": 10,
        "MIN_CLASS_COUNT": 5,
    }
    words = [f"{name}={value}" for name, value in settings.items()]
    return subprocess.run(
        ["make", *words, target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "MAKEFLAGS": ""},
    )


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("road") / "demo"
    done = make(folder, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "run-readiness-checks: PASS" in done.stdout
    return folder


@pytest.fixture
def copy(road: Path, tmp_path: Path) -> Path:
    """The finished road, to be spoilt."""
    return Path(shutil.copytree(road, tmp_path / "demo"))


def rewrite_events(folder: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = folder / "data" / "annotations" / "events.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def failing_gates(report: Path) -> set[str]:
    rows = json.loads(report.read_text())["gating_results"]
    return {row["name"].partition("[")[0] for row in rows if not row["passed"]}


def test_the_road_leaves_a_verdict_and_its_pages(road: Path) -> None:
    report = json.loads((road / "pages" / "readiness.json").read_text())
    assert set(report["metrics"]["checks"]) == {
        "alignment",
        "health",
        "boundary",
        "openset",
        "bootstrap",
    }
    assert report["status"] == "pass"
    for page in ("index", "alignment", "health", "boundary", "openset", "bootstrap"):
        assert (road / "pages" / f"{page}.html").is_file()


def test_a_second_run_does_nothing_but_show_the_verdict(copy: Path) -> None:
    done = make(copy, "demo")
    assert done.returncode == 0
    assert "make-demo-dataset" not in done.stdout
    assert "train-classifier" not in done.stdout
    assert "run-readiness-checks: PASS" in done.stdout


def test_a_delayed_mic_blocks(copy: Path) -> None:
    mic = copy / "data" / "sessions" / "session_001" / "overhead_l.flac"
    samples, sample_rate = soundfile.read(mic)
    late = round(0.003 * sample_rate)
    samples[late:] = samples[:-late].copy()
    samples[:late] = 0
    soundfile.write(mic, samples, sample_rate, subtype="PCM_16")
    (copy / "readiness_data.json").unlink()
    done = make(copy, "demo")
    assert "readiness_data.json] Error 1" in done.stderr
    assert failing_gates(copy / "readiness_data.json") == {"alignment.max_delay_ms"}


def test_removed_techniques_block(copy: Path) -> None:
    rewrite_events(copy, lambda rows: [row.pop("techniques", None) for row in rows] and None)
    done = make(copy, "demo")
    assert "readiness_data.json] Error 1" in done.stderr
    assert failing_gates(copy / "readiness_data.json") == {"health.require_techniques"}


def test_what_blocked_once_is_not_trained_on_later(copy: Path) -> None:
    rewrite_events(copy, lambda rows: [row.pop("techniques", None) for row in rows] and None)
    make(copy, "demo")
    again = make(copy, "demo")
    assert again.returncode != 0
    assert "best_drum_classifier.pth] Error 1" in again.stderr
    assert "readiness" in again.stderr


def test_shuffled_labels_block(copy: Path) -> None:
    def shuffle(rows: list[dict[str, Any]]) -> None:
        struck = [row["components"] for row in rows]
        random.Random(0).shuffle(struck)
        for row, components in zip(rows, struck, strict=True):
            row["components"] = components

    rewrite_events(copy, shuffle)
    done = make(copy, "demo")
    assert "demo] Error 1" in done.stderr
    assert "bootstrap.min_macro_f1" in failing_gates(copy / "pages" / "readiness.json")


def few_performances(shared_data: Path, folder: Path) -> Path:
    """The four shortest takes of each of three drummers of Groove, as a dataset of its own."""
    root = shared_data / "groove"
    lines = (root / "info.csv").read_text().splitlines()
    chosen = [lines[0]]
    for drummer in ("drummer1", "drummer3", "drummer6"):
        mine = [x for x in lines if x.startswith(f"{drummer},") and x.endswith(",train")]
        chosen += sorted(mine, key=lambda line: float(line.split(",")[-2]))[:4]
    folder.mkdir()
    (folder / "info.csv").write_text("\n".join(chosen) + "\n")
    for line in chosen[1:]:
        name = line.split(",")[7]
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, folder / name)
    return folder


def make_mdb(shared_data: Path, folder: Path, groove: Path) -> subprocess.CompletedProcess[str]:
    """Take one track of MDB Drums down the road, with one epoch a model."""
    settings = {
        "RUN": f"{sys.executable} -m training.cli",
        "INSTALLED": "",
        "MDB_MIDI": "",
        "MDB": folder,
        "MDB_ROOT": shared_data / "mdb_drums",
        "GROOVE_ROOT": groove,
        "MDB_TRACKS": "Rock",
        "MDB_VAL": "Zeppelin",
        "MDB_FIRST_EPOCHS": 1,
        "MDB_EPOCHS": 1,
    }
    words = [f"{name}={value}" for name, value in settings.items()]
    return subprocess.run(["make", *words, "mdb"], cwd=ROOT, capture_output=True, text=True)


def test_the_road_on_real_recordings(shared_data: Path, tmp_path: Path) -> None:
    """A model of rendered performances goes on with real tracks, and is judged beside floors."""
    folder = tmp_path / "mdb"
    done = make_mdb(shared_data, folder, few_performances(shared_data, tmp_path / "groove"))
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((folder / "report.json").read_text())
    assert report["metrics"]["n_clips"] == 48
    assert report["status"] == "not_measured"  # one session says nothing of others
    assert report["metrics"]["comparison"]["baseline_micro_f1"] > 0.3
    heads = [line.split() for line in done.stdout.splitlines() if line.startswith("class ")]
    assert sum("baseline" in head for head in heads) == 3
    card = json.loads((folder / "Rock" / "models" / "model_card.json").read_text())
    assert card["transfer"]["loaded"]
    assert card["readiness"]["ready"]
    held = {
        split: {json.loads(line)["source_set"] for line in path.read_text().splitlines()}
        for split in ("train", "val", "test")
        for path in [folder / "Rock" / "store" / "splits" / f"{split}.jsonl"]
    }
    both = {"mdb_drums", "groove_rendered"}
    assert held == {"train": both, "val": both, "test": {"mdb_drums"}}


def test_what_the_road_lacks_is_said_before_it_begins(shared_data: Path, tmp_path: Path) -> None:
    done = make_mdb(shared_data, tmp_path / "mdb", tmp_path / "none")
    assert done.returncode == 2
    assert f"make mdb: {tmp_path}/none/info.csv is not there" in done.stderr
    assert "GROOVE_ROOT=" in done.stderr
    assert not (tmp_path / "mdb").exists()
