"""The flags of the health check that ask for gates."""

from __future__ import annotations

import click

from training import options

_SHARE = click.FloatRange(0, 1)
_COUNT = click.IntRange(min=0)
# The gates that are one number each: flag, what it takes, what must hold.
_GATES: tuple[tuple[str, click.ParamType, str], ...] = (
    ("max-duplication-rate", _SHARE, "at most this share of the events may repeat another."),
    ("min-class-count", _COUNT, "every target label needs this many hits."),
    ("min-split-class-count", _COUNT, "every target label needs this many hits in every split."),
    ("max-unknown-labels", _COUNT, "at most this many hits may carry an unknown label."),
    ("max-synthetic-fraction", _SHARE, "at most this share of the events may be synthetic."),
    ("min-drummers", _COUNT, "at least this many drummers."),
    ("min-sessions", _COUNT, "at least this many sessions."),
    ("min-kits", _COUNT, "at least this many kits."),
    ("min-rooms", _COUNT, "at least this many rooms."),
    ("min-duration-s", click.FloatRange(min=0), "at least so many seconds of audio."),
    ("min-negatives", _COUNT, "at least this many negative or empty events."),
    ("min-dynamic-count", _COUNT, "ghost, light, medium and accent need this many hits each."),
    ("min-openness-hits", _COUNT, "at least this many hits must state their openness."),
    ("min-annotated-share", _SHARE, "every target label is annotated in this share of events."),
    ("max-contradicted-hits", _COUNT, "at most this many hits outside their annotated_labels."),
    ("max-unknown-techniques", _COUNT, "at most this many unknown names of techniques."),
    ("max-repeated-performances", _COUNT, "at most this many takes may repeat another session's."),
    ("max-clipping-rate", _SHARE, "at most this share of the events may peak at 0 dBFS or more."),
    ("max-outlier-rate", _SHARE, "at most this share may be out of line, each kind by itself."),
)

_NAMED = (
    click.option(
        "--min-counts-json",
        type=options.INPUT_FILE,
        help="Gate: JSON of label: hits, in place of --min-class-count for those labels.",
    ),
    click.option(
        "--require-technique",
        "require_techniques",
        multiple=True,
        help="Gate: some event must show this technique. Repeatable.",
    ),
    click.option(
        "--require-techniques-file",
        "require_techniques_files",
        type=options.INPUT_FILE,
        multiple=True,
        help="Gate: the same for every technique of a list, one a line. Repeatable.",
    ),
    click.option(
        "--require-label",
        "require_labels",
        multiple=True,
        help="Gate: some hit must carry this label. Repeatable.",
    ),
    click.option(
        "--require-labels-file",
        "require_labels_files",
        type=options.INPUT_FILE,
        multiple=True,
        help="Gate: the same for every label of a list, one a line. Repeatable.",
    ),
)

_OTHERS = (
    click.option(
        "--require-count",
        "require_counts",
        multiple=True,
        metavar="FIGURE:NAME=N",
        help="Gate: NAME stands at least N times under FIGURE, such as bleed:high=100 or"
        " techniques:flam=50. FIGURE is bleed, crash_variants, devices, dual_labels, dynamics,"
        " meters, mix_context, techniques or tempo_bins. Repeatable.",
    ),
    click.option(
        "--outlier-kinds",
        multiple=True,
        callback=options.split_commas,
        metavar="KINDS",
        help="Kinds that --max-outlier-rate judges, comma-separated; if none, all that it can.",
    ),
    click.option(
        "--max-events-per-second",
        type=click.IntRange(min=1),
        default=40,
        show_default=True,
        help="More events of one track within a second are outliers.",
    ),
    click.option(
        "--split-isolation",
        multiple=True,
        callback=options.split_commas,
        metavar="FIELDS",
        help="Gate: splits share no session, drummer, kit, room or performance"
        " (comma-separated). Repeatable.",
    ),
)


def gate_options(command: options.Function) -> options.Function:
    """Add every flag that asks for a gate or says what one judges, in the order of the help."""
    numbers = [
        click.option(f"--{flag}", type=kind, help=f"Gate: {what}") for flag, kind, what in _GATES
    ]
    for option in reversed((*_NAMED, *numbers, *_OTHERS)):
        command = option(command)
    return command
