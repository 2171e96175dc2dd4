"""Turn raw hi-hat pedal values into openness by calibration curves."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(
    example="python training/normalize_openness.py --events events.jsonl --output normalized.jsonl"
    " --curves training/calibration/openness_curves.json"
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
@click.option("--dry-run", is_flag=True, help="Say what would be done; write no manifest.")
@click.option("--report", type=options.OUTPUT_FILE, help="Write the figures as JSON here.")
def main(
    events: Path,
    output: Path | None,
    curves: Path | None,
    default_curve: str | None,
    overwrite: bool,
    dry_run: bool,
    report: Path | None,
) -> None:
    """Set openness (0 closed, 1 open) from openness_raw (CC4, 0..127) by the curve of the device.

    The device is device_vendor and device_model. A device without a curve is counted, reported and
    left untouched. Fails where a device's own strokes show that its pedal runs the other way.
    """
    from training.checks import openness
    from training.manifest import write_json, write_jsonl

    if output is None and not dry_run:
        raise click.UsageError("give --output (or --dry-run)")
    outcome = openness.run(
        openness.Options(
            events=events,
            curves=curves or openness.DEFAULT_CURVES,
            default_curve=default_curve,
            overwrite=overwrite,
        )
    )
    metrics = outcome.report.metrics
    for warning in outcome.report.warnings:
        options.warn(warning)
    options.echo(
        f"{metrics['events_total']:,} events: {metrics['normalized']:,} components normalized, "
        f"{metrics['left_untouched']:,} left untouched, {metrics['kept']:,} kept"
    )
    for name, figures in metrics["devices"].items():
        options.echo(f"  {name}: {figures['components']:,} by {figures['curve_id'] or 'no curve'}")
    if report is not None:
        write_json(report, outcome.report.to_dict())
    if dry_run or output is None:
        options.echo("dry run: no manifest written")
        return
    write_jsonl(output, outcome.rows)
    options.echo(f"wrote {output}")


if __name__ == "__main__":
    main()
