"""Validating manifests: each line by itself, events against each other and against their audio."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from training.checks.validate_audio import read_headers
from training.checks.validate_evaluation import EvaluationFindings
from training.checks.validate_lines import SchemaFindings, check_lines
from training.errors import UNSET, InputError, Problem
from training.manifest.engine import Engine, open_engine
from training.manifest.scan import STDIN, Scan, scan_events
from training.manifest.validate import Track
from training.metrics import findings as rules
from training.metrics import findings_audio as audio_rules
from training.metrics.finding_rules import RULES, Level
from training.taxonomy import load_components, load_techniques

Record = Literal["event", "ground_truth", "prediction"]

OFFSET_TOLERANCE_S = 0.001
"""How far an offset may lie behind the end of its audio: times are often written in ms."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to check, and how much of what is found to keep.

    Attributes:
        inputs: the manifests; `-` is standard input.
        record: what a line is.
        audio_root: the folder that `audio_path` is relative to.
        audio_roots: another folder for the events of a source, by `source_set`. With neither the
            audio is not read; with this alone, audio of other sources is a finding.
        components, techniques: taxonomy and catalogue; None takes the shipped ones.
        max_problems: how many findings to keep, over all rules; all are counted.
        memory_limit, cache_dir: see `open_engine` and `scan_events`.
    """

    inputs: tuple[Path, ...]
    record: Record = "event"
    audio_root: Path | None = None
    audio_roots: Mapping[str, Path] = field(default_factory=dict)
    components: Path | None = None
    techniques: Path | None = None
    max_problems: int = 100
    memory_limit: str | None = None
    cache_dir: Path | None = None

    @property
    def roots(self) -> dict[int, Path]:
        """The folders of audio by number: 0 for all sources that have none of their own."""
        general = {} if self.audio_root is None else {0: self.audio_root}
        return general | dict(enumerate(self.audio_roots.values(), start=1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One thing that is wrong, where it stands, and how many events it concerns."""

    rule: str
    problem: Problem
    events: int = 1

    @property
    def level(self) -> Level:
        """How grave it is."""
        return RULES[self.rule].level


@dataclass(frozen=True, kw_only=True, slots=True)
class RuleCount:
    """How often a rule was broken, and how many events that concerns: complete."""

    findings: int
    events: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Validation:
    """What was checked and what is wrong.

    Attributes:
        record: what a line is.
        inputs: the manifests as they were named.
        records: valid records.
        audio_files: distinct audio paths, and `audio_headers` how many of them were read; None
            when no audio root was given.
        counts: {rule: how often}, of the rules that were broken, in the order of `RULES`.
        findings: the first of each rule by place, at most `max_problems`.
    """

    record: Record
    inputs: tuple[str, ...]
    records: int
    audio_files: int | None
    audio_headers: int | None
    counts: dict[str, RuleCount]
    findings: tuple[Finding, ...]

    def total(self, level: Level) -> int:
        """Count the findings of a level."""
        return sum(
            count.findings for rule, count in self.counts.items() if RULES[rule].level == level
        )

    @property
    def total_schema(self) -> int:
        """Count what makes lines or files unreadable: bad input."""
        return sum(count.findings for rule, count in self.counts.items() if RULES[rule].schema)

    @property
    def hidden(self) -> int:
        """Count the findings that were not kept."""
        return sum(count.findings for count in self.counts.values()) - len(self.findings)

    def blocks(self, *, strict: bool) -> bool:
        """Whether something is wrong that must not pass; warnings only count when `strict`."""
        return self.total("error") > 0 or (strict and self.total("warning") > 0)


def run(options: Options, *, track: Track | None = None) -> Validation:
    """Check manifests; what is wrong with them is the result, not an exception.

    Events are checked in two steps: every line by itself, then the valid ones against each other
    and, with an audio root, against the headers of their audio. Ids must be unique over all inputs
    of events, since they are meant to be used together, and within each file of other records.

    Raises:
        InputError: a taxonomy or an audio root is not there or malformed, or no event is of a
            source that a folder was given for.
    """
    for root in options.roots.values():
        if not root.is_dir():
            raise InputError.at(root, "no such folder")
    with _received(options.inputs) as inputs:
        return (
            _events(options, inputs, track)
            if options.record == "event"
            else _others(options, inputs)
        )


