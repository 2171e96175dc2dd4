"""Command line of the trainer; the work is done in `training.loop.run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training import options


@options.command(
    example="python training/train_classifier.py --dataset DATASET --epochs 50 --batch-size 32"
    " --lr 0.001 --device cuda --output models --metrics-json reports/run.json"
)
@click.option(
    "--dataset",
    type=options.INPUT_DIR,
    required=True,
    help="Clip store, as build-training-dataset made it.",
)
@click.option(
    "--output", type=options.OUTPUT_DIR, default=Path("models"), show_default=True, help="Folder."
)
@click.option(
    "--preset",
    type=click.Choice(["default", "short", "fast"]),
    default="default",
    show_default=True,
    help="Recipe to start from: 576 ms 128 x 128, 181 ms 128 x 128, or 200 ms 64 x 64.",
)
@click.option("--config", type=options.INPUT_FILE, help="TOML laid over the preset.")
@click.option("--epochs", type=click.IntRange(min=1), help="Passes over the training clips.")
@click.option(
    "--max-minutes",
    type=click.FloatRange(min=0, min_open=True),
    help="Time budget: the learning-rate schedule is laid over it.",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Clips a step.")
@click.option("--lr", "learning_rate", type=float, help="Largest learning rate.")
@click.option("--task", type=click.Choice(["multilabel", "multiclass"]), help="Labels an event.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of everything drawn at random.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.")
@options.device_option
@click.option(
    "--readiness",
    type=options.INPUT_FILE,
    help="Report of run-readiness-checks.  [default: readiness.json in the dataset]",
)
@click.option(
    "--allow-unready",
    is_flag=True,
    help="Train on a dataset not known to be ready; the checkpoint and the card say so.",
)
@click.option(
    "--sampling-weights",
    type=options.INPUT_FILE,
    help="Draw training clips by this file of derive-sampling-weights.  [default: by the preset's"
    " balance]",
)
@click.option("--resume", is_flag=True, help="Go on with the run that stands in --output.")
@options.report_options("--metrics-json", strict=False)
def main(
    dataset: Path,
    output: Path,
    preset: str,
    config: Path | None,
    device: str,
    readiness: Path | None,
    allow_unready: bool,
    sampling_weights: Path | None,
    resume: bool,
    outputs: options.ReportOutputs,
    **settings: Any,
) -> None:
    """Train the drum CNN on a clip store that is known to be ready.

    Writes best_drum_classifier.pth, model_card.json, history.json and last_run.pth (for --resume)
    into --output. Settings that are not given come from the preset, or from --config.
    """
    options.share_cores()
    from training.loop.card import summary_table
    from training.loop.config import load_recipe
    from training.loop.progress import ConsoleProgress
    from training.loop.run import TrainOptions, train_classifier

    shown = ConsoleProgress()
    try:
        report = train_classifier(
            TrainOptions(
                dataset=dataset,
                output=output,
                recipe=load_recipe(preset, config, settings),
                device=device,
                readiness=readiness,
                allow_unready=allow_unready,
                sampling_weights=sampling_weights,
                resume=resume,
            ),
            callbacks=[shown],
        )
    finally:
        shown.close()
    if outputs.format == "text":
        options.echo(summary_table(report))
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
