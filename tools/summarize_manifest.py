"""Command line of the summary; the work is done in `training.checks.summarize`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training import options


@options.command(example="drumgate summarize-manifest annotations/events.jsonl")
@click.argument("inputs", nargs=-1, required=True, metavar="MANIFEST...", **options.MANIFESTS)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Look only at the first so many events, and say so; the rest is not even validated.",
)
@click.option(
    "--skip-invalid", is_flag=True, help="Leave invalid lines out and count them in the summary."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    help="What to print: one screen, the whole report, or a table.",
)
@click.option("--output", type=options.OUTPUT_FILE, help="Write it here instead of to stdout.")
@options.engine_options
def main(form: str, output: Path | None, **wanted: Any) -> None:
    """Say at a glance what manifests hold: one screen, for logs.

    MANIFEST is a file (.jsonl, .gz, .zst, .parquet), a pattern, or - for stdin; several are
    summarised together. Every line is validated, and nothing is judged.
    """
    from training.checks import summarize
    from training.manifest import write_text
    from training.render.deliver import render_json
    from training.render.summary import render_summary, render_summary_markdown

    if wanted["limit"] and wanted["skip_invalid"]:
        raise click.UsageError("--skip-invalid counts what a --limit would leave unread")
    renderers = {
        "text": render_summary,
        "json": render_json,
        "markdown": render_summary_markdown,
    }
    report = summarize.run(summarize.Options(**wanted), track=options.track("reading"))
    text = renderers[form](report.to_dict())
    if output is None:
        options.echo(text.removesuffix("\n"))
    else:
        write_text(output, text)


if __name__ == "__main__":
    main()
