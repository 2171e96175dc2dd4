"""The names that health gates ask for: given as flags, in list files, or in a JSON of counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import InputError, Problem
from training.gates import nearest
from training.manifest import InputFile, describe_file, read_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """A set of names with aliases: `what` says what they name, for messages."""

    what: str
    known: Collection[str]
    canonical: Callable[[str], str | None]

    def unknown(self, name: str) -> str:
        """Say why a name is not accepted, with the nearest one that is."""
        return f"is not a known {self.what}{nearest(name, sorted(self.known))}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Required:
    """Canonical names in the order asked for, each once, and the files that they came from."""

    names: tuple[str, ...]
    sources: tuple[InputFile, ...]


def required_names(
    given: Sequence[str], files: Sequence[Path], vocabulary: Vocabulary, *, flag: str
) -> Required:
    """Gather the names of a repeated flag and of list files.

    A list file has one name a line; `#` starts a comment, blank lines are skipped.

    Raises:
        InputError: a name is unknown, or a file is missing, not UTF-8 text, or names nothing.
    """
    problems: list[Problem] = []
    names: dict[str, None] = {}
    sources = []
    for name in given:
        _add(names, problems, Problem(flag, "", got=name), vocabulary)
    for path in files:
        found = list(_lines(path))
        if not found:
            raise InputError.at(path, f"names no {vocabulary.what}")
        sources.append(describe_file(path, len(found)))
        for number, name in found:
            _add(names, problems, Problem(str(path), "", number, got=name), vocabulary)
    if problems:
        raise InputError(problems)
    return Required(names=tuple(names), sources=tuple(sources))


def min_counts(path: Path, vocabulary: Vocabulary) -> dict[str, int]:
    """Read a JSON object of label → smallest number of hits.

    Raises:
        InputError: the file is not such an object, is empty, or names an unknown label or one
            label twice under two names.
    """
    given = read_json(path, dict[str, Any])
    if not given:
        raise InputError.at(path, f"names no {vocabulary.what}")
    counts: dict[str, int] = {}
    problems = []
    for name, count in given.items():
        label = vocabulary.canonical(name)
        if label is None:
            problems.append(Problem(str(path), vocabulary.unknown(name), field=name))
        elif type(count) is not int or count < 0:  # true is an int to Python, and no count
            why = "must be a whole number >= 0"
            problems.append(Problem(str(path), why, field=name, got=count))
        elif label in counts:
            problems.append(Problem(str(path), f"gives {label} a second time", field=name))
        else:
            counts[label] = count
    if problems:
        raise InputError(problems)
    return counts


def _add(
    names: dict[str, None], problems: list[Problem], place: Problem, vocabulary: Vocabulary
) -> None:
    name = str(place.got)
    canonical = vocabulary.canonical(name)
    if canonical is None:
        why = vocabulary.unknown(name)
        problems.append(Problem(place.path, why, place.line, got=name))
    else:
        names[canonical] = None


def _lines(path: Path) -> Iterable[tuple[int, str]]:
    describe_file(path)  # one wording for files that are missing or cannot be read
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError.at(path, f"is not UTF-8 text: {error.reason}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        name = line.partition("#")[0].strip()
        if name:
            yield number, name
