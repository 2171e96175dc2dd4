"""Thresholds from TOML: the shipped `configs/gates.toml`, a user's file over it, flags on top."""

from __future__ import annotations

import difflib
import math
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from training.errors import InputError
from training.gates.model import Comparator, DecideOn, Threshold
from training.manifest.diagnose import explain
from training.resources import config_path


class GateEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[check.gate]` table of a gates file; a user's file may give only what it changes."""

    comparator: Comparator | None = None
    value: float | None = None
    unit: str | None = None
    reason: str | None = None
    fix: str | None = None
    required: bool | None = None
    decide_on: DecideOn | None = None


class GateTables(msgspec.Struct, frozen=True, kw_only=True):
    """Thresholds of a user's own that were read already, and the file they stand in.

    A check takes them wherever it takes the path of a gates file; reports show that path.
    """

    path: Path
    tables: dict[str, dict[str, GateEntry]]

    def __fspath__(self) -> str:
        return str(self.path)

    def under(self, other: GateTables) -> GateTables:
        """Lay `other` over these: what it sets replaces what stands here."""
        merged = {check: dict(gates) for check, gates in self.tables.items()}
        for check, gates in other.tables.items():
            mine = merged.setdefault(check, {})
            for gate, entry in gates.items():
                mine[gate] = GateEntry(**_given(mine.get(gate, entry)) | _given(entry))
        return GateTables(path=self.path, tables=merged)


GatesSource = Path | GateTables
"""A gates file, or what was read of one."""


def read_gates(path: Path) -> GateTables:
    """Read a gates file of a user's own.

    Raises:
        InputError: it is missing, not TOML, or holds an unknown key, or a value of the wrong type
            or that is not finite.
    """
    return GateTables(path=path, tables=_read(path))


def asked_gates(check: str, gates: GatesSource | None) -> frozenset[str]:
    """Return the gates of a check that a user's own thresholds name; none where there are none."""
    if gates is None:
        return frozenset()
    return frozenset(_tables(gates).get(check, ()))


def load_thresholds(
    check: str,
    *,
    overlay: GatesSource | None = None,
    overrides: Mapping[str, float | None] | None = None,
) -> dict[str, Threshold]:
    """Return the thresholds of a check by gate name, such as `{"min_auroc": Threshold(...)}`.

    Args:
        check: the table in the gates file: alignment, boundary, openset, bootstrap, health, …
        overlay: a user's gates file, or what was read of one; what it sets replaces the shipped
            value, which is kept as `production`. Every changed value needs a `reason` of its own.
        overrides: values from flags, by gate name; None leaves the configured value.

    Raises:
        InputError: the overlay is not TOML, names an unknown check, gate or key (the nearest known
            name is suggested), changes a value without a reason, or turns a gate round.
    """
    shipped = _read(config_path("gates.toml"))
    own, source = ({}, None) if overlay is None else (_tables(overlay), Path(overlay))
    for name in own:
        if name not in shipped:
            raise _unknown(source, name, shipped)
    thresholds = {}
    for gate, entry in shipped.get(check, {}).items():
        thresholds[gate] = _threshold(f"{check}.{gate}", entry)
    for gate, entry in own.get(check, {}).items():
        if gate not in thresholds:
            raise _unknown(source, f"{check}.{gate}", [f"{check}.{known}" for known in thresholds])
        thresholds[gate] = _overlaid(thresholds[gate], entry, cast(Path, source))
    for gate, value in (overrides or {}).items():
        if value is not None:
            thresholds[gate] = _with_value(thresholds[gate], value, "set on the command line")
    return thresholds


def nearest(name: str, known: Collection[str]) -> str:
    """Return a hint such as `; did you mean 'x'?`, or nothing when no known name is near."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _read(path: Path) -> dict[str, dict[str, GateEntry]]:
    kind = dict[str, dict[str, GateEntry]]
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.at(path, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError.at(path, f"is not valid TOML: {error}") from None
    try:
        tables = msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        raise InputError([explain(path, str(error), data, None, kind)]) from None
    for check, gates in tables.items():
        for gate, entry in gates.items():
            if entry.value is not None and not math.isfinite(entry.value):
                field = f"{check}.{gate}.value"
                raise InputError.at(path, "must be a finite number", field=field, got=entry.value)
    return tables


def _threshold(name: str, entry: GateEntry) -> Threshold:
    return Threshold(name=name, **_given(entry))


def _given(entry: GateEntry) -> dict[str, Any]:
    """What an entry sets."""
    return {key: value for key, value in msgspec.structs.asdict(entry).items() if value is not None}


def _tables(gates: GatesSource) -> dict[str, dict[str, GateEntry]]:
    return gates.tables if isinstance(gates, GateTables) else _read(gates)


def _overlaid(base: Threshold, entry: GateEntry, path: Path) -> Threshold:
    changed = _given(entry)
    if not changed.get("reason", "").strip():
        raise InputError.at(path, "needs a reason for what it changes", field=f"{base.name}.reason")
    if {base.comparator, changed.get("comparator", base.comparator)} == {"<=", ">="}:
        why = f"would turn the gate round, whose comparator is {base.comparator!r}"
        field = f"{base.name}.comparator"
        raise InputError.at(path, why, field=field, got=changed["comparator"])
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    return Threshold(**{**fields, "production": base.value, **changed})


def _with_value(base: Threshold, value: float, reason: str) -> Threshold:
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    production = base.production if base.production is not None else base.value
    return Threshold(**{**fields, "value": value, "production": production, "reason": reason})


def _unknown(path: Path | None, name: str, known: Collection[str]) -> InputError:
    return InputError.at(path, f"is not a known gate{nearest(name, known)}", field=name)