def _events(options: Options, inputs: _Inputs, track: Track | None) -> Validation:
    components = load_components(options.components)
    techniques = load_techniques(options.techniques)
    schema = SchemaFindings(options.max_problems)
    with open_engine(options.memory_limit, track) as engine:
        scan = _scan(engine, inputs.paths, options.cache_dir, schema)
        listed: int | None = None
        read: int | None = None
        run = engine.connection
        rules.create_table(run)
        if scan is not None:
            view = scan.name
            rules.duplicate_ids(run, view, "duplicate-sample-id")
            rules.paths_outside(run, view, "audio-outside-root")
            rooted = audio_rules.root_events(run, view, tuple(options.audio_roots))
            for rule, key, named in _CONFLICTS:
                within = "root" if key == "audio_path" else "0"
                rules.conflicts(run, rooted, rule, key=key, field=named, within=within)
            for named in _NAMED:
                rules.lookalike_names(run, view, "lookalike-name", field=named)
            rules.unknown_labels(run, view, "unknown-label", components.canonical)
            rules.unannotated_labels(run, view, "unannotated-label", components.canonical)
            rules.unknown_techniques(run, view, "unknown-technique", techniques.canonical)
            if options.roots:
                _require_sources(run, view, options)
                rules.without_audio(run, view, "no-audio-path")
                listed, read = _read_audio(run, rooted, options, track)
        counts = _counts(schema, rules.counts(run))
        shares = _shares(counts, options.max_problems)
        shown = _of_schema(schema, shares, inputs)
        if scan is not None:
            shown += _of_table(run, scan, shares, inputs)
        return Validation(
            record=options.record,
            inputs=tuple(map(str, options.inputs)),
            records=scan.rows if scan else 0,
            audio_files=listed,
            audio_headers=read,
            counts=counts,
            findings=tuple(shown),
        )


_NAMED = ("session_id", "drummer_id", "kit_id", "room_id", "split", "source_set")

_CONFLICTS = (
    ("sample-rate-conflict", "audio_path", "sample_rate"),
    ("channels-conflict", "audio_path", "channels"),
    ("session-conflict", "audio_path", "session_id"),
    ("track-conflict", "audio_path", "track_id"),
    ("split-conflict", "session_id", "split"),
)


def _require_sources(connection: Any, view: str, options: Options) -> None:
    """Refuse a folder for a source that no event is of: a slip of the pen, and nothing is checked.

    Raises:
        InputError: there is one.
    """
    if not options.audio_roots:
        return
    rows = connection.execute(f"SELECT DISTINCT source_set FROM {view}").fetchall()
    known = {name for (name,) in rows}
    for source in options.audio_roots:
        if source not in known:
            why = "no event is of the source that a folder was given for"
            where = ", ".join(map(str, options.inputs))
            raise InputError.at(where, why, field="source_set", got=source)


def _read_audio(
    connection: Any, view: str, options: Options, track: Track | None
) -> tuple[int, int]:
    """Compare events with the headers of their audio; return files listed, and headers read."""
    if options.audio_root is None:
        audio_rules.without_root(connection, view, "no-audio-root")
    listed = audio_rules.create_files(connection, view, least_root=min(options.roots))
    read = read_headers(connection, options.roots, listed, track)
    _compare_audio(connection, view)
    return listed, read


def _compare_audio(connection: Any, view: str) -> None:
    for rule, named, unit in (
        ("sample-rate-mismatch", "sample_rate", " Hz"),
        ("channels-mismatch", "channels", " channels"),
    ):
        audio_rules.header_mismatches(connection, view, rule, field=named, unit=unit)
    audio_rules.beyond_the_end(connection, view, "onset-beyond-audio", field="onset_time")
    audio_rules.beyond_the_end(
        connection,
        view,
        "offset-beyond-audio",
        field="offset_time",
        tolerance_s=OFFSET_TOLERANCE_S,
    )


def _scan(
    engine: Engine, paths: Sequence[Path], cache_dir: Path | None, schema: SchemaFindings
) -> Scan | None:
    """Scan the inputs; where a line or a file is wrong, say so and scan what is left."""
    try:
        scan = scan_events(engine, paths, skip_invalid=True, cache_dir=cache_dir)
    except InputError:
        readable = [path for path in paths if check_lines(path, "event", schema)]
        if not schema.total:
            raise
        damaged = {problem.path for rule, problem in schema.problems if rule == "unreadable-input"}
        readable = [path for path in readable if str(path) not in damaged]
        if not readable:
            return None
        return scan_events(engine, readable, skip_invalid=True, cache_dir=cache_dir)
    if scan.skipped:
        for path in paths:
            check_lines(path, "event", schema)
    return scan


