"""What GitHub Actions is told: annotations, the summary and the outputs of a step."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from reports import HOSTILE, hostile_report, report, row, waived
from training.errors import DrumgateError, InputError, Problem, printable
from training.render import RENDERERS, github, show

COMMAND = re.compile(r"::(error|warning|notice)(?: ([^:]*?))?::(.*)")


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """Read a command as the runner does (ActionCommand.TryParseV2)."""
    found = COMMAND.fullmatch(line)
    assert found, line
    level, properties, message = found.groups()
    pairs = dict(pair.split("=", 1) for pair in (properties or "").split(",") if pair)
    escapes = {"%0D": "\r", "%0A": "\n", "%3A": ":", "%2C": ",", "%25": "%"}

    def read(text: str) -> str:
        for escape, meant in escapes.items():
            text = text.replace(escape, meant)
        return text

    return level, {key: read(value) for key, value in pairs.items()}, read(message)


def commands(text: str) -> list[tuple[str, dict[str, str], str]]:
    return [parsed(line) for line in text.splitlines()]


def runs_as_command(line: str) -> bool:
    """Whether the runner would take a line of a stream for a command (both of its parsers)."""
    return line.lstrip().startswith("::") or "##[" in line


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a manifest in it; the command runs in a folder below its root."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a,b: 100%.jsonl").write_text("{}\n")
    monkeypatch.setenv("GITHUB_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path / "data")
    return tmp_path


def test_each_outcome_has_its_level() -> None:
    rows = [row(kind, kind) for kind in ("pass", "warn", "fail", "not_measured", "error")]
    rows.append(row("excused", "not_measured", passed=True, required=False))
    found = commands(github.render_github(report([*rows, waived()], warnings=["careful"])))
    named = {properties.get("title", message): level for level, properties, message in found}
    assert named == {
        "some-tool": "notice",
        "warn": "warning",
        "fail": "error",
        "not_measured": "error",
        "error": "error",
        "excused": "warning",
        "x.waived": "notice",
        "careful": "warning",
    }


def test_a_waiver_names_who_and_until_when() -> None:
    text = github.render_github(report([waived()]))
    assert "waived by Ada until 2027-01-31: old mic" in text
    assert "::error" not in text


def test_a_gate_is_shown_at_the_file_that_it_judged(checkout: Path) -> None:
    name = "a,b: 100%.jsonl"
    made = report(
        [row("health.x", "fail"), row("openset.y", "fail"), row("boundary", "not_measured")],
        parameters={"health": {"events": [name]}, "openset": {"predictions": "gone.jsonl"}},
        inputs=[
            {"path": each, "sha256": "", "bytes": 0, "records": 0} for each in (name, "gone.jsonl")
        ],
    )
    text = github.render_github(made)
    assert "file=data/a%2Cb%3A 100%25.jsonl,title=health.x::" in text
    found = {properties["title"]: properties.get("file") for _, properties, _ in commands(text)}
    assert found["health.x"] == f"data/{name}"
    assert found["openset.y"] is None, "there is no such file in the checkout"
    assert found["boundary"] == f"data/{name}", "no check of that name: the first input"


def test_a_file_outside_the_checkout_is_not_named(checkout: Path, tmp_path: Path) -> None:
    for path in ("/etc/hostname", "-", str(checkout / "data"), "no such"):
        assert str(github.Annotation("error", "x", path=path, line=3)) == "::error::x"


def test_problems_are_shown_at_their_lines(checkout: Path) -> None:
    name = "a,b: 100%.jsonl"
    error = InputError([Problem(name, "is odd", 3, "onset_time", got="x\n::y")], total=25)
    found = commands(github.render_problems(error))
    assert found[0] == (
        "error",
        {"file": f"data/{name}", "line": "3", "title": "bad input"},
        'onset_time: is odd (got "x\\n::y")',
    )
    assert found[1][2].startswith("24 more")
    assert commands(github.render_problems(DrumgateError("no"))) == [
        ("error", {"title": "bad input"}, "no")
    ]


@pytest.mark.parametrize(("count", "lines", "more"), [(10, 10, None), (11, 10, 2), (500, 10, 491)])
def test_at_most_ten_of_a_kind_and_how_many_more(count: int, lines: int, more: int | None) -> None:
    text = github.render_github(report([row(f"g{i}", "fail") for i in range(count)]))
    errors = [message for level, _, message in commands(text) if level == "error"]
    assert len(errors) == lines
    assert (f"{more} more are not shown" in errors[-1]) == (more is not None)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_data_becomes_a_command(text: str) -> None:
    made = github.render_github(hostile_report(text))
    assert all(line.isprintable() for line in made.splitlines())
    assert [level for level, _, _ in commands(made)].count("error") == 3
    shown = github.inert(RENDERERS["text"](hostile_report(text)))
    assert not any(runs_as_command(line) for line in shown.splitlines())


def test_the_text_beside_annotations_is_guarded(capsys: pytest.CaptureFixture[str]) -> None:
    made = report([row("x", "fail", detail="::error::forged ##[add-mask]x")])
    show(made, "text")
    assert any(runs_as_command(line) for line in capsys.readouterr().out.splitlines())
    show(made, "text", guard=True)
    assert not any(runs_as_command(line) for line in capsys.readouterr().out.splitlines())


@given(st.text(st.sampled_from(" \t:#[]a\n\r%,"), max_size=12))
def test_inert_text_holds_no_command(text: str) -> None:
    assert not any(runs_as_command(line) for line in re.split(r"[\r\n]+", github.inert(text)))


@given(st.text(max_size=30), st.text(max_size=30))
def test_annotations_say_what_they_were_given(message: str, title: str) -> None:
    line = str(github.Annotation("error", message, title))
    level, properties, said = parsed(line)
    assert level == "error"
    assert said == printable(message)
    assert properties.get("title", "") == printable(title)


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder with the files that a running step may append to."""
    for name in ("OUTPUT", "STEP_SUMMARY"):
        (tmp_path / name).write_text("")
        monkeypatch.setenv(f"GITHUB_{name}", str(tmp_path / name))
    return tmp_path


