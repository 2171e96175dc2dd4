"""Reading the headers of the audio that a manifest names, each file once, in parallel."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from training.audio.reading import AudioInfo, audio_info
from training.errors import InputError
from training.manifest.paths import resolve_inside
from training.manifest.validate import Track
from training.metrics.findings import why_outside
from training.metrics.findings_audio import add_file_findings, add_headers, files

if TYPE_CHECKING:
    import duckdb

BLOCK = 2048
"""Files whose headers are in memory at a time."""

_File = tuple[int, str, int, int, int]
_EMPTY = ("is empty", "holds no audio")


@dataclass(frozen=True, slots=True)
class _Looked:
    """What looking at one file gave: its header, or the rule that it breaks and why."""

    info: AudioInfo | None = None
    rule: str = ""
    why: str = ""


def read_headers(
    connection: duckdb.DuckDBPyConnection,
    roots: Mapping[int, Path],
    count: int,
    track: Track | None = None,
) -> int:
    """Read the headers of the files that `create_files` has listed, and keep what they say.

    Files that are missing, lead out of their root, are empty or cannot be read become findings.

    Args:
        connection: has the table of files and that of findings.
        roots: the folders that `audio_path` is relative to, by the `root` of the files.
        count: how many files there are.
        track: shows the progress over the files.

    Returns:
        How many headers could be read.

    Raises:
        InputError: one of `roots` is no folder.
    """
    for root in roots.values():
        if not root.is_dir():
            raise InputError.at(root, "no such folder")
    read = 0
    with ThreadPoolExecutor(min(32, 4 * (os.cpu_count() or 1))) as threads:

        def looked() -> Iterator[tuple[_File, _Looked]]:
            for start in range(0, count, BLOCK):
                block = files(connection, start, start + BLOCK)
                seen = threads.map(lambda file: _look(roots[file[2]], file[1]), block)
                yield from zip(block, seen, strict=True)

        one_by_one = iter(track(looked(), count) if track else looked())
        while block := list(islice(one_by_one, BLOCK)):
            read += _keep(connection, block)
    return read


def _keep(connection: duckdb.DuckDBPyConnection, block: list[tuple[_File, _Looked]]) -> int:
    headers = []
    wrong: dict[str, list[tuple[int, str, str, int]]] = {}
    for (number, path, _, row, events), seen in block:
        if seen.info is not None:
            info = seen.info
            headers.append((number, info.sample_rate, info.channels, info.duration_s))
        elif seen.rule:
            wrong.setdefault(seen.rule, []).append((row, path, seen.why, events))
    add_headers(connection, headers)
    for rule, found in wrong.items():
        add_file_findings(connection, rule, found)
    return len(headers)


def _look(root: Path, relative: str) -> _Looked:
    if why_outside(relative):
        return _Looked()  # the spelling alone says it: already a finding
    try:
        path = resolve_inside(root, relative, source="")
    except InputError as error:
        return _Looked(rule="audio-outside-root", why=error.problems[0].why)
    except OSError as error:  # a name too long, a loop of links
        return _Looked(rule="audio-missing", why=f"cannot be looked up ({error.strerror})")
    try:
        if not path.exists():
            return _Looked(rule="audio-missing", why=f"no such file in {root}")
        return _Looked(audio_info(path))
    except InputError as error:
        why = error.problems[0].why
        empty = why.startswith(_EMPTY)
        return _Looked(rule="audio-empty" if empty else "audio-unreadable", why=why)
    except OSError as error:
        return _Looked(rule="audio-unreadable", why=f"cannot be read ({error.strerror})")
