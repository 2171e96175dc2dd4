"""What a person sees: colour and progress on a terminal, plain text elsewhere, advice on errors."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from click.testing import CliRunner, Result
from conftest import ROOT

from reports import report, row, waived
from training import options, progress
from training.errors import DrumgateError, InputError, Problem
from training.hints import hint
from training.render import RENDERERS
from training.render.readiness import wrapped
from training.render.text import print_rich
from training.steps import steps

DRUMGATE = Path(sys.executable).parent / "drumgate"
SAMPLE = ROOT / "examples" / "show_report" / "pass" / "sample" / "report.json"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

SLOW = """
import sys, time
from training import options
from training.steps import steps
@options.command(example="x")
def main():
    "Take a while."
    for number in steps(range(30), "counting [b]\\x07"):
        time.sleep(0.07)
        if number == 25: options.warn("careful")
    options.echo("done")
main()
"""


def on_terminal(
    *words: str | Path, stdout: IO[bytes] | None = None, **environment: str
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal; return its exit code and all that it wrote there."""
    main, other = pty.openpty()
    env = {"PATH": os.environ["PATH"], "TERM": "xterm-256color", "COLUMNS": "100", **environment}
    process = subprocess.Popen(
        list(map(str, words)), stdin=other, stdout=stdout or other, stderr=other, env=env, cwd=ROOT
    )
    os.close(other)
    said = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([main], [], [], 0.1)[0]:
            continue
        try:
            block = os.read(main, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        said += block
    os.close(main)
    return process.wait(10), said.decode()


def plain(text: str) -> str:
    return ESCAPE.sub("", text)


def test_a_terminal_gets_colour_and_a_pipe_the_same_words_without() -> None:
    code, said = on_terminal(DRUMGATE, "show-report", SAMPLE)
    assert code == 0
    assert "\x1b[" in said
    words = subprocess.run([DRUMGATE, "show-report", SAMPLE], capture_output=True, text=True)
    assert "\x1b" not in words.stdout
    assert words.stderr == ""
    assert words.stdout.split() == plain(said).split()


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_on_a_terminal_what_blocks_comes_last(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("LINES", "100")
    long = "x" * 45
    rows = [
        row(f"a.fails[{long}1]", "fail", detail="because of this", unit="hits"),
        row(f"a.fails[{long}2]", "fail", detail="because of that", unit="hits"),
        row("b.warns", "warn", fix="look"),
        row("c.passes"),
        row("d", "not_measured", observed=None, threshold=None, detail="no input", fix="give it"),
    ]
    print_rich(report(rows))
    said = plain(capsys.readouterr().out)
    places = [said.index(f"{word} ") for word in ("PASS", "WARN", "NOT MEASURED")]
    assert [*places, said.index("FAIL  ")] == sorted([*places, said.index("FAIL  ")])
    assert said.count("mend it") == 1
    assert ("0.5 hits  >= 0.9" in said) == (width >= 120), "a line a gate, where there is room"
    assert ("0.5 hits, asked for >= 0.9" in said) == (width < 120)
    assert all(len(line) <= width for line in said.splitlines())
    assert said.count("3 of 5 gates block") == 1
    monkeypatch.setenv("LINES", "10")
    print_rich(report(rows))
    said = plain(capsys.readouterr().out).rstrip()
    assert said.endswith("3 of 5 gates block"), "the verdict again, where it scrolled away"


@pytest.mark.parametrize("value", ["1", "yes"])
def test_no_color_is_plain(value: str) -> None:
    code, said = on_terminal(DRUMGATE, "show-report", SAMPLE, NO_COLOR=value)
    assert code == 0
    piped = subprocess.run([DRUMGATE, "show-report", SAMPLE], capture_output=True, text=True)
    assert said.replace("\r\n", "\n") == piped.stdout


def test_what_takes_long_shows_how_far_it_is() -> None:
    code, said = on_terminal(sys.executable, "-c", SLOW)
    assert code == 0
    words = plain(said)
    assert re.search(r"counting \[b\]\\x07 \S+ *\d+/30 0:00:0\d", words)
    assert re.search(r"0:00:0\d left", words)
    # The warning is above the display, which goes in the end and leaves the cursor as it was.
    assert "warning: careful" in words
    assert said.rstrip().endswith("done")
    assert said.count("\x1b[?25l") == said.count("\x1b[?25h")


def test_what_is_meant_for_a_file_does_not_come_out_on_the_terminal(tmp_path: Path) -> None:
    script = SLOW.replace("if number == 25: options.warn", "if number == 25: print")
    with (tmp_path / "out").open("wb") as file:
        code, said = on_terminal(sys.executable, "-c", script, stdout=file)
    assert code == 0
    assert (tmp_path / "out").read_text() == "careful\ndone\n"
    assert "/30" in said
    assert "careful" not in said


def test_long_lines_of_a_plan_break_below_where_they_begin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    text = "head\n\n  a line that is too long for a screen\n      --a-flag-of-some-length x y z\n"
    said = wrapped(text)
    assert said.split() == text.split()
    assert said.splitlines() == [
        "head",
        "",
        "  a line that is too long for",
        "    a screen",
        "      --a-flag-of-some-length",
        "        x y z",
    ]


REPORTS = """
import sys, time
sys.path.insert(0, "tests")
from reports import report, row
from training import options
from training.render import show
@options.command(example="x")
def main():
    "Take a while, and report."
    time.sleep(1.6)
    show(report([row("x.bad", "fail")]), "text")
main()
"""


def test_the_display_is_gone_before_the_report_comes() -> None:
    code, said = on_terminal(sys.executable, "-c", REPORTS)
    assert code == 0
    gone = "\x1b[?25h"
    assert "\x1b[?25l" in said[: said.index(gone)], "it was there"
    assert said.index(gone) < said.index("some-tool")


def test_no_color_moves_nothing() -> None:
    code, said = on_terminal(sys.executable, "-c", SLOW, NO_COLOR="1")
    assert (code, said) == (0, "warning: careful\r\ndone\r\n")


def test_a_pipe_is_quiet_and_verbose_says_how_long_steps_took() -> None:
    command = [sys.executable, "-c", SLOW]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("done\n", "warning: careful\n")
    told = subprocess.run([*command, "-v"], capture_output=True, text=True, cwd=ROOT)
    assert told.stdout == "done\n"
    assert re.search(r"^counting \[b\]\\x07: 30 in \d\.\d s$", told.stderr, re.MULTILINE)


def test_what_is_quick_shows_nothing() -> None:
    code, said = on_terminal(DRUMGATE, "show-report", SAMPLE, "--format", "json")
    assert code == 0
    assert said.startswith("{")
    assert "\x1b" not in said


@pytest.mark.parametrize("words", [["--help"], ["dataset-health", "--help"], ["--version"]])
def test_help_does_not_wait_for_rich(words: list[str]) -> None:
    code = (
        "import sys; from training.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "assert not {'rich', 'numpy', 'duckdb'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


def test_steps_give_back_what_they_were_given() -> None:
    assert list(steps(range(3), "counting")) == [0, 1, 2]
    assert list(progress.progress(iter("ab"), description="x")) == ["a", "b"]
    assert list(options.track("x")([1, 2], 2)) == [1, 2]


def test_a_step_that_is_left_early_ends() -> None:
    for number in progress.progress(range(10)):
        if number == 3:
            break
    assert progress._display._steps == []


def test_a_step_that_fails_ends() -> None:
    def fail() -> None:
        for _ in progress.progress([1]):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert progress._display._steps == []


def test_waived_gates_are_words_of_their_own() -> None:
    text = RENDERERS["text"](report([row(), waived(), row("x.bad", "fail")]))
    assert text.startswith("some-tool: FAIL: 1 of 3 gates blocks, 1 is waived\n")
    assert re.search(r"^  WAIVED +x\.waived", text, re.MULTILINE)
    assert "waived by Ada until 2027-01-31: old mic" in text


# ---- a reader that goes away ---------------------------------------------------------------------


def into_closed_pipe(*words: object, stderr: bool = False) -> int:
    """Run a command whose output nobody reads, not even its first byte."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        errors = writing if stderr else subprocess.PIPE
        # Unbuffered, nothing is left over for the end of the process to stumble on.
        env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
        command = [str(DRUMGATE), *map(str, words)]
        done = subprocess.run(command, stdout=writing, stderr=errors, env=env)
    finally:
        os.close(writing)
    assert not done.stderr or b"BrokenPipe" not in done.stderr
    assert not done.stderr or b"Exception ignored" not in done.stderr
    return done.returncode


@pytest.mark.parametrize("stderr", [False, True])
def test_nobody_reads_and_nothing_is_wrong(stderr: bool) -> None:
    assert into_closed_pipe("--help", stderr=stderr) == 0
    assert into_closed_pipe("show-report", SAMPLE, "--format", "html", stderr=stderr) == 0
    assert into_closed_pipe("show-report", "no such file", stderr=stderr) == 2
    assert into_closed_pipe("show-report", "--bogus", stderr=stderr) == 2


def test_a_verdict_stands_though_nobody_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(RENDERERS["json"](report([row("x", "fail")])))
    assert into_closed_pipe("show-report", path, "--strict") == 1


def test_a_pipe_that_breaks_inside_a_command_is_no_failure() -> None:
    @options.command(example="x")
    def tool() -> None:
        """Write to a reader that is gone."""
        raise BrokenPipeError(errno.EPIPE, "gone")

    assert CliRunner().invoke(tool, []).exit_code == 0


# ---- errors say what to do -----------------------------------------------------------------------


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text("")
    missing = tmp_path / "event.jsonl"
    assert hint(InputError.at(missing, "no such file")) == (
        f"did you mean {tmp_path / 'events.jsonl'}?"
    )
    assert hint(InputError.at(tmp_path / "zzz", "no such file")) == ""
    nowhere = tmp_path / "no" / "x.jsonl"
    assert hint(InputError.at(nowhere, "no such file")) == (
        f"the folder {tmp_path / 'no'} does not exist either"
    )


def test_many_problems_lead_to_the_tool_that_counts_them() -> None:
    problems = [Problem("a.jsonl", "is odd", line) for line in range(1, 30)]
    assert "validate-manifest" in hint(InputError(problems))
    assert hint(InputError(problems[:3])) == ""
    assert hint(DrumgateError("--x: no")) == ""


def test_the_hint_stands_below_the_message(drumgate: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text("")
    result = drumgate("show-report", tmp_path / "reprot.json")
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"{tmp_path}/reprot.json: no such file",
        f"did you mean {tmp_path}/report.json?",
    ]
