"""Which distributions two health reports hold, and how far each moved."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from training.checks.health_compare_input import Histogram, Metrics
from training.metrics.drift import Drift, corrected, drift, not_compared

_TEMPO_BIN: Final = re.compile(r"(\d{1,6})-(\d{1,6})")
_AS_THEY_ARE: Final = ("synthetic", "bleed", "mix_context", "meters", "devices")

Bin = tuple[float, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Values:
    """Counts by value, or by bin where the values have an order.

    `quiet` ones are listed only when they have more than one value: whether something is stated
    is no news where it always is.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    bins: Mapping[Bin, int] | None = None
    quiet: bool = False

    @property
    def total(self) -> int:
        return sum((self.counts if self.bins is None else self.bins).values())


def distributions(
    baseline: Metrics, candidate: Metrics, *, ignore: Collection[str] = ()
) -> tuple[Drift, ...]:
    """Compare every distribution that either report holds, largest shift first.

    Labels in `ignore` are left out of the distribution of the classes. The dynamics of a class
    are compared where both sides have hits of it: a class that vanished is a drop, not a drift.
    """
    before, after = _held(baseline, ignore), _held(candidate, ignore)
    known = baseline.sessions(), candidate.sessions()
    sessions = (known[0], known[1]) if known[0] is not None and known[1] is not None else None
    rows = [
        _compared(name, before.get(name), after.get(name), sessions)
        for name in dict.fromkeys([*before, *after])
        if not _without_news(before.get(name), after.get(name))
    ]
    classes = baseline.dynamics_by_class or {}, candidate.dynamics_by_class or {}
    for label in sorted({*classes[0]} & {*classes[1]}):
        of_label = _Values(counts=classes[0][label]), _Values(counts=classes[1][label])
        if of_label[0].total and of_label[1].total:
            rows.append(_compared(dynamics_of(label), *of_label, sessions))
    return corrected(rows)


def dynamics_of(label: str) -> str:
    """Name the distribution of one class's hits over the dynamics."""
    return f"dynamics of {label}"


def _held(metrics: Metrics, ignore: Collection[str]) -> dict[str, _Values]:
    """Collect the distributions that one report holds, by name."""
    classes = {label: n for label, n in metrics.classes().items() if label not in ignore}
    sources = {name: row.events for name, row in metrics.by_source.items()}
    held = {
        "classes": _Values(counts=classes),
        "dynamics": _Values(counts=metrics.dynamics),
        **_binned("openness", metrics.openness_histogram),
        "techniques": _Values(counts=metrics.technique_counts),
        "sources": _Values(counts=sources),
        **_binned("velocity", metrics.velocity_histogram),
        **_tempo(metrics.tempo_bins),
    }
    for name in _AS_THEY_ARE:
        counts = getattr(metrics, name)
        if counts is not None:
            held[name] = _Values(counts=counts)
    return held


def _binned(name: str, histogram: Histogram | None) -> dict[str, _Values]:
    if histogram is None:
        return {}
    bins = dict(zip(itertools.pairwise(histogram.edges), histogram.counts, strict=True))
    return _with_stated(name, bins, histogram.unstated + histogram.raw_only)


def _tempo(counts: Mapping[str, int] | None) -> dict[str, _Values]:
    """Read "100-120": 7 as the bin (100, 120); what is no such bin states no tempo."""
    if counts is None:
        return {}
    bins: dict[Bin, int] = {}
    unstated = 0
    for name, events in counts.items():
        found = _TEMPO_BIN.fullmatch(name)
        if found and int(found[1]) < int(found[2]):
            bin_ = float(found[1]), float(found[2])
            bins[bin_] = bins.get(bin_, 0) + events
        else:
            unstated += events
    return _with_stated("tempo", bins, unstated)


def _with_stated(name: str, bins: Mapping[Bin, int], unstated: int) -> dict[str, _Values]:
    stated = {"stated": sum(bins.values()), "not stated": unstated}
    return {name: _Values(bins=bins), f"{name} stated": _Values(counts=stated, quiet=True)}


def _without_news(before: _Values | None, after: _Values | None) -> bool:
    return all(
        side is None or (side.quiet and not side.counts.get("not stated"))
        for side in (before, after)
    )


def _compared(
    name: str, before: _Values | None, after: _Values | None, sessions: tuple[int, int] | None
) -> Drift:
    totals = before.total if before else 0, after.total if after else 0
    if before is None or after is None:
        side = "baseline" if before is None else "candidate"
        return not_compared(name, totals, f"the report of the {side} does not hold it")
    if before.bins is None or after.bins is None:
        return drift(name, before.counts, after.counts, sessions=sessions)
    bins = sorted({*before.bins, *after.bins})
    if any(left[1] > right[0] for left, right in itertools.pairwise(bins)):
        return not_compared(name, totals, "the two reports have different bins")
    named = [
        {f"{_edge(low)}-{_edge(high)}": side.get((low, high), 0) for low, high in bins}
        for side in (before.bins, after.bins)
    ]
    return drift(name, *named, ordered=True, sessions=sessions)


def _edge(value: float) -> str:
    return f"{value:g}" if float(f"{value:g}") == value else repr(value)
