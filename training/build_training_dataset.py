"""Command line that builds a clip store; the work is done in `training.checks.build_dataset`."""

from __future__ import annotations

from typing import Any

import click

from training import options

_RATIO = click.FloatRange(0, 1, max_open=True)


@options.command(
    example="drumgate build-training-dataset annotations/events.jsonl DATASET"
    " --audio-root recordings --val-ratio 0.1 --seed 7"
)
@click.argument("events", type=options.INPUT_FILE)
@click.argument("out", type=options.OUTPUT_DIR)
@options.audio_root_options("the folder of EVENTS")
@click.option("--val-ratio", type=_RATIO, default=0.1, show_default=True, help="Share of val.")
@click.option("--test-ratio", type=_RATIO, default=0.1, show_default=True, help="Share of test.")
@options.seed_option()
@click.option(
    "--split-by",
    type=click.Choice(["auto", "session", "drummer_kit", "official"]),
    default="auto",
    show_default=True,
    help="What splits may not share; auto takes the manifest's split field when every event has"
    " one, else the strictest isolation that is possible.",
)
@click.option(
    "--allow-session-overlap",
    is_flag=True,
    help="Accept official splits that share a session, and record it.",
)
@click.option(
    "--sample-rate",
    type=click.IntRange(1000, 384_000),
    default=44_100,
    show_default=True,
    help="Sample rate of the store, in Hz; recordings of another rate are resampled.",
)
@click.option("--components", type=options.INPUT_FILE, help="Taxonomy.  [default: the shipped one]")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Keep this many events, taken evenly from the sessions: for a quick try.",
)
@click.option(
    "--skip-missing-audio",
    is_flag=True,
    help="Leave out, and count, events whose audio is not there.",
)
@click.option("--force", is_flag=True, help="Replace the store that is in OUT.")
@click.option(
    "--resume",
    is_flag=True,
    help="Take over what an unfinished build, or a damaged store in OUT, holds already, and keep"
    " what is done should this build be interrupted. The outcome is that of a fresh build.",
)
@click.option(
    "--verify-only",
    is_flag=True,
    help="Build nothing: check the store in OUT against its hashes, its manifests and EVENTS"
    " (and against the audio, when --audio-root is given); exit 1 if anything differs.",
)
@click.option(
    "--expected-duration-csv",
    type=options.INPUT_FILE,
    help="CSV with duration_s and audio_path or session_id: recordings of another length fail.",
)
@click.option(
    "--duration-tolerance-ms",
    type=click.FloatRange(min=0),
    default=100.0,
    show_default=True,
    help="How far a recording may be from its expected duration.",
)
@click.option(
    "--export-wavs",
    type=options.OUTPUT_DIR,
    help="Write each clip as a WAV file here too, with a manifest, clips.jsonl.",
)
@click.option(
    "--clip-windows",
    type=options.INPUT_FILE,
    help="TOML with the context of exported clips by class.  [default: the shipped one]",
)
@options.report_options("--summary-json", strict=False)
def main(outputs: options.ReportOutputs, **parameters: Any) -> None:
    """Build the clip store OUT from EVENTS and their audio.

    Decodes each recording once into one 16-bit blob a split, with a table of events beside it, and
    divides the events so that no session is in two splits.
    """
    from training.checks import build_dataset, build_dataset_report

    report = build_dataset.run(
        build_dataset.Options(**parameters, gates=outputs.gates),
        track=lambda items, what: options.progress(items, description=what, total=len(items)),
    )
    if outputs.format == "text" and (held := build_dataset_report.summary(report)):
        options.echo(held)
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