def _others(options: Options, inputs: _Inputs) -> Validation:
    """Check files of ground truth or predictions: they are small, and read line by line."""
    schema = SchemaFindings(options.max_problems)
    canonical = load_components(options.components).canonical
    found = EvaluationFindings(canonical, options.max_problems)
    records = 0
    for path in inputs.paths:
        visit = found.visitor(inputs.name(str(path)))
        records += check_lines(path, options.record, schema, visit)
    counts = _counts(schema, found.counts())
    shares = _shares(counts, options.max_problems)
    shown = _of_schema(schema, shares, inputs)
    for rule, share in shares.items():
        mine = (each for each in found.kept() if each[0] == rule)
        for _, problem, events in islice(mine, share):
            shown.append(Finding(rule=rule, problem=problem, events=events))
    return Validation(
        record=options.record,
        inputs=tuple(map(str, options.inputs)),
        records=records,
        audio_files=None,
        audio_headers=None,
        counts=counts,
        findings=tuple(shown),
    )


def _counts(schema: SchemaFindings, others: Mapping[str, tuple[int, int]]) -> dict[str, RuleCount]:
    """Put the counts of both halves together, in the order of the rules."""
    found = {rule: RuleCount(findings=n, events=n) for rule, n in schema.counts.items()}
    found |= {rule: RuleCount(findings=n, events=events) for rule, (n, events) in others.items()}
    return {rule: found[rule] for rule in RULES if rule in found}


def _shares(counts: dict[str, RuleCount], limit: int) -> dict[str, int]:
    return rules.fair_shares({rule: count.findings for rule, count in counts.items()}, limit)


def _of_schema(schema: SchemaFindings, shares: Mapping[str, int], inputs: _Inputs) -> list[Finding]:
    left = dict(shares)
    shown = []
    for rule, problem in schema.problems:
        if left[rule]:
            left[rule] -= 1
            problem = replace(problem, path=inputs.name(problem.path))
            shown.append(Finding(rule=rule, problem=problem))
    return shown


def _of_table(
    connection: Any, scan: Scan, shares: Mapping[str, int], inputs: _Inputs
) -> list[Finding]:
    rows = [
        (rule, *row)
        for rule, share in shares.items()
        if share and not RULES[rule].schema
        for row in rules.first_findings(connection, rule, share)
    ]
    wanted = {row[1] for row in rows} | {row[2] for row in rows if row[2] is not None}
    places = scan.places(wanted) if wanted else {}
    shown = []
    for rule, row, other, named, got, why, events in rows:
        path, line = places[row]
        if other is not None:
            why = f"{why} {inputs.name(places[other][0])}:{places[other][1]}"
        value = UNSET if got is None else json.loads(got)
        problem = Problem(inputs.name(path), why, line, named, value)
        shown.append(Finding(rule=rule, problem=problem, events=events))
    return shown


@dataclass(frozen=True, slots=True)
class _Inputs:
    """The inputs as files that can be read more than once, and what they are called."""

    paths: tuple[Path, ...]
    names: Mapping[str, str]

    def name(self, path: str) -> str:
        return self.names.get(path, path)


@contextmanager
def _received(inputs: Sequence[Path]) -> Iterator[_Inputs]:
    """Put standard input and pipes into files: they are read more than once."""
    with tempfile.TemporaryDirectory(prefix="drumgate-") as folder:
        paths: list[Path] = []
        names: dict[str, str] = {}
        for number, path in enumerate(inputs):
            if path != STDIN and not _is_pipe(path):
                paths.append(path)
                continue
            paths.append(Path(folder) / f"input-{number}")
            names[str(paths[-1])] = str(path)
            with paths[-1].open("wb") as file:
                if path == STDIN:
                    shutil.copyfileobj(sys.stdin.buffer, file, 2**20)
                else:
                    with path.open("rb") as pipe:
                        shutil.copyfileobj(pipe, file, 2**20)
        yield _Inputs(tuple(paths), names)


def _is_pipe(path: Path) -> bool:
    try:
        return path.is_fifo()
    except OSError:
        return False  # what is wrong is said where it is opened