def outputs(step: Path) -> dict[str, str]:
    text = (step / "OUTPUT").read_text()
    found = re.findall(r"^([\w-]+)<<(\S+)\n(.*?)\n\2$", text, re.MULTILINE | re.DOTALL)
    return {name: value for name, _, value in found}


def test_outputs_hold_any_value(step: Path) -> None:
    values = {"report": "a\nstatus=pass\nEOF\nb", "status": "fail"}
    github.write_outputs(values)
    assert outputs(step) == values
    ends = re.findall(r"<<(\S+)", (step / "OUTPUT").read_text())
    assert len(set(ends)) == 2
    assert all(len(end) > 40 for end in ends)


def test_the_summary_stays_within_its_limit(step: Path) -> None:
    rows = [row(f"gate{i}", "fail", detail="é" * 300) for i in range(3000)]
    (step / "STEP_SUMMARY").write_text("x" * 5000)
    github.write_summary(report(rows))
    assert 900_000 < (step / "STEP_SUMMARY").stat().st_size <= 2**20
    assert "more gates are left out" in (step / "STEP_SUMMARY").read_text()
    (step / "STEP_SUMMARY").write_text("x" * 2**20)
    github.write_summary(report(rows))
    assert (step / "STEP_SUMMARY").stat().st_size == 2**20


def test_nothing_is_written_outside_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    github.write_outputs({"a": "b"})
    github.write_summary(report())


def test_a_summary_that_cannot_be_written_is_said(
    step: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(step / "none" / "x"))
    with pytest.raises(DrumgateError, match="cannot be written"):
        github.write_summary(report())


OPENSET = "openset-eval --ground-truth {0}/labels.jsonl --predictions {0}/predictions.jsonl"


EXAMPLE = OPENSET.format(ROOT / "examples" / "openset_eval" / "fail" / "missing_prediction")


def test_a_command_tells_the_step(drumgate: Callable[..., Result], step: Path) -> None:
    result = drumgate(f"{EXAMPLE} --strict --github --report {step}/r.json")
    assert result.exit_code == 1
    assert "::error" in result.stdout
    found = outputs(step)
    assert found["status"] in ("fail", "not_measured")
    assert int(found["blocking"]) >= 1
    assert found["report"] == f"{step}/r.json"
    assert "What blocks" in (step / "STEP_SUMMARY").read_text()


def test_json_on_stdout_stays_json(drumgate: Callable[..., Result], step: Path) -> None:
    result = drumgate(f"{EXAMPLE} --github --format json")
    assert json.loads(result.stdout)["tool"] == "openset-eval"
    assert "::notice" in result.stderr


def test_bad_input_is_told_too(drumgate: Callable[..., Result], step: Path) -> None:
    result = drumgate("openset-eval --ground-truth no --predictions no --github")
    assert result.exit_code == 2
    assert "::error title=bad input::no such file" in result.stderr
    assert outputs(step)["status"] == "error"
    assert "nothing was judged" in (step / "STEP_SUMMARY").read_text()
    silent = drumgate("openset-eval --ground-truth no --predictions no")
    assert "::error" not in silent.stderr


def test_findings_of_a_manifest_are_shown_at_their_lines(
    drumgate: Callable[..., Result], checkout: Path
) -> None:
    good = {"sample_id": "a", "session_id": "s", "onset_time": 0.5, "components": []}
    lines = [json.dumps({**good, "sample_id": f"a{i}"}) for i in range(20)]
    lines[2] = json.dumps({**good, "onset_time": "::error::0.5\n"})
    lines[4] = lines[5]
    (checkout / "data" / "m.jsonl").write_text("\n".join(lines) + "\n")
    result = drumgate("validate-manifest m.jsonl --format github")
    found = [line for line in result.stdout.splitlines() if line]
    assert found[0].startswith("::error file=data/m.jsonl,line=3,title=")
    assert "onset_time" in found[0]
    assert all(parsed(line) for line in found)
