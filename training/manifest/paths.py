"""Paths that stand in data: relative, and never leading out of the folder that they belong to."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from training.errors import InputError


def resolve_inside(
    root: Path,
    relative: str,
    *,
    source: Path | str,
    line: int | None = None,
    field: str = "audio_path",
) -> Path:
    """Return the path that `relative` names below `root`.

    Args:
        root: the folder that the path must stay inside, links followed.
        relative: the path as the data has it, with forward slashes.
        source: the file that names it, for the message.
        line: its line there, for the message.
        field: its field there, for the message.

    Raises:
        InputError: the path is absolute or leads outside `root`.
    """
    pure = PurePosixPath(relative)
    if pure.is_absolute() or "\0" in relative:
        raise InputError.at(source, "must be a relative path", line=line, field=field, got=relative)
    base = root.resolve()
    full = (base / pure).resolve()
    if not full.is_relative_to(base):
        why = f"leads outside {root}"
        raise InputError.at(source, why, line=line, field=field, got=relative)
    return full
