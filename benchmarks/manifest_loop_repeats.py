"""What stands more than once and what splits share, from what a loop has counted."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manifest_loop_health import Health

LISTED = 20


def repeats(seen: Health) -> dict[str, Any]:
    """Give the figures of duplicates and split isolation."""
    ids = {name: rows for name, rows in seen.ids.items() if rows > 1}
    places = {
        (path, place): rows
        for path, counts in seen.places.items()
        for place, rows in counts.items()
        if rows > 1
    }
    compared = sum(counts.total() for counts in seen.places.values())
    surplus = [sum(rows - 1 for rows in found.values()) for found in (ids, places)]
    performance, crossing = _families(seen.takes, seen.take_splits)
    isolation: dict[str, Any] = {}
    for name, sides in seen.sides.items():
        shared = sorted(value for value, splits in sides.items() if len(splits) > 1)
        isolation[name] = {
            "values": len(sides),
            "shared": len(shared),
            "offenders": [
                {"value": value, "splits": sorted(sides[value])} for value in shared[:LISTED]
            ],
            "unstated": seen.sideless[name],
        }
    return {
        "duplication_rate": max(surplus) / seen.events if seen.events else None,
        "duplicates": {
            "sample_id": {
                "groups": len(ids),
                "surplus": surplus[0],
                "compared": seen.events,
                "examples": [
                    {"sample_id": name, "rows": ids[name]} for name in sorted(ids)[:LISTED]
                ],
            },
            "audio_path_onset": {
                "groups": len(places),
                "surplus": surplus[1],
                "compared": compared,
                "examples": [
                    {"audio_path": key[0], "onset_s": round(key[1] * 1e-4, 4), "rows": rows}
                    for key, rows in sorted(places.items())[:LISTED]
                ],
            },
            "performance": performance,
        },
        "split_isolation": {**isolation, "performance": crossing},
    }


def _families(takes: dict[Any, Any], splits: dict[Any, set[str]]) -> tuple[Any, Any]:
    """Find the takes of different sessions with the same labels at the same times."""
    compared = 0
    patterns: dict[Any, list[Any]] = defaultdict(list)
    for take, hits in takes.items():
        if len(hits) >= 8:
            compared += 1
            start = min(hits)[0]
            pattern = sorted((math.floor((t - start) * 1000 + 0.537), label) for t, label in hits)
            patterns[tuple(pattern)].append(take)
    families = []
    for pattern, members in patterns.items():
        sessions = sorted({session for session, _ in members})
        if len(sessions) > 1:
            lie_in = sorted(set().union(*(splits.get(take, ()) for take in members)))
            families.append(
                {"sessions": sessions, "takes": len(members), "hits": len(pattern)}
                | {"splits": lie_in}
            )
    families.sort(key=lambda family: (len(family["splits"]) < 2, family["sessions"]))
    crossing = [family for family in families if len(family["splits"]) > 1]
    performance = {
        "takes": compared,
        "families": len(families),
        "repeated_takes": sum(family["takes"] - 1 for family in families),
        "crossing_splits": len(crossing),
        "examples": [
            {**family, "sessions": family["sessions"][:LISTED]} for family in families[:LISTED]
        ],
        "min_hits": 8,
    }
    isolation = {
        "values": len(families),
        "shared": len(crossing),
        "offenders": [
            {"value": ", ".join(family["sessions"][:LISTED]), "splits": family["splits"]}
            for family in crossing[:LISTED]
        ],
        "unstated": 0,
    }
    return performance, isolation
