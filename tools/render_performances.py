"""Command line that renders performances; the work is done in `training.audio.synth.rendering`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from training import options

COUNT = click.IntRange(min=1)


@options.command(
    example="drumgate render-performances groove/events.jsonl rendered --splits train,val"
    " --kits 60 --excerpt-s 10 --seed 7"
)
@click.argument("events", type=options.INPUT_FILE)
@click.argument("out", type=options.OUTPUT_DIR)
@click.option(
    "--kits",
    type=click.IntRange(1, 999),
    default=40,
    show_default=True,
    help="Kits to draw; every drummer has kits of their own.",
)
@click.option(
    "--renderings",
    type=COUNT,
    default=1,
    show_default=True,
    help="How often each performance is rendered: on other kits, in other rooms.",
)
@click.option(
    "--excerpt-s",
    type=click.FloatRange(min=0.5),
    help="Render a random stretch of each performance that is longer than this, in seconds."
    "  [default: all of it]",
)
@click.option("--limit", type=COUNT, help="Render this many performances, drawn at random.")
@click.option(
    "--splits",
    multiple=True,
    metavar="NAME,…",
    callback=options.split_commas,
    help="Render the performances of these splits only: train, val, test.",
)
@click.option(
    "--val-drummer",
    "val_drummers",
    multiple=True,
    metavar="NAME",
    help="Divide anew: this drummer's performances are val, all others train; repeatable.",
)
@click.option(
    "--merge-ms",
    type=click.FloatRange(min=0.0, max=1000.0),
    default=30.0,
    show_default=True,
    help="Strokes on different instruments no further apart than this become one event.",
)
@click.option(
    "--sample-rate",
    type=click.IntRange(16_000, 96_000),
    default=44_100,
    show_default=True,
    help="Hz.",
)
@click.option(
    "--skip-voiceless",
    is_flag=True,
    help="Leave out, and count, strokes that the synthesiser has no voice for.",
)
@click.option(
    "--attribution",
    help="Whose performances they are, and their licence; written with every event."
    "  [default: known for groove and mdb_drums]",
)
@click.option(
    "--jobs",
    type=COUNT,
    help="Recordings rendered at once (default: the cores, at most 4); never changes the result.",
)
@click.option("--force", is_flag=True, help="Replace a set that this tool made before.")
@options.seed_option()
def main(events: Path, out: Path, jobs: int | None, force: bool, **parameters: Any) -> None:
    """Render the performances of the manifest EVENTS with the built-in synthesiser, into OUT.

    Timing, velocity, openness and techniques are those of the manifest, such as ingest-groove
    writes from MIDI. Kits, rooms, levels, equalisation and compression are drawn at random. The
    same manifest and options give the same bytes.
    """
    import os

    from training.audio.synth.rendering import RenderPlan, render_performances

    def track(items: Iterable[Any], description: str, total: int) -> Iterable[Any]:
        return options.progress(items, description=description, total=total)

    metadata = render_performances(
        events,
        out,
        RenderPlan(**parameters),
        force=force,
        jobs=jobs or min(os.cpu_count() or 1, 4),
        track=track,
    )
    if skipped := metadata["strokes_without_a_voice"]:
        named = ", ".join(f"{label} {count:,}" for label, count in skipped.items())
        options.warn(f"strokes left out, the synthesiser has no voice for them: {named}")
    if crossing := metadata["sessions_in_several_splits"]:
        options.warn(
            f"{len(crossing)} sessions lie in more than one split: --val-drummer divides anew, or "
            "build-training-dataset --split-by session"
        )
    for split, who in metadata["splits"].items():
        minutes = sum(metadata["durations_s"][split].values()) / 60.0
        hits = sum(metadata["label_counts"][split].values())
        options.echo(
            f"{'no split' if split == 'None' else split:8}  {len(who['sessions']):3} sessions  "
            f"{minutes:6.1f} min  {hits:7,} hits  {len(who['kits']):3} kits"
        )
    options.echo(
        f"{metadata['renderings']:,} renderings of {metadata['performances']:,} performances, "
        f"{metadata['events_total']:,} events, written to {out}"
    )


if __name__ == "__main__":
    main()
