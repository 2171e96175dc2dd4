"""Command line of the health check; the work is done in `training.checks.health`."""

from __future__ import annotations

from typing import Any

import click

from training import options
from training.health_flags import gate_options


@options.command(
    example="drumgate dataset-health --events annotations/events.jsonl"
    " --min-class-count 200 --max-unknown-labels 0 --output reports/health/latest_health.json"
)
@click.option(
    "--events",
    multiple=True,
    required=True,
    **options.MANIFESTS,
    metavar="FILE",
    help="The manifest (.jsonl, .gz, .zst, .parquet), a pattern, or - for standard input."
    " Repeatable: several files are one manifest.",
)
@click.option(
    "--components", type=options.INPUT_FILE, help="Label taxonomy; by default the shipped one."
)
@click.option(
    "--dataset-metadata",
    type=options.INPUT_FILE,
    help="The metadata.json of a built dataset, for durations.",
)
@gate_options
@click.option(
    "--skip-invalid", is_flag=True, help="Leave invalid lines out and count them in the report."
)
@click.option(
    "--engine",
    type=click.Choice(["duckdb", "spark"]),
    default="duckdb",
    show_default=True,
    help="What computes the figures; spark needs the extra drumgate[spark] and Java 17.",
)
@click.option(
    "--spark-master",
    metavar="URL",
    help="Where Spark runs, such as local[2]."
    "  [default: what spark-submit says, or else all cores of this machine]",
)
@options.engine_options
@options.report_options(report="--output", strict=False)
def main(outputs: options.ReportOutputs, **inputs: Any) -> None:
    """Judge whether a manifest is fit to train on.

    Counts labels, dynamics, techniques, sources, duplicates and what splits share. Judges only the
    gates that a flag or the gates file asks for, and exits 1 when one of them does not pass.
    """
    from training.checks import health
    from training.render.health import render_health

    asked = health.Options(**inputs, gates=outputs.gates)
    report = health.run(asked, track=options.track("reading the manifest"))
    if outputs.format == "text" and not report.verdicts:
        options.echo(render_health(report.metrics))
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
