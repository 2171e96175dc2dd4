"""A report as one HTML page, made from its JSON alone; no request leaves the page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from training.errors import printable
from training.render import text
from training.render.titles import heading
from training.render.words import explained

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

# Worst first: what a reviewer must look at stands on top.
_ORDER: Final = ("error", "fail", "not_measured", "warn", "pass")
_GLYPHS: Final = {"pass": "✓", "warn": "!", "fail": "✕", "not_measured": "?", "error": "✕"}
_LONGEST: Final = 2000
"""How many characters of one text a page shows; the JSON has the rest."""
_LACKING: Final[Mapping[str, Any]] = {
    "version": "",
    "schema_version": "",
    "parameters": {},
    "inputs": [],
    "provenance": {},
}
_ROW_LACKING: Final[Mapping[str, Any]] = {"n": None, "reason": "", "required": True}


def render_html(report: Mapping[str, Any]) -> str:
    """Return a report as a page that needs nothing but itself.

    A report made by hand may lack what only says how it was made. Where the figures have another
    form than the page of the tool expects, as those of another version may, they stand in plain
    tables, and the page says so.
    """
    from jinja2 import TemplateError

    whole = _completed(report)
    name = f"sections/{report['tool']}.html.j2"
    if name in _environment().list_templates():
        try:
            return _render(whole, name)
        except (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
            note = "The figures have a form that this version does not know: they stand in tables."
            whole["warnings"] = [*whole["warnings"], note]
    return _render(whole, "sections/generic.html.j2")


def _completed(report: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in what only says how a report was made, and may be lacking."""
    whole = {**_LACKING, **report}
    for name in ("parameters", "provenance"):
        whole[name] = whole[name] if isinstance(whole[name], Mapping) else {}
    listed = whole["inputs"] if isinstance(whole["inputs"], list) else []
    whole["inputs"] = [{"path": "?", **each} for each in listed if isinstance(each, Mapping)]
    whole["gating_results"] = [{**_ROW_LACKING, **row} for row in report["gating_results"]]
    return whole


def _render(report: Mapping[str, Any], section: str) -> str:
    page = _environment().get_template("report.html.j2").render(report=report, section=section)
    return explained(page, report["tool"])


