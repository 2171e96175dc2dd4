"""Command line of the comparison; the work is done in `training.checks.health_compare`."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(
    example="python training/compare_health_reports.py --baseline reports/health/baseline.json"
    " --candidate reports/health/latest_health.json --max-drop 25 --ignore-label aux_percussion"
    " --json-output reports/health/diff.json"
)
@click.option(
    "--baseline", type=options.INPUT_FILE, required=True, help="Report of the last good dataset."
)
@click.option(
    "--candidate", type=options.INPUT_FILE, required=True, help="Report of the new dataset."
)
@click.option(
    "--max-drop",
    type=click.IntRange(min=0),
    help="Gate: a class may lose this many hits. 0 when no drop gate is given.",
)
@click.option(
    "--max-drop-pct",
    type=click.FloatRange(0, 100),
    help="Gate: a class may lose this share of its hits, in percent.",
)
@click.option(
    "--ignore-label",
    "ignore_labels",
    multiple=True,
    help="Compare this label without judging it. Repeatable.",
)
@options.report_options(report="--json-output", strict=False)
def main(
    baseline: Path,
    candidate: Path,
    max_drop: int | None,
    max_drop_pct: float | None,
    ignore_labels: tuple[str, ...],
    outputs: options.ReportOutputs,
) -> None:
    """Tell what a dataset lost from one health report to the next.

    Fails on classes that lost hits, on gates that newly fail or are no longer judged, and on
    unknown labels that rise. Reports how far the distributions moved.
    """
    from training.checks import health_compare

    report = health_compare.run(
        health_compare.Options(
            baseline=baseline,
            candidate=candidate,
            max_drop=max_drop,
            max_drop_pct=max_drop_pct,
            ignore_labels=ignore_labels,
            gates=outputs.gates,
        )
    )
    options.finish(report, outputs)


if __name__ == "__main__":
    main()
