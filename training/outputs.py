"""Where a command writes must not be where it reads, nor one place twice: looked at before it runs.

A report that is written over its manifest is a manifest lost, and of two files of one name only the
second is left. Both are slips of the hand that no command means.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import click

__all__ = ["refuse_overlaps"]


def refuse_overlaps(
    ctx: click.Context, output_type: click.ParamType, rewritten: Collection[str] = ()
) -> None:
    """Refuse an output that is an input, another output, or `-`.

    Args:
        ctx: the context of the command, its parameters parsed.
        output_type: the type by which files that are written are told from all others.
        rewritten: names of outputs that may take the place of an input, since the command makes
            the same kind of file from it.

    Raises:
        click.BadParameter: two paths lead to one file (links followed), or an output is `-`.
    """
    inputs: list[tuple[click.Parameter, Path]] = []
    outputs: list[tuple[click.Parameter, Path]] = []
    for parameter in ctx.command.params:
        written = parameter.type is output_type
        for path in _paths(ctx.params.get(parameter.name or "")):
            (outputs if written else inputs).append((parameter, path))
    for place, (parameter, path) in enumerate(outputs):
        if str(path) == "-":
            why = "a file is written whole, which standard output is not; give a name"
            raise click.BadParameter(why, ctx, parameter)
        for other, written_too in outputs[:place]:
            if _same(path, written_too):
                why = f"{path} is written by {_name(other)} as well"
                raise click.BadParameter(why, ctx, parameter)
        for other, read in () if parameter.name in rewritten else inputs:
            if _same(path, read):
                why = f"{path} is the file of {_name(other)}, which would be lost"
                raise click.BadParameter(why, ctx, parameter)


def _paths(value: Any) -> Iterator[Path]:
    for each in value if isinstance(value, tuple) else (value,):
        if isinstance(each, Path):
            yield each


def _name(parameter: click.Parameter) -> str:
    if isinstance(parameter, click.Option):
        return max(parameter.opts, key=len)
    return parameter.human_readable_name.rstrip(".…")


def _same(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file; devices such as /dev/null may be named twice."""
    try:
        if one.exists() and not one.is_file():
            return False
        if one.exists() and other.exists():
            return one.samefile(other)
        return os.path.realpath(one) == os.path.realpath(other)
    except OSError:  # what is wrong is said where the file is opened
        return False
