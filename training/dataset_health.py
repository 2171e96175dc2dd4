"""Command line of the health check; the work is done in `training.checks.health`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from training import options

_SHARE = click.FloatRange(0, 1)
_COUNT = click.IntRange(min=0)
# The gates that are one number each: flag, what it takes, what must hold.
_GATES: tuple[tuple[str, click.ParamType, str], ...] = (
    ("max-duplication-rate", _SHARE, "at most this share of the events may repeat another."),
    ("min-class-count", _COUNT, "every target label needs this many hits."),
    ("max-unknown-labels", _COUNT, "at most this many hits may carry an unknown label."),
    ("max-synthetic-fraction", _SHARE, "at most this share of the events may be synthetic."),
    ("min-drummers", _COUNT, "at least this many drummers."),
    ("min-sessions", _COUNT, "at least this many sessions."),
    ("min-kits", _COUNT, "at least this many kits."),
    ("min-rooms", _COUNT, "at least this many rooms."),
    ("min-duration-s", click.FloatRange(min=0), "at least so many seconds of audio."),
    ("min-negatives", _COUNT, "at least this many negative or empty events."),
    ("min-dynamic-count", _COUNT, "ghost, light, medium and accent need this many hits each."),
    ("min-openness-hits", _COUNT, "at least this many hits must state their openness."),
    ("min-annotated-share", _SHARE, "every target label is annotated in this share of events."),
    ("max-contradicted-hits", _COUNT, "at most this many hits outside their annotated_labels."),
    ("max-unknown-techniques", _COUNT, "at most this many unknown names of techniques."),
    ("max-repeated-performances", _COUNT, "at most this many takes may repeat another session's."),
    ("max-clipping-rate", _SHARE, "at most this share of the events may peak at 0 dBFS or more."),
    ("max-outlier-rate", _SHARE, "at most this share may be out of line, each kind by itself."),
)


def _numeric_gates(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag, kind, what in reversed(_GATES):
        command = click.option(f"--{flag}", type=kind, help=f"Gate: {what}")(command)
    return command


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
    "--min-counts-json",
    type=options.INPUT_FILE,
    help="Gate: JSON of label: hits, in place of --min-class-count for those labels.",
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
@_numeric_gates
@click.option(
    "--outlier-kinds",
    multiple=True,
    callback=options.split_commas,
    metavar="KINDS",
    help="Kinds that --max-outlier-rate judges, comma-separated; if none, all that it can.",
)
@click.option(
    "--max-events-per-second",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="More events of one track within a second are outliers.",
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

    asked = health.Options(**inputs, gates=outputs.gates)
    report = health.run(asked, track=options.track("reading the manifest"))
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
