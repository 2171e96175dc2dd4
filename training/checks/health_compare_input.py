"""Reading the two reports of dataset-health that are compared, and nothing else."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from training.errors import InputError
from training.gates.report import SCHEMA_VERSION
from training.manifest import InputFile, describe_file, read_json
from training.metrics.health_compare import GateRow

TOOL: Final = "dataset-health"

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Counts = dict[str, Count]


class _ClassCount(msgspec.Struct, frozen=True, kw_only=True):
    total: Count


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over bins: one edge more than bins, rising."""

    counts: list[Count]
    edges: list[float]
    unstated: Count = 0
    raw_only: Count = 0


class _Events(msgspec.Struct, frozen=True, kw_only=True):
    events: Count


class Metrics(msgspec.Struct, frozen=True, kw_only=True):
    """The figures that are compared; those with a default may be missing in a report."""

    events_total: Count
    per_class_counts: dict[str, _ClassCount]
    technique_counts: Counts
    unknown_labels: Counts
    dynamics: Counts
    openness_histogram: Histogram
    by_source: dict[str, _Events]
    duplication_rate: float | None = None
    hits_total: Count | None = None
    entities: Counts | None = None
    synthetic: Counts | None = None
    dynamics_by_class: dict[str, Counts] | None = None
    velocity_histogram: Histogram | None = None
    tempo_bins: Counts | None = None
    meters: Counts | None = None
    bleed: Counts | None = None
    mix_context: Counts | None = None
    devices: Counts | None = None

    def classes(self) -> dict[str, int]:
        """Return the hits of each class."""
        return {label: row.total for label, row in self.per_class_counts.items()}

    def sessions(self) -> int | None:
        """Return the number of sessions, None where the report does not say."""
        return (self.entities or {}).get("sessions")


class _Source(msgspec.Struct, frozen=True, kw_only=True):
    sha256: str


class _HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    tool: str
    metrics: Metrics
    gating_results: list[GateRow]
    schema_version: int
    version: str | None = None
    inputs: list[_Source] = []
    parameters: dict[str, Any] = {}
    provenance: dict[str, Any] = {}


@dataclass(frozen=True, kw_only=True, slots=True)
class HealthReport:
    """One report of dataset-health, validated.

    Attributes:
        file: the file that it was read from; None for the empty one that a first baseline is
            compared with.
        metrics, gates: what it measured, and how its own gates came out.
        version: of the drumgate that wrote it, None where it does not say.
        data: the hashes of what the report was made from.
        events: the manifest that it is about; None where it does not say, or says several.
        raw: the whole JSON object.
    """

    file: InputFile | None
    metrics: Metrics
    gates: tuple[GateRow, ...] = ()
    version: str | None = None
    data: frozenset[str] = frozenset()
    events: str | None = None
    raw: dict[str, Any] = field(default_factory=dict)


def read_health_report(path: Path) -> HealthReport:
    """Read a report of dataset-health.

    Raises:
        InputError: it is missing, malformed, of another tool or of another report schema.
    """
    file = describe_file(path)
    raw = read_json(path, dict[str, Any])
    if raw.get("tool") != TOOL:
        raise InputError.at(
            path, f"must be {TOOL}: this is no health report", field="tool", got=raw.get("tool")
        )
    version = raw.get("schema_version", SCHEMA_VERSION)
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise InputError.at(
            path,
            f"must be {SCHEMA_VERSION}: make both reports with this version of drumgate"
            " (drumgate dataset-health)",
            field="schema_version",
            got=version,
        )
    report = read_json(path, _HealthReport)
    if describe_file(path) != file:
        raise InputError.at(path, "changed while it was read")
    for name in ("openness_histogram", "velocity_histogram"):
        _check_bins(path, name, getattr(report.metrics, name))
    return HealthReport(
        file=file,
        metrics=report.metrics,
        gates=_rows(path, report.gating_results),
        version=report.version,
        data=frozenset(source.sha256 for source in report.inputs),
        events=_manifest(report.parameters.get("events")),
        raw=raw,
    )


def nothing() -> HealthReport:
    """Return the report of a dataset that holds nothing: what a first baseline is compared with."""
    return HealthReport(
        file=None,
        metrics=Metrics(
            events_total=0,
            per_class_counts={},
            technique_counts={},
            unknown_labels={},
            dynamics={},
            openness_histogram=Histogram(counts=[], edges=[0.0]),
            by_source={},
        ),
    )


def _check_bins(path: Path, name: str, bins: Histogram | None) -> None:
    if bins is None:
        return
    where = f"metrics.{name}.edges"
    if len(bins.edges) != len(bins.counts) + 1:
        why = f"must be one more than the {len(bins.counts)} counts"
        raise InputError.at(path, why, field=where, got=len(bins.edges))
    if any(low >= high for low, high in itertools.pairwise(bins.edges)):
        raise InputError.at(path, "must rise from edge to edge", field=where)


def _rows(path: Path, gates: list[GateRow]) -> tuple[GateRow, ...]:
    names = set()
    for gate in gates:
        if gate.name in names:
            raise InputError.at(path, "stands twice", field="gating_results", got=gate.name)
        names.add(gate.name)
    return tuple(gates)


def _manifest(events: object) -> str | None:
    """Read a report's parameter `events`: one path, or a list of them."""
    one = events[0] if isinstance(events, list) and len(events) == 1 else events
    return one if isinstance(one, str) and one not in ("", "-") else None