def render_template(name: str, **values: Any) -> str:
    """Return a page of its own, which is no report, with the filters and macros of the reports."""
    page = _environment().get_template(name).render(**values)
    return explained(page, name.partition(".")[0])


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    from training.render import charts, explain, facts, paired, plots, titles
    from training.render.reliability import reliability

    environment = Environment(
        loader=PackageLoader("training.render"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters.update(_filters())
    environment.tests["is_waived"] = text.waived
    script = _script()
    environment.globals.update(
        charts=SimpleNamespace(
            bars=charts.bars,
            forest=charts.forest,
            against_limit=charts.against_limit,
            curve=plots.curve,
            histogram=plots.histogram,
            lines=plots.lines,
            series=plots.series,
            steps=plots.steps,
        ),
        reliability=reliability,
        paired=paired,
        explain=explain,
        result=facts.result,
        titles=titles,
        waived=text.waived,
        waiver_text=text.waiver_text,
        words=text.WORDS,
        glyphs=_GLYPHS,
        rank=_ORDER.index,
        observed=text.observed,
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    return environment


def _filters() -> dict[str, Callable[..., Any]]:
    return {
        "figure": text.figure,
        "heading": heading,
        "headed": lambda table: {heading(name): row for name, row in table.items()},
        "told": _told,
        "scalars": _scalars,
        "columns": _columns,
        "worst_first": _worst_first,
        "condensed": text.condensed,
        "breakable": _breakable,
        "stated": _stated,
        "limits": _limits,
        "limits_of": _limits_of,
        "points": _points,
        "headline_points": _headline_points,
        "worst_pairs": _worst_pairs,
        "lag_points": _lag_points,
        "stretches": _stretches,
        "head": _head,
        "of": lambda row, name: row.get(name) if isinstance(row, Mapping) else None,
        "each": lambda rows, name: [row.get(name) for row in rows],
        "of_each": lambda table, name: {key: row.get(name) for key, row in table.items()},
        "as_rows": lambda counts, name: {key: {name: value} for key, value in counts.items()},
        "without": lambda values, name: {k: v for k, v in values.items() if k != name},
    }


def _script() -> str:
    """Return the one script of the pages, which their policy names by its hash."""
    file = resources.files("training.render").joinpath("templates/page.js")
    return file.read_text(encoding="utf-8").strip()


def _visible(value: Any) -> Any:
    """Show control characters that came with data instead of passing them on; markup stays."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    if len(value) > _LONGEST:
        value = f"{value[:_LONGEST]}… ({len(value):,} characters in the JSON report)"
    return "\n".join(map(printable, value.split("\n")))


def _breakable(name: str) -> Markup:
    """Return the name of a gate, which a line may break between its words."""
    from markupsafe import Markup

    return Markup("<wbr>").join(re.split(r"(?=\[)|(?<=[/._])", str(_visible(name))))


def _stated(values: Any) -> Any:
    """Leave out of a table of parameters, and of the tables in it, what is not set."""
    if not isinstance(values, Mapping):
        return values
    found = {name: _stated(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value not in (None, [], {}, "")}


def _told(value: Any, limit: int = 300) -> str:
    """Return a list or a table as words: `kick 3, snare 1`; what is empty is left out."""
    said = _in_words(value)
    return said if len(said) <= limit else said[: limit - 1] + "…"


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        parts = [
            (heading(name), each) for name, each in value.items() if each not in (None, {}, [])
        ]
        return ", ".join(
            f"{name} ({_in_words(each)})"
            if isinstance(each, Mapping)
            else f"{name} {_in_words(each)}"
            for name, each in parts
        )
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return text.figure(value) if isinstance(value, int | float) or value is None else str(value)


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if not isinstance(value, Mapping | list | tuple)
    }


def _columns(rows: Iterable[Any]) -> list[str]:
    """The keys of all rows, in the order in which they are first met."""
    return list(dict.fromkeys(key for row in rows if isinstance(row, Mapping) for key in row))


def _head(values: Any, limit: int) -> Any:
    """The first entries of a mapping or of a list."""
    if isinstance(values, Mapping):
        return dict(list(values.items())[:limit])
    return list(values)[:limit]


def _worst_first(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: _ORDER.index(row["status"]))


def _limits(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The threshold of each gate by its bare name, for the line that a plot draws."""
    return {
        row["name"].partition("[")[0].rpartition(".")[2]: row["threshold"]
        for row in rows
        if row["threshold"] is not None
    }


def _limits_of(rows: Sequence[Mapping[str, Any]], gate: str) -> dict[str, float]:
    """The threshold of one gate for each subject that it judged."""
    return {
        row["name"].partition("[")[2].removesuffix("]"): row["threshold"]
        for row in rows
        if row["threshold"] is not None and row["name"].partition("[")[0] == gate
    }


def _points(table: Mapping[str, Mapping[str, Any]], name: str) -> list[dict[str, Any]]:
    """Rows for a forest plot: a figure of each label, with its interval where it has one."""
    return [_point(label, row[name]) for label, row in table.items()]


def _headline_points(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows for a forest plot: the figures of the whole that lie in [0, 1] by nature."""
    names = ("macro_f1", "macro_precision", "macro_recall", "micro_f1", "map", "subset_accuracy")
    return [_point(heading(name), metrics[name]) for name in names if name in metrics]


def _point(label: str, figure: Any) -> dict[str, Any]:
    if not isinstance(figure, Mapping):
        return {"label": label, "point": figure, "lower": None, "upper": None}
    lower, upper = figure.get("ci_lower"), figure.get("ci_upper")
    return {"label": label, "point": figure.get("point_estimate"), "lower": lower, "upper": upper}


def _worst_pairs(pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(pairs, key=lambda pair: -abs(pair["residual_ms"] or 0.0))


def _lag_points(pairs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows for a forest plot: the residual lag of each pair of mics, the largest first."""
    return [
        _point(f"{pair['session_id']} {pair['target']}", pair["residual_ms"])
        for pair in _worst_pairs(pairs)
    ]


def _stretches(bins: Sequence[Mapping[str, Any]], average: str, name: str) -> list[dict[str, Any]]:
    """Stretches of a step plot: one figure of each distance bin."""
    return [
        {"lower": each["lower_ms"], "upper": each["upper_ms"], "value": each[average][name]}
        for each in bins
    ]
