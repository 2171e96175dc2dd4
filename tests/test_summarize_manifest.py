"""summarize-manifest: its counts against a plain loop, one screen, the beginning of a file."""

from __future__ import annotations

import gzip
import json
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from jsonl import write
from strategies import manifests

from training.checks.summarize import Options, run
from training.cli import main
from training.errors import InputError
from training.render.summary import render_summary, render_summary_markdown


def event(sample: str, **fields: Any) -> dict[str, Any]:
    made = {"sample_id": sample, "session_id": "s1", "onset_time": 0.1, "components": []}
    return {**made, **fields}


def test_by_hand(tmp_path: Path) -> None:
    rows = [
        event("a", onset_time=60.0, components=[{"label": "kick"}, {"label": "kick"}], split="b"),
        event("b", onset_time=30.0, track_id="t2", is_synthetic=True, techniques=["x", "x", "y"]),
        event("a", session_id="s2", onset_time=0.6, is_synthetic=False, source_set="q"),
    ]
    report = run(Options(inputs=(write(tmp_path / "m.jsonl", rows),)))
    found = report.metrics
    assert (found["events"], found["hits"], found["empty_events"]) == (3, 2, 2)
    assert found["repeated_ids"] == 1
    assert (found["real"], found["synthetic"], found["unstated"]) == (1, 1, 1)
    assert found["hits_by_label"] == {"kick": 2}
    assert found["techniques"] == {"x": 1, "y": 1}
    assert found["splits"] == {
        "(none)": {"events": 2, "sessions": 2},
        "b": {"events": 1, "sessions": 1},
    }
    assert found["sources"] == {"(none)": 2, "q": 1}
    assert (found["first_onset_s"], found["last_onset_s"]) == (0.6, 60.0)
    assert found["covered_minutes"] == 1.01
    assert found["covered_minutes_by_take"] == 1.51
    assert found["entities"] == {
        "sessions": 2,
        "tracks": 1,
        "audio_files": 0,
        "drummers": 0,
        "kits": 0,
        "rooms": 0,
    }
    assert report.inputs[0].records == 3


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=manifests())
def test_against_a_plain_loop(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    half = len(rows) // 2
    paths = [write(tmp_path / "all.jsonl", rows)]
    if half:
        paths = [write(tmp_path / "a.jsonl", rows[:half]), write(tmp_path / "b.jsonl", rows[half:])]
    found = run(Options(inputs=tuple(paths))).metrics
    labels = Counter(part["label"] for row in rows for part in row["components"])
    assert found["hits_by_label"] == dict(labels)
    assert list(found["hits_by_label"].values()) == sorted(labels.values(), reverse=True)
    assert found["techniques"] == Counter(
        name for row in rows for name in set(row.get("techniques", ()))
    )
    assert found["sources"] == Counter(row.get("source_set", "(none)") for row in rows)
    assert found["repeated_ids"] == len(rows) - len({row["sample_id"] for row in rows})
    last: dict[str, float] = defaultdict(float)
    for row in rows:
        last[row["session_id"]] = max(last[row["session_id"]], row["onset_time"])
    assert found["covered_minutes"] == pytest.approx(sum(last.values()) / 60, abs=1e-6)


def test_the_beginning(tmp_path: Path) -> None:
    rows = [event(str(number)) for number in range(10)]
    plain = write(tmp_path / "m.jsonl", rows)
    packed = tmp_path / "m.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    columns = tmp_path / "m.parquet"
    pq.write_table(pa.Table.from_pylist(rows), columns)
    for path in (plain, packed, columns):
        report = run(Options(inputs=(path, path), limit=13))
        assert report.metrics["events"] == 13
        assert report.metrics["limited"] is True
        assert report.warnings == ["only the first 13 events were read"]
        assert report.inputs == ()
        assert "the first 13:" in render_summary(report.to_dict())
        whole = run(Options(inputs=(path,), limit=10))
        assert whole.metrics["limited"] is False
        assert whole.warnings == ["the limit of 10 was not reached: these are all events"]


def test_what_lies_behind_the_limit_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(event("a")) + "\n\n" + json.dumps(event("b")) + "\n{\n")
    assert run(Options(inputs=(path,), limit=1)).metrics["events"] == 1
    with pytest.raises(InputError, match=r"m\.jsonl:4: is not valid JSON"):
        run(Options(inputs=(path,), limit=3))
    with pytest.raises(InputError, match=r"m\.jsonl:4: is not valid JSON"):
        run(Options(inputs=(path,)))
    report = run(Options(inputs=(path,), skip_invalid=True))
    assert report.metrics["skipped"] == 1
    assert report.warnings == ["1 invalid lines were left out"]


def test_it_fits_one_screen(tmp_path: Path) -> None:
    rows = [
        event(
            f"e{number}",
            session_id=f"session {number}",
            components=[{"label": f"a rather long label {number}"}],
            techniques=[f"technique {number}"],
            split=f"split {number}",
            source_set=f"source {number}",
        )
        for number in range(200)
    ]
    paths = [write(tmp_path / f"{number}.jsonl", [row]) for number, row in enumerate(rows[:20])]
    paths.append(write(tmp_path / "rest.jsonl", rows[20:]))
    report = run(Options(inputs=tuple(paths))).to_dict()
    lines = render_summary(report).splitlines()
    assert len(lines) <= 16
    assert all(len(line) <= 110 for line in lines if not line.startswith("file"))
    assert "… and 18 more files: 197 events" in "\n".join(lines)


def test_text_of_the_data_drives_neither_terminal_nor_page(tmp_path: Path) -> None:
    nasty = "\x1b[31m|<img src=x>`*"
    path = write(tmp_path / "m.jsonl", [event("a", split=nasty, components=[{"label": nasty}])])
    report = run(Options(inputs=(path,))).to_dict()
    assert "\x1b" not in render_summary(report)
    page = render_summary_markdown(report)
    assert "\x1b" not in page
    assert "<img" not in page
    assert all(line.replace("\\|", "").count("|") == 3 for line in page.splitlines()[:5])


def test_the_command(
    tmp_path: Path, drumgate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("m.jsonl"), [event("a"), event("a")])
    result = drumgate("summarize-manifest m*.jsonl")
    assert result.exit_code == 0
    assert "NOT unique: 1 events repeat one" in result.stdout
    result = drumgate("summarize-manifest m.jsonl --format json --output out/s.json")
    assert result.exit_code == 0
    report = json.loads(Path("out/s.json").read_text())
    assert report["tool"] == "summarize-manifest"
    assert len(report["inputs"][0]["sha256"]) == 64
    assert drumgate("summarize-manifest m.jsonl --limit 1 --skip-invalid").exit_code == 2
    data = Path("m.jsonl").read_bytes()
    for extra in ([], ["--limit", "1"]):
        words = ["summarize-manifest", "-", *extra]
        result = CliRunner().invoke(main, words, input=data, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    assert CliRunner().invoke(main, ["summarize-manifest", "-"], input=b"{").exit_code == 2
