"""Make a drum dataset with the built-in synthesiser: multi-microphone audio with exact truth."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(
    example="drumgate make-demo-dataset demo --sessions 24 --drummers 6 --kits 8 --seed 0"
)
@click.argument("out", type=options.OUTPUT_DIR)
@click.option("--sessions", type=int, default=24, show_default=True, help="Sessions on the kit.")
@click.option("--drummers", type=int, default=6, show_default=True, help="Drummers to draw.")
@click.option("--kits", type=int, default=8, show_default=True, help="Kits to draw.")
@click.option(
    "--unknown-sessions",
    type=int,
    default=3,
    show_default=True,
    help="Sessions of cowbell, clap and shaker, for the open-set gate alone.",
)
@click.option(
    "--duration-s", type=float, default=30.0, show_default=True, help="Seconds a session."
)
@click.option("--sample-rate", type=int, default=44_100, show_default=True, help="Hz.")
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    help="Sessions rendered at once (default: the cores, at most 4); never changes the result.",
)
@click.option("--force", is_flag=True, help="Replace a dataset that this tool made before.")
@click.option(
    "--progress/--no-progress", default=True, show_default=True, help="Show a bar in a terminal."
)
@options.seed_option()
def main(
    out: Path,
    sessions: int,
    drummers: int,
    kits: int,
    unknown_sessions: int,
    duration_s: float,
    sample_rate: int,
    jobs: int | None,
    force: bool,
    progress: bool,
    seed: int,
) -> None:
    """Synthesise sessions into the folder OUT: FLAC audio, alignment manifests, events, splits.

    Test sessions have drummers and kits that no other session has. Percussion of no known class
    has sessions of its own, for the open-set gate alone. The same options give the same bytes.
    """
    import os
    from collections.abc import Iterable
    from typing import Any

    from training.audio.synth.dataset import make_dataset
    from training.audio.synth.plan import DatasetPlan

    def track(items: Iterable[Any], description: str, total: int) -> Iterable[Any]:
        return options.progress(items, description=description, total=total)

    metadata = make_dataset(
        out,
        DatasetPlan(
            sessions=sessions,
            drummers=drummers,
            kits=kits,
            unknown_sessions=unknown_sessions,
            duration_s=duration_s,
            sample_rate=sample_rate,
            seed=seed,
        ),
        force=force,
        jobs=jobs or min(os.cpu_count() or 1, 4),
        track=track if progress else None,
    )
    for split, who in metadata["splits"].items():
        seconds = sum(metadata["durations_s"][split].values())
        hits = sum(metadata["label_counts"][split].values())
        options.echo(
            f"{split:5}  {len(who['sessions']):3} sessions  {seconds:7.0f} s  {hits:6,} hits  "
            f"kits {' '.join(who['kits'])}"
        )
    options.echo(f"{metadata['events_total']:,} events written to {out}")


if __name__ == "__main__":
    main()
