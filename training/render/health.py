"""The figures of a manifest in a few lines, for where no gate was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from training.errors import clip, printable

MOST_NAMES: Final = 6


def render_health(metrics: Mapping[str, Any]) -> str:
    """Return the main figures of a health report, a line each; all are in its JSON and its page."""
    rows = [
        ("events", _events(metrics)),
        ("hits", f"{metrics['hits_total']:,}: {_classes(metrics)}"),
        ("entities", _named(metrics["entities"])),
        ("dynamics", _named(metrics["dynamics"])),
        ("techniques", _named(metrics["technique_counts"])),
        ("duplicates", _duplicates(metrics)),
        ("splits", _splits(metrics)),
        ("unknown", _named(metrics["unknown_labels"])),
        ("outliers", _outliers(metrics)),
    ]
    return "\n".join(f"{name:<10}  {printable(text)}" for name, text in rows)


def _events(metrics: Mapping[str, Any]) -> str:
    counts = metrics["synthetic"]
    parts = [f"{counts['real']:,} real", f"{counts['synthetic']:,} synthetic"]
    if counts["unstated"]:
        parts.append(f"{counts['unstated']:,} do not say")
    return f"{metrics['events_total']:,}: {', '.join(parts)}"


def _classes(metrics: Mapping[str, Any]) -> str:
    totals = {name: row["total"] for name, row in metrics["per_class_counts"].items()}
    missing = [name for name, count in totals.items() if not count]
    text = _named(totals)
    return f"{text}; without a hit: {', '.join(missing)}" if missing else text


def _named(counts: Mapping[str, int]) -> str:
    """Name the most frequent, and say how many more names there are."""
    found = {name: count for name, count in counts.items() if count}
    most = sorted(found, key=lambda name: (-found[name], name))[:MOST_NAMES]
    text = ", ".join(f"{clip(name)} {found[name]:,}" for name in most) or "none"
    left = len(found) - len(most)
    return f"{text} and {left:,} more" if left else text


def _duplicates(metrics: Mapping[str, Any]) -> str:
    rate, found = metrics["duplication_rate"], metrics["duplicates"]
    share = "not known" if rate is None else f"{rate:.4%} of the events"
    return (
        f"{share}: {found['sample_id']['surplus']:,} repeat an id, "
        f"{found['audio_path_onset']['surplus']:,} a place in an audio file; "
        f"{found['performance']['families']:,} performances stand in several sessions"
    )


def _splits(metrics: Mapping[str, Any]) -> str:
    counts = {
        split: sum(source["events"] for source in sources.values())
        for split, sources in metrics["by_split"].items()
    }
    shared = {
        name: found["shared"]
        for name, found in metrics["split_isolation"].items()
        if found["shared"]
    }
    leaks = "".join(f", {count:,} {name}s in several" for name, count in shared.items())
    return _named(counts) + leaks


def _outliers(metrics: Mapping[str, Any]) -> str:
    return _named({kind: found["count"] or 0 for kind, found in metrics["outliers"].items()})
