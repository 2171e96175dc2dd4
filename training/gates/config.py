"""Thresholds from TOML: the shipped `configs/gates.toml`, a user's file over it, flags on top."""

from __future__ import annotations

import difflib
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


def load_thresholds(
    check: str,
    *,
    overlay: Path | None = None,
    overrides: Mapping[str, float | None] | None = None,
) -> dict[str, Threshold]:
    """Return the thresholds of a check by gate name, such as `{"min_auroc": Threshold(...)}`.

    Args:
        check: the table in the gates file: alignment, boundary, openset, bootstrap, health, …
        overlay: a user's gates file; what it sets replaces the shipped value, which is kept as
            `production`. Every changed value needs a `reason` of its own.
        overrides: values from flags, by gate name; None leaves the configured value.

    Raises:
        InputError: the overlay is not TOML, names an unknown check, gate or key (the nearest known
            name is suggested), or changes a value without a reason.
    """
    shipped = _read(config_path("gates.toml"))
    own = _read(overlay) if overlay else {}
    for name in own:
        if name not in shipped:
            raise _unknown(overlay, name, shipped)
    thresholds = {}
    for gate, entry in shipped.get(check, {}).items():
        thresholds[gate] = _threshold(f"{check}.{gate}", entry)
    for gate, entry in own.get(check, {}).items():
        if gate not in thresholds:
            raise _unknown(overlay, f"{check}.{gate}", [f"{check}.{known}" for known in thresholds])
        thresholds[gate] = _overlaid(thresholds[gate], entry, cast(Path, overlay))
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
        return msgspec.convert(data, kind, strict=True)
    except msgspec.ValidationError as error:
        raise InputError([explain(path, str(error), data, None, kind)]) from None


def _threshold(name: str, entry: GateEntry) -> Threshold:
    given = {
        key: value for key, value in msgspec.structs.asdict(entry).items() if value is not None
    }
    return Threshold(name=name, **given)


def _overlaid(base: Threshold, entry: GateEntry, path: Path) -> Threshold:
    changed = {
        key: value for key, value in msgspec.structs.asdict(entry).items() if value is not None
    }
    if "reason" not in changed:
        raise InputError.at(path, "needs a reason for what it changes", field=f"{base.name}.reason")
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    return Threshold(**{**fields, "production": base.value, **changed})


def _with_value(base: Threshold, value: float, reason: str) -> Threshold:
    fields = {name: getattr(base, name) for name in base.__dataclass_fields__}
    production = base.production if base.production is not None else base.value
    return Threshold(**{**fields, "value": value, "production": production, "reason": reason})


def _unknown(path: Path | None, name: str, known: Collection[str]) -> InputError:
    return InputError.at(path, f"is not a known gate{nearest(name, known)}", field=name)
