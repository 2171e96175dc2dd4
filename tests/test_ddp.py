"""Several processes: the same run as one, one that writes, and an end that all agree on."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import clip_makers
import numpy as np
import pytest
import torch
from conftest import ROOT
from ddp_cases import CASES, ddp_trainer, finished

from training.dataset.samplers import EpochSampler
from training.errors import DrumgateError
from training.loop.distributed import Shard, World, joined
from training.model.checkpoint import MODEL_FORMAT, load_checkpoint


def torchrun(*words: object) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
         *map(str, words)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two processes saw, by case."""
    folder = tmp_path_factory.mktemp("ddp")
    done = torchrun(ROOT / "tests" / "ddp_driver.py", folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(set(CASES) - {"nan"}))
def test_two_processes_are_one(together: list[dict[str, Any]], case: str) -> None:
    trainer = ddp_trainer(World(), **CASES[case])
    trainer.train()
    alone = finished(trainer)
    first, second = (seen[case] for seen in together)
    assert (first["rank"], second["rank"], first["size"]) == (0, 1, 2)
    assert first["weights"] == second["weights"]
    for name, value in alone["weights"].items():
        np.testing.assert_allclose(first["weights"][name], value, rtol=2e-4, atol=1e-6)
    assert first["history"] == second["history"]
    for one, two in zip(alone["history"], first["history"], strict=True):
        assert set(one) == set(two)
        for key, value in one.items():
            assert two[key] == pytest.approx(value, rel=1e-3), key
    if case == "signal":
        # Rank 0 alone was told to stop; both did, at the same step, and went on from there.
        assert first["interrupted"]
        assert second["interrupted"]
        assert first["step"] == second["step"] == 4


@pytest.mark.slow
def test_what_is_not_finite_for_one_ends_all(together: list[dict[str, Any]]) -> None:
    first, second = (seen["nan"] for seen in together)
    assert first["error"] == second["error"]
    assert 5 in first["rows"]
    assert len(first["rows"]) in (4, 6)
    assert "clip_5" in first["error"]


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path: Path) -> None:
    manifest, store = clip_makers.build_store(tmp_path, {"train": 24, "val": 16})
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    clip_makers.write_readiness(store / "readiness.json", digest)
    (tmp_path / "tiny.toml").write_text(clip_makers.CONFIG)
    out = tmp_path / "models"
    done = torchrun(
        "-m", "training.cli", "train-classifier", "--dataset", store, "--output", out,
        "--preset", "fast", "--config", tmp_path / "tiny.toml", "--device", "cpu", "--no-plots",
        "--epochs", 2, "--metrics-json", tmp_path / "run.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("most frequent label set") == 1
    assert "batch norm counts the clips of each process alone" in done.stderr
    report = json.loads((tmp_path / "run.json").read_text())
    assert report["parameters"]["processes"] == 2
    content = load_checkpoint(out / "best_drum_classifier.pth", format=MODEL_FORMAT)
    assert all(torch.isfinite(value).all() for value in content["weights"].values())


def test_shards_make_up_every_batch() -> None:
    order = EpochSampler(23, 6, 1)
    shards = [Shard(order, World(rank=rank, size=3)) for rank in range(3)]
    assert len(shards[0]) == 4
    for start in (0, 2):
        parts = zip(*(shard.batches(5, start) for shard in shards), strict=True)
        for whole, three in zip(order.batches(5, start), parts, strict=True):
            assert sorted(np.concatenate(three)) == sorted(whole)


def test_a_last_batch_too_small_to_share_is_left_out() -> None:
    order = EpochSampler(7, 6, 1)
    assert len(list(order.batches(0))) == 2
    for rank in (0, 1):
        assert len(list(Shard(order, World(rank=rank, size=2)).batches(0))) == 1


def test_one_process_has_a_world_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as (world, device):
        assert world == World()
        assert world.leads
        assert device == torch.device("cpu")
        assert world.gather(3) == [3]
        assert world.any(True, device)
        assert world.from_lead("x", device) == "x"


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(DrumgateError, match="process 3 of this machine has no GPU of its own"),
        joined(torch.device("cuda")),
    ):
        pass
