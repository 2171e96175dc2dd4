"""Scratch folders that go when their process ends, however it ends."""

from __future__ import annotations

import fcntl
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "drumgate-"
_LOCK: Final = "in-use"
_UNLOCKED_S: Final = 3600.0


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Give a new folder below the one that TMPDIR names, and delete it afterwards.

    A process that is killed cannot delete its own: the next one does it, as the lock that was held
    on such a folder is gone with its holder.
    """
    parent = Path(tempfile.gettempdir())
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    try:
        # Locked before it has its name: whoever finds a lock that can be had finds one left behind.
        with (folder / f"{_LOCK}.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            Path(lock.name).rename(folder / _LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Delete the scratch folders of processes that are no more."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:
            # Just made, and not locked yet; or its process was killed in that very moment.
            if time.time() - _made_s(folder) > _UNLOCKED_S:
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use, or somebody else's


def _made_s(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return time.time()
