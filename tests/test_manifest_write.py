"""Writing: a file is there whole or not at all, and holds only what JSON can say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.errors import InputError
from training.manifest import Component, atomic_write, to_json, write_json, write_jsonl


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(f"half {1 / 0}")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["out.txt"]


def test_makes_parents_and_ordinary_permissions(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_json(path, {"x": 1})
    other = tmp_path / "plain"
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        write_json(tmp_path / "file" / "x.json", {})
    with pytest.raises(InputError, match="is a folder"):
        write_json(tmp_path, {})


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), [1.0, {"x": float("-inf")}]])
def test_no_nan_reaches_a_file(tmp_path: Path, bad: object) -> None:
    with pytest.raises(ValueError, match="finite"):
        write_json(tmp_path / "x.json", {"figure": bad})
    with pytest.raises(ValueError, match="finite"):
        write_jsonl(tmp_path / "x.jsonl", [{"fine": 1}, {"figure": bad}])
    assert not list(tmp_path.iterdir())


def test_structs_are_written_without_their_defaults() -> None:
    assert json.loads(to_json(Component(label="kick"))) == {"label": "kick"}


@pytest.mark.slow
def test_killed_while_writing(tmp_path: Path) -> None:
    """SIGKILL at any moment leaves the old file or the new one, whole."""
    path = tmp_path / "rows.jsonl"
    rows = 20_000
    code = (
        "import sys; from training.manifest import write_jsonl\n"
        f"print('go', flush=True)\n"
        f"while True: write_jsonl({str(path)!r}, ({{'n': n}} for n in range({rows})))\n"
    )
    for delay_s in (0.02, 0.05, 0.11, 0.17, 0.23):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
        if path.exists():
            lines = path.read_text().splitlines()
            assert len(lines) == rows
            assert json.loads(lines[-1]) == {"n": rows - 1}
