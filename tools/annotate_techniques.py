"""Command line of the inference of techniques; the work is done in `training.checks.techniques`."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(
    example="drumgate annotate-techniques --input events.jsonl --output annotated.jsonl",
    rewrites=("output",),
)
@click.option("--input", "source", type=options.INPUT_FILE, required=True, help="The manifest.")
@click.option(
    "--output", type=options.OUTPUT_FILE, help="Where the new manifest goes (JSON Lines)."
)
@click.option("--in-place", is_flag=True, help="Replace the manifest itself.")
@click.option("--dry-run", is_flag=True, help="Say what would be added; write no manifest.")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="ID",
    help="Apply only this rule; repeatable. The default is all of them.",
)
@click.option("--report", type=options.OUTPUT_FILE, help="Write the figures as JSON here.")
def main(
    source: Path,
    output: Path | None,
    in_place: bool,
    dry_run: bool,
    rules: tuple[str, ...],
    report: Path | None,
) -> None:
    """Add the techniques that the events themselves show, such as flams or tempo changes.

    Every rule looks at one performance at a time: the events of a session, or of one track of it.
    What a manifest already names stays; lines to which nothing is added stay byte for byte.
    """
    from training.checks import techniques
    from training.manifest import write_json
    from training.taxonomy.rules import RULES

    if unknown := [name for name in rules if name not in RULES]:
        raise click.UsageError(f"no rule {unknown[0]!r}; there are {', '.join(RULES)}")
    if (output is not None) + in_place != 1 and not (dry_run and output is None):
        raise click.UsageError("give either --output or --in-place (or --dry-run alone)")
    outcome = techniques.run(
        techniques.Options(
            source=source,
            output=output,
            in_place=in_place,
            dry_run=dry_run,
            rules=tuple(dict.fromkeys(rules)) or tuple(RULES),
        ),
        track=lambda items, what, total: options.progress(items, description=what, total=total),
    )
    found, added = outcome.additions, outcome.additions.added
    options.echo(f"{found.changed:,} of {len(found.masks):,} events gain a technique")
    for name in found.rules:
        options.echo(f"  {name:<24} {added[name]:>9,} added, {found.present[name]:,} before")
    for warning in outcome.warnings:
        options.warn(warning)
    if report is not None:
        write_json(report, outcome.report.to_dict())
    if dry_run:
        options.echo("dry run: nothing written" + (" but the report" if report else ""))
    elif outcome.written is None:
        options.echo("nothing to add: the manifest stays as it is")
    else:
        options.echo(f"wrote {outcome.written}")


if __name__ == "__main__":
    main()
