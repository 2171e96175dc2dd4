"""Turn the MDB Drums dataset into an events manifest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from training import options

if TYPE_CHECKING:
    from training.ingest.mdb_drums import AudioChoice


@options.command(
    example="drumgate ingest-mdb-drums data/mdb_drums --output mdb/events.jsonl "
    "--test-tracks MusicDelta_Rock --test-tracks MusicDelta_Reggae"
)
@click.argument("root", type=options.INPUT_DIR)
@click.option(
    "--output",
    type=options.OUTPUT_FILE,
    required=True,
    help="Where the manifest goes (JSON Lines).",
)
@click.option(
    "--audio",
    type=click.Choice(["drum_only", "full_mix", "auto"]),
    default="drum_only",
    show_default=True,
    help="Which recording audio_path names; auto: drum_only, or full_mix where that is missing.",
)
@click.option(
    "--merge-ms",
    type=click.FloatRange(min=0.0, max=1000.0),
    default=30.0,
    show_default=True,
    help="Hits on different instruments no further apart than this become one event.",
)
@click.option(
    "--test-tracks",
    multiple=True,
    metavar="NAME",
    help="Put this track in split test; repeatable.",
)
@click.option(
    "--val-tracks", multiple=True, metavar="NAME", help="Put this track in split val; repeatable."
)
def main(
    root: Path,
    output: Path,
    audio: AudioChoice,
    merge_ms: float,
    test_tracks: tuple[str, ...],
    val_tracks: tuple[str, ...],
) -> None:
    """Read MDB Drums below ROOT (annotations/, audio/) and write its events.

    Paths of audio in the manifest are relative to ROOT. A track whose audio is missing keeps its
    events. The class annotations are checked against the subclass annotations.
    """
    from training.ingest.common import Tally, convert_all
    from training.ingest.mdb_drums import convert, find_tracks
    from training.manifest import write_jsonl

    tracks = find_tracks(root, audio=audio, test_tracks=test_tracks, val_tracks=val_tracks)
    tally = Tally()
    shown = options.progress(tracks, description="tracks")
    write_jsonl(output, convert_all(shown, partial(convert, merge_ms=merge_ms), tally))
    for warning, count in sorted(tally.warnings.items()):
        options.warn(f"{count:,} {warning}")
    missing = [track.name for track in tracks if track.audio is None]
    if missing:
        options.warn(f"{len(missing)} tracks without audio: {', '.join(missing)}")
    for line in tally.lines():
        options.echo(line)
    options.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
