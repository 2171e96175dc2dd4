"""The catalogue of playing techniques: ids, other names, and what each one is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from training.errors import InputError, Problem
from training.manifest import read_json
from training.resources import config_path

__all__ = ["Technique", "TechniqueCatalogue", "load_techniques"]

_ID = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")


class Technique(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One technique of the catalogue.

    `priority` says how much a general dataset needs it: 1 it should be there, 2 it is common, 3 it
    is rare. `aliases` are other names of the same thing; `keywords` only help to find it.
    """

    id: str
    category: str = "unsorted"
    priority: Annotated[int, msgspec.Meta(ge=1, le=3)] = 3
    aliases: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    description: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: Literal[1]
    techniques: tuple[Technique, ...]


@dataclass(frozen=True)
class TechniqueCatalogue:
    """The techniques that manifests may name, in the order of their file."""

    entries: tuple[Technique, ...]

    @cached_property
    def known(self) -> frozenset[str]:
        """Every id."""
        return frozenset(entry.id for entry in self.entries)

    @cached_property
    def _names(self) -> dict[str, Technique]:
        return {name: entry for entry in self.entries for name in _names_of(entry)}

    def canonical(self, name: str) -> str | None:
        """Return the id that a name or one of its aliases stands for; None when unknown."""
        entry = self.get(name)
        return None if entry is None else entry.id

    def get(self, name: str) -> Technique | None:
        """Return the technique that an id or alias names; None when unknown."""
        return self._names.get(_fold(name))

    def of_category(self, category: str) -> tuple[Technique, ...]:
        """Return the techniques of a category; none when there is no such category."""
        return tuple(entry for entry in self.entries if entry.category == category)


def load_techniques(path: Path | None = None) -> TechniqueCatalogue:
    """Read a catalogue; by default the shipped `configs/technique_taxonomy.json`.

    A file whose first character is a brace is JSON like the shipped one. Any other file is plain
    text: one id a line, `#` starts a comment, and the techniques then have nothing but their ids.

    Raises:
        InputError: the file is missing, empty or malformed, or an id or alias stands twice.
    """
    source = path or config_path("technique_taxonomy.json")
    found = _from_json(source) if _is_json(source) else _from_text(source)
    problems: list[Problem] = []
    seen: dict[str, str] = {}
    for place, line, entry in found:
        if not _ID.fullmatch(entry.id):
            why = "must be lower-case words joined by underscores"
            problems.append(Problem(str(source), why, line, place, entry.id))
        for name in _names_of(entry):
            if name in seen:
                why = f"is named twice ({seen[name]} and {entry.id})"
                problems.append(Problem(str(source), why, line, place, name))
            seen[name] = entry.id
    if not found:
        problems.append(Problem(str(source), "names no technique"))
    if problems:
        raise InputError(problems)
    return TechniqueCatalogue(tuple(entry for _, _, entry in found))


def _is_json(path: Path) -> bool:
    try:
        return path.read_text(encoding="utf-8-sig").lstrip().startswith("{")
    except FileNotFoundError:
        raise InputError.at(path, "no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError.at(path, f"cannot be read as text: {error}") from None


def _from_json(path: Path) -> list[tuple[str | None, int | None, Technique]]:
    entries = read_json(path, _File).techniques
    return [(f"techniques[{index}]", None, entry) for index, entry in enumerate(entries)]


def _from_text(path: Path) -> list[tuple[str | None, int | None, Technique]]:
    found: list[tuple[str | None, int | None, Technique]] = []
    for line, text in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        name = text.partition("#")[0].strip()
        if name:
            found.append((None, line, Technique(id=name)))
    return found


def _names_of(entry: Technique) -> list[str]:
    """Every name of a technique, folded; one that stands twice in the entry stands twice here."""
    return [_fold(entry.id), *map(_fold, entry.aliases)]


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
