"""What a readiness run would do: flags laid over a configuration, and what is missing."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Final

from training.checks.readiness_checks import CHECKS, USUAL, Check
from training.checks.readiness_config import (
    CheckConfig,
    Config,
    Severity,
    option_value,
    read_config,
)
from training.errors import DrumgateError, printable
from training.gates import GatesSource, asked_gates, load_thresholds, nearest, read_gates
from training.gates.model import Threshold

_NOTHING: Final = (None, ())


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to run.

    Attributes:
        checks: the names of the checks; None runs those of the configuration, or the usual five.
        given: for each check, what flags give for it, named as in its own `Options`.
        settings: `check.name=value`, as `--set` gives them; they go before `given`.
        config: a configuration; whatever else is given goes before what it says.
        root: see `read_config`.
        waivers: a file of waivers, in place of the one that the configuration names.
        allow_missing: checks that may go without input.
        gates: a gates file, over the thresholds of the configuration.
        halt_on_first_failure: run one check after the other and none after one that blocks.
        jobs: how many checks run at a time.
        today: the day that decides which waivers hold; None is this day.
    """

    checks: tuple[str, ...] | None = None
    given: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    settings: Sequence[str] = ()
    config: Path | None = None
    root: Path | None = None
    waivers: Path | None = None
    allow_missing: tuple[str, ...] = ()
    gates: Path | None = None
    halt_on_first_failure: bool = False
    jobs: int = 1
    today: date | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """One check that was selected.

    Attributes:
        given: what its `Options` get, thresholds aside.
        gates: the thresholds that go before the shipped ones.
        asked: gates that the configuration or a flag names: they must be judged.
        required, severity, reason: see `CheckConfig`.
        missing: why it cannot be run; empty where it can.
        allowed: whether `--allow-missing` names it.
        after: the check of this run whose report it reads; None where it needs none.
    """

    check: Check
    given: Mapping[str, Any]
    gates: GatesSource | None
    asked: frozenset[str] = frozenset()
    required: bool = True
    severity: Severity = "block"
    reason: str = ""
    missing: str = ""
    allowed: bool = False
    after: str | None = None

    @property
    def inputs(self) -> dict[str, tuple[Path, ...]]:
        """The files and folders that it is given, by option."""
        found = {}
        for name, value in self.given.items():
            if self.check.fields[name].kind == "input":
                found[name] = value if isinstance(value, tuple) else (value,)
        return found

    def thresholds(self) -> dict[str, Threshold]:
        """The thresholds in force; of a check that judges what is asked for, those asked for."""
        own = {
            name: value
            for name, value in self.given.items()
            if self.check.fields[name].kind == "gate"
        }
        found = {
            name: threshold
            for name, threshold in load_thresholds(
                self.check.table, overlay=self.gates, overrides=own
            ).items()
            if name in self.check.thresholds
        }
        if not self.check.only_asked:
            return found
        asked = {name.removesuffix("_files") for name in self.given}
        asked |= asked_gates(self.check.table, self.gates)
        return {name: threshold for name, threshold in found.items() if name in asked}


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All that a run will do, in the order of its report."""

    checks: tuple[Planned, ...]
    config: Config | None
    waivers: Path | None


def make_plan(options: Options) -> Plan:
    """Lay flags over the configuration and say what is missing; nothing but that file is read.

    Raises:
        InputError: the configuration or the gates file is wrong.
        DrumgateError: a check, an option or a value that was given is none.
    """
    config = read_config(options.config, options.root) if options.config else None
    tables: Mapping[str, CheckConfig] = config.checks if config else {}
    selected = options.checks or tuple(tables) or USUAL
    for name in (*selected, *options.allow_missing):
        if name not in CHECKS:
            raise DrumgateError(f"{name!r} is none of {', '.join(CHECKS)}{nearest(name, CHECKS)}")
    for name in options.allow_missing:
        if name not in selected:
            raise DrumgateError(f"--allow-missing {name}: the check is not part of this run")
    given = _given(options, selected)
    if options.root is not None and config is None:
        raise DrumgateError("--root: is that of a configuration; give --config as well")
    gates = _gates(config, options.gates)
    if options.gates is not None:
        for name in selected:
            load_thresholds(CHECKS[name].table, overlay=options.gates)
    return Plan(
        checks=tuple(
            _planned(name, given[name], tables.get(name, CheckConfig()), gates, options, selected)
            for name in selected
        ),
        config=config,
        waivers=options.waivers or (config.waivers if config else None),
    )


def _given(options: Options, selected: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What flags give for each check: `--set` goes before the flag of its own."""
    given = {
        name: {
            key: value
            for key, value in options.given.get(name, {}).items()
            if value not in _NOTHING
        }
        for name in selected
    }
    for name, values in given.items():
        for key, value in values.items():
            _in_range(CHECKS[name], key, value)
    for setting in options.settings:
        place, equals, text = setting.partition("=")
        check, _dot, name = place.partition(".")
        if not (check and name and equals):
            raise DrumgateError(f"--set {printable(setting)}: is not CHECK.NAME=VALUE")
        if check not in given:
            near = nearest(check, selected) if check not in CHECKS else ""
            raise DrumgateError(
                f"--set {printable(place)}: the check is not part of this run{near}"
            )
        given[check][name] = _setting(CHECKS[check], name, text)
    return given


