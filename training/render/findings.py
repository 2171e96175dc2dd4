"""What `validate-manifest` found: text, JSON Lines, SARIF for code scanning, annotations."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from training import __version__
from training.errors import UNSET, printable, shorten
from training.manifest import to_json
from training.metrics.finding_rules import RULES, Rule
from training.render.github import Annotation, capped, without_place

if TYPE_CHECKING:
    from training.checks.validate import Finding, Validation

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def render_text(found: Validation) -> str:
    """Return a line for each finding, then the counts by rule and the conclusion."""
    return _text(finding_lines(found), found)


def render_consistency(found: Validation) -> str:
    """Return the same without the findings of the schema, for where these were said already."""
    return _text(finding_lines(found, schema=False), found)


def _text(lines: list[str], found: Validation) -> str:
    return "\n".join([*lines, *([""] if lines else []), summary_text(found)]) + "\n"


def finding_lines(found: Validation, *, schema: bool | None = None) -> list[str]:
    """Return a line for each finding: all, or only those (not) of the schema."""
    return [
        f"{finding.problem} [{finding.rule}{_extent(finding)}]"
        for finding in found.findings
        if schema is None or RULES[finding.rule].schema is schema
    ]


def _extent(finding: Finding) -> str:
    return f": {finding.events:,} events" if finding.events > 1 else ""


def summary_text(found: Validation) -> str:
    """Return the counts by rule, complete, and in the last line what was checked."""
    width = max((len(rule) for rule in found.counts), default=0)
    rows = []
    for rule, count in found.counts.items():
        events = f" in {count.events:,} events" if count.events != count.findings else ""
        rows.append(f"{RULES[rule].level:<7}  {rule:<{width}}  {count.findings:,}{events}")
    if found.hidden:
        rows.append(f"{found.hidden:,} more findings are counted above and not shown")
    checked = [f"{found.records:,} valid {_NOUNS[found.record]}", _files(len(found.inputs))]
    if found.audio_files is not None:
        checked.append(f"{found.audio_headers:,} of {found.audio_files:,} audio files read")
    errors, warnings = found.total("error"), found.total("warning")
    verdict = f"{_many(errors, 'error')}, {_many(warnings, 'warning')}"
    return "\n".join([*rows, f"validate-manifest: {verdict} ({', '.join(checked)})"])


_NOUNS = {"event": "events", "ground_truth": "ground-truth records", "prediction": "predictions"}


def _many(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _files(number: int) -> str:
    return _many(number, "file")


def render_jsonl(found: Validation) -> str:
    """Return one JSON object a finding, and a last one with the counts.

    A finding has `type: "finding"`, `rule`, `level`, `path`, `line`, `field`, `why`, `events` and,
    where there is a value to show, `got`. The last has `type: "summary"`.
    """
    return "".join(to_json(row, indent=None) + "\n" for row in _rows(found))


def _rows(found: Validation) -> Iterator[dict[str, Any]]:
    for finding in found.findings:
        problem = finding.problem
        row: dict[str, Any] = {
            "type": "finding",
            "rule": finding.rule,
            "level": finding.level,
            "path": problem.path,
            "line": problem.line,
            "field": problem.field,
            "why": problem.why,
            "events": finding.events,
        }
        if problem.got is not UNSET:
            row["got"] = problem.got
        yield row
    yield {
        "type": "summary",
        "tool": "validate-manifest",
        "version": __version__,
        **_totals(found),
    }


def _totals(found: Validation) -> dict[str, Any]:
    return {
        "record": found.record,
        "inputs": list(found.inputs),
        "records": found.records,
        "audio_files": found.audio_files,
        "audio_headers": found.audio_headers,
        "errors": found.total("error"),
        "warnings": found.total("warning"),
        "shown": len(found.findings),
        "counts": {
            rule: {
                "level": RULES[rule].level,
                "findings": count.findings,
                "events": count.events,
            }
            for rule, count in found.counts.items()
        },
    }


def render_sarif(found: Validation) -> str:
    """Return a SARIF 2.1.0 log with one run, as GitHub code scanning reads it.

    Paths are relative to the working directory, which should be the root of the checkout; those
    outside it become absolute `file:` addresses. Nothing in it changes from run to run.
    """
    order = {rule: index for index, rule in enumerate(RULES)}
    met: Counter[str] = Counter()
    made = {
        "tool": {
            "driver": {
                "name": "drumgate validate-manifest",
                "semanticVersion": __version__,
                "rules": [_sarif_rule(rule) for rule in RULES.values()],
            }
        },
        "columnKind": "unicodeCodePoints",
        "invocations": [_invocation(found)],
        "results": [_sarif_result(each, order, met) for each in found.findings],
        "properties": _totals(found),
    }
    return to_json({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [made]}) + "\n"


def render_github(found: Validation) -> str:
    """Return an annotation for each finding, at its file and line, as GitHub Actions shows them."""
    made = [
        Annotation(
            finding.level,
            f"{without_place(finding.problem)}{_extent(finding)}",
            finding.rule,
            finding.problem.path,
            finding.problem.line,
        )
        for finding in found.findings
    ]
    totals = {level: found.total(level) for level in ("error", "warning")}
    return capped(made, totals)


def _sarif_rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.id.split("-")),
        "shortDescription": {"text": f"{rule.title}."},
        "fullDescription": {"text": f"{rule.title}. {rule.help}"},
        "help": {"text": rule.help, "markdown": rule.help},
        "defaultConfiguration": {"level": rule.level},
        "properties": {
            "tags": ["manifest", "schema" if rule.schema else "consistency"],
            "problem.severity": rule.level,
            "precision": "very-high",
        },
    }


def _invocation(found: Validation) -> dict[str, Any]:
    """Say whether all could be checked, and that there is more than is listed."""
    made: dict[str, Any] = {"executionSuccessful": True}
    if found.hidden:
        text = f"{found.hidden:,} more findings are counted in the properties and not listed."
        made["toolExecutionNotifications"] = [{"level": "note", "message": {"text": text}}]
    return made


def _sarif_result(finding: Finding, order: dict[str, int], met: Counter[str]) -> dict[str, Any]:
    problem = finding.problem
    place: dict[str, Any] = {"artifactLocation": _artifact(problem.path)}
    if problem.line:
        place["region"] = {"startLine": problem.line}
    text = str(problem).removeprefix(problem.path)
    text = text.removeprefix(f":{problem.line}").removeprefix(": ")
    said = text[:1].upper() + text[1:] if problem.field is None else text
    events = f" This concerns {finding.events:,} events." if finding.events > 1 else ""
    return {
        "ruleId": finding.rule,
        "ruleIndex": order[finding.rule],
        "level": finding.level,
        "message": {"text": _plain_message(f"{printable(said)}.{events}")},
        "locations": [{"physicalLocation": place}],
        "partialFingerprints": {
            "drumgateFinding/v1": _fingerprint(finding, met),
        },
    }


def _plain_message(text: str) -> str:
    """Escape what SARIF reads as a placeholder (3.11.5) or could read as a link (3.11.6)."""
    if "](" in text:
        text = re.sub(r"([\\\[\]])", r"\\\1", text)
    return text.replace("{", "{{").replace("}", "}}")


def _fingerprint(finding: Finding, met: Counter[str]) -> str:
    """Identify a finding without its line: it stays the same when lines are added above it."""
    problem = finding.problem
    got = "" if problem.got is UNSET else shorten(problem.got, 1000)
    identity = "\0".join((finding.rule, problem.path, problem.field or "", got))
    digest = hashlib.sha256(identity.encode()).hexdigest()[:32]
    met[digest] += 1
    return f"{digest}:{met[digest]}"


def _artifact(path: str) -> dict[str, str]:
    if path == "-":
        return {"uri": "stdin"}
    full, here = Path(os.path.abspath(path)), Path.cwd()
    if full.is_relative_to(here):
        return {"uri": quote(full.relative_to(here).as_posix()), "uriBaseId": "%SRCROOT%"}
    return {"uri": full.as_uri()}


FORMATS: Final[dict[str, Callable[[Validation], str]]] = {
    "text": render_text,
    "jsonl": render_jsonl,
    "sarif": render_sarif,
    "github": render_github,
}
