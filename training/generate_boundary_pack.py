"""Command line of the boundary pack; the work is done in `training.checks.boundary_pack`."""

from __future__ import annotations

from pathlib import Path

import click

from training import options

EDGES = ("start", "end")


def _numbers(
    ctx: click.Context, param: click.Parameter, given: tuple[str, ...]
) -> tuple[float, ...]:
    """Read `0,128` or repeated flags as numbers."""
    try:
        return tuple(float(part) for text in given for part in text.split(","))
    except ValueError:
        raise click.BadParameter("must be numbers, such as 0,128,256") from None


def _edges(_: click.Context, param: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Read `start,end` or repeated flags as edges."""
    named = tuple(part.strip() for text in given for part in text.split(","))
    if any(name not in EDGES for name in named):
        raise click.BadParameter(f"must be some of {', '.join(EDGES)}")
    return named


@options.command(
    example="drumgate generate-boundary-pack --events annotations/events.jsonl"
    " --output boundary_pack/labels.jsonl --window-ms 2048 --hop-ms 512 --margin-ms 40"
)
@click.option("--events", type=options.INPUT_FILE, required=True, help="The events manifest.")
@click.option(
    "--output", type=options.OUTPUT_FILE, help="Write the pack here; needed unless --dry-run."
)
@click.option("--window-ms", type=float, default=2048.0, show_default=True, help="Window length.")
@click.option("--hop-ms", type=float, default=512.0, show_default=True, help="Window step.")
@click.option(
    "--margin-ms",
    type=float,
    default=40.0,
    show_default=True,
    help="An event this close to a window's edge, or closer, is in the pack.",
)
@click.option(
    "--offsets-ms",
    multiple=True,
    default=("0",),
    show_default="0",
    callback=_numbers,
    help="Where the first window starts; several (0,128,256) lay several grids.",
)
@click.option(
    "--edges",
    multiple=True,
    default=EDGES,
    show_default="start,end",
    callback=_edges,
    help="Which edges to look at.",
)
@click.option(
    "--include-label",
    "include_labels",
    multiple=True,
    help="Only events with this label; repeatable.",
)
@click.option(
    "--exclude-label",
    "exclude_labels",
    multiple=True,
    help="No event with this label; repeatable.",
)
@click.option(
    "--max-per-edge",
    type=click.IntRange(min=1),
    help="At most this many rows for each edge and label, drawn at random over the whole file.",
)
@options.seed_option()
@click.option("--dry-run", is_flag=True, help="Print the counts per edge and label; write nothing.")
@click.option("--report", type=options.OUTPUT_FILE, help="Write the JSON report here.")
def main(report: Path | None, dry_run: bool, **given: object) -> None:
    """List the events that a streaming model meets near a seam of its windows.

    Window k covers [offset + k*hop, offset + k*hop + window). Every window that contains an event
    and every edge of it within the margin gives one row, with a sample_id of its own, for
    predict.py --pack and boundary_eval.py.
    """
    from training.checks import boundary_pack
    from training.manifest import write_json

    made = boundary_pack.run(boundary_pack.Options(dry_run=dry_run, **given))  # type: ignore[arg-type]
    if report and not dry_run:
        write_json(report, made.to_dict())
    options.echo(boundary_pack.table(made))
    for text in made.warnings:
        options.warn(text)


if __name__ == "__main__":
    main()
