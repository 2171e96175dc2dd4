"""Baseline against candidate: two bars a label, with what was lost between them.

Everything is taken from the JSON report of compare-health-reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from markupsafe import Markup

from training.render.svg import LABEL_END, ROWS, Scale, fluid, label, nothing, tag, text
from training.render.text import figure

ROW: Final = 38
_BAR: Final = 13
_END: Final = 72.0
_END_LONG: Final = 63.0
_LONG: Final = 19
_MOVED: Final = ("moderate", "large")
_SOFT_TO_LOUD: Final = ("ghost", "light", "medium", "accent")


def paired(rows: Sequence[Mapping[str, Any]], caption: str, unit: str = "") -> Markup:
    """Draw two bars a row: the baseline above, the candidate below.

    Each row holds `label`, `baseline`, `candidate` (0 or more), `note` (said beside the bars) and
    `lost` (the note is a warning, and what the candidate lacks is outlined). Without a row there is
    a sentence instead of a plot.
    """
    shown = rows[:ROWS]
    if not shown:
        return nothing(caption)
    top = max(max(row["baseline"], row["candidate"]) for row in shown)
    longest = max(len(row["note"]) for row in shown)
    scale = Scale(0.0, top or 1.0, LABEL_END, _END if longest <= _LONG else _END_LONG)
    body: list[str] = []
    for index, row in enumerate(shown):
        y = float(index * ROW + 4)
        body.append(label(y + _BAR + 4, row["label"]))
        for number, (side, kind) in enumerate((("baseline", "s4"), ("candidate", "s0"))):
            amount = row[side]
            tip = f"{row['label']}, {side}: {figure(amount, unit)}"
            at, width = scale.at(0.0), scale.between(0.0, amount)
            down = y + number * (_BAR + 1)
            body.append(tag("rect", tip, x=at, y=down, width=width, height=_BAR, class_=kind))
        if row["lost"]:
            at, width = scale.at(row["candidate"]), scale.between(row["candidate"], row["baseline"])
            down = y + _BAR + 1.5
            body.append(
                tag(
                    "rect",
                    "lost",
                    x=at,
                    y=down,
                    width=width,
                    height=_BAR - 1.0,
                    fill="none",
                    class_="gate",
                )
            )
        reach = scale.at(max(row["baseline"], row["candidate"]))
        kind = "gatename" if row["lost"] else "value"
        body.append(text(row["note"], x=reach, dx=9, y=y + _BAR + 5, class_=kind))
    return fluid(
        len(shown) * ROW + 4,
        caption,
        body,
        legend={"baseline": "s4", "candidate": "s0"},
        spoken=[f"{row['label']}: {row['note']}" for row in shown],
        left_out=len(rows) - len(shown),
    )


def class_rows(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the classes that either side has hits of, as rows to draw, the worst first.

    Besides what `paired` needs, a row holds the `change` in hits, `change_pct` (None for a class
    that is new), whether it is `ignored`, and the `statuses` of the gates that judged it.
    """
    verdicts: dict[str, list[str]] = {}
    for row in report["gating_results"]:
        gate, bracket, subject = row["name"].partition("[")
        if bracket and gate.startswith("health_compare.max_drop"):
            verdicts.setdefault(subject.removesuffix("]"), []).append(row["status"])
    rows = [
        _class_row(change, verdicts.get(change["name"], []))
        for change in report["metrics"]["classes"]
        if change["baseline"] or change["candidate"]
    ]
    return sorted(rows, key=lambda row: (not row["lost"], row["change_pct"] or 0.0, row["label"]))


def count_rows(changes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return counts that no gate judges as rows to draw, the largest loss first."""
    rows = [_class_row(change, []) for change in changes]
    return sorted(rows, key=lambda row: (row["change_pct"] or 0.0, row["label"]))


def _class_row(change: Mapping[str, Any], statuses: list[str]) -> dict[str, Any]:
    before, after = change["baseline"], change["candidate"]
    difference = after - before
    share = 100.0 * difference / before if before else None
    if not difference:
        note = figure(after)
    elif share is None:
        note = f"{figure(after)}, new"
    else:
        note = f"{figure(before)} → {figure(after)} ({signed(share)} %)"
    return {
        "label": change["name"],
        "baseline": before,
        "candidate": after,
        "note": note + (", not judged" if change["ignored"] else ""),
        "lost": "fail" in statuses,
        "change": difference,
        "change_pct": share,
        "ignored": change["ignored"],
        "statuses": statuses,
    }


def share_rows(drift: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the values of a distribution as rows to draw, in per cent of each side."""
    return [
        {
            "label": value["value"],
            "baseline": 100 * value["baseline"],
            "candidate": 100 * value["candidate"],
            "note": _shares(value),
            "lost": False,
        }
        for value in _in_order(drift["values"])
    ]


def _in_order(values: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Put dynamics from soft to loud, with what is stated otherwise behind them; others stay."""
    rank = {name: number for number, name in enumerate(_SOFT_TO_LOUD)}
    if not any(value["value"] in rank for value in values):
        return list(values)
    return sorted(values, key=lambda value: rank.get(value["value"], len(rank)))


def moved(drifts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the distributions whose shift is more than small."""
    return [row for row in drifts if row["psi"] is not None and row["shift"] in _MOVED]


def sizes(drifts: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return how far each distribution moved, for a plot of bars; without those that did not."""
    return {
        row["name"]: {"PSI beyond chance": row["psi_beyond_chance"]}
        for row in drifts
        if row["psi_beyond_chance"]
    }


def limit(report: Mapping[str, Any]) -> float | None:
    """Return where the gate for drift stands; None when nothing was judged by it."""
    limits = (
        row["threshold"]
        for row in report["gating_results"]
        if row["name"].partition("[")[0] == "health_compare.max_psi"
    )
    return next(limits, None)


def most(drift: Mapping[str, Any]) -> str:
    """Say which value moved most, and from where to where."""
    for value in drift["values"]:
        if value["value"] == drift["largest"]:
            return f"{value['value']}: {_shares(value)}"
    return "nothing" if drift["largest"] is None else str(drift["largest"])


def signed(value: float) -> str:
    """Return a change in per cent with its sign, and a decimal where it is small."""
    shown = f"{value:+.1g}" if abs(value) < 0.1 else f"{value:+,.{0 if abs(value) >= 10 else 1}f}"
    return shown.replace("-", "−")


def probability(value: float | None) -> str:
    """Return a p-value: below 0.001 its size says nothing more."""
    if value is None:
        return "–"
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _shares(value: Mapping[str, Any]) -> str:
    return f"{_percent(value['baseline'])} → {_percent(value['candidate'])} %"


def _percent(share: float) -> str:
    said = f"{100 * share:.1f}".removesuffix(".0")
    return said if said != "0" or not share else "<0.1"
