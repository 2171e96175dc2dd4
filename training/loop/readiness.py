"""May this dataset be trained on? Only with a readiness report that passed and is about it.

The report is the JSON that `run_readiness_checks` writes. It counts when it passed (``pass`` or
``warn``) and lists, among its inputs, the very manifest that the dataset was built from, told by
SHA-256. Everything else blocks: training then needs ``--allow-unready``, which stays on record in
the checkpoint and the model card.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from training.errors import BlockedError
from training.manifest import describe_file, read_json

__all__ = ["Readiness", "check_readiness", "require_readiness"]

TOOL: Final = "run_readiness_checks"
GOOD: Final = ("pass", "warn")


@dataclass(frozen=True, kw_only=True, slots=True)
class Readiness:
    """What is known of a dataset's readiness."""

    ready: bool
    why: str
    """Why it is not ready; empty where it is."""
    report_path: str
    report_sha256: str | None = None
    report_status: str | None = None
    allowed_unready: bool = False
    """Whether training was let through all the same."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint or a model card."""
        return asdict(self)


def check_readiness(report_path: Path, manifest_sha256s: tuple[str, ...]) -> Readiness:
    """Judge a readiness report for a dataset built from manifests with these hashes.

    Raises:
        InputError: the report is there but is not readable JSON.
    """
    shown = str(report_path)
    if not report_path.exists():
        return Readiness(ready=False, why=f"{shown}: no readiness report", report_path=shown)
    report = read_json(report_path, dict[str, Any])
    digest = describe_file(report_path).sha256
    status = report.get("status")
    why = _why_not(shown, report, manifest_sha256s)
    return Readiness(
        ready=not why,
        why=why,
        report_path=shown,
        report_sha256=digest,
        report_status=status if isinstance(status, str) else None,
    )


def require_readiness(
    report_path: Path, manifest_sha256s: tuple[str, ...], *, allow_unready: bool
) -> Readiness:
    """Return the readiness, or block.

    Raises:
        BlockedError: the dataset is not ready and `allow_unready` is false.
        InputError: as `check_readiness`.
    """
    readiness = check_readiness(report_path, manifest_sha256s)
    if readiness.ready:
        return readiness
    if not allow_unready:
        raise BlockedError(
            f"{readiness.why}\n"
            "Training is blocked: the dataset is not known to be ready. Run\n"
            f"  drumgate run-readiness-checks … --report {report_path}\n"
            "on the manifest that the dataset was built from, or pass --allow-unready "
            "(which is recorded in the checkpoint and the model card)."
        )
    return Readiness(**{**readiness.as_dict(), "allowed_unready": True})


def _why_not(shown: str, report: Mapping[str, Any], manifest_sha256s: tuple[str, ...]) -> str:
    tool = str(report.get("tool", "")).replace("-", "_")
    if tool != TOOL:
        return f"{shown}: tool: is not a report of {TOOL} (got {report.get('tool')!r})"
    status = report.get("status")
    if status not in GOOD:
        rows = report.get("gating_results")
        failed = [
            str(row.get("name"))
            for row in (rows if isinstance(rows, list) else [])
            if isinstance(row, Mapping) and row.get("status") not in GOOD
        ]
        names = f" ({', '.join(failed[:6])})" if failed else ""
        return f"{shown}: status: is {status!r}, not pass{names}"
    inputs = report.get("inputs")
    hashes = {
        row.get("sha256")
        for row in (inputs if isinstance(inputs, list) else [])
        if isinstance(row, Mapping)
    }
    missing = [digest for digest in manifest_sha256s if digest not in hashes]
    if missing or not manifest_sha256s:
        short = (missing or ["unknown"])[0][:12]
        return (
            f"{shown}: inputs: is stale or about another dataset: the dataset was built from a "
            f"manifest with SHA-256 {short}…, which the report did not check"
        )
    return ""
