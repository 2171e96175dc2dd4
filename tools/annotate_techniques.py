"""Add inferred techniques to a manifest."""

from __future__ import annotations

from pathlib import Path

import click

from training import options
from training.errors import InputError


@options.command(
    example="python tools/annotate_techniques.py --input events.jsonl --output annotated.jsonl"
)
@click.option("--input", "source", type=options.INPUT_FILE, required=True, help="The manifest.")
@click.option(
    "--output", type=options.OUTPUT_FILE, help="Where the new manifest goes (JSON Lines)."
)
@click.option("--in-place", is_flag=True, help="Replace the manifest itself.")
@click.option("--dry-run", is_flag=True, help="Say what would be added; write nothing.")
@click.option(
    "--rule",
    "rules",
    multiple=True,
    metavar="ID",
    help="Apply only this rule (repeatable); the default is all of them.",
)
def main(
    source: Path, output: Path | None, in_place: bool, dry_run: bool, rules: tuple[str, ...]
) -> None:
    """Add the techniques that the events themselves show, such as flams or tempo changes.

    Every rule looks at one performance at a time: the events of a session, or of one track of it.
    What a manifest already names stays, and so does every field that drumgate does not know.
    """
    from training.manifest import Event, read_raw, write_jsonl
    from training.manifest.lines import packing_of
    from training.taxonomy.annotate import annotate
    from training.taxonomy.rules import RULES
    from training.taxonomy.techniques import load_techniques

    if unknown := [name for name in rules if name not in RULES]:
        raise click.UsageError(f"no rule {unknown[0]!r}; there are {', '.join(RULES)}")
    if (output is not None) + in_place != 1 and not (dry_run and output is None):
        raise click.UsageError("give either --output or --in-place (or --dry-run alone)")
    if in_place and packing_of(source) != "plain":
        raise InputError.at(source, "is packed: --in-place needs plain JSON Lines, use --output")

    found = annotate(read_raw(source, Event).rows, load_techniques(), rules=rules or tuple(RULES))
    options.echo(f"{found.changed:,} of {len(found.rows):,} events gain a technique")
    for name in rules or tuple(RULES):
        options.echo(f"  {name:<24} {found.added[name]:>9,} added, {found.present[name]:,} before")
    if found.unknown:
        names = ", ".join(f"{name} ({count:,})" for name, count in found.unknown.most_common(5))
        options.warn(f"{len(found.unknown)} techniques are not in the catalogue: {names}")
    target = source if in_place else output
    if dry_run or target is None:
        options.echo("dry run: nothing written")
        return
    write_jsonl(target, found.rows)
    options.echo(f"wrote {target}")


if __name__ == "__main__":
    main()
