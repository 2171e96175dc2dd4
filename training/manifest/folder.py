"""Writing folders whole or not at all: a hidden folder beside the target, renamed at the end."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import InputError
from training.manifest.read import read_json
from training.manifest.write import current_umask


@dataclass(frozen=True, slots=True)
class FolderKind:
    """A kind of folder that a tool makes, and may replace when it is told to.

    `noun` names it in messages, such as "store"; `is_ours` tells whether a folder is of this kind.
    """

    noun: str
    is_ours: Callable[[Path], bool]

    @classmethod
    def told_by(cls, noun: str, file: str, generator: str) -> FolderKind:
        """Return the kind whose folders hold a JSON file that names their `generator`."""

        def is_ours(folder: Path) -> bool:
            if not (folder / file).is_file():
                return False
            try:
                return bool(read_json(folder / file, dict[str, Any]).get("generator") == generator)
            except InputError:
                return False

        return cls(noun, is_ours)

    def require_replaceable(self, target: Path, *, force: bool) -> None:
        """Check that such a folder may be written to a path.

        Raises:
            InputError: the path is a link or a file, or holds something and `force` is not set, or
                holds something of another kind, which not even `force` replaces.
        """
        if target.is_symlink():
            raise InputError.at(target, "is a link; name the folder itself")
        if not target.exists():
            return
        if not target.is_dir():
            raise InputError.at(target, f"is a file; a {self.noun} is a folder")
        if not any(target.iterdir()):
            return
        if not self.is_ours(target):
            raise InputError.at(target, "is a folder with something else in it; choose another")
        if not force:
            raise InputError.at(target, f"holds a {self.noun} already; --force replaces it")

    @contextmanager
    def writing(self, target: Path, *, force: bool) -> Iterator[Path]:
        """Give a folder to write into that becomes `target` once the block has succeeded.

        When the block raises, `target` stays as it was and nothing is left beside it.

        Raises:
            InputError: see `require_replaceable`; or nothing can be written there.
        """
        self.require_replaceable(target, force=force)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            work = Path(tempfile.mkdtemp(prefix=f".{target.name}.making-", dir=target.parent))
        except OSError as error:
            raise InputError.at(target, f"cannot be written: {error.strerror}") from None
        try:
            yield work
            work.chmod(0o777 & ~current_umask())
            swap_folders(work, target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise


def swap_folders(work: Path, target: Path) -> None:
    """Give the finished folder its name, keeping the old one until that has worked.

    Raises:
        InputError: nothing can be written there.
    """
    try:
        if not target.exists():
            work.rename(target)
            return
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
        target.rename(old)  # onto an empty folder
        try:
            work.rename(target)
        except BaseException:
            old.rename(target)
            raise
    except OSError as error:
        raise InputError.at(target, f"cannot be written: {error.strerror}") from None
    shutil.rmtree(old, ignore_errors=True)
