"""May this dataset be trained on? Only with a readiness report that passed and is about it.

The report is the JSON that `run_readiness_checks` writes. It counts when it passed (``pass`` or
``warn``), lists, among its inputs, the very manifest that the dataset was built from, told by
SHA-256, and when every waiver that it needed to pass still holds. Everything else blocks: training
then needs ``--allow-unready``. That, the waivers and what was allowed to be missing stay on record
in the checkpoint and the model card.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date
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
    waivers: tuple[Mapping[str, str], ...] = ()
    """What was waived for the report to pass: row, gate, reason, who, expires."""
    allowed_missing: tuple[str, ...] = ()
    """Gates without a figure that the report let pass."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What whoever uses the model should know of its data, a sentence each."""
        return (
            *(
                f"trained on data whose gate {each['row']} is waived until {each['expires']} "
                f"by {each['who']}: {each['reason']}"
                for each in self.waivers
            ),
            *(f"trained on data of which {name} was not measured" for name in self.allowed_missing),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint or a model card."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        lists = {"waivers": list(self.waivers), "allowed_missing": list(self.allowed_missing)}
        return values | lists


def check_readiness(
    report_path: Path, manifest_sha256s: tuple[str, ...], *, today: date | None = None
) -> Readiness:
    """Judge a readiness report for a dataset built from manifests with these hashes.

    `today` decides which waivers still hold; None is this day.

    Raises:
        InputError: the report is there but is not readable JSON.
    """
    shown = str(report_path)
    if not report_path.exists():
        return Readiness(ready=False, why=f"{shown}: no readiness report", report_path=shown)
    report = read_json(report_path, dict[str, Any])
    digest = describe_file(report_path).sha256
    status = report.get("status")
    rows = report.get("gating_results")
    excused = [
        row
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, Mapping) and row.get("passed") is True and row.get("status") not in GOOD
    ]
    waivers = tuple(_waiver(row) for row in excused if isinstance(row.get("waiver"), Mapping))
    why = _why_not(shown, report, manifest_sha256s) or _no_longer(
        shown, waivers, today or date.today()
    )
    return Readiness(
        ready=not why,
        why=why,
        report_path=shown,
        report_sha256=digest,
        report_status=status if isinstance(status, str) else None,
        waivers=waivers,
        allowed_missing=tuple(
            str(row.get("name")) for row in excused if not isinstance(row.get("waiver"), Mapping)
        ),
    )


def _waiver(row: Mapping[str, Any]) -> dict[str, str]:
    """The waiver of a row, and the row; what is missing there is an empty text."""
    waiver = row["waiver"]
    return {
        "row": str(row.get("name")),
        **{key: str(waiver.get(key, "")) for key in ("gate", "reason", "who", "expires")},
    }


def _no_longer(shown: str, waivers: Iterable[Mapping[str, str]], today: date) -> str:
    """Name a waiver that has run out since the report was made; what is no day holds never."""
    for waiver in waivers:
        try:
            holds = today <= date.fromisoformat(waiver["expires"])
        except ValueError:
            holds = False
        if not holds:
            return (
                f"{shown}: gating_results: the waiver of {waiver['row']} held until "
                f"{waiver['expires'] or 'no day at all'}: mend the gate, or agree on a new day and "
                "run the checks again"
            )
    return ""


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
    return replace(readiness, allowed_unready=True)


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
