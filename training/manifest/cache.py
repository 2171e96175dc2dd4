"""Validated manifests kept for the next run, keyed by what they contain.

An entry is named by the SHA-256 of the manifest that it was made from, so that a changed byte never
finds it. Hashing gigabytes takes seconds, therefore a second index remembers the hash of a file
that has not been touched: same device, inode, size, and times of modification and of status change
to the nanosecond. The latter is set by the system at every write and cannot be set back.

Beside the rows stand figures that were computed from them, under a key of all that they depend on.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import file_digest, sha256
from pathlib import Path

import msgspec

from training.errors import InputError
from training.manifest.read import describe_file
from training.manifest.write import atomic_write, write_json

SETTLED_NS = 2_000_000_000
"""A file changed more recently than this may change again within one tick of its clock."""

_MARK = "drumgate-cache.txt"


@dataclass(frozen=True, slots=True)
class Kept:
    """An entry: the validated rows of a manifest with this hash."""

    parquet: Path
    sha256: str
    records: int


class _About(msgspec.Struct, frozen=True):
    rules: str
    sha256: str
    records: int
    rows_sha256: str


class _Seen(msgspec.Struct, frozen=True):
    sha256: str
    at_ns: int


def key_of(*made_from: object, code: Iterable[Path]) -> str:
    """Return the key of what some source files compute from some values.

    It changes with every value (anything that msgspec can encode) and with every line of code.
    """
    lines = [sha256(path.read_bytes()).hexdigest() for path in sorted(code)]
    return sha256(msgspec.json.encode([made_from, lines])).hexdigest()


@cache
def _rules() -> str:
    """What decides which rows are made of a file: the entries of older rules are not found."""
    return key_of(code=Path(__file__).parent.glob("*.py"))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


class Cache:
    """A folder of validated manifests; made when something is first kept in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def find(self, path: Path) -> Kept | None:
        """Return the entry of a file's content, or None where there is no (whole) one.

        Raises:
            InputError: the file cannot be read.
        """
        if not self.folder.is_dir():
            return None
        digest = self._remembered(path)
        if digest is None:
            digest = describe_file(path).sha256
            self._remember(path, digest)
        about, parquet = self._paths(digest)
        try:
            stated = msgspec.json.decode(about.read_bytes(), type=_About)
        except (OSError, msgspec.DecodeError):
            return None
        if stated.rules != _rules() or not parquet.is_file():
            return None
        # Rows that a disk or a hand has changed are no longer those that were validated.
        if _digest(parquet) != stated.rows_sha256:
            return None
        os.utime(about)  # says when the entry was last of use
        return Kept(parquet, digest, stated.records)

    def keep(self, path: Path, digest: str, parquet: Path, records: int) -> Path:
        """Keep the validated rows of a file and return where they are now.

        Raises:
            InputError: the folder cannot be written.
        """
        about, target = self._paths(digest)
        mark = self.folder / _MARK
        if not mark.is_file():
            with atomic_write(mark) as file:
                file.write("Validated manifests; `drumgate cache --clear` empties this folder.\n")
        with atomic_write(target, binary=True) as file, parquet.open("rb") as rows:
            shutil.copyfileobj(rows, file, 2**20)
        write_json(about, _About(_rules(), digest, records, _digest(parquet)))
        self._remember(path, digest)
        return target

    def recall(self, key: str) -> bytes | None:
        """Return what was recorded under a key (see `key_of`), or None."""
        try:
            return self._figures(key).read_bytes()
        except OSError:
            return None

    def record(self, key: str, content: bytes) -> None:
        """Keep what was computed from a manifest, to be recalled by the same key."""
        with atomic_write(self._figures(key), binary=True) as file:
            file.write(content)

    def entries(self) -> Iterator[tuple[Kept, int, float]]:
        """Yield every entry with its size in bytes and the time (s since 1970) of its last use."""
        for about in sorted(self.folder.glob("*.json")):
            try:
                stated = msgspec.json.decode(about.read_bytes(), type=_About)
                parquet = about.with_suffix(".parquet")
                yield (
                    Kept(parquet, stated.sha256, stated.records),
                    parquet.stat().st_size,
                    about.stat().st_mtime,
                )
            except (OSError, msgspec.DecodeError):
                continue

    def check(self) -> None:
        """Make sure that the folder is a cache, or not there yet.

        Raises:
            InputError: it holds other things: nothing in it is ours to list or to delete.
        """
        if self.folder.exists() and not (self.folder / _MARK).is_file():
            raise InputError.at(self.folder, "is not a cache of drumgate")

    def clear(self) -> int:
        """Delete everything that the cache has made; return how many bytes that freed.

        Raises:
            InputError: the folder is no cache.
        """
        self.check()
        made = [path for path in self.folder.glob("*") if len(path.stem) == 64]
        made += [
            path for place in ("seen", "figures") for path in self.folder.glob(f"{place}/*.json")
        ]
        made += [path for path in self.folder.rglob(".*.tmp") if path.is_file()]
        freed = sum(path.stat().st_size for path in made)
        for path in made:
            path.unlink()
        return freed

    def _figures(self, key: str) -> Path:
        return self.folder / "figures" / f"{key}.json"

    def _paths(self, digest: str) -> tuple[Path, Path]:
        return self.folder / f"{digest}.json", self.folder / f"{digest}.parquet"

    def _seen(self, path: Path) -> tuple[Path, int]:
        stat = path.stat()
        identity = (
            str(path.resolve()),
            stat.st_dev,
            stat.st_ino,
            stat.st_size,
            stat.st_mtime_ns,
            stat.st_ctime_ns,
        )
        name = sha256(repr(identity).encode()).hexdigest()
        return self.folder / "seen" / f"{name}.json", stat.st_ctime_ns

    def _remembered(self, path: Path) -> str | None:
        seen, changed_ns = self._seen(path)
        try:
            known = msgspec.json.decode(seen.read_bytes(), type=_Seen)
        except (OSError, msgspec.DecodeError):
            return None
        return known.sha256 if known.at_ns - changed_ns > SETTLED_NS else None

    def _remember(self, path: Path, digest: str) -> None:
        seen, _ = self._seen(path)
        write_json(seen, _Seen(digest, time.time_ns()))
