"""What a readiness run writes besides its report, and what it says of a run that was not made."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from training import options
from training.checks.readiness_checks import CHECKS
from training.checks.readiness_plan import Options, Plan, Planned, make_plan
from training.checks.readiness_run import Outcome
from training.checks.waivers import Waivers, read_waivers
from training.errors import printable, shorten
from training.gates.model import Threshold
from training.manifest import to_json, write_text
from training.render import RENDERERS
from training.render.text import figure

_WORDS: Final = {
    "run": "WOULD RUN",
    "block": "WOULD BLOCK",
    "warn": "WOULD WARN",
    "refuse": "BAD INPUT",
}


def show_plan(asked: Options, form: str, *, everything: bool) -> None:
    """Print all that can be run (`everything`) or what would be run, as `text` or `json`.

    Raises:
        DrumgateError: as `make_plan`, and for waivers that cannot be read.
    """
    plan = make_plan(asked)
    waivers = read_waivers(plan.waivers) if plan.waivers else None
    data = catalogue(plan) if everything else preview(plan, waivers)
    if form != "text":
        return options.say(to_json(data) + "\n")
    written = render_catalogue(data) if everything else render_preview(data)
    options.say(wrapped(written) if sys.stdout.isatty() else written)


def wrapped(text: str) -> str:
    """Break long lines for a terminal, each below where it begins."""
    width = shutil.get_terminal_size().columns
    lines = []
    for line in text.splitlines():
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        lines += textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False) or [
            ""
        ]
    return "\n".join(lines) + "\n"


def write_parts(
    outcomes: Sequence[Outcome], reports: Mapping[str, Path | None], index: Path | None
) -> None:
    """Write the report of each check where `reports` says, and its page beside the index.

    All is rendered before anything is written.
    """
    files: list[tuple[Path, str]] = []
    for outcome in outcomes:
        if outcome.report is None:
            continue
        data = outcome.report.to_dict()
        if path := reports.get(outcome.check):
            files.append((path, RENDERERS["json"](data)))
        if index:
            files.append((index.parent / f"{outcome.check}.html", RENDERERS["html"](data)))
    for path, text in files:
        write_text(path, text)


def catalogue(plan: Plan) -> dict[str, Any]:
    """Return every check that there is: what it needs, its gates, and whether it has its input."""
    planned = {each.check.name: each for each in plan.checks}
    return {
        "checks": [
            {
                "name": check.name,
                "tool": check.tool,
                "about": check.about,
                "needs": [list(group) for group in check.needs],
                "flags": [check.flag(group[0]) for group in check.needs],
                "only_asked": check.only_asked,
                "selected": check.name in planned,
                "missing": planned[check.name].missing if check.name in planned else None,
                "gates": [_gate(threshold) for threshold in check.thresholds.values()],
            }
            for check in CHECKS.values()
        ]
    }


def preview(plan: Plan, waivers: Waivers | None) -> dict[str, Any]:
    """Return what a run would do with each check, with which inputs, options and thresholds."""
    return {
        "checks": [_preview(each) for each in plan.checks],
        "config": plan.config.source.path if plan.config else None,
        "waivers": [
            {"gate": each.gate, "who": each.who, "reason": each.reason, "expires": each.expires}
            for each in (waivers.waivers if waivers else ())
        ],
    }


def render_catalogue(data: Mapping[str, Any]) -> str:
    """Return the catalogue as text."""
    lines: list[str] = []
    for check in data["checks"]:
        state = "not selected"
        if check["selected"]:
            state = "input missing" if check["missing"] else "input given"
        lines += [
            f"{check['name']}: {state}",
            f"  {check['about']}",
            f"  runs      {check['tool']}",
            f"  needs     {', '.join(' or '.join(group) for group in check['needs'])}"
            f" ({' '.join(check['flags'])})",
        ]
        judges = "judges, of those that are asked for" if check["only_asked"] else "judges"
        lines.append(f"  {judges}")
        lines += [f"    {text}" for text in _table(check["gates"])]
        lines.append("")
    return "\n".join(lines)


def render_preview(data: Mapping[str, Any]) -> str:
    """Return what a run would do as text."""
    checks = data["checks"]
    running = sum(each["would"] == "run" for each in checks)
    lines = [f"run-readiness-checks: dry run: {running} of {len(checks)} checks would run"]
    for each in checks:
        lines.append(f"  {_WORDS[each['would']]:<12}  {each['name']}")
        notes = [each["missing"]] if each["missing"] else []
        if each["severity"] == "warn":
            notes.append(f"only warns: {each['reason']}")
        for name, paths in each["inputs"].items():
            notes.append(f"{name}: {_listed(paths) or 'none'}")
        notes += [f"{name} = {shorten(value)}" for name, value in each["options"].items()]
        if each["after"]:
            notes.append(f"candidate: the report of {each['after']}")
        if not each["gates"]:
            notes.append("no gate is asked for: it would judge nothing, and block")
        notes += _table(each["gates"])
        lines += [f"      {printable(note)}" for note in notes]
    lines += [
        f"  {'WAIVED':<12}  {printable(each['gate'])} until {each['expires']}"
        f" by {printable(each['who'])}: {printable(each['reason'])}"
        for each in data["waivers"]
    ]
    return "\n".join(lines) + "\n"


def _preview(planned: Planned) -> dict[str, Any]:
    would, missing = "run", planned.missing
    gone = [str(path) for paths in planned.inputs.values() for path in paths if _gone(path)]
    if not missing and gone:
        would, missing = "refuse", f"not there, though a flag names it: {_listed(gone)}"
    if planned.missing:
        excused = planned.allowed or not planned.required or planned.severity == "warn"
        would = "warn" if excused else "block"
    fields = planned.check.fields
    return {
        "name": planned.check.name,
        "would": would,
        "missing": missing,
        "required": planned.required and not planned.allowed,
        "severity": planned.severity,
        "reason": planned.reason,
        "after": planned.after,
        "inputs": {name: [str(path) for path in paths] for name, paths in planned.inputs.items()},
        "options": {
            name: value for name, value in planned.given.items() if fields[name].kind == "option"
        },
        "gates": [_gate(threshold) for threshold in planned.thresholds().values()],
    }


def _gone(path: Path) -> bool:
    return str(path) != "-" and not path.exists()


def _gate(threshold: Threshold) -> dict[str, Any]:
    return {
        "name": threshold.name,
        "comparator": threshold.comparator,
        "value": threshold.value,
        "unit": threshold.unit,
        "decide_on": threshold.decide_on,
        "required": threshold.required,
        "production": threshold.production,
        "reason": threshold.reason,
    }


def _table(gates: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a gate: what it asks for, on which bound, and whether it only advises."""
    width = max((len(gate["name"]) for gate in gates), default=0)
    lines = []
    for gate in gates:
        text = (
            f"{gate['name']:<{width}}  {gate['comparator']} {figure(gate['value'], gate['unit'])}"
        )
        if gate["decide_on"] != "point":
            text += f" ({gate['decide_on']} bound)"
        if not gate["required"]:
            text += ", only warns"
        if gate["production"] not in (None, gate["value"]):
            text += f" · production {figure(gate['production'], gate['unit'])}: {gate['reason']}"
        lines.append(text)
    return lines


def _listed(paths: Sequence[str], most: int = 4) -> str:
    more = len(paths) - most
    return ", ".join(paths[:most]) + (f" and {more} more" if more > 0 else "")
