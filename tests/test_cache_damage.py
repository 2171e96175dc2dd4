"""A kept manifest whose rows were changed is made anew, never believed and never a crash."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result


@pytest.mark.parametrize("place", [4, 100, -100, None])
def test_rows_that_were_changed_are_made_anew(
    tmp_path: Path, drumgate: Callable[..., Result], place: int | None
) -> None:
    manifest, cache = tmp_path / "m.jsonl", tmp_path / "cache"
    rows = [
        {"sample_id": f"{i}", "session_id": "s", "onset_time": i, "components": [{"label": "kick"}]}
        for i in range(50)
    ]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ("summarize-manifest", manifest, "--format=json", "--cache-dir", cache)

    def summary() -> str:
        result = drumgate(*arguments)
        assert result.exit_code == 0, result.output
        return str(json.loads(result.stdout)["metrics"])

    first = summary()
    (kept,) = cache.glob("*.parquet")
    whole = kept.read_bytes()
    if place is None:
        kept.write_bytes(whole[:-50])
    else:
        changed = bytearray(whole)
        changed[place] ^= 0xFF
        kept.write_bytes(changed)
    assert summary() == first
    assert kept.read_bytes() == whole, "and the entry is whole again"
    assert summary() == first
