"""The configuration of a readiness run: one table a check, in TOML.

root = ".."

[openset]
severity = "warn"
reason = "Nothing depends on rejection yet."
[openset.inputs]
ground_truth = "ood/labels.jsonl"
[openset.options]
method = "energy"
[openset.gates.min_auroc]
value = 0.85
reason = "The first model of the season."
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from training.checks.readiness_checks import CHECKS, Check, Field
from training.errors import UNSET, InputError, Problem
from training.gates import GateEntry, GateTables, nearest
from training.gates.model import DecideOn
from training.manifest import InputFile, describe_file
from training.manifest.diagnose import explain
from training.manifest.paths import resolve_inside

Severity = Literal["block", "warn"]

_OWN: Final = ("root", "waivers")


class CheckTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table of one check, as it stands in the file."""

    inputs: dict[str, str | list[str]] = {}
    options: dict[str, Any] = {}
    gates: dict[str, GateEntry] = {}
    required: bool = True
    severity: Severity = "block"
    decide_on: DecideOn | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckConfig:
    """What a configuration says of one check.

    Attributes:
        given: inputs as paths and options as values, by the names of the check's `Options`.
        absent: the inputs that are named and not there, and which files of them.
        gates: thresholds of its gates.
        required: whether it blocks that an input is missing.
        severity: whether a gate that does not pass blocks or warns.
        reason: why `required` or `severity` are not what they usually are.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)
    gates: Mapping[str, GateEntry] = field(default_factory=dict)
    required: bool = True
    severity: Severity = "block"
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """A configuration that was read and checked; `checks` in the order of the file."""

    source: InputFile
    root: Path
    checks: Mapping[str, CheckConfig]
    waivers: Path | None

    @property
    def gates(self) -> GateTables:
        """The thresholds of all checks."""
        tables = {CHECKS[name].table: dict(each.gates) for name, each in self.checks.items()}
        return GateTables(path=Path(self.source.path), tables=tables)


def read_config(path: Path, root: Path | None = None) -> Config:
    """Read a configuration.

    Args:
        path: the file.
        root: the folder that its paths are relative to and may not lead out of; by default the one
            that its key `root` names, or else the folder of the file.

    Raises:
        InputError: it cannot be read or holds something unknown, ill-typed, without a reason, or a
            path that leads out of the root; every fault that was found is named.
    """
    source = describe_file(path)
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError.at(path, f"is not valid TOML: {error}") from None
    reader = _Reader(path=path, root=root or path.parent)
    if "root" in data:
        stated = reader.text(data["root"], "root")
        if stated is not None and root is None:
            reader.root = reader.rooted(stated)
    waivers = reader.file(data["waivers"], "waivers") if "waivers" in data else None
    checks = {}
    for name, table in data.items():
        if name in _OWN:
            continue
        if name not in CHECKS:
            reader.unknown(name, [*CHECKS, *_OWN], "a check")
        elif not isinstance(table, dict):
            reader.fault("must be a table", name, table)
        else:
            checks[name] = reader.check(CHECKS[name], table)
    if not checks and not reader.problems:
        reader.fault("names no check: give a table such as [health]")
    if reader.problems:
        raise InputError(reader.problems)
    return Config(source=source, root=reader.root, checks=checks, waivers=waivers)


@dataclass(kw_only=True, slots=True)
class _Reader:
    """Turns what a file says into paths and values, and gathers what is wrong with it."""

    path: Path
    root: Path
    problems: list[Problem] = field(default_factory=list)

    def fault(self, why: str, where: str | None = None, got: object = UNSET) -> None:
        shown = got if isinstance(got, str | int | float | bool | None) else UNSET
        self.problems.append(Problem(str(self.path), why, None, where, shown))

    def unknown(self, where: str, known: Collection[str], what: str) -> None:
        """Note a name that is none of `known`, and which of them it may have meant."""
        hint = nearest(where.rpartition(".")[2], known) or f"; there are: {', '.join(known)}"
        self.fault(f"is not {what}{hint}", where)

    def text(self, value: object, where: str) -> str | None:
        if isinstance(value, str) and value.strip() and "\0" not in value:
            return value
        self.fault("must be a text that is not empty", where, value)
        return None

    def rooted(self, stated: str) -> Path:
        if Path(stated).is_absolute():
            self.fault("must be relative to this file; --root gives any folder", "root", stated)
        return Path(os.path.normpath(self.path.parent / stated))

    def check(self, check: Check, data: Mapping[str, Any]) -> CheckConfig:
        name = check.name
        known = CheckTable.__struct_fields__
        before = len(self.problems)
        for key in data:
            if key not in known:
                self.unknown(f"{name}.{key}", known, "a key of a check")
        self._gate_keys(check, data.get("gates"))
        if len(self.problems) > before:
            return CheckConfig()
        try:
            table = msgspec.convert(data, CheckTable, strict=True)
        except msgspec.ValidationError as error:
            found = explain(self.path, str(error), data, None, CheckTable)
            where = f"{name}.{found.field}" if found.field else name
            self.problems.append(Problem(found.path, found.why, None, where, found.got))
            return CheckConfig()
        if (not table.required or table.severity == "warn") and not (table.reason or "").strip():
            self.fault("is needed where a check is made to block less", f"{name}.reason")
        inputs, absent = self._inputs(check, table.inputs)
        return CheckConfig(
            given=inputs | self._options(check, table.options),
            absent=absent,
            gates=self._gates(check, table),
            required=table.required,
            severity=table.severity,
            reason=(table.reason or "").strip(),
        )

    def _gate_keys(self, check: Check, gates: object) -> None:
        for gate, entry in gates.items() if isinstance(gates, dict) else ():
            where = f"{check.name}.gates.{gate}"
            if gate not in check.thresholds:
                self.unknown(where, check.thresholds, "a gate of this check")
            for key in entry if isinstance(entry, dict) else ():
                if key not in GateEntry.__struct_fields__:
                    self.unknown(f"{where}.{key}", GateEntry.__struct_fields__, "a key of a gate")

    def _gates(self, check: Check, table: CheckTable) -> dict[str, GateEntry]:
        if table.decide_on is not None and not table.gates:
            why = "is that of the gates listed below this check, and none is"
            self.fault(why, f"{check.name}.decide_on", table.decide_on)
        made = {}
        for gate, entry in table.gates.items():
            where = f"{check.name}.gates.{gate}"
            if not (entry.reason or "").strip():
                self.fault("is required: why does the line stand there?", f"{where}.reason")
            if entry.value is not None and not math.isfinite(entry.value):
                self.fault("must be a finite number", f"{where}.value", str(entry.value))
            elif entry.value is not None and not check.range_of(gate).holds(entry.value):
                self.fault(f"must be {check.range_of(gate)}", f"{where}.value", entry.value)
            if entry.decide_on is None and table.decide_on is not None:
                entry = msgspec.structs.replace(entry, decide_on=table.decide_on)
            made[gate] = entry
        return made

    def _options(self, check: Check, options: Mapping[str, Any]) -> dict[str, Any]:
        made = {}
        for name, value in options.items():
            where = f"{check.name}.options.{name}"
            known = [each.name for each in check.fields.values() if each.kind == "option"]
            one = check.fields.get(name)
            if one is None:
                self.unknown(where, known, "an option of this check")
            elif one.kind == "gate":
                self.fault(f"is a gate: give [{check.name}.gates.{name}] with its reason", where)
            elif one.kind == "input":
                self.fault(f"is an input: give it in [{check.name}.inputs]", where)
            else:
                try:
                    made[name] = option_value(one, value)
                except ValueError as error:
                    self.fault(str(error), where, value)
        return made

    def _inputs(
        self, check: Check, inputs: Mapping[str, str | list[str]]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        made: dict[str, Any] = {}
        absent: dict[str, str] = {}
        known = [each.name for each in check.fields.values() if each.kind == "input"]
        for name, value in inputs.items():
            where = f"{check.name}.inputs.{name}"
            if name not in known:
                self.unknown(where, known, "an input of this check")
                continue
            many = check.fields[name].many
            if isinstance(value, list) and not many:
                self.fault("must be one path", where)
                continue
            named = [value] if isinstance(value, str) else value
            if not named:
                self.fault("must not be empty", where)
            paths: list[Path] = []
            lacking: list[str] = []
            for text in named:
                found = self._files(text, where) if many else self._one(text, where)
                paths += found
                lacking += [] if found else [f"{text} (matches no file)"]
                lacking += [str(path) for path in found if not path.exists()]
            if lacking:
                absent[name] = ", ".join(lacking)
            made[name] = tuple(paths) if many else next(iter(paths), None)
        return made, absent

    def _one(self, text: str, where: str) -> list[Path]:
        path = self.file(text, where)
        return [path] if path is not None else []

    def _files(self, text: str, where: str) -> list[Path]:
        """The file, or what a pattern matches, in the order of the names."""
        plain = self.file(text, where)
        if plain is None or not has_magic(text) or plain.exists():
            return [plain] if plain is not None else []
        matches = sorted(glob(text, root_dir=self.root, recursive=True))
        return [path for each in matches if (path := self.file(each, where)) is not None]

    def file(self, value: object, where: str) -> Path | None:
        """The path that a text names below the root; None, and a fault, where it may not."""
        text = self.text(value, where)
        if text is None:
            return None
        if text == "-":
            self.fault("must be a file: standard input can be named in flags only", where, text)
            return None
        try:
            full = resolve_inside(self.root, text, source=self.path, field=where)
        except InputError as error:
            self.problems += error.problems
            return None
        except (OSError, ValueError):
            self.fault("is no usable path", where, text)
            return None
        plain = Path(os.path.normpath(self.root / text))
        return plain if plain.resolve() == full else self.root / text


def option_value(one: Field, value: Any) -> Any:
    """Turn a value of a TOML file into that of an option.

    Raises:
        ValueError: it is of another type, not finite, or out of range.
    """
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(each, float) and not math.isfinite(each) for each in numbers):
        raise ValueError("must be a finite number")
    try:
        found = msgspec.convert(value, one.type, strict=True)
    except msgspec.ValidationError as error:
        why = explain(Path(one.name), str(error), value, None, one.type).why
        allowed = " or ".join(repr(each) for each in getattr(one.type, "__args__", ()))
        raise ValueError(f"must be {allowed}" if "enum" in str(error) else why) from None
    if isinstance(found, int | float) and one.range and not one.range.holds(found):
        raise ValueError(f"must be {one.range}")
    return found
