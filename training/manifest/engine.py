"""The engine that answers questions about whole manifests: DuckDB, in this process, within bounds.

It is given a share of the memory and a folder to spill to; both go when it closes. What it may read
is decided by `training.manifest.scan`, which hands it nothing that was not validated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from training.errors import DrumgateError
from training.manifest.scratch import scratch_folder
from training.manifest.validate import Track

SHARE_OF_MEMORY: Final = 0.25
"""The part of the machine's memory that the engine may use, where nobody says otherwise."""

MOST_BYTES: Final = 2**30
LEAST_BYTES: Final = 128 * 2**20

_UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Engine:
    """An open engine.

    Attributes:
        connection: where SQL is run; views of manifests are made by `scan_events`.
        scratch: a folder for intermediate files, deleted at the end.
        track: shows the progress of long steps; None is silent.
    """

    connection: duckdb.DuckDBPyConnection
    scratch: Path
    track: Track | None = None


@contextmanager
def open_engine(memory_limit: str | None = None, track: Track | None = None) -> Iterator[Engine]:
    """Open an engine that uses all cores, and close it with everything that it has spilled.

    Args:
        memory_limit: such as "512MiB" or "2GB" (both of 1024-based units); by default a quarter of
            the machine's memory, 1 GiB at most. What does not fit is spilled to the folder that
            TMPDIR names.
        track: shows the progress of long steps.

    Raises:
        DrumgateError: the limit is not a size of at least 128 MiB.
    """
    limit = memory_bytes(memory_limit)
    with scratch_folder() as scratch, duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{limit}B'")
        connection.execute(f"SET threads = {os.cpu_count() or 1}")
        connection.execute(f"SET temp_directory = {literal(str(scratch / 'spill'))}")
        connection.execute("SET enable_progress_bar = false")
        yield Engine(connection, scratch, track)


def memory_bytes(limit: str | None) -> int:
    """Return how many bytes the engine may use; see `open_engine`.

    Raises:
        DrumgateError: the limit is not a size of at least 128 MiB.
    """
    if limit is None:
        return int(min(max(SHARE_OF_MEMORY * _machine_bytes(), LEAST_BYTES), MOST_BYTES))
    match = _SIZE.fullmatch(limit.strip())
    size = int(float(match[1]) * _UNITS[match[2].upper()]) if match else 0
    if size < LEAST_BYTES:
        raise DrumgateError(
            f"--memory-limit: {limit!r} is no size of at least {LEAST_BYTES // 2**20} MiB, "
            "such as 512MiB or 2GiB"
        )
    return size


def literal(text: str) -> str:
    """Quote text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def _machine_bytes() -> int:
    """Return the machine's memory, or that of the container, whichever is less."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        stated = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return machine
    return min(machine, int(stated)) if stated.isdigit() else machine
