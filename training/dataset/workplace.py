"""Where a store is made: a hidden folder beside its place, one build at a time.

The folder has the same name every time, so that a build that was killed is found again; it is
locked by its process, so that two builds of one store do not write into each other.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.errors import InputError


def work_folder(target: Path) -> Path:
    """Return the hidden folder in which `target` is made."""
    return target.parent / f".{target.name}.building"


@contextmanager
def workplace(target: Path, *, resume: bool) -> Iterator[Path]:
    """Give the folder in which `target` is made, locked; it is gone when the block has succeeded.

    Args:
        target: the store that is to be.
        resume: keep what an earlier build left in the folder, and leave what is there when the
            block raises. Without it the folder starts empty and goes in any case.

    Raises:
        InputError: nothing can be written there, or another build is at work.
    """
    work = work_folder(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target):
            if work.is_symlink():
                raise InputError.at(work, "is a link: delete it")
            if not resume:
                shutil.rmtree(work, ignore_errors=True)
            work.mkdir(exist_ok=True)
            try:
                yield work
            except BaseException:
                if not resume:
                    shutil.rmtree(work, ignore_errors=True)
                raise
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise InputError.at(target, f"cannot be written: {error.strerror}") from error


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Hold the lock of a store; the file goes with it.

    Raises:
        InputError: another process holds it.
    """
    path = target.parent / f".{target.name}.lock"
    while True:
        file = path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError.at(target, "another build is writing it") from None
        # Whoever held it may have deleted the file between our opening and locking it.
        if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
            break
        file.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
