"""What the pages on releasing and on CI have people run: every command and input is there."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml
from conftest import ROOT

from training.cli import main as cli

ACTION = ROOT / ".github" / "actions" / "readiness" / "action.yml"


def documented() -> list[str]:
    """The commands in the blocks of shell of the pages on releasing and on CI."""
    found: list[str] = []
    for name in ("release-checklist.md", "ci.md"):
        text = (ROOT / "docs" / name).read_text()
        for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            found += block.splitlines()
    return found


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_one(line: str) -> None:
    """Every option is there, every value is one that it takes, and nothing needed is missing."""
    first, *words = shlex.split(line)
    if first == "make":
        assert f"\n{words[0]}:" in (ROOT / "Makefile").read_text()
        return
    if first == "git":
        assert words == ["status", "--short"]
        return
    assert first == "drumgate"
    if words == ["--version"]:
        return
    group = cli.make_context("drumgate", words.copy(), resilient_parsing=True)
    command = cli.get_command(group, words[0])
    assert command is not None, f"no such tool: {words[0]}"
    command.make_context(words[0], words[1:], parent=group)


def test_the_checklist_keeps_to_the_paths_of_the_configuration() -> None:
    config = (ROOT / "configs" / "readiness.toml").read_text()
    text = "\n".join(documented())
    for path in re.findall(r'"((?:outputs|models|boundary_pack|\w+_ood_unknown)/[\w./]+)"', config):
        assert path in text, f"{path}: the checklist does not make it"


def test_the_action_is_documented_in_full() -> None:
    made = yaml.safe_load(ACTION.read_text())
    text = (ROOT / "docs" / "ci.md").read_text()
    for name in [*made["inputs"], *made["outputs"]]:
        assert f"`{name}`" in text, name
    example = yaml.safe_load(re.findall(r"^```yaml\n(.*?)^```$", text, re.M | re.S)[0])
    given = example["jobs"]["readiness"]["steps"][-1]["with"]
    assert set(given) <= set(made["inputs"])
