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


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from training.render import charts

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
    )
    environment.globals.update(
        charts=charts,
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
