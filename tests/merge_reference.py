"""The plain way to merge manifests, for tests: everything in memory, one step after another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[tuple[str, int, bytes]]:
    """(path, line number, line) of every line that is not blank."""
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return [
        (str(path), number, line.strip())
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]


def with_source(line: bytes, name: str) -> bytes:
    event = json.loads(line)
    if isinstance(event.get("source_set"), str):
        return line
    if "source_set" in event:
        return json.dumps({**event, "source_set": name}).encode()
    assert line.endswith(b"}")
    return line[:-1].rstrip() + b',"source_set":' + json.dumps(name).encode() + b"}"


def merge(paths: list[Path], *, policy: str, sort: str, add_source: bool) -> dict[str, Any]:
    """Return what the output holds, and the duplicates as the sidecar counts and lists them.

    A line whose `source_set` was null is written anew; it is None here, and only its event counts.
    """
    rows = []
    for path in paths:
        for where, number, line in read(path):
            anew = add_source and json.loads(line).get("source_set", "") is None
            line = with_source(line, path.name.partition(".")[0]) if add_source else line
            rows.append((f"{where}:{number}", json.loads(line), None if anew else line))
    first: dict[str, tuple[str, dict[str, Any], bytes | None]] = {}
    last: dict[str, tuple[str, dict[str, Any], bytes | None]] = {}
    listed = []
    for row in rows:
        name = row[1]["sample_id"]
        earlier = first.setdefault(name, row)
        last[name] = row
        if earlier is not row:
            listed.append(
                {
                    "sample_id": name,
                    "first": earlier[0],
                    "again": row[0],
                    "conflict": earlier[1] != row[1],
                }
            )
    chosen = {"first": first, "last": last}.get(policy)
    kept = [row for row in rows if chosen is None or chosen[row[1]["sample_id"]] is row]
    if sort == "sample_id":
        kept.sort(key=lambda row: row[1]["sample_id"])
    elif sort == "session":
        kept.sort(key=lambda row: (row[1]["session_id"], row[1]["onset_time"], row[1]["sample_id"]))
    return {
        "lines": [row[2] for row in kept],
        "events": [row[1] for row in kept],
        "identical": sum(not entry["conflict"] for entry in listed),
        "conflicts": sum(entry["conflict"] for entry in listed),
        "dropped": len(rows) - len(kept),
        "listed": sorted(listed, key=lambda entry: not entry["conflict"])[:50],
    }
