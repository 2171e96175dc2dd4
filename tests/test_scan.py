"""Scanning manifests: as if every line had been strictly validated, whatever the path."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import event_objects

from training.dataset.drawn import Choice, columns_of
from training.errors import DrumgateError, InputError
from training.manifest import Event, read_records, views
from training.manifest import scan as scan_module
from training.manifest import validate as validate_module
from training.manifest.cache import Cache
from training.manifest.engine import memory_bytes, open_engine
from training.manifest.keys import KeyCheck, strict_loads
from training.manifest.scan import scan_events
from training.manifest.schema import arrow_schema
from training.manifest.scratch import scratch_folder
from training.manifest.validate import LineCheck, check_file
from training.metrics import manifest_diff_sql

GOOD: dict[str, Any] = {
    "sample_id": "a",
    "session_id": "s",
    "onset_time": 0.5,
    "components": [{"label": "kick", "velocity": 0.5}],
}


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def rows_of(*paths: Path, **asked: Any) -> list[dict[str, Any]]:
    with open_engine() as engine:
        scan = scan_events(engine, paths, **asked)
        table = engine.connection.sql("SELECT * FROM events ORDER BY row").to_arrow_table()
    assert table.num_rows == scan.rows
    return table.to_pylist()


def stated(value: Any) -> Any:
    """What is left of a row without the nulls of its columns."""
    if isinstance(value, dict):
        return {key: stated(item) for key, item in value.items() if item is not None}
    return [stated(item) for item in value] if isinstance(value, list) else value


def fault(*paths: Path, **asked: Any) -> str:
    with pytest.raises(InputError) as caught:
        rows_of(*paths, **asked)
    return str(caught.value).replace(f"{paths[0].parent}{os.sep}", "")


@given(st.lists(event_objects(), min_size=1, max_size=12))
@settings(deadline=None, max_examples=60)
def test_view_holds_what_the_lines_say(tmp_path_factory: Any, events: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("scan") / "events.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    expected = []
    for row, event in enumerate(events):
        known = {name: event[name] for name in Event.__struct_fields__ if name in event}
        names = [event[name] for name in ("device_vendor", "device_model") if event.get(name)]
        derived = {"hits": len(event["components"])}
        if names:
            derived["device"] = " ".join(names)
        if "annotated_labels" in event:
            derived["annotated_set"] = "\x1f".join(sorted(set(event["annotated_labels"])))
        expected.append({"row": row, **known, **derived})
    assert [stated(row) for row in rows_of(path)] == expected


def test_columns_are_the_fields_of_an_event() -> None:
    assert tuple(arrow_schema().names) == Event.__struct_fields__
    component = arrow_schema().field("components").type.value_type
    parts = [component.field(index).name for index in range(component.num_fields)]
    kind = next(f.type for f in msgspec.structs.fields(Event) if f.name == "components")
    assert tuple(parts) == kind.__args__[0].__struct_fields__


BAD = {
    "number as text": (line(onset_time="0.5"), 'onset_time: must be a number (got "0.5")'),
    "number as id": (line(sample_id=7), "sample_id: must be a string (got 7)"),
    "text as flag": (
        line(is_synthetic="false"),
        'is_synthetic: must be true or false (got "false")',
    ),
    "number in techniques": (line(techniques=[5]), "techniques[0]: must be a string (got 5)"),
    "fraction as whole": (
        line(sample_rate=44100.5),
        "sample_rate: must be a whole number (got 44100.5)",
    ),
    "out of range": (
        line(components=[{"label": "kick", "velocity": 1.5}]),
        "components[0].velocity: must be <= 1 (got 1.5)",
    ),
    "NaN": (line(onset_time=float("nan")), "is not valid JSON: NaN is not a JSON number"),
    "Infinity in an unknown field": (
        line(x=float("inf")),
        "is not valid JSON: Infinity is not a JSON number",
    ),
    "trailing comma": (line()[:-1] + b",}", "is not valid JSON"),
    "trailing comma in a list": (line(x=0).replace(b'"x": 0', b'"x": [1,]'), "is not valid JSON"),
    "key twice": (line()[:-1] + b', "sample_id": "b"}', "the key 'sample_id' stands twice"),
    "key twice, once null": (
        line()[:-1] + b', "split": null, "split": "x"}',
        "the key 'split' stands twice",
    ),
    "key twice in a component": (
        line().replace(b'"velocity"', b'"label": "x", "velocity"'),
        "the key 'label' stands twice",
    ),
    "unknown key twice": (line()[:-1] + b', "x": 1, "x": 2}', "the key 'x' stands twice"),
    "unknown key twice, deep": (
        line()[:-1] + b', "x": [{"y": 1, "y": 2}]}',
        "the key 'y' stands twice",
    ),
    "key twice, escaped": (
        line()[:-1] + b', "\\u0073ample_id": "b"}',
        "the key 'sample_id' stands twice",
    ),
    "not UTF-8": (line()[:-1] + b', "split": "\xff"}', "is not valid UTF-8"),
    "not UTF-8 in an unknown field": (line()[:-1] + b', "x": "\xff"}', "is not valid UTF-8"),
    "half a surrogate": (
        line()[:-1] + b', "split": "\\ud800"}',
        "holds half of a surrogate pair",
    ),
    "too large": (line()[:-1] + b', "tempo_bpm": 1e999}', 'the number "1e999" is out of range'),
    "too large in an unknown field": (
        line()[:-1] + b', "x": 1e999}',
        'the number "1e999" is out of range',
    ),
    "deep": (line()[:-1] + b', "x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "is nested too deeply"),
    "an array": (b"[1]", "must be an object"),
    "two on a line": (line() + line(), "is not valid JSON"),
    "cut short": (line()[:-5], "is not valid JSON"),
    "a control character": (line(split="x").replace(b"x", b"\x01"), "is not valid JSON"),
}


@pytest.mark.parametrize("name", BAD)
def test_refuses_what_the_engine_would_take(tmp_path: Path, name: str) -> None:
    text, said = BAD[name]
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b"\n".join([line(), b"", line(sample_id="b"), text, line(sample_id="c"), text])
    )
    found = fault(path)
    first, second = found.splitlines()
    assert first.startswith("events.jsonl:4: ")
    assert said in first
    assert second.startswith("events.jsonl:6: ")


@pytest.mark.parametrize("name", BAD)
def test_skips_and_counts_when_asked(tmp_path: Path, name: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([line(), BAD[name][0], line(sample_id="b")]))
    with open_engine() as engine:
        scan = scan_events(engine, [path], skip_invalid=True)
        ids = engine.connection.execute("SELECT sample_id FROM events ORDER BY row").fetchall()
    assert (scan.rows, scan.skipped, ids) == (2, 1, [("a",), ("b",)])
    assert scan.place(1) == (str(path), 3)


@pytest.mark.parametrize("name", BAD)
def test_small_files_are_read_as_strictly(tmp_path: Path, name: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([line(), BAD[name][0]]))
    with pytest.raises(InputError, match=r"events\.jsonl:2: "):
        read_records(path, Event)


def test_every_bad_line_is_counted_and_the_first_are_named(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([line(onset_time=-1)] * 70 + [line()] * 5))
    said = fault(path).splitlines()
    assert len(said) == 21
    assert said[0].startswith("events.jsonl:1: onset_time: must be >= 0")
    assert said[-1] == "… and 50 more"


def packed(kind: str, text: bytes) -> bytes:
    if kind == "gzip":
        return gzip.compress(text)
    return {
        "bom": b"\xef\xbb\xbf" + text,
        "crlf": text.replace(b"\n", b"\r\n"),
        "blank": b"\n\n  \n" + text.replace(b"\n", b"\n \t\n"),
        "plain": text,
    }[kind]


@pytest.mark.parametrize("kind", ["plain", "gzip", "bom", "crlf", "blank"])
@pytest.mark.parametrize("ending", [b"", b"\n"])
def test_reads_every_packing(tmp_path: Path, kind: str, ending: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(packed(kind, line() + b"\n" + line(sample_id="b") + ending))
    rows = rows_of(path)
    assert [row["sample_id"] for row in rows] == ["a", "b"]


def test_reads_zstd(tmp_path: Path) -> None:
    path = tmp_path / "events.zst"
    with pa.output_stream(str(path), compression="zstd") as file:
        file.write(line() + b"\n")
    assert len(rows_of(path)) == 1


def test_names_a_truncated_archive(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl.gz"
    path.write_bytes(gzip.compress(line() * 100)[:-9])
    assert "damaged or cut short" in fault(path)


def test_reads_parquet_as_strictly(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pq.write_table(pa.Table.from_pylist([GOOD, {**GOOD, "sample_id": "b"}]), path)
    assert [row["sample_id"] for row in rows_of(path)] == ["a", "b"]
    pq.write_table(pa.Table.from_pylist([{**GOOD, "onset_time": "0.5"}]), path)
    assert 'events.parquet:1: onset_time: must be a number (got "0.5")' in fault(path)


def test_reads_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        buffer = io.BytesIO(line() + b"\n" + line(onset_time=-1))

    monkeypatch.setattr(scan_module.sys, "stdin", Stdin)
    with open_engine() as engine, pytest.raises(InputError, match=r"^-:2: onset_time"):
        scan_events(engine, ["-"])
    Stdin.buffer = io.BytesIO(gzip.compress(line()))
    with open_engine() as engine:
        scan = scan_events(engine, ["-"])
    assert (scan.rows, scan.sources[0].path) == (1, "-")


def test_several_files_are_one_manifest(tmp_path: Path) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    first.write_bytes(line() + b"\n\n" + line(sample_id="b"))
    second.write_bytes(b"\n" + line(sample_id="c"))
    with open_engine() as engine:
        scan = scan_events(engine, [first, second])
        found = engine.connection.execute("SELECT row, sample_id FROM events").fetchall()
    assert sorted(found) == [(0, "a"), (1, "b"), (2, "c")]
    assert scan.places([0, 1, 2]) == {
        0: (str(first), 1),
        1: (str(first), 3),
        2: (str(second), 2),
    }


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_refuses_an_empty_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(content)
    assert "empty" in fault(path) or "holds no record" in fault(path)


def test_refuses_a_line_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line() + b"\n" + line(x="y" * (17 * 2**20)) + b"\n" + line(sample_id="b"))
    assert fault(path) == "events.jsonl:2: is longer than 16 MiB"
    assert len(rows_of(path, skip_invalid=True)) == 2
    with pytest.raises(InputError, match="2: is longer than 16 MiB"):
        read_records(path, Event)


@given(
    st.lists(st.sampled_from([b"", b"  ", line(), line(x=1), b"{", line(split="ö" * 30)])),
    st.integers(8, 300),
)
@settings(deadline=None)
def test_blocks_lose_and_double_nothing(
    tmp_path_factory: Any, lines: list[bytes], size: int
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "events.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n" if lines else b"\n")
    whole = check_file(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validate_module, "BLOCK_BYTES", size)
        assert check_file(path) == whole
    assert whole.records + len(whole.bad_lines) == sum(bool(text.strip()) for text in lines)


def test_workers_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\n".join([line(), line(onset_time=-1), b'{"x":1}'] * 200))
    alone = check_file(path)
    monkeypatch.setattr(validate_module, "PARALLEL_BYTES", 0)
    assert check_file(path) == alone
    assert len(alone.bad_lines) == 400


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_repeated_keys_are_found_however_lines_look(data: st.DataObject) -> None:
    """Lines of few keys with and without digits: what a parser that sees all pairs says, goes."""
    check = LineCheck("event")
    keys = st.sampled_from(["x", "y", "x1", "x2", "split", "e1", "techniques"])
    values = st.sampled_from(
        ["1", "12", "null", "[]", "[3]", '"1"', '":"', '"a:b"', "1e3", '["f"]']
    )
    base = json.dumps(GOOD)[:-1]
    for _ in range(6):
        pairs = data.draw(st.lists(st.tuples(keys, values), max_size=3))
        space = data.draw(st.sampled_from(["", " "]))
        text = base + "".join(f', "{key}"{space}:{value}' for key, value in pairs) + "}"
        try:
            msgspec.convert(strict_loads(text), Event, strict=True)
        except (ValueError, msgspec.ValidationError):
            with pytest.raises(ValueError, match=r"."):
                check.decode(text.encode())
        else:
            check.decode(text.encode())


FULL: dict[str, Any] = {
    "sample_id": "a",
    "session_id": "s",
    "onset_time": 0.5,
    "components": [
        {
            **{"label": "ride", "velocity": 0.5, "dynamic_bucket": "light", "openness": 0.1},
            **{"openness_raw": 3, "openness_curve_id": "c", "strike_position": "edge"},
            **{"choke": True, "instrument_variant": "v"},
        }
    ],
    **{"offset_time": 0.75, "track_id": "t", "drummer_id": "d", "kit_id": "k", "room_id": "r"},
    **{"source_set": "x", "is_synthetic": True, "audio_path": "a.wav", "sample_rate": 8000},
    **{"channels": 1, "tempo_bpm": 90.5, "meter": "4/4", "bar_index": 1, "beat_index": 0.5},
    **{"techniques": ["flam"], "bleed_level": "low", "mix_context": "m"},
    **{"negative_example": False, "loudness": {"LUFS_i": -20.5, "peak_dbfs": -3}},
    **{"context_ms": {"pre": 1, "post": 2}, "device_vendor": "v", "device_model": "m"},
    **{"split": "train", "annotated_labels": ["ride"]},
}
"""An event that states every field."""

ASKED = {
    "everything": None,
    "little": {"name": "upper(sample_id)"},
    "health": views.COLUMNS,
    "weights": columns_of(Choice(group_field="session_id", dedupe_key=("onset_time",))),
    "diff": manifest_diff_sql.COLUMNS,
}
"""What the tools ask a scan for."""


def repeated_keys(value: Any) -> list[str]:
    """An object as JSON, once for each key at any depth, which then stands twice."""
    if isinstance(value, list):
        return [f"[{text}]" for text in repeated_keys(value[0])] if value else []
    if not isinstance(value, dict):
        return []
    found = []
    for name, inner in value.items():
        pairs = [f"{json.dumps(key)}: {json.dumps(item)}" for key, item in value.items()]
        found.append("{" + ", ".join([*pairs, f"{json.dumps(name)}: {json.dumps(inner)}"]) + "}")
        others = [pair for pair in pairs if not pair.startswith(json.dumps(name))]
        found += [
            "{" + ", ".join([*others, f"{json.dumps(name)}: {text}"]) + "}"
            for text in repeated_keys(inner)
        ]
    return found


@pytest.mark.parametrize("asked", ASKED)
def test_a_key_twice_is_found_whatever_columns_are_asked_for(tmp_path: Path, asked: str) -> None:
    assert FULL.keys() == set(Event.__struct_fields__)
    path = tmp_path / "events.jsonl"
    path.write_text(json.dumps(FULL))
    assert len(rows_of(path, columns=ASKED[asked])) == 1
    texts = repeated_keys(FULL)
    assert len(texts) == len(FULL) + 9 + 2 + 2
    with open_engine() as engine:
        for text in texts:
            path.write_text(text)
            with pytest.raises(InputError, match="stands twice"):
                scan_events(engine, [path], columns=ASKED[asked])


@pytest.mark.parametrize("asked", ASKED)
def test_columns_hold_the_same_however_they_come(tmp_path: Path, asked: str) -> None:
    """Written narrow, made of a cached file, made of Parquet, or by the slow way: all one."""
    path, columns = tmp_path / "events.jsonl", ASKED[asked]
    path.write_text("\n".join([json.dumps(FULL), json.dumps(GOOD), line(x=1).decode()]))
    found = rows_of(path, columns=columns)
    assert found[0].keys() == {"row", *(columns or [*arrow_schema().names, *scan_module.DERIVED])}
    assert rows_of(path, columns=columns, cache_dir=tmp_path / "cache") == found
    assert rows_of(path, columns=columns, cache_dir=tmp_path / "cache") == found
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_module, "_copy", lambda *_: None)
        assert rows_of(path, columns=columns) == found


def test_shapes_do_not_hide_a_number_out_of_range() -> None:
    check = KeyCheck()
    check(b'{"x": 1.5}')
    check(b'{"x": 2.5}')
    with pytest.raises(ValueError, match="out of range"):
        check(b'{"x": 1' + b"0" * 400 + b".5}")


def test_cache_serves_equal_content_and_nothing_else(tmp_path: Path) -> None:
    path, folder = tmp_path / "events.jsonl", tmp_path / "cache"
    path.write_bytes(line() + b"\n")
    first = rows_of(path, cache_dir=folder)
    (entry, _, _) = next(iter(Cache(folder).entries()))
    entry.parquet.rename(tmp_path / "moved")
    assert rows_of(path, cache_dir=folder) == first  # made again
    (tmp_path / "moved").unlink()
    same = tmp_path / "copy.jsonl"
    same.write_bytes(path.read_bytes())
    assert Cache(folder).find(same) is not None
    before = path.stat()
    path.write_bytes(line(sample_id="b") + b"\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [row["sample_id"] for row in rows_of(path, cache_dir=folder)] == ["b"]
    path.write_bytes(line(sample_id=7))
    assert "sample_id: must be a string" in fault(path, cache_dir=folder)


def test_cache_trusts_times_only_once_they_have_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "events.jsonl", tmp_path / "cache"
    path.write_bytes(line() + b"\n")
    rows_of(path, cache_dir=folder)
    hashed: list[Path] = []
    real = scan_module.describe_file

    def counted(file: Path) -> Any:
        hashed.append(file)
        return real(file)

    monkeypatch.setattr("training.manifest.cache.describe_file", counted)
    assert Cache(folder).find(path)
    assert hashed == [path]
    monkeypatch.setattr("training.manifest.cache.SETTLED_NS", -(10**18))
    assert Cache(folder).find(path)
    assert hashed == [path]


def test_cache_clears_only_what_it_made(tmp_path: Path) -> None:
    path, folder = tmp_path / "events.jsonl", tmp_path / "cache"
    path.write_bytes(line() + b"\n")
    rows_of(path, cache_dir=folder)
    (folder / "mine.json").write_text("{}")
    assert Cache(folder).clear() > 0
    assert list(Cache(folder).entries()) == []
    assert (folder / "mine.json").exists()
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.parquet").write_text("x")
    with pytest.raises(InputError, match="is not a cache"):
        Cache(other).clear()
    assert (other / "a.parquet").exists()


def test_notices_a_file_that_changes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line() + b"\n")
    real = scan_module.check_file

    def changing(*args: Any, **asked: Any) -> Any:
        found = real(*args, **asked)
        with path.open("ab") as file:
            file.write(b"\n")
        return found

    monkeypatch.setattr(scan_module, "check_file", changing)
    assert fault(path) == "events.jsonl: has changed while it was read"


def test_the_slow_way_gives_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(
        b"\n".join([line(x=1), line(components=[{"label": "ride", "strike_position": 0.5}])])
    )
    fast = rows_of(path)
    monkeypatch.setattr(scan_module, "_copy", lambda *_: None)
    assert rows_of(path) == fast


def test_fails_closed_when_the_readers_disagree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line() + b"\n")
    monkeypatch.setattr(scan_module, "_copy", lambda *_: 2)
    with pytest.raises(RuntimeError, match="1 records validated, 2 scanned"):
        rows_of(path)


def test_scratch_is_gone_afterwards() -> None:
    with open_engine() as engine:
        scratch = engine.scratch
        assert scratch.is_dir()
    assert not scratch.exists()


def test_scratch_of_a_killed_process_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code = (
        "import os, signal, tempfile\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "from training.manifest.scratch import scratch_folder\n"
        "with scratch_folder() as folder:\n"
        "    (folder / 'spilled').write_text('x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (left,) = tmp_path.iterdir()
    with scratch_folder() as mine:
        assert list(tmp_path.iterdir()) == [mine]
        with scratch_folder() as other:
            assert {*tmp_path.iterdir()} == {mine, other}
    assert not left.exists()


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    code = (
        "import os, signal, time\n"
        "from training.manifest.validate import worker_map\n"
        "if __name__ == '__main__':\n"
        "    with worker_map(parallel=True) as run:\n"
        "        print(next(iter(run(os.getpid, [()]))), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    script = tmp_path / "killed.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, check=False
    )
    worker = int(done.stdout)
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent")


@pytest.mark.parametrize(
    ("text", "size"),
    [("512MiB", 512 * 2**20), ("1GB", 2**30), ("1.5 g", 3 * 2**29), ("134217728", 2**27)],
)
def test_memory_limit(text: str, size: int) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "1MiB", "-1GB", "nan", "1e9"])
def test_memory_limit_must_be_a_size(text: str) -> None:
    with pytest.raises(DrumgateError, match="--memory-limit"):
        memory_bytes(text)
