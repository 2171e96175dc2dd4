"""Command line of the health check; the work is done in `training.checks.health`."""

from __future__ import annotations

from typing import Any

import click

from training import options


@options.command(
    example="python training/dataset_health.py --events annotations/events.jsonl"
    " --min-class-count 200 --max-unknown-labels 0 --output reports/health/latest_health.json"
)
@click.option(
    "--events",
    multiple=True,
    required=True,
    callback=options.manifest_inputs,
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
@click.option(
    "--max-duplication-rate",
    type=click.FloatRange(0, 1),
    help="Gate: at most this share of the events may repeat another.",
)
@click.option(
    "--min-class-count",
    type=click.IntRange(min=0),
    help="Gate: every target label needs this many hits.",
)
@click.option(
    "--min-counts-json",
    type=options.INPUT_FILE,
    help="Gate: JSON of label: hits, in place of --min-class-count for those labels.",
)
@click.option(
    "--max-unknown-labels",
    type=click.IntRange(min=0),
    help="Gate: at most this many hits may carry a label that the taxonomy does not know.",
)
@click.option(
    "--require-technique",
    "require_techniques",
    multiple=True,
    help="Gate: some event must show this technique. Repeatable.",
)
@click.option(
    "--require-techniques-file",
    "require_techniques_files",
    type=options.INPUT_FILE,
    multiple=True,
    help="Gate: the same for every technique of a list, one a line. Repeatable.",
)
@click.option(
    "--require-label",
    "require_labels",
    multiple=True,
    help="Gate: some hit must carry this label. Repeatable.",
)
@click.option(
    "--require-labels-file",
    "require_labels_files",
    type=options.INPUT_FILE,
    multiple=True,
    help="Gate: the same for every label of a list, one a line. Repeatable.",
)
@click.option(
    "--max-synthetic-fraction",
    type=click.FloatRange(0, 1),
    help="Gate: at most this share of the events may be synthetic.",
)
@click.option(
    "--min-drummers", type=click.IntRange(min=0), help="Gate: at least this many drummers."
)
@click.option(
    "--split-isolation",
    multiple=True,
    callback=options.split_commas,
    metavar="FIELDS",
    help="Gate: splits share no session, drummer, kit, room or performance"
    " (comma-separated). Repeatable.",
)
@click.option(
    "--skip-invalid", is_flag=True, help="Leave invalid lines out and count them in the report."
)
@options.engine_options
@options.report_options(report="--output", strict=False)
def main(outputs: options.ReportOutputs, **inputs: Any) -> None:
    """Judge whether a manifest is fit to train on.

    Counts labels, dynamics, techniques, sources, duplicates and what splits share. Judges only the
    gates that a flag or the gates file asks for, and exits 1 when one of them does not pass.
    """
    from training.checks import health

    asked = health.Options(**inputs, gates=outputs.gates)
    report = health.run(asked, track=options.track("reading the manifest"))
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
