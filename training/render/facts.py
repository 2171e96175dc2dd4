"""What a report found besides its verdicts, in a few rows, for where nobody opens its page."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from training.render.text import figure

MOST_CHANGES: Final = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Fact:
    """A small table.

    `said` is what it comes to, for a line of its own; `what` names one of the rows.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    what: str
    said: str = ""


_RESULTS: Final = {
    "annotate-techniques": "{events_changed} of {events_total events} got techniques",
    "compare-manifests": "{events_total.base} → {events_total.candidate events}",
    "dataset-health": "{events_total events}, {hits_total hits}",
    "generate-boundary-pack": "{events_near_an_edge} of {events_total events} beside an edge",
    "hard-negative-miner": "{kept_total} hard negatives kept of {candidates_total} found",
    "normalize-openness": "{normalized hits} brought onto one scale, {left_untouched} left alone",
    "predict": "{rows_predicted rows} predicted in {recordings recordings}",
    "summarize-manifest": "{events events}, {hits hits}",
    "train-classifier": "Macro F1 {validation.operating_point.macro.f1} on validation",
}
"""What came out of a tool, where it judged nothing: a figure's path in `metrics`, and its unit."""


def result(report: Mapping[str, Any]) -> str:
    """Return what came out, in a few words, from the figures; '' where they do not say it."""

    def fill(found: re.Match[str]) -> str:
        value: Any = report["metrics"]
        for name in found[1].split("."):
            value = value[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(found[1])
        return figure(value, found[2] or "")

    try:
        return re.sub(r"\{([\w.]+)(?: (\w+))?\}", fill, _RESULTS.get(str(report["tool"]), ""))
    except (LookupError, TypeError):
        return ""


def facts(report: Mapping[str, Any]) -> Fact | None:
    """Return what a reviewer wants to know of a report of this tool; None where there is nothing.

    Figures of a form that this version does not know give None.
    """
    make = _MAKERS.get(str(report["tool"]))
    if make is None:
        return None
    try:
        found = make(report["metrics"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None
    return found if found and found.rows else None


def _manifest(metrics: Mapping[str, Any]) -> Fact:
    """Which events changed, and how; the first ones of each kind."""
    counts = {kind: count for kind, count in metrics["counts"].items() if count}
    said = ", ".join(f"{figure(count)} {kind}" for kind, count in counts.items())
    rows = [
        (
            kind,
            figure(count),
            "; ".join(_change(each) for each in metrics["changes"][kind][:3])
            + ("; …" if count > 3 else ""),
        )
        for kind, count in counts.items()
    ]
    columns = ("change", "events", "the first of them")
    before, after = metrics["events_total"]["base"], metrics["events_total"]["candidate"]
    said = f"{figure(before)} → {figure(after)} events: {said or 'none changed'}"
    return Fact(title="What changed", columns=columns, rows=rows, what="kind", said=said)


def _change(each: Mapping[str, Any]) -> str:
    who = each["candidate_id"] or each["base_id"]
    before, after = _plain(each["before"]), _plain(each["after"])
    what = f"{before} → {after}" if before and after else before or after
    return f"{who} at {figure(each['onset_s'], 's')} in {each['session_id']} ({what})"


def _plain(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return " + ".join(map(_plain, value)) or "nothing"
    return figure(value) if isinstance(value, int | float) else str(value)


def _health(metrics: Mapping[str, Any]) -> Fact:
    """The classes whose hits became fewer or more, the largest loss first."""
    changed = [each for each in metrics["classes"] if each["baseline"] != each["candidate"]]
    changed.sort(key=lambda each: (-each["drop"], each["name"]))
    lost = sum(each["drop"] > 0 for each in changed)
    rows = [
        (
            each["name"],
            figure(each["baseline"]),
            figure(each["candidate"]),
            f"{each['candidate'] - each['baseline']:+,}".replace("-", "−"),
        )
        for each in changed[:MOST_CHANGES]
    ]
    rest = len(changed) - len(rows)
    if rest > 0:
        rows.append(("…", "", "", f"{rest} more"))
    before, after = metrics["hits_total"]["baseline"], metrics["hits_total"]["candidate"]
    said = f"{figure(before)} → {figure(after)} hits, {figure(lost)} classes have fewer"
    columns = ("class", "hits before", "hits now", "change")
    return Fact(title="Hits of each class", columns=columns, rows=rows, what="class", said=said)


_MAKERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Fact]]] = {
    "compare-manifests": _manifest,
    "compare-health-reports": _health,
}
