"""Comparing two manifests as a check: what differs event by event, and what must not."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from training.checks.places import first_line, identified, placed
from training.errors import DrumgateError
from training.gates import (
    Measurement,
    Place,
    Report,
    Threshold,
    Verdict,
    asked_gates,
    judge,
    load_thresholds,
    nearest,
)
from training.manifest.engine import open_engine
from training.manifest.scan import STDIN, scan_events
from training.manifest.validate import Track
from training.metrics.health_compare import count_changes
from training.metrics.manifest_diff import KINDS, Change, Kind
from training.metrics.manifest_diff_sql import COLUMNS, ViewDiff, diff_views
from training.metrics.manifest_diff_totals import Totals, total_views

# Where the figures were computed changes none of them.
_NO_PARAMETERS = ("memory_limit", "cache_dir")


PairBy = Literal["id", "time"]

FAR_APART_SHARE = 0.01
"""From this share of the pairs by id on, onsets further apart than the tolerance earn a warning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which manifests to compare, and which kinds of change block.

    Attributes:
        base, candidate: the manifests, each in one file or several; "-" is standard input.
        tolerance_ms: onsets further apart are never taken for the same event.
        pair_by: `id` pairs by sample_id first and the rest by time, `time` all by time.
        fail_on: kinds of change that block, each as `kind` (none allowed) or `kind=N` (up to N).
        limit: how many changes of each kind, and how many sessions, the report lists.
        gates: a file of thresholds; its [manifest_diff.kind] tables switch kinds on as well.
        memory_limit, cache_dir: see `open_engine` and `scan_events`.
    """

    base: Path | tuple[Path, ...]
    candidate: Path | tuple[Path, ...]
    tolerance_ms: float = 50.0
    pair_by: PairBy = "id"
    fail_on: tuple[str, ...] = ()
    limit: int = 20
    gates: Path | None = None
    memory_limit: str | None = None
    cache_dir: Path | None = None


def run(options: Options, track: Track | None = None) -> Report:
    """Compare two manifests event by event and judge the kinds of change that were asked for.

    `track` shows the progress of the reading.

    Raises:
        InputError: a manifest is missing or malformed.
        DrumgateError: `fail_on` names no kind of change, the tolerance is not a number, both
            manifests are standard input, or too many events would have to be paired by time.
    """
    if not math.isfinite(options.tolerance_ms):
        raise DrumgateError(f"--tolerance-ms: must be a finite number (got {options.tolerance_ms})")
    allowed = _allowed(options.fail_on)
    thresholds = load_thresholds("manifest_diff", overlay=options.gates)
    asked = {*asked_gates("manifest_diff", options.gates), *allowed}
    base, candidate = _paths(options.base), _paths(options.candidate)
    if STDIN in base and STDIN in candidate:
        raise DrumgateError("-: standard input can be read only once")
    with open_engine(options.memory_limit, track) as engine:
        how: dict[str, Any] = {"columns": COLUMNS, "cache_dir": options.cache_dir}
        before = scan_events(engine, base, name="base", **how)
        after = scan_events(engine, candidate, name="candidate", **how)
        diff = diff_views(
            engine.connection,
            before.name,
            after.name,
            tolerance_s=options.tolerance_ms / 1000,
            limit=options.limit,
            by_id=options.pair_by == "id",
        )
        totals = total_views(engine.connection, before.name, after.name, limit=options.limit)
    return Report(
        tool="compare-manifests",
        inputs=[*before.sources, *after.sources],
        parameters=_parameters(replace(options, base=_one(base), candidate=_one(candidate))),
        metrics={
            "events_total": {"base": before.rows, "candidate": after.rows},
            "paired_by_id": diff.paired_by_id,
            "paired_by_time": diff.paired_by_time,
            "ids_far_apart": diff.ids_far_apart,
            "unchanged": diff.unchanged,
            "counts": diff.counts,
            "changes": {kind: _listed(diff.listed[kind]) for kind in KINDS},
            "totals": _totals(totals),
        },
        verdicts=placed(
            _judge(diff, thresholds, asked, allowed),
            {
                f"manifest_diff.{kind}": partial(_first, diff, kind, base, candidate)
                for kind in KINDS
            },
        ),
        warnings=_warnings(diff, options.tolerance_ms),
    )


def _warnings(diff: ViewDiff, tolerance_ms: float) -> list[str]:
    """Say so where ids pair events that lie far apart, as they do when they were given anew."""
    far, paired = diff.ids_far_apart, diff.paired_by_id
    if not far or far < FAR_APART_SHARE * paired:
        return []
    return [
        f"{far:,} of {paired:,} pairs by sample_id lie more than {tolerance_ms:g} ms apart: if ids"
        " were given anew, --pair-by time tells what really changed"
    ]


def _first(
    diff: ViewDiff, kind: Kind, base: tuple[Path, ...], candidate: tuple[Path, ...]
) -> Place | None:
    """Return the line of the first change of a kind, in the candidate where it is there."""
    change = next(iter(diff.listed[kind]), None)
    if change is None:
        return None
    if change.candidate_id is not None:
        return first_line(candidate, [change.candidate_id], identified(change.candidate_id))
    sample_id = change.base_id or ""
    return first_line(base, [sample_id], identified(sample_id))


def _judge(
    diff: ViewDiff,
    thresholds: Mapping[str, Threshold],
    asked: set[str],
    allowed: Mapping[str, int | None],
) -> list[Verdict]:
    verdicts = []
    for kind in KINDS:
        if kind not in asked:
            continue
        threshold = thresholds[kind]
        if kind in allowed and allowed[kind] is not None:
            threshold = replace(
                threshold,
                value=float(allowed[kind] or 0),
                production=threshold.value,
                reason="set on the command line",
            )
        compared = diff.paired_by_id + diff.paired_by_time
        measured = Measurement(name=kind, value=diff.counts[kind], unit="events", n=compared)
        verdicts.append(judge(measured, threshold))
    return verdicts


def _allowed(fail_on: Sequence[str]) -> dict[str, int | None]:
    """How many changes of each kind are allowed; None leaves it to the configuration."""
    allowed: dict[str, int | None] = {}
    for condition in fail_on:
        kind, given, number = condition.partition("=")
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise DrumgateError(f"--fail-on: {kind!r} is none of {known}{nearest(kind, KINDS)}")
        if given and not (number.isascii() and number.isdigit()):
            raise DrumgateError(f"--fail-on: {condition!r} needs a whole number after the =")
        if kind in allowed:
            raise DrumgateError(f"--fail-on: {kind} is given twice")
        allowed[kind] = int(number) if given else None
    return allowed


def _paths(given: Path | tuple[Path, ...]) -> tuple[Path, ...]:
    return (given,) if isinstance(given, Path) else given


def _one(paths: tuple[Path, ...]) -> Path | tuple[Path, ...]:
    return paths[0] if len(paths) == 1 else paths


def _parameters(options: Options) -> dict[str, Any]:
    return {k: v for k, v in asdict(options).items() if k not in _NO_PARAMETERS}


def _listed(changes: Sequence[Change]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [msgspec.to_builtins(change) for change in changes]
    for row in rows:
        del row["kind"]
    return rows


def _totals(totals: Totals) -> dict[str, dict[str, Any]]:
    """What changed in sum: all components, techniques, sources and splits; the worst sessions."""
    told: dict[str, dict[str, Any]] = {
        "sessions": {
            "base": totals.sessions[0],
            "candidate": totals.sessions[1],
            "changed": totals.sessions_changed,
            "rows": [_row(name, *sides) for name, sides in totals.worst_sessions.items()],
        }
    }
    for name, (before, after) in totals.counts.items():
        rows = count_changes(before, after)
        told[name] = {
            "base": len(before),
            "candidate": len(after),
            "changed": sum(row.baseline != row.candidate for row in rows),
            "rows": [_row(row.name, row.baseline, row.candidate) for row in rows],
        }
    return told


def _row(name: str, base: int, candidate: int) -> Mapping[str, Any]:
    return {"name": name, "base": base, "candidate": candidate, "delta": candidate - base}
