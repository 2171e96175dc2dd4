"""Command line that runs a trained model; the work is done in `training.checks.predict`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from training import options


@options.command(
    example="drumgate predict --model models/best_drum_classifier.pth"
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
    "--audio",
    multiple=True,
    **options.MANIFESTS,
    metavar="FILE",
    help="Whole recording, in place of --events: its onsets are found first; repeatable, and a"
    ' pattern such as "takes/*.wav" will do.',
)
@click.option(
    "--sensitivity",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.45,
    show_default=True,
    help="With --audio: higher finds more onsets, and more that are none.",
)
@click.option(
    "--reference",
    type=options.INPUT_FILE,
    help="With --audio: annotated events of the recordings, for false alarms an hour and recall.",
)
@options.audio_root_options("the manifest's folder")
@click.option(
    "--preset",
    type=click.Choice(["default", "short", "fast"]),
    help="The features that the model must have; another is refused.",
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
@click.option("--write-logits", is_flag=True, help="Write the logits beside the scores.")
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
@click.option("--skip-missing-audio", is_flag=True, help="Leave out rows without audio.")
@click.option("--report", type=options.OUTPUT_FILE, help="Write a JSON report here.")
def main(
    report: Path | None,
    audio: tuple[Path, ...],
    sensitivity: float,
    reference: Path | None,
    **given: Any,
) -> None:
    """Predict what is struck at onsets of EVENTS, of a boundary pack, or of whole recordings.

    Writes one JSON object a row: scores by label (0.5 = the class's operating point), velocity,
    openness, and how unknown the sound is. With --audio a row is an event of a manifest as well.
    """
    if sum(map(bool, (given["events"], given["pack"], audio))) != 1:
        raise click.UsageError("give either --events or --pack or --audio")
    options.share_cores()
    from training.checks import predict, predict_model, predict_recordings
    from training.manifest import write_json

    def track(items: Sequence[Any], what: str) -> Iterable[Any]:
        return options.progress(items, description=what, total=len(items))

    if audio:
        for name in ("events", "pack", "audio_roots", "write_features", "skip_missing_audio"):
            if given.pop(name):
                raise click.UsageError(f"--{name.replace('_', '-')} does not go with --audio")
        made = predict_recordings.run(
            predict_recordings.Options(
                audio=audio, sensitivity=sensitivity, reference=reference, **given
            ),
            track=track,
        )
    elif reference is not None:
        raise click.UsageError("--reference goes with --audio; judge events with bootstrap-eval")
    else:
        made = predict.run(predict.Options(**given), track=track)
    if report:
        write_json(report, made.to_dict())
    for warning in made.warnings:
        options.warn(warning)
    options.echo(predict_model.summary(made, given["output"]))


if __name__ == "__main__":
    main()
