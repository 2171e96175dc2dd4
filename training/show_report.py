"""Command line that shows a saved report again, in any form."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(example="drumgate show-report reports/readiness.json --strict")
@click.argument("reports", nargs=-1, required=True, type=options.INPUT_FILE, metavar="REPORT...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "html", "junit", "github", "markdown"]),
    default="text",
    show_default=True,
    help="What to print on stdout; several reports fit into text, github and markdown.",
)
@click.option(
    "--max-bytes",
    type=click.IntRange(min=1000),
    default=65_536,
    show_default=True,
    help="Markdown: leave out whole rows beyond this; the default is GitHub's for a comment.",
)
@click.option("--strict", is_flag=True, help="Exit 1 when a report says that a gate blocks.")
def main(reports: tuple[Path, ...], form: str, max_bytes: int, strict: bool) -> None:
    """Show reports that were written before.

    Anything but `--format json` is made from the JSON alone, so a page can be had from a report
    that came from another machine. Several reports become one Markdown text, the first one's
    verdict on top.
    """
    if len(reports) > 1 and form not in ("text", "github", "markdown"):
        raise click.UsageError(f"--format {form} takes one report")
    from training.render import show
    from training.render.markdown import render_many
    from training.render.saved import read_report

    found = [read_report(path) for path in reports]
    if form == "markdown":
        options.say(render_many(found, max_bytes))
    else:
        for data in found:
            show(data, form)
    blocked = any(not row["passed"] for data in found for row in data["gating_results"])
    raise click.exceptions.Exit(options.EXIT_BLOCKED if strict and blocked else options.EXIT_OK)


if __name__ == "__main__":
    main()
