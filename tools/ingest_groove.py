"""Turn the Groove MIDI Dataset into an events manifest."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from training import options


@options.command(example="drumgate ingest-groove data/groove --output groove/events.jsonl")
@click.argument("root", type=options.INPUT_DIR)
@click.option(
    "--output",
    type=options.OUTPUT_FILE,
    required=True,
    help="Where the manifest goes (JSON Lines).",
)
@click.option(
    "--merge-ms",
    type=click.FloatRange(min=0.0, max=1000.0),
    default=30.0,
    show_default=True,
    help="Hits on different instruments no further apart than this become one event.",
)
def main(root: Path, output: Path, merge_ms: float) -> None:
    """Read the Groove MIDI Dataset below ROOT (info.csv and MIDI files) and write its events.

    Notes become labels by the Roland TD-11 table; velocity is the MIDI velocity / 127; the hi-hat
    pedal (CC4, 127 = pressed down) in force at a hi-hat stroke becomes openness_raw. audio_path,
    relative to ROOT, is set where the take's WAV is there.
    """
    from training.ingest.common import Tally, convert_all
    from training.ingest.groove import convert, find_takes, sessions_across_splits
    from training.manifest import write_jsonl

    takes = find_takes(root)
    tally = Tally()
    shown = options.progress(takes, description="takes")
    write_jsonl(output, convert_all(shown, partial(convert, merge_ms=merge_ms), tally))
    for warning, count in sorted(tally.warnings.items()):
        options.warn(f"{count:,} {warning}")
    silent = sum(take.audio is None for take in takes)
    if silent:
        options.warn(f"{silent:,} of {len(takes):,} takes have no audio at this root")
    if crossing := sessions_across_splits(takes):
        options.warn(
            f"{len(crossing)} of {len(tally.sessions)} sessions lie in more than one official "
            "split: split anew by session before a figure is published"
        )
    for line in tally.lines():
        options.echo(line)
    options.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
