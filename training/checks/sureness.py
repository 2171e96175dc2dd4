"""Verdicts that another set of sessions could have turned round."""

from __future__ import annotations

from collections.abc import Iterable

from training.gates import Status, Verdict


def unsure_passes(verdicts: Iterable[Verdict]) -> list[str]:
    """Say which gates pass on the point although their interval reaches beyond the threshold."""
    said = []
    for verdict in verdicts:
        if verdict.status is not Status.PASS or verdict.decide_on != "point":
            continue
        if verdict.ci is None or verdict.threshold is None:
            continue
        low, high = verdict.ci.lower, verdict.ci.upper
        worst = {">=": low < verdict.threshold, "<=": high > verdict.threshold}
        if worst.get(verdict.comparator or "", low != high):
            said.append(
                f"{verdict.name} passes on the point only: its interval, {low:.3f} to {high:.3f}, "
                f"reaches beyond {verdict.threshold:g}"
            )
    return said
