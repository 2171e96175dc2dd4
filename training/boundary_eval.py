"""Command line of the boundary check; the work is done in `training.checks.boundary`."""

from __future__ import annotations

import click

from training import options


def _bins(_: click.Context, param: click.Parameter, given: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in given.split(","))
    except ValueError:
        raise click.BadParameter("must be numbers, such as 5,10,20,40") from None


def _gates(_: click.Context, param: click.Parameter, given: tuple[str, ...]) -> dict[str, float]:
    """Read `name=value`, repeated."""
    values = {}
    for text in given:
        name, equals, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = float("nan")
        if not equals or not 0 <= value <= 1:
            raise click.BadParameter(f"{text!r} is not name=value with a value from 0 to 1")
        values[name.strip()] = value
    return values


@options.command(
    example="drumgate boundary-eval --ground-truth boundary_pack/labels.jsonl"
    " --predictions outputs/boundary_predictions.jsonl --strict"
)
@click.option(
    "--ground-truth",
    type=options.INPUT_FILE,
    required=True,
    help="The boundary pack, from generate_boundary_pack.py.",
)
@click.option(
    "--predictions",
    type=options.INPUT_FILE,
    required=True,
    help="Predictions for its rows, from predict.py --pack.",
)
@click.option(
    "--reference-predictions",
    type=options.INPUT_FILE,
    help="The same model on the whole recordings, from predict.py --events: adds what windows lose"
    " against it.",
)
@options.threshold_option
@click.option(
    "--thresholds",
    type=options.INPUT_FILE,
    help='JSON object of a threshold a label, such as {"kick": 0.4}; --threshold is left for the'
    " others.",
)
@options.calibration_option
@click.option(
    "--top-k",
    type=click.IntRange(min=1),
    help="Of those, keep the K highest a row; --threshold 0 makes it a plain top-K.",
)
@click.option(
    "--distance-bins-ms",
    default="5,10,20,40",
    show_default=True,
    callback=_bins,
    help="Upper bounds of the distances to the seam.",
)
@click.option(
    "--min-macro-recall",
    type=click.FloatRange(0, 1),
    help="Gate: the macro recall must reach this.",
)
@click.option(
    "--min-macro-precision",
    type=click.FloatRange(0, 1),
    help="Gate: the macro precision must reach this.",
)
@click.option(
    "--gate",
    "gate_values",
    multiple=True,
    metavar="NAME=VALUE",
    callback=_gates,
    help="Set a gate by its name, such as min_macro_recall=0.9; repeatable.",
)
@click.option(
    "--min-classes",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="With reference events of fewer classes the macro recall is not measured.",
)
@click.option(
    "--min-events",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="With fewer events that hold a class no gate is measured.",
)
@click.option(
    "--iterations",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Bootstrap resamples of the sessions.",
)
@click.option(
    "--confidence",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Confidence of the interval.",
)
@options.seed_option()
@options.report_options()
def main(outputs: options.ReportOutputs, **given: object) -> None:
    """Judge how many events near the seams of streaming windows a model still finds.

    Reports recall, precision and F1 per class, per edge and by distance to the seam. A row without
    a prediction counts as a miss. Judges always; blocks with --strict.
    """
    from training.checks import boundary

    report = boundary.run(boundary.Options(gates=outputs.gates, **given))  # type: ignore[arg-type]
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
