"""What the tests share: the real datasets where they are at hand, and calling a tool."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import settings

from training.cli import main

# Tests are small and run side by side: one thread each is faster, and the same on every machine.
# Commands that a test starts take it from the environment; what is loaded already is told below.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines are noisy: how long an example takes is no property of the code.
settings.register_profile("drumgate", deadline=None)
settings.load_profile("drumgate")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Undo what an earlier test has set."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the Groove MIDI Dataset and MDB Drums; neither is in this repository."""
    folder = Path(os.environ.get("DRUMGATE_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"needs the real datasets in {folder} (or DRUMGATE_SHARED_DATA)")
    return folder


@pytest.fixture
def drumgate() -> Callable[..., Result]:
    """Run `drumgate …` in this process and return the outcome (exit_code, stdout, stderr)."""

    def run(*arguments: object) -> Result:
        words = shlex.split(arguments[0]) if len(arguments) == 1 else map(str, arguments)
        return CliRunner().invoke(main, list(words), catch_exceptions=False, prog_name="drumgate")

    return run
