"""Command line of the trainer; the work is done in `training.loop.run`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from training import options
from training.recipe_flags import recipe_options
from training.train_flags import run_options

if TYPE_CHECKING:
    from training.loop.config import Recipe


@options.command(
    own_display=True,
    example="drumgate train-classifier --dataset DATASET --epochs 50 --batch-size 32"
    " --lr 0.001 --device cuda --output models --metrics-json reports/run.json",
)
@click.option(
    "--dataset", type=options.INPUT_DIR, help="Clip store, as build-training-dataset made it."
)
@click.option(
    "--output", type=options.OUTPUT_DIR, default=Path("models"), show_default=True, help="Folder."
)
@recipe_options
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
@click.option(
    "--finish",
    is_flag=True,
    help="Train no further: write the model with the best weights of the run in --output.",
)
@run_options
@click.option("--print-config", is_flag=True, help="Print the recipe in full as TOML, and end.")
@options.report_options("--metrics-json", strict=False)
def main(
    dataset: Path | None,
    output: Path,
    recipe: Callable[[], Recipe],
    device: str,
    readiness: Path | None,
    allow_unready: bool,
    sampling_weights: Path | None,
    resume: bool,
    finish: bool,
    init_from: Path | None,
    freeze: tuple[str, ...],
    profile: bool,
    trace: bool,
    logs: dict[str, Any],
    print_config: bool,
    outputs: options.ReportOutputs,
) -> None:
    """Train the drum CNN on a clip store that is known to be ready.

    Writes best_drum_classifier.pth, model_card.json and .html, history.json and last_run.pth (for
    --resume) into --output. Settings that are not given come from the preset, or from --config.
    """
    options.share_cores()
    if print_config:
        from training.loop.config_text import recipe_toml

        options.echo(recipe_toml(recipe()))
        return
    if dataset is None:
        raise click.UsageError("Missing option '--dataset'.")
    from training.loop.card import summary_table
    from training.loop.loggers.build import LogOptions, make_loggers
    from training.loop.progress import ConsoleProgress
    from training.loop.run import TrainOptions, train_classifier

    log_dir = logs.pop("log_dir") or output
    report = train_classifier(
        TrainOptions(
            dataset=dataset,
            output=output,
            recipe=recipe(),
            device=device,
            readiness=readiness,
            allow_unready=allow_unready,
            sampling_weights=sampling_weights,
            init_from=init_from,
            freeze=freeze,
            resume=resume or finish,
            finish=finish,
            profile=log_dir if profile or trace else None,
            trace=trace,
        ),
        callbacks=[ConsoleProgress(), *make_loggers(LogOptions(log_dir=log_dir, **logs))],
    )
    if report is None:
        return  # another process of torchrun's writes
    if outputs.format == "text":
        options.echo(summary_table(report))
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
