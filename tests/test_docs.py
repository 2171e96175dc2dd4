"""What the documentation says is so: flags, links, words, and what commands print."""

from __future__ import annotations

import importlib
import json
import math
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result
from conftest import ROOT

from training.cli import MODULES, main

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "reports" / "README.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
TOOL_PAGES = {tool: ROOT / "docs" / "tools" / f"{tool.replace('-', '_')}.md" for tool in MODULES}
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
BLOCK = re.compile(r"^```(?:console|sh|)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")
ALWAYS = {"--help", "--version", "--verbose"}
# Of the programs that pages name beside drumgate and the benchmarks, by page.
FOREIGN = {
    "install": "--index-url --no-deps",  # pip
    "logging": "--logdir",  # tensorboard
    "release-checklist": "--short",  # git
    "scale": "--archives --conf --master --py-files",  # spark-submit
    "training": "--nproc-per-node --standalone",  # torchrun
}


def options_of(tool: str) -> list[set[str]]:
    """The names of each option of a tool, without the short ones."""
    command = importlib.import_module(MODULES[tool]).main
    return [
        {name for name in (*each.opts, *each.secondary_opts) if name.startswith("--")}
        for each in command.params
        if isinstance(each, click.Option)
    ]


def flags_in(page: Path) -> set[str]:
    return set(FLAG.findall(page.read_text(encoding="utf-8")))


EVERY_FLAG = ALWAYS.union(*(names for tool in MODULES for names in options_of(tool)))
EVERY_FLAG |= set().union(*map(flags_in, (ROOT / "benchmarks").glob("*.py")))
SHARED = set(
    FLAG.findall(
        (ROOT / "docs" / "reports.md")
        .read_text(encoding="utf-8")
        .partition("## Flags of every tool that judges")[2]
        .partition("\n## ")[0]
    )
)


@pytest.mark.parametrize("tool", sorted(MODULES))
def test_every_flag_of_a_tool_is_on_its_page(tool: str) -> None:
    said = flags_in(TOOL_PAGES[tool]) | ALWAYS | SHARED
    missing = [min(names) for names in options_of(tool) if not names & said]
    assert not missing, f"{TOOL_PAGES[tool].name} or the shared flags of docs/reports.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_flag_that_a_page_names_is_one(page: Path) -> None:
    assert flags_in(page) <= EVERY_FLAG | set(FOREIGN.get(page.stem, "").split())


def commands(page: Path) -> Iterator[str]:
    """The drumgate commands that the blocks of a page show, without what stands for more (…)."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if words := re.match(r"(?:\$ )?drumgate (.*)", line.strip()):
                yield words[1]


def examples() -> Iterator[tuple[str, str]]:
    """The example at the end of the help of every tool."""
    for module in MODULES.values():
        yield "help", importlib.import_module(module).main.example.removeprefix("drumgate ")


SHOWN = [*examples(), *((page.stem, shown) for page in PAGES for shown in commands(page))]


@pytest.mark.parametrize(
    ("page", "shown"), SHOWN, ids=[f"{page}-{shown.split()[0]}" for page, shown in SHOWN]
)
def test_a_command_that_is_shown_is_one(page: str, shown: str) -> None:
    """Every option is there, every value is one that it takes, and nothing needed is missing."""
    words = shlex.split(shown.replace("\\\n", " "), comments=True)
    if words == ["--version"]:
        return
    group = main.make_context("drumgate", words.copy(), resilient_parsing=True)
    tool = main.get_command(group, words[0])
    assert tool is not None, f"no such tool: {words[0]}"
    shortened = "…" in words
    given = [word for word in words[1:] if word != "…"]
    # Patterns of what is not here match nothing.
    given = [word.replace("*", "all") for word in given]
    tool.make_context(words[0], given, parent=group, resilient_parsing=shortened)


# ---- what is shown is what is printed ----------------------------------------------------------


def sessions() -> Iterator[tuple[str, str]]:
    """The blocks on pages of tools that can be followed here: their input stands in examples/."""
    for tool, page in TOOL_PAGES.items():
        if not page.exists():
            continue  # test_cli says so
        for block in BLOCK.findall(page.read_text(encoding="utf-8")):
            if block.startswith("$ ") and ("examples/" in block or "_example." in block):
                yield tool, block


SESSIONS = list(sessions())


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "examples", folder / "examples")
    return folder


@pytest.mark.parametrize(("tool", "block"), SESSIONS, ids=[tool for tool, _ in SESSIONS])
def test_what_a_page_shows_is_what_is_printed(
    tool: str,
    block: str,
    checkout: Path,
    monkeypatch: pytest.MonkeyPatch,
    drumgate: Callable[..., Result],
) -> None:
    bare = "examples/" not in block
    monkeypatch.chdir(checkout / "examples" if bare else checkout)
    code = 0
    for step in re.split(r"^\$ ", block.replace("\\\n", " "), flags=re.MULTILINE)[1:]:
        command, _, said = step.partition("\n")
        if command.startswith("cd "):
            monkeypatch.chdir(command[3:])
            continue
        if command == "echo $?":
            printed = f"{code}\n"
        elif command.startswith("drumgate "):
            result = drumgate(command.removeprefix("drumgate "))
            code, printed = result.exit_code, result.output
        else:
            printed = subprocess.run(
                shlex.split(command), capture_output=True, text=True, check=True
            ).stdout
        lines = printed.rstrip("\n").splitlines()
        shown = said.rstrip("\n").splitlines()
        assert matches(lines, shown), f"shown:\n{said}\nprinted:\n{printed}"


def matches(lines: list[str], shown: list[str]) -> bool:
    """Whether lines are those shown; a line of … stands for any number of them."""
    if not shown:
        return not lines
    if shown[0].strip() == "…":
        return any(matches(lines[start:], shown[1:]) for start in range(len(lines) + 1))
    return bool(lines) and alike(lines[0], shown[0]) and matches(lines[1:], shown[1:])


def alike(line: str, shown: str) -> bool:
    """Whether two lines say the same, but for spaces and the last digits of numbers."""
    numbers = [NUMBER.findall(text) for text in (line, shown)]
    words = [NUMBER.sub("0", text).split() for text in (line, shown)]
    return words[0] == words[1] and all(
        math.isclose(float(one), float(other), rel_tol=1e-3, abs_tol=1e-4)
        for one, other in zip(*numbers, strict=True)
    )


def test_sessions_are_found() -> None:
    assert len(SESSIONS) >= 12


# ---- links and words ---------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = sum(each == name or each.startswith(f"{name}-") for each in found)
        found.add(f"{name}-{number}" if name in found else name)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def test_every_page_is_reached_from_the_readme() -> None:
    reached, ahead = set(), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve()
            if file.suffix == ".md" and file.is_file():
                ahead.append(file)
    assert set(PAGES) <= reached


# What docs/words.md, or habit, has one word for.
OTHER_WORDS = {
    r"data sets?\b": "dataset",
    r"(?:macro|micro)-F1": "macro F1",
}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_one_word_for_one_thing(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for pattern, word in OTHER_WORDS.items():
        assert not re.search(rf"\b{pattern}", text), f"say {word}"


def test_every_key_of_a_report_is_documented() -> None:
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    for path in (ROOT / "examples").glob("*/report.json"):
        report = json.loads(path.read_text(encoding="utf-8"))
        keys = set(report).union(*report["gating_results"])
        assert [key for key in sorted(keys) if f"`{key}`" not in text] == [], path.parent.name
