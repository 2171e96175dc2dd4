"""Command line of the validation; the work is done in `training.checks.validate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training import options
from training.errors import DrumgateError


@options.command(
    example="drumgate validate-manifest annotations/*.jsonl --audio-root recordings"
    " --format sarif --output manifest.sarif"
)
@click.argument("inputs", nargs=-1, required=True, metavar="MANIFEST...", **options.MANIFESTS)
@click.option(
    "--record",
    type=click.Choice(["event", "ground_truth", "prediction"]),
    default="event",
    show_default=True,
    help="What a line is.",
)
@options.audio_root_options("none, and no audio is looked at")
@click.option(
    "--components", type=options.INPUT_FILE, help="Label taxonomy; by default the shipped one."
)
@click.option(
    "--techniques",
    type=options.INPUT_FILE,
    help="Technique catalogue; by default the shipped one.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "jsonl", "sarif", "github"]),
    default="text",
    show_default=True,
    help="How to write what was found.",
)
@click.option(
    "--output",
    type=options.OUTPUT_FILE,
    help="Write it here instead of to stdout; also when the manifest is bad.",
)
@click.option(
    "--max-problems",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="How many findings to show, over all rules; the counts are always complete.",
)
@click.option("--strict", is_flag=True, help="Warnings set the exit code as well.")
@options.engine_options
def main(
    form: str,
    output: Path | None,
    strict: bool,
    audio_root: Path | None,
    audio_roots: dict[str, Path],
    **wanted: Any,
) -> None:
    """Check manifests line by line, against themselves and against their audio.

    MANIFEST is a file (.jsonl, .gz, .zst, .parquet), a pattern, or - for stdin. With a folder of
    audio, every file's header is checked against its events. Exits 2 when a line is not a valid
    record, 1 when valid lines contradict each other or their audio.
    """
    from training.checks import validate
    from training.manifest import write_text
    from training.render.findings import (
        FORMATS,
        finding_lines,
        render_consistency,
        summary_text,
    )

    if (audio_root is not None or audio_roots) and wanted["record"] != "event":
        raise click.UsageError("--audio-root and --audio-root-map need events: --record event")
    asked = validate.Options(audio_root=audio_root, audio_roots=audio_roots, **wanted)
    found = validate.run(asked, track=options.track("checking"))
    if output is not None:
        write_text(output, FORMATS[form](found))
        options.echo(summary_text(found))
    elif form == "text":
        # What is wrong with the schema goes to stderr below, as in every tool.
        options.echo(render_consistency(found).removesuffix("\n"))
    else:
        options.echo(FORMATS[form](found).removesuffix("\n"))
    if found.total_schema:
        lines = finding_lines(found, schema=True)
        hidden = found.total_schema - len(lines)
        raise DrumgateError("\n".join([*lines, *([f"… and {hidden:,} more"] if hidden else [])]))
    if found.blocks(strict=strict):
        raise click.exceptions.Exit(options.EXIT_BLOCKED)


if __name__ == "__main__":
    main()
