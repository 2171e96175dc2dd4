"""Turn raw hi-hat pedal values into openness by calibration curves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from training import options


@options.command(
    example="drumgate normalize-openness --events events.jsonl --output normalized.jsonl"
    " --curves training/calibration/openness_curves.json",
    rewrites=("output",),
)
@click.option("--events", type=options.INPUT_FILE, required=True, help="The manifest.")
@click.option(
    "--output", type=options.OUTPUT_FILE, help="Where the new manifest goes (JSON Lines)."
)
@click.option(
    "--curves", type=options.INPUT_FILE, help="Calibration curves; the shipped ones by default."
)
@click.option(
    "--default-curve",
    metavar="ID",
    help="Curve for devices that no curve names; without it they are left untouched.",
)
@click.option(
    "--overwrite", is_flag=True, help="Replace an openness that did not come from a curve, too."
)
@click.option(
    "--fit",
    type=options.OUTPUT_FILE,
    help="Write no manifest: fit a curve for each device of EVENTS and write them here.",
)
@click.option(
    "--fit-from",
    type=click.Choice(["auto", "measured", "labels"]),
    default="auto",
    show_default=True,
    help="Fit to openness measured otherwise or to closed and open labels; auto prefers the first.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing else.")
@click.option("--report", type=options.OUTPUT_FILE, help="Write the figures as JSON here.")
def main(report: Path | None, **parameters: Any) -> None:
    """Set openness (0 closed, 1 open) from openness_raw (CC4, 0..127) by the curve of the device.

    The device is device_vendor and device_model. A device without a curve is counted, reported and
    left untouched. Fails where a device's own strokes show that its pedal runs the other way.
    """
    from training.manifest import write_json

    fitting = parameters["fit"] is not None
    if fitting and (parameters["output"] or parameters["curves"] or parameters["default_curve"]):
        raise click.UsageError("--fit takes neither --output nor --curves nor --default-curve")
    if fitting and parameters["overwrite"]:
        raise click.UsageError("--fit takes no --overwrite: it writes no manifest")
    if not fitting and parameters["fit_from"] != "auto":
        raise click.UsageError("--fit-from says what --fit fits to; give that too")
    if not fitting and parameters["output"] is None and not parameters["dry_run"]:
        raise click.UsageError("give --output (or --dry-run)")
    made = (_fit if fitting else _normalize)(**parameters)
    for warning in made.warnings:
        options.warn(warning)
    for line in _said(made.metrics):
        options.echo(line)
    if report is not None:
        write_json(report, made.to_dict())
    target = parameters["fit"] or parameters["output"]
    if parameters["dry_run"]:
        options.echo("dry run: no manifest written" if not fitting else "dry run: no curve written")
    else:
        options.echo(f"wrote {target}")


def _progress(items: Any, what: str, total: int | None) -> Any:
    return options.progress(items, description=what, total=total)


def _normalize(**given: Any) -> Any:
    from training.checks import openness

    names = ("events", "output", "default_curve", "overwrite", "dry_run")
    curves = given["curves"] or openness.DEFAULT_CURVES
    wanted = openness.Options(curves=curves, **{name: given[name] for name in names})
    return openness.run(wanted, track=_progress)


def _fit(**given: Any) -> Any:
    from training.checks import openness_fit

    names = ("events", "fit", "fit_from", "dry_run")
    wanted = openness_fit.Options(**{name: given[name] for name in names})
    return openness_fit.run(wanted, track=_progress)


def _said(metrics: Any) -> list[str]:
    if "fitted" in metrics:
        return [
            f"  {figures['device']}: {name}, {figures['polarity']}, {figures['n']:,} strokes, "
            f"residual {figures['residual']:.3f}, uncertainty "
            + ("unknown (too few sessions)" if error is None else f"{error:.3f}")
            for name, figures in metrics["fitted"].items()
            for error in (figures["uncertainty"],)
        ]
    first = (
        f"{metrics['events_total']:,} events: {metrics['normalized']:,} components normalized, "
        f"{metrics['left_untouched']:,} left untouched, {metrics['kept']:,} kept"
    )
    devices = metrics["devices"].items()
    return [first] + [
        f"  {name}: {figures['components']:,} by {figures['curve_id'] or 'no curve'}"
        for name, figures in devices
    ]


if __name__ == "__main__":
    main()
