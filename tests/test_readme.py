"""The commands that the README shows print what the README says they print."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import ROOT

from training.cli import MODULES

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```console\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [
    (command, said)
    for block in BLOCKS
    for command, said in re.findall(
        r"^\$ drumgate (.+)\n((?:(?!\$ ).*\n)*)", block, flags=re.MULTILINE
    )
]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(ROOT / "examples", tmp_path_factory.mktemp("readme") / "examples"))


@pytest.mark.parametrize(("command", "said"), COMMANDS, ids=[c.split()[0] for c, _ in COMMANDS])
def test_shown_commands_print_what_is_shown(
    command: str,
    said: str,
    examples: Path,
    monkeypatch: pytest.MonkeyPatch,
    drumgate: Callable[..., Result],
) -> None:
    monkeypatch.chdir(examples)
    printed = drumgate(command).output.rstrip("\n").splitlines()
    shown = said.rstrip("\n").splitlines()
    if shown and shown[-1] == "…":
        shown.pop()
        printed = printed[: len(shown)]
    assert printed == shown


def test_commands_are_found() -> None:
    assert len(COMMANDS) >= 8


def test_every_tool_is_named() -> None:
    for tool in MODULES:
        assert tool in README or f"docs/tools/{tool.replace('-', '_')}.md" in README, tool
