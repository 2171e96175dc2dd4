"""Command line that runs a trained model; the work is done in `training.checks.predict`."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


def _audio_roots(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, Path]:
    pairs = [value.partition("=") for value in values]
    for source, equals, folder in pairs:
        if not (source and equals and folder):
            raise click.BadParameter(f"must be SOURCE=DIR (got {source!r})")
    return {source: Path(folder) for source, _, folder in pairs}


@options.command(
    example="python training/predict.py --model models/best_drum_classifier.pth"
    " --events annotations/events.jsonl --audio-root recordings --output predictions.jsonl"
)
@click.option("--model", type=options.INPUT_FILE, required=True, help="Model file of a training.")
@click.option(
    "--events",
    type=options.INPUT_FILE,
    help="Manifest whose rows have sample_id, onset_time and audio_path.",
)
@click.option(
    "--pack",
    type=options.INPUT_FILE,
    help="Boundary pack, in place of --events: the model hears only each row's own window.",
)
@click.option(
    "--audio-root",
    type=options.INPUT_DIR,
    help="Folder that audio_path is relative to.  [default: the manifest's folder]",
)
@click.option(
    "--audio-root-map",
    "audio_roots",
    multiple=True,
    metavar="SOURCE=DIR",
    callback=_audio_roots,
    help="Another folder for the rows of a source_set; may be given several times.",
)
@click.option("--output", type=options.OUTPUT_FILE, required=True, help="Predictions go here.")
@click.option(
    "--unknown-score",
    type=click.Choice(["mahalanobis", "energy", "max_probability"]),
    default="mahalanobis",
    show_default=True,
    help="How unknown a sound is: its features' distance from training, or from the logits.",
)
@click.option(
    "--calibration",
    type=options.INPUT_FILE,
    help="From calibrate.py: write calibrated scores, each row marked with the calibration's id.",
)
@click.option("--write-logits", is_flag=True, help="Write the model's logits beside the scores.")
@click.option(
    "--write-features",
    type=options.OUTPUT_FILE,
    help="NumPy archive for the features, with the model's statistics, for openset-eval.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=64,
    show_default=True,
    help="Clips at once; changes speed and memory only.",
)
@options.device_option
@click.option(
    "--skip-missing-audio", is_flag=True, help="Leave out, and count, rows without audio."
)
@click.option("--report", type=options.OUTPUT_FILE, help="Write a JSON report here.")
def main(
    model: Path,
    events: Path | None,
    pack: Path | None,
    audio_root: Path | None,
    audio_roots: dict[str, Path],
    output: Path,
    unknown_score: str,
    calibration: Path | None,
    write_logits: bool,
    write_features: Path | None,
    batch_size: int,
    device: str,
    skip_missing_audio: bool,
    report: Path | None,
) -> None:
    """Predict what is struck at each onset of EVENTS, or of a boundary pack.

    Writes one JSON object a row: scores by label (0.5 = the class's operating point), velocity,
    openness, and how unknown the sound is. Each recording is read once.
    """
    if (events is None) == (pack is None):
        raise click.UsageError("give either --events or --pack")
    options.share_cores()
    from training.checks import predict
    from training.manifest import write_json

    made = predict.run(
        predict.Options(
            model=model,
            output=output,
            events=events,
            pack=pack,
            audio_root=audio_root,
            audio_roots=audio_roots,
            device=device,
            batch_size=batch_size,
            unknown_score=unknown_score,
            calibration=calibration,
            write_logits=write_logits,
            write_features=write_features,
            skip_missing_audio=skip_missing_audio,
        ),
        track=lambda items, what: options.progress(items, description=what, total=len(items)),
    )
    if report:
        write_json(report, made.to_dict())
    for warning in made.warnings:
        options.warn(warning)
    options.echo(
        f"{made.metrics['rows_predicted']} rows of {made.metrics['recordings']} recordings "
        f"({made.metrics['audio_s']:.1f} s of audio) -> {output}; "
        f"real-time factor {made.provenance['rtf']:.4f}"
    )


if __name__ == "__main__":
    main()
