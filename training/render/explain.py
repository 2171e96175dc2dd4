"""What a page says in plain words: what a tool asks, why it blocks, by how much, and what to do.

All of it comes from a report's JSON. Commands are quoted for a shell, so that a name that comes
from data stays one word of the command.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

from training.errors import printable
from training.render.text import between, figure, waived
from training.render.titles import check_of, measure, trouble

BLOCKERS_SHOWN: Final = 8
_SUBJECTS_SHOWN: Final = 6
_SHORT: Final = 160
_ORDER: Final = ("error", "fail", "not_measured")
_ASKS: Final = {"<=": "at most", ">=": "at least", "==": "exactly"}
_BOUNDS: Final = {"lower": "the lower bound", "upper": "the upper bound"}

# Where on the page of a check to look: the gate, or all gates of a check, and the place's id.
PLACES: Final = {
    "alignment": "lag",
    "alignment.min_support": "lag",
    "boundary": "distance",
    "boundary.max_recall_lost": "parity",
    "openset": "curves",
    "bootstrap": "classes",
    "bootstrap.max_macro_f1_drop": "comparison",
    "bootstrap.max_openness_mae_rise": "comparison",
    "health": "coverage",
    "health.max_duplication_rate": "duplicates",
    "health.max_repeated_performances": "duplicates",
    "health.split_isolation": "isolation",
    "health.max_unknown_labels": "unknown",
    "health.max_unknown_techniques": "unknown",
    "health.require_techniques": "techniques",
    "health.min_openness_hits": "openness",
    "health.min_duration_s": "durations",
    "health.max_outlier_rate": "outliers",
    "health_compare": "classes",
    "health_compare.max_newly_failing_gates": "gates-compared",
    "health_compare.max_unknown_label_rises": "unknown",
    "health_compare.max_psi": "drift",
    "health_compare.max_failing_gates_blessed": "blessing",
    "calibration_validation": "reliability",
    "calibration_test": "reliability",
    "dataset": "splits",
    "onnx": "differences",
    "manifest": "findings",
}

# What to run for a gate. A name in braces is a parameter of the tool; a command of which one was
# not given is left out.
COMMANDS: Final = {
    "health.max_duplication_rate": (
        "drumgate merge-manifests {events:--input} --on-duplicate first --output merged.jsonl"
    ),
    "health.max_unknown_labels": "drumgate validate-manifest {events}",
    "health.max_unknown_techniques": "drumgate validate-manifest {events}",
    "health.max_contradicted_hits": "drumgate validate-manifest {events}",
    "health.max_outlier_rate": "drumgate validate-manifest {events}",
    "health.min_class_count": "drumgate summarize-manifest {events}",
    "health.require_labels": "drumgate summarize-manifest {events}",
    "health.require_techniques": (
        "drumgate annotate-techniques --input {events} --output annotated.jsonl"
    ),
    "health.min_openness_hits": (
        "drumgate normalize-openness --events {events} --output normalized.jsonl"
    ),
    "bootstrap.min_macro_f1": (
        "drumgate hard-negative-miner --ground-truth {ground_truth} --predictions {predictions}"
        " --output hard_negatives.jsonl"
    ),
    "health_compare": "drumgate show-report {candidate}",
    "manifest": "drumgate validate-manifest {events}",
    "calibration_validation": (
        "drumgate hard-negative-miner --ground-truth {ground_truth} --predictions {predictions}"
        " --output hard_negatives.jsonl"
    ),
}
# Of a mic whose lag jumps, the lag itself is measured again once the jump is mended.
_FOLLOWS: Final = frozenset({"alignment.max_delay_ms"})
_BLOCKED_BECAUSE: Final = {
    "error": "{} broke off with an error",
    "fail": "{} missed {}",
    "not_measured": "{} could not be measured, and what was not measured has not passed",
}
_FIELD: Final = re.compile(r"\{(\w+)(?::(--[\w-]+))?\}")


def meaning(report: Mapping[str, Any]) -> str:
    """Say what the verdict rests on, in a sentence."""
    rows = report["gating_results"]
    if not rows:
        return "Nothing was judged: no gate was asked for. The figures are below."
    blocking = [row for row in rows if not row["passed"]]
    excused = sum(map(waived, rows))
    if not blocking:
        advice = sum(row["status"] == "warn" for row in rows)
        parts = [f"{_counted(excused, 'gate')} did not pass and {_is(excused)} waived"] * bool(
            excused
        )
        parts += [
            f"{_counted(advice, 'gate')} only {'advises' if advice == 1 else 'advise'}"
        ] * bool(advice)
        return f"Nothing blocks; {'; '.join(parts)}." if parts else "Every gate lets this pass."
    counts = {status: sum(row["status"] == status for row in blocking) for status in _ORDER}
    found = {status: count for status, count in counts.items() if count}
    reasons = []
    for status, count in found.items():
        who = str(count) if len(found) > 1 else "it" if count == 1 else "they"
        its = "its limit" if count == 1 else "their limits"
        reasons.append(_BLOCKED_BECAUSE[status].format(who, its))
    block = "blocks" if len(blocking) == 1 else "block"
    besides = f" {_counted(excused, 'more gate')} {_is(excused)} waived." if excused else ""
    return (
        f"{len(blocking)} of {_counted(len(rows), 'gate')} {block}: {'; '.join(reasons)}.{besides}"
    )


def blockers(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what blocks, one entry a gate and status, the worst first.

    An entry holds `row` (the furthest from its limit), `base` (the gate), `title` (what is wrong,
    or nothing), `subject` (what was judged, or nothing), `others` (more subjects: `subject` and
    what was `seen`), `more` (how many of them are not named), `place` (where on a page to look, or
    None) and `command` (what to run, or nothing).
    """
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in report["gating_results"]:
        if not row["passed"]:
            groups.setdefault((row["name"].partition("[")[0], row["status"]), []).append(row)
    found: list[dict[str, Any]] = []
    for (base, _), rows in groups.items():
        rows = sorted(rows, key=_excess, reverse=True)
        others = [
            {"subject": _subject(row["name"]) or row["name"], "seen": figure_of(row)}
            for row in rows[1:]
        ]
        found.append(
            {
                "row": rows[0],
                "base": base,
                "title": trouble(base) if rows[0]["status"] == "fail" else "",
                "subject": _subject(rows[0]["name"]),
                "others": others[:_SUBJECTS_SHOWN],
                "more": max(len(others) - _SUBJECTS_SHOWN, 0),
                "place": _of_gate(PLACES, base),
                "command": command(base, report["parameters"]),
            }
        )
    checks = [check_of(each["base"]) for each in found]
    return sorted(
        found,
        key=lambda each: (
            _ORDER.index(each["row"]["status"]),
            checks.index(check_of(each["base"])),
            each["base"] in _FOLLOWS,
        ),
    )


