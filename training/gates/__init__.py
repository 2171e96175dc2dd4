"""Measurement, threshold, verdict, report: judging that fails closed."""

from training.gates.config import (
    GateEntry,
    GatesSource,
    GateTables,
    asked_gates,
    load_thresholds,
    nearest,
    read_gates,
)
from training.gates.judge import judge, overall
from training.gates.model import Interval, Measurement, Place, Status, Threshold, Verdict, Waiver
from training.gates.report import Report, provenance

__all__ = [
    "GateEntry",
    "GateTables",
    "GatesSource",
    "Interval",
    "Measurement",
    "Place",
    "Report",
    "Status",
    "Threshold",
    "Verdict",
    "Waiver",
    "asked_gates",
    "judge",
    "load_thresholds",
    "nearest",
    "overall",
    "provenance",
    "read_gates",
]
