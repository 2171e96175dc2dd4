"""A report as one HTML page, made from its JSON alone; no request leaves the page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from training.errors import printable
from training.render import text

if TYPE_CHECKING:
    from jinja2 import Environment

# Worst first: what a reviewer must look at stands on top.
_ORDER = ("error", "fail", "not_measured", "warn", "pass")


def render_html(report: Mapping[str, Any]) -> str:
    """Return a report as a page that needs nothing but itself."""
    environment = _environment()
    section = f"sections/{report['tool']}.html.j2"
    if section not in environment.list_templates():
        section = "sections/generic.html.j2"
    return environment.get_template("report.html.j2").render(report=report, section=section)


def render_template(name: str, **values: Any) -> str:
    """Return a page of its own, which is no report, with the filters and macros of the reports."""
    return _environment().get_template(name).render(**values)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from training.render import charts
    from training.render.reliability import reliability

    environment = Environment(
        loader=PackageLoader("training.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters.update(
        figure=text.figure,
        heading=_heading,
        compact=_compact,
        scalars=_scalars,
        columns=_columns,
        worst_first=_worst_first,
        condensed=text.condensed,
        limits=_limits,
        points=_points,
        headline_points=_headline_points,
        worst_pairs=_worst_pairs,
        stretches=_stretches,
        as_rows=lambda counts, name: {key: {name: value} for key, value in counts.items()},
        without=lambda values, name: {k: v for k, v in values.items() if k != name},
    )
    environment.globals.update(
        charts=charts,
        reliability=reliability,
        words=text.WORDS,
        tally=text.tally,
        observed=text.observed,
        wanted=text.wanted,
    )
    return environment


def _visible(value: Any) -> Any:
    """Show control characters that came with data instead of passing them on; markup stays."""
    plain = isinstance(value, str) and not hasattr(value, "__html__")
    return printable(value) if plain and "\n" not in value else value


def _heading(name: object) -> str:
    return str(name).replace("_", " ")


def _compact(value: Any, limit: int = 300) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if not isinstance(value, Mapping | list | tuple)
    }


def _columns(rows: Iterable[Any]) -> list[str]:
    """The keys of all rows, in the order in which they are first met."""
    return list(dict.fromkeys(key for row in rows if isinstance(row, Mapping) for key in row))


def _worst_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: _ORDER.index(row["status"]))


def _limits(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The threshold of each gate by its bare name, for the line that a plot draws."""
    return {
        row["name"].partition("[")[0].rpartition(".")[2]: row["threshold"]
        for row in rows
        if row["threshold"] is not None
    }


def _points(table: Mapping[str, Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Rows for a forest plot: a figure of each label, with its interval where it has one."""
    return [_point(label, row[name]) for label, row in table.items()]


def _headline_points(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows for a forest plot: the figures of the whole that lie in [0, 1] by nature."""
    names = ("macro_f1", "macro_precision", "macro_recall", "micro_f1", "map", "subset_accuracy")
    return [_point(name, metrics[name]) for name in names if name in metrics]


def _point(label: str, figure: Any) -> dict[str, Any]:
    if not isinstance(figure, Mapping):
        return {"label": label, "point": figure, "lower": None, "upper": None}
    lower, upper = figure["ci_lower"], figure["ci_upper"]
    return {"label": label, "point": figure["point_estimate"], "lower": lower, "upper": upper}


def _worst_pairs(pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(pairs, key=lambda pair: -abs(pair["residual_ms"] or 0.0))


def _stretches(bins: Sequence[Mapping[str, Any]], average: str, name: str) -> list[dict[str, Any]]:
    """Stretches of a step plot: one figure of each distance bin."""
    return [
        {"lower": each["lower_ms"], "upper": each["upper_ms"], "value": each[average][name]}
        for each in bins
    ]
