"""What the manifest tools compute, as plain loops over lines: the yardstick of `manifests.py`.

Each loop is what one would write without any tool: `json.loads` for every line, then counters,
dictionaries and sets. They are competent (one pass where one will do, tuples as keys, nothing kept
that is not needed) and check nothing: a malformed line is a KeyError. They share no code with the
tools but the two catalogues of names, so that equal figures mean something.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from manifest_loop_health import NONE, health

from training.taxonomy import load_components

__all__ = ["diff", "health", "merge", "weights"]

KINDS = ("added", "removed", "moved", "relabelled", "velocity", "openness", "techniques", "fields")
TOLD = ("sample_id", "onset_time", "components", "techniques")


def diff(base: Path, candidate: Path, *, tolerance_s: float = 0.05) -> dict[str, Any]:
    """What compare-manifests counts: kinds of change, pairs, and totals that differ.

    Lines are kept as bytes and parsed again only where the two sides of a pair are not equal; with
    every line parsed into dictionaries a production manifest would not fit.
    """
    totals = []
    lines: list[dict[str, bytes]] = []
    repeated: list[list[dict[str, Any]]] = []
    for path in (base, candidate):
        counts, unique, again = _load(path)
        totals.append(counts)
        lines.append(unique)
        repeated.append(again)
    kinds: Counter[str] = Counter()
    unchanged = by_id = 0
    left: list[list[dict[str, Any]]] = [repeated[0], repeated[1]]
    for name, line in lines[0].items():
        other = lines[1].get(name)
        if other is None:
            left[0].append(json.loads(line))
            continue
        by_id += 1
        found = () if other == line else _differences(json.loads(line), json.loads(other))
        kinds.update(found)
        unchanged += not found
    left[1] += [json.loads(line) for name, line in lines[1].items() if name not in lines[0]]
    by_time = 0
    for before, after in _paired_by_time(left, tolerance_s):
        if before is None or after is None:
            kinds["added" if before is None else "removed"] += 1
            continue
        by_time += 1
        found = _differences(before, after)
        kinds.update(found)
        unchanged += not found
    return {
        "events_total": {
            "base": totals[0]["sessions"].total(),
            "candidate": totals[1]["sessions"].total(),
        },
        "paired_by_id": by_id,
        "paired_by_time": by_time,
        "unchanged": unchanged,
        "counts": {kind: kinds[kind] for kind in KINDS},
        "totals": {
            name: {
                "base": len(before),
                "candidate": len(totals[1][name]),
                "changed": sum(
                    before[key] != totals[1][name][key] for key in {*before, *totals[1][name]}
                ),
            }
            for name, before in totals[0].items()
        },
    }


def _load(path: Path) -> tuple[dict[str, Counter[str]], dict[str, bytes], list[dict[str, Any]]]:
    """Totals, the lines of ids that stand once, and the events of ids that stand more often."""
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("sessions", "components", "techniques", "sources", "splits")
    }
    lines: dict[str, bytes] = {}
    again: dict[str, list[dict[str, Any]]] = {}
    with path.open("rb") as file:
        for line in file:
            event = json.loads(line)
            counts["sessions"][event["session_id"]] += 1
            counts["sources"][event.get("source_set") or NONE] += 1
            counts["splits"][event.get("split") or NONE] += 1
            counts["components"].update([part["label"] for part in event["components"]])
            if "techniques" in event:
                counts["techniques"].update(set(event["techniques"]))
            name = event["sample_id"]
            if name in again:
                again[name].append(event)
            elif name in lines:
                again[name] = [json.loads(lines.pop(name)), event]
            else:
                lines[name] = line
    # An id that is repeated here names no event, even if the other side has it once.
    return counts, lines, [event for events in again.values() for event in events]


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    found = []
    if abs(before["onset_time"] - after["onset_time"]) > 1e-6:
        found.append("moved")
    sides = [_sorted_parts(event) for event in (before, after)]
    labels = [[part["label"] for part in parts] for parts in sides]
    rest = [
        {name: value for name, value in event.items() if name not in TOLD}
        for event in (before, after)
    ]
    if labels[0] != labels[1]:
        found.append("relabelled")
    else:
        for kind, fields in (
            ("velocity", ("velocity",)),
            ("openness", ("openness", "openness_raw")),
        ):
            said = [[[part.get(field) for field in fields] for part in parts] for parts in sides]
            if said[0] != said[1]:
                found.append(kind)
        told = ("label", "velocity", "openness", "openness_raw")
        for side, parts in zip(rest, sides, strict=True):
            side["components"] = [
                {name: value for name, value in part.items() if name not in told} for part in parts
            ]
    if set(before.get("techniques", ())) != set(after.get("techniques", ())):
        found.append("techniques")
    if rest[0] != rest[1]:
        found.append("fields")
    return found


def _sorted_parts(event: dict[str, Any]) -> list[dict[str, Any]]:
    def order(part: dict[str, Any]) -> tuple[Any, ...]:
        return part["label"], part.get("instrument_variant") or "", part.get("velocity", -1.0)

    return sorted(event["components"], key=order)


_Pair = tuple["dict[str, Any] | None", "dict[str, Any] | None"]


def _paired_by_time(left: list[list[dict[str, Any]]], tolerance_s: float) -> Iterator[_Pair]:
    """Pair what ids did not pair, within a session and track; None stands for nobody."""
    takes: dict[Any, list[tuple[float, str, int, dict[str, Any]]]] = defaultdict(list)
    for side, events in enumerate(left):
        for event in events:
            key = (event["session_id"], event.get("track_id"))
            takes[key].append((event["onset_time"], event["sample_id"], side, event))
    for take in takes.values():
        take.sort(key=lambda row: row[:3])
        last = -math.inf
        cluster: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        for onset, _, side, event in take:
            if onset - last > tolerance_s:
                yield from _best(*cluster, tolerance_s)
                cluster = ([], [])
            cluster[side].append(event)
            last = onset
        yield from _best(*cluster, tolerance_s)


def _best(
    before: list[dict[str, Any]], after: list[dict[str, Any]], tolerance_s: float
) -> Iterator[_Pair]:
    """The most pairs, then the nearest, found by trying every way: clusters are tiny."""
    small, large = sorted((before, after), key=len)
    best: tuple[float, list[tuple[int, int]]] = (math.inf, [])
    for chosen in itertools.permutations(range(len(large)), len(small)) if small else ():
        cost, pairs = 0.0, []
        for index, other in enumerate(chosen):
            one, two = small[index], large[other]
            far = abs(one["onset_time"] - two["onset_time"])
            if far <= tolerance_s:
                cost += far + tolerance_s * (_labels(one) != _labels(two))
                pairs.append((index, other))
            else:
                cost += 1e6
        best = min(best, (cost, pairs), key=lambda found: found[0])
    for index, other in best[1]:
        pair = small[index], large[other]
        yield pair if small is before else pair[::-1]
    taken = {index for index, _ in best[1]}, {other for _, other in best[1]}
    for side, used in ((small, taken[0]), (large, taken[1])):
        for index, event in enumerate(side):
            if index not in used:
                yield (event, None) if side is before else (None, event)


def _labels(event: dict[str, Any]) -> list[str]:
    return sorted(part["label"] for part in event["components"])


def weights(path: Path) -> dict[str, Any]:
    """What derive-sampling-weights writes with its defaults: weights of sessions and a preview.

    All events of a session have one probability, so that counts per session are all it takes.
    """
    canonical = load_components().canonical
    seen: set[Any] = set()
    count: Counter[str] = Counter()
    first: dict[str, tuple[int, str]] = {}
    classes: dict[str, Counter[str]] = defaultdict(Counter)
    cells: dict[str, Counter[Any]] = defaultdict(Counter)
    techniques: dict[str, Counter[str]] = defaultdict(Counter)
    duplicates = 0
    with path.open("rb") as file:
        for number, line in enumerate(file):
            event = json.loads(line)
            session, parts = event["session_id"], event["components"]
            labels = {part["label"] for part in parts}
            key = (session, event["onset_time"], tuple(sorted(labels)))
            if key in seen:
                duplicates += 1
                continue
            seen.add(key)
            count[session] += 1
            first.setdefault(session, (number, event["sample_id"]))
            for label in {canonical(name) or name for name in labels} or {"(no hit)"}:
                classes[session][label] += 1
            source = event.get("source_set")
            source = source or ("synthetic" if event.get("is_synthetic") else "unknown")
            hits = {
                (canonical(part["label"]) or part["label"], part.get("dynamic_bucket") or "unknown")
                for part in parts
            }
            for label, dynamics in hits or {("(no hit)", "unknown")}:
                cells[session][label, source, dynamics] += 1
            for name in set(event.get("techniques", ())):
                techniques[session][name] += 1
    plain = {session: (min(n, 512) + 1) ** -0.5 for session, n in count.items()}
    weight = {session: min(max(value, 0.05), 0.5) for session, value in plain.items()}
    return {
        "events_total": count.total(),
        "duplicates_left_out": duplicates,
        "technique_totals": dict(sum(techniques.values(), Counter())),
        "weights": {s: {"count": count[s], "weight": weight[s]} for s in sorted(count)},
        "preview": _preview(count, weight, plain, first, classes, cells, techniques),
    }


def _preview(
    count: Counter[str],
    weight: dict[str, float],
    plain: dict[str, float],
    first: dict[str, tuple[int, str]],
    classes: dict[str, Counter[str]],
    cells: dict[str, Counter[Any]],
    techniques: dict[str, Counter[str]],
) -> dict[str, Any]:
    draws = count.total()
    total, plain_total = (math.fsum(n * w[s] for s, n in count.items()) for w in (weight, plain))
    chance = {session: value / total for session, value in weight.items()}

    def expected(of: dict[str, Counter[Any]]) -> tuple[Counter[Any], dict[Any, float]]:
        events: Counter[Any] = Counter()
        drawn: dict[Any, float] = defaultdict(float)
        for session, counts in of.items():
            each = chance[session] * draws
            for name, number in counts.items():
                events[name] += number
                drawn[name] += number * each
        return events, drawn

    def size(w: dict[str, float], of: float) -> float:
        return of**2 / math.fsum(n * w[s] ** 2 for s, n in count.items())

    class_events, class_draws = expected(classes)
    cell_events, cell_draws = expected(cells)
    top = min(count, key=lambda session: (-weight[session], first[session][0]))
    shares = [n * chance[session] for session, n in count.items()]
    all_draws = math.fsum(class_draws.values())
    return {
        "draws": draws,
        "effective_sample_size": size(weight, total),
        "group_entropy_bits": -math.fsum(p * math.log2(p) for p in shares),
        "group_entropy_bits_at_most": math.log2(len(count)),
        "class_entropy_bits": -math.fsum(
            d / all_draws * math.log2(d / all_draws) for d in class_draws.values()
        ),
        "expected_distinct_events": math.fsum(
            n * (1 - (1 - chance[session]) ** draws) for session, n in count.items()
        ),
        "most_repeated": {
            "sample_id": first[top][1],
            "group": top,
            "expected_draws": chance[top] * draws,
        },
        "groups_total": len(count),
        "groups_left_out": 0,
        "clamping": {
            "groups_raised_to_min": sum(plain[s] < 0.05 for s in count),
            "groups_lowered_to_max": sum(plain[s] > 0.5 for s in count),
            "draws_moved_share": math.fsum(
                n * abs(chance[s] - plain[s] / plain_total) for s, n in count.items()
            )
            / 2,
            "effective_sample_size_without": size(plain, plain_total),
        },
        "per_class": {
            label: {
                "events": class_events[label],
                "expected_draws": class_draws[label],
                "expected_draws_unweighted": float(class_events[label]),
            }
            for label in sorted(class_events)
        },
        "per_technique": dict(sorted(expected(techniques)[1].items())),
        "class_source_dynamics": [
            {
                "class": key[0],
                "source": key[1],
                "dynamics": key[2],
                "events": cell_events[key],
                "expected_draws": value,
            }
            for key, value in sorted(cell_draws.items(), key=lambda item: (-item[1], item[0]))
        ],
    }


def merge(inputs: list[Path], output: Path) -> dict[str, Any]:
    """Write every event of which no earlier one has the id, each line as it stood.

    Remembers where each id stands, to tell a repeated line from one with other content.
    """
    files = [path.open("rb") for path in inputs]
    hashes = [hashlib.sha256() for _ in files]
    written_hash = hashlib.sha256()
    places: dict[str, tuple[int, int]] = {}
    written = identical = conflicts = 0
    with output.open("wb") as target:
        for number, path in enumerate(inputs):
            at = 0
            with path.open("rb") as file:
                for line in file:
                    hashes[number].update(line)
                    event = json.loads(line)
                    first = places.setdefault(event["sample_id"], (number, at))
                    if first == (number, at):
                        target.write(line)
                        written_hash.update(line)
                        written += 1
                    else:
                        files[first[0]].seek(first[1])
                        same = json.loads(files[first[0]].readline()) == event
                        identical += same
                        conflicts += not same
                    at += len(line)
    for opened in files:
        opened.close()
    return {
        "inputs": [found.hexdigest() for found in hashes],
        "output": {"sha256": written_hash.hexdigest(), "records": written},
        "duplicates": {
            "identical": identical,
            "conflicts": conflicts,
            "dropped": identical + conflicts,
        },
    }
