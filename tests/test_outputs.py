"""Where commands write: never over what they read, nor twice to one place; devices stay."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from training.errors import InputError
from training.manifest.write import atomic_write, write_text


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a manifest, a link to it, and a second manifest."""
    monkeypatch.chdir(tmp_path)
    for name, onset in (("m.jsonl", 0.0), ("other.jsonl", 1.0)):
        row: dict[str, Any] = {"sample_id": name, "session_id": "s", "onset_time": onset}
        (tmp_path / name).write_text(json.dumps({**row, "components": [{"label": "kick"}]}) + "\n")
    (tmp_path / "link.jsonl").symlink_to("m.jsonl")
    (tmp_path / "curves.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("dataset-health --events m.jsonl --output m.jsonl", "the file of --events"),
        ("dataset-health --events m.jsonl --html-output link.jsonl", "the file of --events"),
        ("dataset-health --events m.jsonl --output r --html-output ./r", "written by --output"),
        ("validate-manifest m.jsonl --output m.jsonl", "the file of MANIFEST, which"),
        (
            "summarize-manifest other.jsonl m.jsonl --output ../{here}/m.jsonl",
            "which would be lost",
        ),
        ("compare-manifests m.jsonl other.jsonl --json-output other.jsonl", "of CANDIDATE"),
        ("compare-manifests other.jsonl m.jsonl --markdown link.jsonl", "of CANDIDATE"),
        ("annotate-techniques --input m.jsonl --dry-run --report m.jsonl", "of --input"),
        ("annotate-techniques --input m.jsonl --output a --report a", "written by --output"),
        ("normalize-openness --events m.jsonl --output a --report a", "written by --output"),
        ("normalize-openness --events m.jsonl --fit m.jsonl", "the file of --events"),
        ("derive-sampling-weights m.jsonl --output link.jsonl", "which would be lost"),
        ("summarize-manifest m.jsonl --output -", "standard output"),
    ],
)
def test_nothing_is_written_over_what_is_read(
    here: Path, drumgate: Callable[..., Result], command: str, said: str
) -> None:
    before = {path.name: path.read_bytes() for path in here.iterdir()}
    result = drumgate(command.format(here=here.name))
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert {path.name: path.read_bytes() for path in here.iterdir()} == before


@pytest.mark.parametrize(
    "command",
    [
        "annotate-techniques --input m.jsonl --output m.jsonl",
        "normalize-openness --events m.jsonl --output m.jsonl",
        "merge-manifests --input m.jsonl --input other.jsonl --output m.jsonl",
    ],
)
def test_a_manifest_may_be_rewritten_in_its_place(
    here: Path, drumgate: Callable[..., Result], command: str
) -> None:
    first = (here / "m.jsonl").read_text()
    assert drumgate(command).exit_code == 0
    assert (here / "m.jsonl").read_text().startswith(first)


def test_a_link_stays_and_leads_to_what_was_written(here: Path) -> None:
    write_text(here / "link.jsonl", "new")
    assert (here / "link.jsonl").is_symlink()
    assert (here / "m.jsonl").read_text() == "new"
    (here / "dangling").symlink_to("made/by_it")
    write_text(here / "dangling", "too")
    assert (here / "made" / "by_it").read_text() == "too"


def test_a_pipe_is_written_to_and_stays(here: Path) -> None:
    """As `--output >(gzip > report.json.gz)` gives; /dev/null is the same kind of thing."""
    pipe = here / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "hello")
    assert os.read(reader, 99) == b"hello"
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def test_what_is_wrong_is_said_of_the_path_as_given(here: Path) -> None:
    (here / "to_folder").symlink_to(here)
    with pytest.raises(InputError, match=r"to_folder: is a folder"), atomic_write("to_folder"):
        pass
    with (
        pytest.raises(InputError, match=r"m.jsonl/x: cannot be written: "),
        atomic_write("m.jsonl/x"),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_no_fault_of_ours(here: Path) -> None:
    script = [sys.executable, "-m", "training.cli", "summarize-manifest", str(here / "m.jsonl")]
    root = Path(__file__).parents[1]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(script, stdout=full, stderr=subprocess.PIPE, cwd=root, check=False)
    assert done.returncode == 2
    assert done.stderr.decode() == (
        f"cannot write: {os.strerror(errno.ENOSPC)}; no file was left half written\n"
    )
