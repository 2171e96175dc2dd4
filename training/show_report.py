"""Command line that shows a saved report again, in any form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training import options


@options.command(example="python training/show_report.py reports/readiness.json --strict")
@click.argument("report", type=options.INPUT_FILE)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "html", "junit", "github"]),
    default="text",
    show_default=True,
    help="What to print on stdout.",
)
@click.option("--strict", is_flag=True, help="Exit 1 when the report says that a gate blocks.")
def main(report: Path, form: str, strict: bool) -> None:
    """Show a report that was written before.

    Anything but `--format json` is made from the JSON alone, so a page can be had from a report
    that came from another machine.
    """
    from training.errors import InputError
    from training.manifest import read_json
    from training.render import show

    data = read_json(report, dict[str, Any])
    lacking = {"tool", "status", "gating_results", "metrics", "warnings"} - set(data)
    if lacking:
        raise InputError.at(report, "is not a drumgate report", field=min(lacking))
    show(data, form)
    blocked = any(not row["passed"] for row in data["gating_results"])
    raise click.exceptions.Exit(options.EXIT_BLOCKED if strict and blocked else options.EXIT_OK)


if __name__ == "__main__":
    main()
