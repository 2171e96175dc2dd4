"""Comparing two manifests as a check: what differs event by event, and what must not."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from training.errors import DrumgateError
from training.gates import Measurement, Report, judge, load_thresholds, nearest
from training.manifest import Event, read_records
from training.metrics.health_compare import CountChange, count_changes
from training.metrics.manifest_diff import KINDS, Change, diff_manifests, summary_counts


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which manifests to compare, and which kinds of change block.

    Attributes:
        base, candidate: the manifests.
        tolerance_ms: onsets further apart are never taken for the same event.
        fail_on: kinds of change that block, each as `kind` (none allowed) or `kind=N` (up to N).
        limit: how many changes of each kind, and how many sessions, the report lists.
        gates: a file of thresholds; its [manifest_diff.kind] tables switch kinds on as well.
    """

    base: Path
    candidate: Path
    tolerance_ms: float = 50.0
    fail_on: tuple[str, ...] = ()
    limit: int = 20
    gates: Path | None = None


def run(options: Options) -> Report:
    """Compare two manifests event by event and judge the kinds of change that were asked for.

    Raises:
        InputError: a manifest is missing or malformed.
        DrumgateError: `fail_on` names no kind of change, or the tolerance is not a number.
    """
    if not math.isfinite(options.tolerance_ms):
        raise DrumgateError(f"--tolerance-ms: must be a finite number (got {options.tolerance_ms})")
    allowed = _allowed(options.fail_on)
    thresholds = load_thresholds("manifest_diff", overlay=options.gates)
    asked = set(allowed)
    if options.gates:
        # load_thresholds has read and checked this file already.
        asked |= set(tomllib.loads(options.gates.read_text("utf-8")).get("manifest_diff", {}))
    base = read_records(options.base, Event)
    candidate = read_records(options.candidate, Event)
    diff = diff_manifests(base.rows, candidate.rows, tolerance_s=options.tolerance_ms / 1000)
    compared = diff.paired_by_id + diff.paired_by_time
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
        measured = Measurement(name=kind, value=diff.counts[kind], unit="events", n=compared)
        verdicts.append(judge(measured, threshold))
    return Report(
        tool="compare-manifests",
        inputs=[base.source, candidate.source],
        parameters=asdict(options),
        metrics={
            "events_total": {"base": len(base), "candidate": len(candidate)},
            "paired_by_id": diff.paired_by_id,
            "paired_by_time": diff.paired_by_time,
            "unchanged": diff.unchanged,
            "counts": diff.counts,
            "changes": _listed(diff.changes, options.limit),
            "totals": _totals(base.rows, candidate.rows, options.limit),
        },
        verdicts=verdicts,
    )


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
        allowed[kind] = int(number) if given else None
    return allowed


def _listed(changes: Sequence[Change], limit: int) -> dict[str, list[dict[str, Any]]]:
    """The first changes of each kind, by session and onset."""
    shown: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for change in changes:
        if len(shown[change.kind]) < limit:
            row: dict[str, Any] = msgspec.to_builtins(change)
            del row["kind"]
            shown[change.kind].append(row)
    return shown


def _totals(
    base: Sequence[Event], candidate: Sequence[Event], limit: int
) -> dict[str, dict[str, Any]]:
    """What changed in sum: all components, techniques, sources and splits; the worst sessions."""
    before, after = summary_counts(base), summary_counts(candidate)
    totals: dict[str, dict[str, Any]] = {}
    for name in before:
        rows = count_changes(before[name], after[name])
        changed = [row for row in rows if row.baseline != row.candidate]
        if name == "sessions":
            changed.sort(key=lambda row: (-abs(row.candidate - row.baseline), row.name))
            rows = tuple(changed[:limit])
        totals[name] = {
            "base": len(before[name]),
            "candidate": len(after[name]),
            "changed": len(changed),
            "rows": [_row(row) for row in rows],
        }
    return totals


def _row(change: CountChange) -> Mapping[str, Any]:
    return {
        "name": change.name,
        "base": change.baseline,
        "candidate": change.candidate,
        "delta": change.candidate - change.baseline,
    }
