"""Command line of the merge; the work is done in `training.checks.merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training import options


@options.command(
    example="drumgate merge-manifests --input a.jsonl --input b.jsonl --output all.jsonl",
    rewrites=("output",),
)
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    **options.MANIFESTS,
    metavar="MANIFEST",
    help="A manifest (.jsonl, .gz, .zst, .parquet), a pattern, or - for standard input."
    " Repeatable; their order is kept.",
)
@click.option(
    "--output", type=options.OUTPUT_FILE, required=True, help="The merged manifest (JSON Lines)."
)
@click.option(
    "--on-duplicate",
    type=click.Choice(["error", "first", "last", "keep"]),
    default="error",
    show_default=True,
    help="What to do when a sample_id stands more than once.",
)
@click.option(
    "--sort",
    type=click.Choice(["none", "session", "sample_id"]),
    default="none",
    show_default=True,
    help="Order of the output; session is by session, onset and id.",
)
@click.option(
    "--add-source",
    is_flag=True,
    help="Give events without source_set the name of their input file.",
)
def main(inputs: tuple[Path, ...], **choices: Any) -> None:
    """Merge manifests into one, each line as it stood.

    Fields that drumgate does not know survive exactly. OUTPUT.provenance.json says what the result
    was made from and which ids stood more than once.
    """
    from training.checks import merge

    wanted = merge.Options(inputs=inputs, **choices)
    merged = merge.run(
        wanted,
        track=lambda items, what, total: options.progress(items, description=what, total=total),
    )
    for warning in merged.warnings:
        options.warn(warning)
    if merged.identical or merged.conflicts:
        options.echo(
            f"repeated ids: {merged.identical:,} with the same content, "
            f"{merged.conflicts:,} with other content; {merged.dropped:,} events left out"
        )
    if merged.sources_added:
        options.echo(f"source_set added to {merged.sources_added:,} events")
    options.echo(f"wrote {merged.events:,} events to {wanted.output}")


if __name__ == "__main__":
    main()
