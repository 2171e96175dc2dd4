"""Command line of the sampling weights; the work is done in `training.checks.sampling`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training import options

GROUPS = ["session_id", "audio_path", "track_id", "drummer_id", "kit_id", "room_id", "source_set"]
AT_LEAST_1 = click.IntRange(min=1)
ABOVE_0 = click.FloatRange(min=0, min_open=True)


def _boosts(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    """Read `name=factor`, repeated."""
    boosts = {}
    for text in given:
        name, equals, number = text.partition("=")
        if name.strip() in boosts:
            raise click.BadParameter(f"{name.strip()!r} is given twice")
        try:
            boosts[name.strip()] = float(number)
        except ValueError:
            equals = ""
        if not equals or not name.strip():
            raise click.BadParameter(f"{text!r} is not name=factor, such as crash_dual_label=0.85")
    return boosts


def _key(
    context: click.Context, parameter: click.Parameter, given: str | None
) -> tuple[str, ...] | None:
    """Read `a,b,c`; `none` = keep every event."""
    if given is None or given.strip() == "none":
        return None if given is None else ()
    return options.split_commas(context, parameter, [given])


@options.command(
    example="drumgate derive-sampling-weights annotations/events.jsonl"
    " --output sampling_weights.json --profile prod_combined"
)
@click.argument("manifests", nargs=-1, required=True, metavar="MANIFEST...", **options.MANIFESTS)
@click.option("--output", type=options.OUTPUT_FILE, required=True, help="Write the weights here.")
@click.option(
    "--scheme",
    type=click.Choice(["inverse_count", "repeat_factor", "effective_number"]),
    help="Weigh groups by their size, or classes by their rarity (LVIS repeat factors; the"
    " effective number of samples).  [default: inverse_count]",
)
@click.option(
    "--group-field",
    type=click.Choice(GROUPS),
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
    "--max-events-per-group", type=AT_LEAST_1, help="Count at most this many.  [default: 512]"
)
@click.option("--min-count", type=AT_LEAST_1, help="Leave out smaller groups.  [default: 1]")
@click.option(
    "--technique-boost",
    multiple=True,
    metavar="NAME=FACTOR",
    callback=_boosts,
    help="Raise a group by FACTOR times the share of its events that show NAME; repeatable.",
)
@click.option("--include-technique", multiple=True, help="Draw only events that show one of these.")
@click.option("--exclude-technique", multiple=True, help="Draw no event that shows one of these.")
@click.option(
    "--min-weight",
    type=ABOVE_0,
    help="Least weight of a group, or factor of a class.  [default: 0.05; classes: none]",
)
@click.option(
    "--max-weight",
    type=ABOVE_0,
    help="Most weight of a group, or factor of a class.  [default: 0.5; classes: none]",
)
@click.option(
    "--repeat-threshold",
    type=click.FloatRange(min=0, max=1, min_open=True),
    help="Repeat classes in a smaller share of the events (repeat_factor).  [default: 0.05]",
)
@click.option(
    "--beta",
    type=click.FloatRange(min=0, max=1, max_open=True),
    help="How slowly more events count for less (effective_number).  [default: 0.9999]",
)
@click.option("--profile", help="Take the parameters from this profile; flags go before it.")
@click.option(
    "--profiles-path",
    type=options.INPUT_FILE,
    help="File with the profiles.  [default: the shipped sampling_profiles.json]",
)
@click.option("--draws", type=AT_LEAST_1, help="Draws to preview.  [default: the events]")
@options.engine_options
def main(
    manifests: tuple[Path, ...],
    output: Path,
    profile: str | None,
    profiles_path: Path | None,
    draws: int | None,
    memory_limit: str | None,
    cache_dir: Path | None,
    **given: Any,
) -> None:
    """Derive how often each event is drawn in training, and preview the draw.

    Large sessions get a low weight an event, small ones a high one; or rare classes get a high one.
    The preview says what an epoch will then hold of each class, source and dynamics.
    """
    from training.checks import sampling
    from training.manifest import write_json

    artefact = sampling.run(
        sampling.Options(
            manifest=manifests,
            profile=profile,
            profiles_path=profiles_path,
            given=given,
            draws=draws,
            memory_limit=memory_limit,
            cache_dir=cache_dir,
        )
    )
    write_json(output, artefact)
    for warning in artefact["warnings"]:
        options.warn(warning)
    options.echo(f"{sampling.summary(artefact)}\nwritten to {output}")


if __name__ == "__main__":
    main()
