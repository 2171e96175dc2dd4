"""List or empty a cache of validated manifests."""

from __future__ import annotations

from pathlib import Path

import click

from training import options


@options.command(example="drumgate cache --cache-dir ~/.cache/drumgate --clear")
@click.option(
    "--cache-dir",
    type=options.OUTPUT_DIR,
    envvar="DRUMGATE_CACHE_DIR",
    show_envvar=True,
    required=True,
    help="The folder that was given to the tools as --cache-dir.",
)
@click.option("--clear", is_flag=True, help="Delete every entry.")
def main(cache_dir: Path, clear: bool) -> None:
    """List the validated manifests that are kept for the next run, or delete them.

    An entry holds the rows of one manifest and is found by the hash of its content only, so that
    deleting one costs time and nothing else.
    """
    from datetime import datetime

    from training.manifest.cache import Cache

    cache = Cache(cache_dir)
    cache.check()
    total = 0
    for kept, size, used_s in cache.entries():
        used = datetime.fromtimestamp(used_s).strftime("%Y-%m-%d %H:%M")
        total += size
        if not clear:
            megabytes = size / 2**20
            options.echo(
                f"{kept.sha256[:12]}  {kept.records:>12,} events  {megabytes:>9,.1f} MiB"
                f"  last used {used}"
            )
    if clear:
        options.echo(f"freed {cache.clear() / 2**20:,.1f} MiB")
    else:
        options.echo(f"{total / 2**20:,.1f} MiB in {cache_dir}")


if __name__ == "__main__":
    main()
