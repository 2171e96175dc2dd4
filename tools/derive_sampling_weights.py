"""Command line of the sampling weights; the work is done in `training.checks.sampling`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training import options


def _boosts(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    """Read `name=factor`, repeated."""
    boosts = {}
    for text in given:
        name, equals, number = text.partition("=")
        try:
            boosts[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise click.BadParameter(f"{text!r} is not name=factor, such as crash_dual_label=0.85")
    return boosts


def _key(_: click.Context, __: click.Parameter, given: str | None) -> tuple[str, ...] | None:
    """Read `a,b,c`; `none` = keep every event."""
    if given is None or given.strip() == "none":
        return None if given is None else ()
    return tuple(name.strip() for name in given.split(",") if name.strip())


@options.command(
    example="python tools/derive_sampling_weights.py annotations/events.jsonl"
    " --output sampling_weights.json --profile prod_combined"
)
@click.argument("manifest", type=options.INPUT_FILE)
@click.option("--output", type=options.OUTPUT_FILE, required=True, help="Write the weights here.")
@click.option(
    "--group-field",
    type=click.Choice(["session_id", "audio_path", "drummer_id", "kit_id", "source_set"]),
    help="Events with the same value share one weight.  [default: session_id]",
)
@click.option(
    "--dedupe-key",
    metavar="FIELD,…",
    callback=_key,
    help="Of events equal in these fields the first counts; none = all count."
    "  [default: session_id,onset_time,components]",
)
@click.option(
    "--exponent",
    type=click.FloatRange(min=0),
    help="weight = (count + smoothing) ** -exponent.  [default: 0.5]",
)
@click.option("--smoothing", type=click.FloatRange(min=0), help="See --exponent.  [default: 1]")
@click.option(
    "--max-events-per-group",
    type=click.IntRange(min=1),
    help="Count no more than this many in a group.  [default: 512]",
)
@click.option(
    "--min-count",
    type=click.IntRange(min=1),
    help="Leave out groups with fewer events.  [default: 1]",
)
@click.option(
    "--technique-boost",
    multiple=True,
    metavar="NAME=FACTOR",
    callback=_boosts,
    help="Raise a group by FACTOR times the share of its events that show NAME (repeatable).",
)
@click.option("--min-weight", type=click.FloatRange(min=0, min_open=True), help="[default: 0.05]")
@click.option("--max-weight", type=click.FloatRange(min=0, min_open=True), help="[default: 0.5]")
@click.option("--profile", help="Take the parameters from this profile; flags go before it.")
@click.option(
    "--profiles-path",
    type=options.INPUT_FILE,
    help="File with the profiles.  [default: the shipped sampling_profiles.json]",
)
@click.option(
    "--draws", type=click.IntRange(min=1), help="Draws to preview.  [default: the events]"
)
def main(
    manifest: Path,
    output: Path,
    profile: str | None,
    profiles_path: Path | None,
    draws: int | None,
    **given: Any,
) -> None:
    """Derive how often each session is drawn in training, and preview the draw.

    Large sessions get a low weight an event, small ones a high one; the preview says what an
    epoch will then hold of each class, source and dynamics.
    """
    from training.checks import sampling
    from training.manifest import write_json

    artefact = sampling.run(
        sampling.Options(
            manifest=manifest,
            profile=profile,
            profiles_path=profiles_path,
            given=given,
            draws=draws,
        )
    )
    write_json(output, artefact)
    options.echo(sampling.summary(artefact))
    options.echo(f"written to {output}")


if __name__ == "__main__":
    main()