def _in_range(check: Check, name: str, value: Any) -> None:
    """Check a number that a flag gives: the flags of this command leave that to us."""
    allowed = check.fields[name].range
    if isinstance(value, int | float) and allowed and not allowed.holds(value):
        raise DrumgateError(f"{check.flag(name)}: must be {allowed} (got {value:g})")


def _setting(check: Check, name: str, text: str) -> Any:
    """Read the value of `--set` as a path, or as TOML, or as plain text."""
    where = f"--set {check.name}.{printable(name)}"
    if name not in check.fields:
        raise DrumgateError(
            f"{where}: is not an option of {check.name}{nearest(name, check.fields)}"
        )
    one = check.fields[name]
    if not text:
        raise DrumgateError(f"{where}: must not be empty")
    if one.kind == "input":
        return (Path(text),) if one.many else Path(text)
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    for attempt in (text, value):  # the fault of the latter is the one to name
        try:
            return option_value(one, attempt)
        except ValueError as error:
            why = str(error)
    raise DrumgateError(f"{where}: {why} (got {printable(text)})")


def _gates(config: Config | None, own: Path | None) -> GatesSource | None:
    """A gates file lies over the configuration; without the one, the other stands alone."""
    if config is None:
        return own
    return config.gates.under(read_gates(own)) if own else config.gates


def _planned(
    name: str,
    given: Mapping[str, Any],
    table: CheckConfig,
    gates: GatesSource | None,
    options: Options,
    selected: Sequence[str],
) -> Planned:
    check = CHECKS[name]
    whole = {**table.given, **given}
    after = check.after if check.after in selected and "candidate" not in whole else None
    lacking = [
        group
        for group in check.needs
        if not any(each in whole for each in group) and not (after and "candidate" in group)
    ]
    absent = {key: said for key, said in table.absent.items() if key not in given}
    if name in options.allow_missing:
        # What a flag names and is not there is a slip, unless it was said that it may be missing.
        absent |= _not_there(check, given)
    missing = ""
    if lacking:
        missing = f"no input: give {' and '.join(check.flag(group[0]) for group in lacking)}"
        if options.config:
            missing += f", or name it in [{name}.inputs] of {options.config}"
    elif absent:
        said = "; ".join(f"{key}: {what}" for key, what in absent.items())
        missing = f"no input: not there is {said}"
    return Planned(
        check=check,
        given=whole,
        gates=gates,
        asked=frozenset(
            {*table.gates, *(key for key in given if check.fields[key].kind == "gate")}
        ),
        required=table.required,
        severity=table.severity,
        reason=table.reason,
        missing=missing,
        allowed=name in options.allow_missing,
        after=after,
    )


def _not_there(check: Check, given: Mapping[str, Any]) -> dict[str, str]:
    absent = {}
    for name, value in given.items():
        if check.fields[name].kind == "input":
            paths = value if isinstance(value, tuple) else (value,)
            lacking = [str(path) for path in paths if not path.exists()]
            if lacking:
                absent[name] = ", ".join(lacking)
    return absent
