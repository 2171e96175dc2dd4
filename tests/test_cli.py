"""What holds for every command: help with an example, a light start, exit codes."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from conftest import ROOT

from training import options
from training.cli import MODULES, main
from training.errors import BlockedError, InputError

HEAVY = (
    "torch",
    "librosa",
    "sklearn",
    "matplotlib",
    "scipy",
    "duckdb",
    "pyarrow",
    "numpy",
    "jinja2",
)
TOOLS = sorted(MODULES)
EXAMPLE = ROOT / "examples" / "openset_eval" / "pass" / "separated"


def test_help_lists_every_tool(drumgate: Callable[..., Result]) -> None:
    said = drumgate("--help").stdout
    for tool in TOOLS:
        assert tool in said


@pytest.mark.parametrize("tool", TOOLS)
def test_help_is_complete(tool: str, drumgate: Callable[..., Result]) -> None:
    result = drumgate(f"{tool} --help")
    assert result.exit_code == 0
    assert result.stdout.count("Example:") == 1
    command = importlib.import_module(MODULES[tool]).main
    assert command.help
    assert command.example
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{tool} {parameter.name} has no help"


@pytest.mark.parametrize("tool", TOOLS)
def test_the_example_names_real_options(tool: str) -> None:
    command = importlib.import_module(MODULES[tool]).main
    known = {name for parameter in command.params for name in parameter.opts}
    words = command.example.replace("\\\n", " ").split()
    assert any(
        MODULES[tool].replace(".", "/") + ".py" in word or "drumgate" in word for word in words
    )
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("tool", TOOLS)
def test_every_tool_file_is_thin_and_documented(tool: str) -> None:
    path = ROOT / f"{MODULES[tool].replace('.', '/')}.py"
    assert len(path.read_text().splitlines()) <= 150
    page = ROOT / "docs" / "tools" / f"{tool.replace('-', '_')}.md"
    assert page.is_file(), f"{page.name} is missing"
    assert page.read_text().startswith(f"# {tool}\n")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from training.cli import MODULES, main\n"
        "for tool in MODULES:\n"
        "    assert CliRunner().invoke(main, [tool, '--help']).exit_code == 0, tool\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_evaluation_loads_no_torch() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from training.cli import main\n"
        "done = CliRunner().invoke(main, ['openset-eval', '--ground-truth', 'labels.jsonl',"
        " '--predictions', 'predictions.jsonl'])\n"
        "assert done.exit_code == 0, done.output\n"
        "print([name for name in ('torch', 'librosa', 'sklearn') if name in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLE, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words",
    [
        [sys.executable, str(ROOT / "training" / "openset_eval.py")],
        [sys.executable, "-m", "training.openset_eval"],
        [str(Path(sys.executable).parent / "drumgate"), "openset-eval"],
    ],
)
def test_three_ways_to_call(words: Sequence[str]) -> None:
    arguments = ["--ground-truth", "labels.jsonl", "--predictions", "predictions.jsonl"]
    done = subprocess.run([*words, *arguments], cwd=EXAMPLE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "openset-eval: PASS" in done.stdout


def ending(raised: BaseException | None, *arguments: str) -> Result:
    @options.command(example="x")
    def tool() -> None:
        """Do nothing, or fail."""
        if raised:
            raise raised

    return CliRunner().invoke(tool, list(arguments))


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (None, 0, ""),
        (InputError.at("x.jsonl", "is odd", line=3), 2, "x.jsonl:3: is odd"),
        (click.BadParameter("no"), 2, "no"),
        (click.ClickException("no"), 2, "no"),
        (click.FileError("x"), 2, "x"),
        (BlockedError("not ready"), 1, "not ready"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (ZeroDivisionError("oops"), 70, "internal error: ZeroDivisionError: oops"),
        (BrokenPipeError(), 0, ""),
    ],
)
def test_exit_codes(raised: BaseException | None, code: int, said: str) -> None:
    result = ending(raised)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_verbose_shows_where_an_internal_error_came_from() -> None:
    assert "Traceback" in ending(ZeroDivisionError(), "-v").stderr
    assert "Traceback" not in ending(InputError.at("x", "is odd"), "-v").stderr


def test_numbers_must_be_finite(drumgate: Callable[..., Result]) -> None:
    files = f"--ground-truth {EXAMPLE}/labels.jsonl --predictions {EXAMPLE}/predictions.jsonl"
    result = drumgate(f"openset-eval {files} --min-auroc nan")
    assert result.exit_code == 2
    assert "not a finite number" in result.stderr


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("algin-qc", "'align-qc'?"),
        ("align_qc", "'align-qc'?"),
        ("no-such-thing-at-all", "at-all'.\n"),
    ],
)
def test_an_unknown_tool_is_answered_with_the_nearest(
    typed: str, said: str, drumgate: Callable[..., Result]
) -> None:
    result = drumgate(typed)
    assert result.exit_code == 2
    assert result.stderr.endswith(f"{said}\n" if said.endswith("?") else said)


def test_bad_usage() -> None:
    assert ending(None, "--bogus").exit_code == 2
    assert CliRunner().invoke(main, ["no-such-tool"]).exit_code == 2
    assert CliRunner().invoke(main, ["--version"]).exit_code == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("drumgate al", "plain,align-qc"),
        ("drumgate openset-eval --method max_l", "plain,max_logit"),
        ("drumgate align-qc --manifest ", "file,"),
        ("drumgate dataset-health --events ", "file,"),
        ("drumgate summarize-manifest ", "file,"),
        ("drumgate no-such-tool --m", ""),
    ],
)
def test_a_shell_completes_what_is_typed(words: str, said: str) -> None:
    typed = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = CliRunner(env={**typed, "_DRUMGATE_COMPLETE": "bash_complete"}).invoke(
        main, [], prog_name="drumgate"
    )
    assert done.stdout.strip() == said
    assert done.exit_code == 0


@pytest.mark.parametrize("words", ["build-training-dataset e.jsonl OUT", "predict --model m.pth"])
@pytest.mark.parametrize("given", ["a", "=b", "a=", "a=b --audio-root-map a=c"])
def test_a_source_has_one_folder(words: str, given: str, drumgate: Callable[..., Result]) -> None:
    result = drumgate(f"{words} --audio-root-map {given}")
    assert result.exit_code == 2
    assert "SOURCE=DIR" in result.stderr or "'a' is given twice" in result.stderr


def test_it_works_without_a_checkout(tmp_path: Path) -> None:
    """Laid out as in a wheel and called from elsewhere, it finds thresholds and templates."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    site = tmp_path / "site"
    pairs = {name: name for name in wheel["packages"]} | wheel["force-include"]
    for source, target in pairs.items():
        shutil.copytree(ROOT / source, site / target, ignore=shutil.ignore_patterns("__pycache__"))
    # What is not ours: a folder where one stands, and one that came with another distribution.
    (tmp_path / "tools").mkdir()
    (site / "configs").mkdir()
    (site / "configs" / "gates.toml").write_text("[openset.min_auroc]\nvalue = 2.0\n")
    start = f"import training.cli as t; assert t.__file__.startswith({str(site)!r}); t.main()"
    page = tmp_path / "page.html"
    files = [f"--ground-truth={EXAMPLE}/labels.jsonl", f"--predictions={EXAMPLE}/predictions.jsonl"]
    for arguments, said in (
        (["openset-eval", *files, "--html-output", str(page)], "openset-eval: PASS"),
        (["run-readiness-checks", "--list"], "openset.min_auroc"),
    ):
        done = subprocess.run(
            [sys.executable, "-P", "-c", start, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert "openset.min_auroc" in page.read_text(encoding="utf-8")


@pytest.mark.parametrize("tool", ["bootstrap-eval", "calibrate"])
@pytest.mark.parametrize("names", ["''", "kick,,snare", ","])
def test_a_list_without_a_name_does_not_mean_all(
    tool: str, names: str, drumgate: Callable[..., Result]
) -> None:
    files = f"--ground-truth {EXAMPLE}/labels.jsonl --predictions {EXAMPLE}/predictions.jsonl"
    result = drumgate(f"{tool} {files} --labels {names}")
    assert result.exit_code == 2
    assert "holds an empty name" in result.stderr


def test_every_tool_that_judges_takes_the_same_flags() -> None:
    shared = {"--report", "--html-output", "--junit", "--markdown", "--format", "--gates"}
    judging = 0
    for module in MODULES.values():
        flags = {name for each in importlib.import_module(module).main.params for name in each.opts}
        if "--github" in flags and "--junit" in flags:
            judging += 1
            assert shared <= flags, module
    assert judging >= 12
