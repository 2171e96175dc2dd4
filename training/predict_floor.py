"""Command line of the honest floors; the work is done in `training.checks.predict_floor`."""

from __future__ import annotations

from typing import Any

import click

from training import options


@options.command(
    example="drumgate predict-floor --dataset DATASET --model models/best_drum_classifier.pth"
    " --output floor.jsonl"
)
@click.option(
    "--dataset",
    type=options.INPUT_DIR,
    required=True,
    help="Clip store, as build-training-dataset made it.",
)
@click.option(
    "--floor",
    type=click.Choice(["band_energy", "most_frequent"]),
    default="band_energy",
    show_default=True,
    help="A logistic regression a class on seven band energies, or always the label set that is"
    " most frequent in training.",
)
@click.option("--split", default="test", show_default=True, help="Split to predict.")
@click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="NAME,…",
    callback=options.split_commas,
    help="Fit the training clips of this source_set only; repeatable.  [default: of all]",
)
@click.option(
    "--model",
    type=options.INPUT_FILE,
    help="Model file: the floor hears the same window, in place of the preset's.",
)
@click.option(
    "--preset",
    type=click.Choice(["default", "short", "fast"]),
    default="default",
    show_default=True,
    help="Window and log-mel that the bands are taken from.",
)
@click.option("--output", type=options.OUTPUT_FILE, required=True, help="Predictions go here.")
@options.seed_option()
def main(**given: Any) -> None:
    """Fit a floor on a clip store's training clips, and write what it says of another split.

    The predictions have the form of predict's. As --baseline-predictions of bootstrap-eval they
    tell, class by class, whether a model is worth more than a floor that costs nothing.
    """
    options.share_cores()
    from training.checks import predict_floor

    made = predict_floor.run(predict_floor.Options(**given))
    options.echo(predict_floor.summary_line(made))
    options.echo(f"wrote {given['output']}")


if __name__ == "__main__":
    main()
