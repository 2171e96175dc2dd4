"""Command line of the comparison; the work is done in `training.checks.manifest_diff`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from training import options


@options.command(
    example="drumgate compare-manifests base.jsonl candidate.jsonl"
    " --json-output diff.json --fail-on removed --fail-on moved=10"
)
@click.argument("base", **options.MANIFESTS)
@click.argument("candidate", **options.MANIFESTS)
@click.option(
    "--tolerance-ms",
    type=click.FloatRange(min=0),
    default=50.0,
    show_default=True,
    help="Where ids differ, onsets further apart are never taken for one event.",
)
@click.option(
    "--pair-by",
    type=click.Choice(["id", "time"]),
    default="id",
    show_default=True,
    help="time leaves sample_id aside: for manifests whose ids were given anew.",
)
@click.option(
    "--fail-on",
    multiple=True,
    metavar="KIND[=N]",
    help="Gate: at most N (0) events added, removed, moved, relabelled, or with another velocity,"
    " openness, techniques or fields. Repeatable.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="How many changes of each kind, and how many sessions, the report lists.",
)
@options.engine_options
@options.report_options(report="--json-output", strict=False)
def main(
    base: tuple[Path, ...],
    candidate: tuple[Path, ...],
    tolerance_ms: float,
    pair_by: Literal["id", "time"],
    fail_on: tuple[str, ...],
    limit: int,
    memory_limit: str | None,
    cache_dir: Path | None,
    outputs: options.ReportOutputs,
) -> None:
    """Tell what changed from one manifest to the next, event by event.

    BASE and CANDIDATE are files, "-" for standard input, or quoted patterns such as
    "parts/*.jsonl". Pairs events by sample_id, and where ids differ by time within a session.
    Blocks only on the kinds of change that --fail-on or the gates file names.
    """
    from training.checks import manifest_diff

    report = manifest_diff.run(
        manifest_diff.Options(
            base=base,
            candidate=candidate,
            tolerance_ms=tolerance_ms,
            pair_by=pair_by,
            fail_on=fail_on,
            limit=limit,
            gates=outputs.gates,
            memory_limit=memory_limit,
            cache_dir=cache_dir,
        ),
        track=options.track("reading the manifests"),
    )
    if outputs.format == "text":
        options.echo(_summary(report.metrics["counts"], report.metrics["unchanged"]))
    options.finish(report, outputs)


def _summary(counts: dict[str, int], unchanged: int) -> str:
    said = [f"{number:,} {kind}" for kind, number in counts.items() if number]
    return ", ".join([*said, f"{unchanged:,} unchanged"])


if __name__ == "__main__":
    main()
