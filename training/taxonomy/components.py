"""The component labels: the model's classes, what else may be struck, and their other names."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import msgspec

from training.errors import InputError
from training.manifest import read_json
from training.resources import config_path


class ComponentEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One label of `configs/components.json`.

    `role` is `target` for a class of the model and `background` for what manifests may hold but the
    model does not name. `gm_notes` are General MIDI percussion keys.
    """

    label: str
    role: Literal["target", "background"] = "target"
    description: str = ""
    aliases: tuple[str, ...] = ()
    gm_notes: tuple[int, ...] = ()


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema_version: Literal[1]
    components: tuple[ComponentEntry, ...]


@dataclass(frozen=True)
class ComponentTaxonomy:
    """The labels that manifests and models share."""

    entries: tuple[ComponentEntry, ...]

    @cached_property
    def targets(self) -> tuple[str, ...]:
        """The model's classes, in the order of its outputs."""
        return tuple(entry.label for entry in self.entries if entry.role == "target")

    @cached_property
    def known(self) -> frozenset[str]:
        """Every label that a manifest may hold."""
        return frozenset(entry.label for entry in self.entries)

    @cached_property
    def _canonical(self) -> dict[str, str]:
        names = {entry.label: entry.label for entry in self.entries}
        for entry in self.entries:
            names.update({_fold(alias): entry.label for alias in entry.aliases})
        return names

    def canonical(self, name: str) -> str | None:
        """Return the label that a name or one of its aliases stands for; None when unknown."""
        return self._canonical.get(_fold(name))


def load_components(path: Path | None = None) -> ComponentTaxonomy:
    """Read a component taxonomy; by default the shipped `configs/components.json`.

    Raises:
        InputError: the file is not such a taxonomy, or a label or alias stands twice.
    """
    source = path or config_path("components.json")
    entries = read_json(source, _File).components
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        for name in {_fold(entry.label), *map(_fold, entry.aliases)}:
            if name in seen:
                field = f"components[{index}].aliases"
                raise InputError.at(source, "names something twice", field=field, got=name)
            seen.add(name)
    if not any(entry.role == "target" for entry in entries):
        raise InputError.at(source, "has no target label", field="components")
    return ComponentTaxonomy(entries)


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")
