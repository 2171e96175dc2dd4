"""Command line of the calibration; the work is done in `training.checks.calibrate`."""

from __future__ import annotations

from typing import Any

import click

from training import options


@options.command(
    example="drumgate calibrate --ground-truth splits/val.jsonl"
    " --predictions outputs/val_preds.jsonl --output models/calibration.json"
)
@click.option(
    "--ground-truth",
    type=options.INPUT_FILE,
    required=True,
    help="Truth records (sample_id, labels or components, session_id); an events file will do.",
)
@click.option(
    "--predictions",
    type=options.INPUT_FILE,
    required=True,
    help="Predictions with scores, as predict.py writes them.",
)
@click.option(
    "--split",
    type=click.Choice(["validation", "test"]),
    default="validation",
    show_default=True,
    help="validation fits and judges across folds; test fits nothing and judges.",
)
@click.option("--output", type=options.OUTPUT_FILE, help="The calibration file goes here.")
@click.option(
    "--calibration",
    type=options.INPUT_FILE,
    help="On the test split: judge the scores as this file calibrates them.",
)
@click.option(
    "--method",
    type=click.Choice(["auto", "platt", "temperature", "none"]),
    default="auto",
    show_default=True,
    help="Slope and intercept a class, one temperature for all, or thresholds only.",
)
@click.option(
    "--objective",
    type=click.Choice(["auto", "f1", "cost", "recall_floor", "keep"]),
    default="auto",
    show_default=True,
    help="What the threshold of each class is chosen for; keep leaves every decision as it is.",
)
@click.option(
    "--false-alarm-cost",
    type=click.FloatRange(0),
    help="With --objective cost: cost of a false alarm where a miss costs 1.  [default: 1]",
)
@click.option(
    "--min-recall",
    type=click.FloatRange(0, 1, min_open=True),
    help="With --objective recall_floor: the fewest false alarms at this recall.  [default: 0.95]",
)
@click.option(
    "--min-examples",
    type=click.IntRange(min=1),
    default=10,
    show_default=True,
    help="A class with fewer clips with it, or without it, is left as it is.",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    default=5,
    show_default=True,
    help="Folds of sessions that the figures are cross-fitted over.",
)
@click.option(
    "--cluster-field",
    default="session_id",
    show_default=True,
    help="Clips with the same value stay in one fold; none = each clip on its own.",
)
@click.option(
    "--labels",
    metavar="NAME,…",
    callback=options.comma_names,
    help="The classes; any other label is an error.",
)
@click.option(
    "--components",
    type=options.INPUT_FILE,
    help="A components file whose targets are the classes; any other label is an error.",
)
@click.option(
    "--max-ece",
    type=click.FloatRange(0, 1),
    help="Gate: the expected calibration error may be this large.",
)
@click.option(
    "--max-brier", type=click.FloatRange(0, 1), help="Gate: the Brier score may be this large."
)
@click.option(
    "--min-brier-skill",
    type=click.FloatRange(max=1),
    help="Gate: the Brier score must beat that of each class's share by so much of it.",
)
@options.seed_option()
@options.report_options()
def main(outputs: options.ReportOutputs, **given: Any) -> None:
    """Make a model's scores mean what they say, and choose its thresholds.

    Fits on validation predictions; the gates look at figures cross-fitted over sessions. With
    --split test nothing is fitted. Judges always; blocks with --strict.
    """
    from training.checks import calibrate

    report = calibrate.run(calibrate.Options(**given, gates=outputs.gates))
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
