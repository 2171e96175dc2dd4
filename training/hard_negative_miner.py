"""Command line of the hard-negative miner; `training.checks.hard_negatives` does the work."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(
    example="drumgate hard-negative-miner --predictions outputs/val_predictions.jsonl"
    " --ground-truth annotations/events.jsonl --output outputs/hard_negatives.jsonl"
    " --min-confidence 0.7 --max-per-label 150"
)
@click.option(
    "--predictions", type=options.INPUT_FILE, required=True, help="Predictions with scores."
)
@click.option(
    "--ground-truth",
    type=options.INPUT_FILE,
    required=True,
    help="Truth records or an events manifest; with onset_time, timing misses are told apart.",
)
@click.option(
    "--output", type=options.OUTPUT_FILE, help="Write the rows here; needed unless --dry-run."
)
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1),
    default=0.7,
    show_default=True,
    help="A score this high for a label that is not there is a hard negative.",
)
@click.option(
    "--max-per-label",
    type=click.IntRange(min=1),
    default=150,
    show_default=True,
    help="Keep at most this many a label, the hardest.",
)
@click.option(
    "--calibration",
    type=options.INPUT_FILE,
    help="From calibrate.py: scores are calibrated before they are compared with --min-confidence.",
)
@click.option("--max-total", type=click.IntRange(min=1), help="Keep at most this many in all.")
@click.option(
    "--max-session-share",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.25,
    show_default=True,
    help="No session gives more than this share of a label's rows; 1 = no spreading.",
)
@click.option(
    "--exclude-label",
    "exclude_labels",
    multiple=True,
    help="Mine nothing of this label; repeatable.",
)
@click.option(
    "--timing-tolerance-ms",
    type=click.FloatRange(min=0),
    default=50.0,
    show_default=True,
    help="A true event of the label this near makes it a timing miss.",
)
@click.option(
    "--label-error-score",
    type=click.FloatRange(0, 1),
    default=0.98,
    show_default=True,
    help="From this score on, the annotation is the first suspect.",
)
@click.option(
    "--components", type=options.INPUT_FILE, help="Component taxonomy; by default the shipped one."
)
@click.option(
    "--audit-html",
    type=options.OUTPUT_FILE,
    help="Write a page here on which each clip is heard beside its mel picture.",
)
@click.option(
    "--audio-root",
    type=options.INPUT_DIR,
    help="Folder that audio_path is relative to.  [default: the ground truth's folder]",
)
@click.option(
    "--audit-clips",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    help="At most so many clips on the page, each label's hardest first.",
)
@click.option(
    "--audit-max-mb",
    type=click.FloatRange(min=0, min_open=True),
    default=25.0,
    show_default=True,
    help="At most so much sound and pictures on the page.",
)
@click.option(
    "--audit-context-ms",
    type=click.FloatRange(50, 5000),
    default=600.0,
    show_default=True,
    help="How much is heard before an onset, and after it.",
)
@click.option("--dry-run", is_flag=True, help="Print the table; write nothing.")
@click.option("--report", type=options.OUTPUT_FILE, help="Write the JSON report here.")
def main(report: Path | None, dry_run: bool, **given: object) -> None:
    """Mine the labels that a model is surest of where they are not, hardest first.

    Each row says why it is there (confident false positive, likely label error, timing miss, out
    of vocabulary) and names the nearest true event of its label.
    """
    from training.checks import hard_negatives
    from training.manifest import write_json

    chosen = hard_negatives.Options(dry_run=dry_run, **given)  # type: ignore[arg-type]
    made = hard_negatives.run(chosen)
    if report and not dry_run:
        write_json(report, made.to_dict())
    options.echo(hard_negatives.table(made))
    for text in made.warnings:
        options.warn(text)


if __name__ == "__main__":
    main()
