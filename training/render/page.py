"""A report as one HTML page, made from its JSON alone."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Environment


def render_html(report: Mapping[str, Any]) -> str:
    """Return a report as a page that needs nothing but itself."""
    return _environment().get_template("report.html.j2").render(report=report)


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("training.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    from training.render import text

    environment.filters["figure"] = text.figure
    environment.globals.update(
        words=text.WORDS, headline=text.headline, observed=text.observed, wanted=text.wanted
    )
    return environment