def in_short(each: Mapping[str, Any]) -> str:
    """Say after its title what an entry of `blockers` is about, in a few words.

    `: ride, 4 hits instead of at least 6 hits, and 3 more`; the reason where there is no figure.
    """
    row = each["row"]
    said = [each["subject"]] if each["subject"] else []
    if row["observed"] is not None:
        wanted = asked(row)
        said.append(figure_of(row) + (f" instead of {wanted}" if wanted else ""))
    elif row["detail"]:
        said.append(row["detail"] if len(row["detail"]) <= _SHORT else row["detail"][:_SHORT] + "…")
    if count := len(each["others"]) + each["more"]:
        said.append(f"and {count} more")
    return f": {', '.join(said)}" if said else ""


def first_at(row: Mapping[str, Any]) -> str:
    """Say where the first thing stands that a gate complains of: `events.jsonl:7`; else nothing."""
    place = row.get("place")
    return f"{place['path']}:{place['line']}" if place else ""


def figure_of(row: Mapping[str, Any]) -> str:
    """Return what a gate saw: `5 hits`, `macro F1 0.81`; nothing where it was not measured."""
    if row["observed"] is None:
        return ""
    what = "" if row["unit"] else measure(row["name"])
    return f"{what} {figure(row['observed'], row['unit'])}".lstrip()


def seen(row: Mapping[str, Any]) -> str:
    """Say what a gate saw: the figure and, where a bound decides, whose bound it is."""
    if row["observed"] is None:
        return "not measured"
    said = figure_of(row)
    bound = _BOUNDS.get(row["decide_on"])
    if row["ci"] and bound:
        share = row["ci"].get("confidence", 0.95)
        ends = " to ".join(between(row["ci"], row["observed"]))
        return f"{said}, {bound} of the {share:.0%} interval {ends}"
    return said


def asked(row: Mapping[str, Any]) -> str:
    """Say what a gate asks for: `at most 0.25 ms`; nothing where it has no threshold."""
    if row["threshold"] is None:
        return ""
    word = _ASKS.get(row["comparator"], str(row["comparator"]))
    return f"{word} {figure(row['threshold'], row['unit'])}"


def production(row: Mapping[str, Any]) -> str:
    """Say what the production limit is, where another one is in force; else nothing."""
    limit = row["production_threshold"]
    if limit is None or limit == row["threshold"]:
        return ""
    return f"production limit: {asked({**row, 'threshold': limit})}"


def gap(row: Mapping[str, Any]) -> str:
    """Say by how much a gate was missed: `0.75 ms over, 4 times the limit`; else nothing."""
    observed, limit = row["observed"], row["threshold"]
    if observed is None or limit is None or row["passed"] or row["comparator"] not in ("<=", ">="):
        return ""
    over = row["comparator"] == "<="
    away = figure(abs(observed - limit), row["unit"])
    said = f"{away} over the limit" if over else f"{away} short"
    if over and limit > 0 and observed / limit >= 2:
        return f"{said}: {figure(round(observed / limit, 1))} times what is allowed"
    return said


def command(base: str, parameters: Mapping[str, Any]) -> str:
    """Return what to run next for a gate; nothing where there is nothing, or a name is missing.

    Args:
        base: the gate, such as `health.min_class_count`.
        parameters: of the report; those of a readiness run hold a table for each check.
    """
    template = _of_gate(COMMANDS, base)
    own = parameters.get(check_of(base))
    known = {**parameters, **own} if isinstance(own, Mapping) else parameters
    if template is None:
        return ""
    words: list[str] = []
    for word in template.split():
        field = _FIELD.fullmatch(word)
        if not field:
            words.append(word)
            continue
        values = known.get(field[1])
        values = (
            values if isinstance(values, Sequence) and not isinstance(values, str) else [values]
        )
        if not values or not all(isinstance(value, str) and value for value in values):
            return ""
        option = words[-1].startswith("--")
        if option and len(values) > 1:
            return ""
        for value in values[:_SUBJECTS_SHOWN]:
            words += [field[2]] * bool(field[2]) + [shlex.quote(printable(value))]
    return " ".join(words)


def _of_gate(table: Mapping[str, str], base: str) -> str | None:
    """Look a gate up, and its whole check where it has no entry of its own."""
    return table.get(base, table.get(base.partition(".")[0]))


def _subject(name: str) -> str:
    return name.partition("[")[2].removesuffix("]")


def _excess(row: Mapping[str, Any]) -> float:
    if row["observed"] is None or row["threshold"] is None:
        return 0.0
    return abs(float(row["observed"]) - float(row["threshold"]))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _is(count: int) -> str:
    return "is" if count == 1 else "are"
