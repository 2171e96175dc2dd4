"""Measurement, threshold, verdict, report: judging that fails closed."""

from training.gates.config import load_thresholds, nearest
from training.gates.judge import judge, overall
from training.gates.model import Interval, Measurement, Status, Threshold, Verdict
from training.gates.report import Report, provenance

__all__ = [
    "Interval",
    "Measurement",
    "Report",
    "Status",
    "Threshold",
    "Verdict",
    "judge",
    "load_thresholds",
    "nearest",
    "overall",
    "provenance",
]
