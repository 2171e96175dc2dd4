"""Command line of the comparison; the work is done in `training.checks.health_compare`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from training import options

if TYPE_CHECKING:
    from training.checks.health_compare import Options
    from training.gates import Report


@options.command(
    example="drumgate compare-health-reports --baseline reports/health/baseline.json"
    " --candidate reports/health/latest_health.json --max-drop 25 --ignore-label aux_percussion"
    " --json-output reports/health/diff.json --html-output reports/health/diff.html"
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
    "--max-psi",
    type=click.FloatRange(min=0),
    help="Gate: how far a distribution may move (population stability index beyond chance)."
    "  [default: warn above 0.25]",
)
@click.option(
    "--ignore-label",
    "ignore_labels",
    multiple=True,
    help="Compare this label without judging it. Repeatable.",
)
@click.option(
    "--bless",
    is_flag=True,
    help="Make the candidate the baseline when the comparison passes, and only then.",
)
@click.option(
    "--first-baseline",
    is_flag=True,
    help="With --bless: there is no baseline yet, the candidate becomes the first.",
)
@click.option(
    "--allow-failing",
    multiple=True,
    metavar="GATE",
    help="With --bless: accept that this gate failed in the candidate's own report. Repeatable.",
)
@click.option("--blessed-by", metavar="NAME", help="With --bless: who decides.  [default: you]")
@options.report_options(report="--json-output", strict=False)
def main(outputs: options.ReportOutputs, **chosen: Any) -> None:
    """Tell what a dataset lost from one health report to the next.

    Fails on classes that lost hits, on gates that newly fail or are no longer judged, and on
    unknown labels that rise. Reports how far the distributions moved, and warns of large shifts.
    """
    from training.checks import health_compare

    asked = health_compare.Options(**chosen, gates=outputs.gates)
    report = health_compare.run(asked)
    options.finish(report, outputs, around=_blessing(asked, report))


@contextmanager
def _blessing(asked: Options, report: Report) -> Iterator[None]:
    """Promote the candidate once the report is out, and say so."""
    from training.checks.health_compare_bless import promoting

    with promoting(asked, report) as said:
        yield
    if said:
        click.echo(said, err=True)


if __name__ == "__main__":
    main()
