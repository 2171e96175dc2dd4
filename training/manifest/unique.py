"""Finding names that stand twice in a manifest of any size, in bounded memory."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from pathlib import Path

from training.errors import SHOWN_PROBLEMS, InputError, Problem
from training.manifest.external import SortedRuns

DIGEST_BYTES = 16
"""So long that no two different names will ever be taken for one."""

LINE_BYTES = 8
_BATCH = 4096


class RepeatedIds:
    """Notes the `sample_id` of every line; says at the end which ones stand twice.

    A digest and a line number are kept of each, in sorted runs that go to `folder` once they are
    many, so that memory does not grow with the manifest.
    """

    def __init__(self, folder: Path) -> None:
        self._runs = SortedRuns(folder, "ids")
        self._batch: list[bytes] = []

    def add(self, line: int, sample_id: str) -> None:
        """Note the name that stands in a line."""
        name = hashlib.blake2b(sample_id.encode("utf-8", "surrogatepass"), digest_size=DIGEST_BYTES)
        self._batch.append(name.digest() + line.to_bytes(LINE_BYTES, "big"))
        if len(self._batch) == _BATCH:
            self._flush()

    def lines(self) -> Iterator[tuple[int, int]]:
        """Yield (line, the line where its name stood first) for each repetition, in no order."""
        self._flush()
        before, first = b"", 0
        for keys in self._runs:
            for key in keys:
                name, line = key[:DIGEST_BYTES], int.from_bytes(key[DIGEST_BYTES:], "big")
                if name == before:
                    yield line, first
                else:
                    before, first = name, line

    def error(self, path: Path, names: Iterator[tuple[int, str]]) -> InputError | None:
        """Return the error that names the first repetitions and counts all; None without any.

        Args:
            path: the manifest.
            names: (line, `sample_id`) of the manifest once more; read only to show the names.
        """
        total = 0

        def counted() -> Iterator[tuple[int, int]]:
            nonlocal total
            for pair in self.lines():
                total += 1
                yield pair

        shown = dict(heapq.nsmallest(SHOWN_PROBLEMS, counted()))
        if not total:
            return None
        problems = []
        for line, sample_id in names:
            if line in shown:
                why = f"stands already in line {shown[line]}"
                problems.append(Problem(str(path), why, line, "sample_id", sample_id))
                if len(problems) == len(shown):
                    break
        return InputError(problems, total)

    def _flush(self) -> None:
        self._runs.add(sorted(self._batch))
        self._batch = []
