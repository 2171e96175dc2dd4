"""Of a stopped build, or a damaged store, --resume makes what a fresh build would have made."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_build_training_dataset import RATE, dataset, tree

from training.checks.build_dataset import Options, run
from training.dataset.blobs import JOURNAL, Stock
from training.dataset.store import ClipStore
from training.dataset.workplace import workplace
from training.errors import InputError

SESSIONS = 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest and its recordings."""
    return dataset(tmp_path_factory.mktemp("data"), sessions=SESSIONS, seconds=0.5)


@pytest.fixture(scope="module")
def fresh(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that was built in one go."""
    out = tmp_path_factory.mktemp("fresh") / "out"
    run(options(data, out))
    return out


def options(data: Path, out: Path, **fields: Any) -> Options:
    return Options(**({"events": data, "out": out, "sample_rate": RATE, "seed": 1} | fields))


def resume(data: Path, out: Path, **fields: Any) -> dict[str, Any]:
    """Resume; return what the report says was taken over."""
    resumed: dict[str, Any] = run(options(data, out, resume=True, **fields)).metrics["resumed"]
    return resumed


def stopping(after: int, description: str = "decoding recordings") -> Any:
    """Wrap loops so that the named one is interrupted after some items."""

    def track(items: Any, what: str) -> Iterator[Any]:
        for number, item in enumerate(items):
            if what == description and number == after:
                raise KeyboardInterrupt
            yield item

    return track


def same(one: Path, other: Path) -> bool:
    return tree(one) == tree(other)


@pytest.mark.parametrize("after", range(SESSIONS))
def test_a_build_interrupted_after_any_recording_goes_on(data, fresh, tmp_path, after):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(options(data, out, resume=True), track=stopping(after))
    assert not out.exists()
    assert resume(data, out) == {
        "recordings_decoded": SESSIONS - after,
        "recordings_kept": after,
        "files_mended": [],
    }
    assert same(out, fresh)
    assert [each.name for each in tmp_path.iterdir()] == ["out"], "something was left behind"


def test_a_build_interrupted_again_and_again_decodes_each_recording_once(data, fresh, tmp_path):
    out, decoded = tmp_path / "out", 0
    for _ in range(SESSIONS - 1):
        with pytest.raises(KeyboardInterrupt):
            run(options(data, out, resume=True), track=stopping(1))
        decoded += 1
    assert decoded + resume(data, out)["recordings_decoded"] == SESSIONS
    assert same(out, fresh)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    after=st.integers(1, SESSIONS - 1),
    file=st.sampled_from(["train.pcm", "val.pcm", "test.pcm", JOURNAL]),
    how=st.sampled_from(["cut", "flip", "grow", "delete", "garbage"]),
    where=st.floats(0, 1),
)
def test_whatever_a_crash_did_to_the_files_the_outcome_is_the_same(
    data, fresh, tmp_path, after, file, how, where
):
    out = tmp_path / "out"
    shutil.rmtree(out, ignore_errors=True)
    with pytest.raises(KeyboardInterrupt):
        run(options(data, out, resume=True), track=stopping(after))
    spoil(tmp_path / ".out.building" / file, how, where)
    (tmp_path / ".out.building" / ".train.jsonl.tmp").write_text("left by an atomic write")
    resume(data, out)
    assert same(out, fresh)


def spoil(path: Path, how: str, where: float) -> None:
    content = bytearray(path.read_bytes())
    at = min(int(where * len(content)), len(content) - 1)
    if how == "delete":
        path.unlink()
    elif how == "cut":
        path.write_bytes(content[:at])
    elif how == "grow":
        path.write_bytes(content + b"\1" * 999)
    elif how == "garbage":
        path.write_bytes(b"\xff{]" * 30)
    else:
        content[at] ^= 0x55
        path.write_bytes(content)


FILES = (
    "train.pcm",
    "val.index.parquet",
    "splits/test.jsonl",
    "components.json",
    "metadata.json",
)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["cut", "flip", "delete"])
def test_a_damaged_store_is_mended(data, fresh, tmp_path, name, how):
    out = Path(shutil.copytree(fresh, tmp_path / "out"))
    if name != "metadata.json":
        (out / "readiness.json").write_text("{}")  # what others put there stays
    metadata = json.loads((out / "metadata.json").read_text())
    third = metadata["recordings"]["train"][2]
    size = (out / "train.pcm").stat().st_size
    spoil(out / name, how, (2 * third["start"] + 9) / size if name == "train.pcm" else 0.9)
    resumed = resume(data, out)
    if name != "metadata.json":
        assert (out / "readiness.json").read_text() == "{}"
        (out / "readiness.json").unlink()
        assert resumed["files_mended"] == [name]
        # of a damaged blob only the recordings that the damage lies in are decoded again
        train = metadata["splits"]["train"]["recordings"]
        lost = {"flip": 1, "cut": train - 2, "delete": train}[how]
        assert resumed["recordings_decoded"] == (lost if name == "train.pcm" else 0)
    assert same(out, fresh)
    assert run(options(data, out, verify_only=True)).metrics["problems"] == []
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_nothing_is_done_to_a_store_that_is_whole(data, fresh, tmp_path):
    out = Path(shutil.copytree(fresh, tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]}
    assert resume(data, out) == {
        "recordings_decoded": 0,
        "recordings_kept": SESSIONS,
        "files_mended": [],
    }
    assert {path: path.stat().st_mtime_ns for path in [out, *out.rglob("*")]} == before


def test_a_store_made_from_something_else_is_replaced_only_with_force(data, fresh, tmp_path):
    out = Path(shutil.copytree(fresh, tmp_path / "out"))
    with pytest.raises(InputError, match=r"made from something else \(seed\); --force"):
        resume(data, out, seed=2)
    assert same(out, fresh)
    assert resume(data, out, seed=2, force=True)["recordings_decoded"] == 0
    other = tmp_path / "other"
    run(options(data, other, seed=2))
    assert same(out, other)


def test_what_was_added_is_decoded_and_nothing_else(data, tmp_path):
    folder = Path(shutil.copytree(data.parent, tmp_path / "data"))
    out, events = tmp_path / "out", folder / "events.jsonl"
    whole = events.read_text()
    events.write_text("".join(x for x in whole.splitlines(True) if '"s7"' not in x))
    run(options(events, out))
    events.write_text(whole)
    resumed = resume(events, out, force=True)
    assert (resumed["recordings_decoded"], resumed["recordings_kept"]) == (1, SESSIONS - 1)
    run(options(events, tmp_path / "again"))
    assert same(out, tmp_path / "again")


def test_other_folders_and_rates_are_left_alone(data, fresh, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.pcm").write_bytes(b"")
    (tmp_path / "mine" / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="something else in it"):
        resume(data, tmp_path / "mine")
    assert Stock(fresh, RATE)._known
    assert not Stock(fresh, RATE // 2)._known
    metadata = json.loads((fresh / "metadata.json").read_text())
    for hostile in ([], {"train": [{}]}, {"train": [{"start": -1, "stop": "x"}]}, None):
        (tmp_path / "metadata.json").write_text(json.dumps({**metadata, "recordings": hostile}))
        assert not Stock(tmp_path, RATE)._known


def test_an_unfinished_build_is_thrown_away_without_resume_and_that_is_said(data, fresh, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        run(options(data, out, resume=True), track=stopping(3))
    report = run(options(data, out))
    assert any("was thrown away" in warning for warning in report.warnings)
    assert tree(out).keys() == tree(fresh).keys()
    assert ClipStore.open(out).metadata["run_statistics"]["recordings_decoded"] == SESSIONS


def test_two_builds_of_one_store_do_not_write_into_each_other(data, tmp_path):
    out = tmp_path / "out"
    with (
        workplace(out, resume=False),
        pytest.raises(InputError, match="another build is writing it"),
    ):
        run(options(data, out))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.building").symlink_to(data.parent)
    with pytest.raises(InputError, match="is a link"):
        run(options(data, out))
    assert data.exists()


def test_a_store_without_hashes_of_its_samples_is_decoded_anew(data, fresh, tmp_path):
    out = Path(shutil.copytree(fresh, tmp_path / "out"))
    metadata = json.loads((out / "metadata.json").read_text())
    for rows in metadata["recordings"].values():
        for row in rows:
            del row["samples_sha256"]
    (out / "metadata.json").write_text(json.dumps(metadata))
    (out / "val.pcm").unlink()
    assert resume(data, out)["recordings_decoded"] == SESSIONS
    assert same(out, fresh)


@pytest.mark.slow
def test_builds_killed_at_any_moment_are_taken_over(tmp_path):
    data = dataset(tmp_path / "data", sessions=12, seconds=40.0)
    whole = tmp_path / "whole"
    command = [sys.executable, "-m", "training.build_training_dataset", str(data)]
    seconds = -time.perf_counter()
    assert subprocess.run([*command, str(whole)], cwd=ROOT, capture_output=True).returncode == 0
    seconds += time.perf_counter()
    moments, killed, met = random.Random(0), 0, 0
    out = tmp_path / "out"
    for _ in range(8):
        # Starting takes most of the time, and is of no interest.
        process = subprocess.Popen(
            [*command, str(out), "--resume"],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds * moments.uniform(0.4, 1.1))
        os.kill(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        met += (tmp_path / ".out.building").exists()
        if out.exists():
            assert same(out, whole)
            shutil.rmtree(out)
    assert killed
    assert met
    done = subprocess.run([*command, str(out), "--resume"], cwd=ROOT, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert same(out, whole)
    left = sorted(each.name for each in tmp_path.iterdir())
    assert left == ["data", "out", "whole"]
