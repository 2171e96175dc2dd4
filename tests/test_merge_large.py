"""Merging in bounded memory gives what merging in memory gives, however small the parts are."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import merge_reference
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import manifests

from training.checks import merge, merge_duplicates
from training.checks.merge import Options, run
from training.errors import DrumgateError, InputError
from training.manifest import external, indexing, validate
from training.manifest.external import LineStore, SortedRuns, Spill
from training.manifest.lines import MAX_LINE_BYTES

FEW = settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80)


def line(sample: str, session: str = "s", onset: float = 0.0, **fields: Any) -> str:
    event = {"sample_id": sample, "session_id": session, "onset_time": onset, "components": []}
    return json.dumps({**event, **fields})


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make every buffer so small that a few events fill it."""

    def shrink(size: int = 700) -> None:
        for module, name in (
            (indexing, "BLOCK_BYTES"),
            (external, "SPILL_BYTES"),
            (external, "RUN_BYTES"),
            (external, "CHUNK_BYTES"),
            (external, "FETCH_BYTES"),
        ):
            monkeypatch.setattr(module, name, size)
        monkeypatch.setattr(validate, "LINES_AT_ONCE", 2)
        monkeypatch.setattr(merge_duplicates, "ROWS_TOGETHER", 8)
        monkeypatch.setattr(merge_duplicates, "FETCH_BYTES", size)

    return shrink


def written(folder: Path) -> tuple[list[bytes], dict[str, Any]]:
    output = (folder / "out.jsonl").read_bytes()
    sidecar = json.loads((folder / "out.jsonl.provenance.json").read_text())
    assert sidecar["output"]["sha256"] == hashlib.sha256(output).hexdigest()
    assert output.endswith(b"\n") or not output
    return output.split(b"\n")[:-1], sidecar


@st.composite
def files(draw: st.DrawFn) -> list[bytes]:
    """Manifests with blank lines, either line end, white space, a byte order mark or none."""
    made = []
    for rows in draw(st.lists(manifests(max_events=25), min_size=1, max_size=3)):
        parts = [b"\xef\xbb\xbf"] if draw(st.booleans()) else []
        odd = draw(st.booleans())
        for row in rows:
            if draw(st.integers(0, 5)) == 0:
                row["source_set"] = None
            if draw(st.integers(0, 5)) == 0:
                row["sample_id"] = draw(st.sampled_from(["é", "\u0000", "a\u0000", "x" * 70]))
            text = json.dumps(row, ensure_ascii=draw(st.booleans()))
            text = text.replace(": ", ":").replace(", ", ",") if draw(st.booleans()) else text
            gap = draw(st.sampled_from(["", "\n", " \r\n", "\t\n\n"])) if odd else ""
            end = draw(st.sampled_from(["\n", "\r\n", " \n"])) if odd else "\n"
            parts.append((gap + text + end).encode())
        data = b"".join(parts)
        made.append(data.rstrip() if draw(st.booleans()) else data)
    return made


@FEW
@given(
    contents=files(),
    policy=st.sampled_from(["error", "first", "last", "keep"]),
    sort=st.sampled_from(["none", "session", "sample_id"]),
    add_source=st.booleans(),
    size=st.sampled_from([1000, 1 << 20]),
    hashes=st.sampled_from([None, 1, 3]),
)
def test_the_result_is_that_of_the_plain_way(
    tmp_path: Path,
    small: Callable[..., None],
    contents: list[bytes],
    policy: Any,
    sort: Any,
    add_source: bool,
    size: int,
    hashes: int | None,
) -> None:
    small(size)
    paths = [tmp_path / f"in{number}.jsonl" for number in range(len(contents))]
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(data)
    expected = merge_reference.merge(paths, policy=policy, sort=sort, add_source=add_source)
    options = Options(
        inputs=tuple(paths),
        output=tmp_path / "out.jsonl",
        on_duplicate=policy,
        sort=sort,
        add_source=add_source,
    )
    options.output.unlink(missing_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)  # so that the test is quick
        if hashes:  # as if ids that differ had the same hash
            few = np.uint64(hashes)
            patch.setattr(indexing, "hash_ids", lambda ids, real=indexing.hash_ids: real(ids) % few)
        if policy == "error" and expected["listed"]:
            with pytest.raises(InputError) as caught:
                run(options)
            assert caught.value.total == expected["identical"] + expected["conflicts"]
            assert not options.output.exists()
            return
        merged = run(options)
    lines, sidecar = written(tmp_path)
    assert [json.loads(text) for text in lines] == expected["events"]
    for text, wanted in zip(lines, expected["lines"], strict=True):
        assert wanted in (text, None)
    assert merged.events == len(lines) == sidecar["output"]["records"]
    assert sidecar["duplicates"] == {name: expected[name] for name in sidecar["duplicates"]}
    assert [entry["records"] for entry in sidecar["inputs"]] == [
        len(merge_reference.read(path)) for path in paths
    ]
    for entry in sidecar["inputs"]:
        assert entry["sha256"] == hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest()


@pytest.mark.parametrize("sort", ["none", "session"])
def test_workers_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sort: Any) -> None:
    lines = [line(f"e{n % 900}", f"s{n % 7}", n % 13 / 4, x=n) for n in range(1000)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.setattr(indexing, "BLOCK_BYTES", 5000)
    outputs = []
    for workers in (0, 2):
        monkeypatch.setattr(merge, "worker_count", lambda size, count=workers: count)
        options = Options(
            inputs=(tmp_path / "in.jsonl",),
            output=tmp_path / "out.jsonl",
            on_duplicate="last",
            sort=sort,
        )
        assert run(options).dropped == 100
        outputs.append(written(tmp_path))
    assert outputs[0] == outputs[1]


def test_every_bad_line_is_counted_and_the_first_are_named(
    tmp_path: Path, small: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    good, bad = line("a"), '{"sample_id": 1}'
    texts = [good, "", *([bad] * 30), '{"sample_id":"b"', good.replace("0.0", "1e999")]
    (tmp_path / "in.jsonl").write_text("\n".join(texts) + "\n")
    (tmp_path / "more.jsonl").write_text("nonsense\n" + good)
    inputs = (tmp_path / "in.jsonl", tmp_path / "more.jsonl")
    for size, workers in ((60, 0), (1 << 20, 0), (200, 2)):
        small(size)
        monkeypatch.setattr(merge, "worker_count", lambda size, count=workers: count)
        with pytest.raises(InputError) as caught:
            run(Options(inputs=inputs, output=tmp_path / "new" / "out.jsonl"))
        assert caught.value.total == 32
        assert [problem.line for problem in caught.value.problems] == list(range(3, 23))
        assert {problem.path for problem in caught.value.problems} == {str(inputs[0])}
        assert "sample_id: must be a string (got 1)" in str(caught.value)
        assert not (tmp_path / "new").exists(), "nothing is left behind, not even a folder"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (line("b")[:-1] + ',"split":"a","split":"b"}', "stands twice"),
        (line("b")[:-1] + ',"loudness":{"LUFS_i":-1,"LUFS_i":-1}}', "stands twice"),
        (line("b")[:-1] + ',"x":1,"x":2}', "stands twice"),
        (line("b") + line("c"), "not valid JSON"),
        (line("b") + " " + line("c"), "not valid JSON"),
        (line("b")[:-1] + ",}", "not valid JSON"),
        (line("b")[:-1] + ',"x":NaN}', "not valid JSON"),
        (line("b")[:-1] + ',"split":"\\ud800"}', "in.jsonl:2"),
        (line("b")[:-1] + ',"x":' + "[" * 5000 + "]" * 5000 + "}", "in.jsonl:2"),
        ("[" + line("b") + "]", "must be an object"),
        ("\x00", "not valid JSON"),
        ("{}", "sample_id: is required"),
    ],
)
def test_a_bad_line_among_good_ones(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join([line("a"), text, line("c")]) + "\n")
    with pytest.raises(InputError, match=why) as caught:
        run(Options(inputs=(tmp_path / "in.jsonl",), output=tmp_path / "out.jsonl"))
    assert [problem.line for problem in caught.value.problems] == [2]
    assert not (tmp_path / "out.jsonl").exists()


def test_an_object_over_two_lines_is_two_bad_lines(tmp_path: Path) -> None:
    """As many objects as lines, and yet not one in each."""
    whole = line("b")
    cut = whole.index(',"') + 1 if ',"' in whole else whole.index(", ") + 1
    text = f"{line('a')}{line('c')}\n{whole[:cut]}\n{whole[cut:]}\n"
    (tmp_path / "in.jsonl").write_text(text)
    with pytest.raises(InputError) as caught:
        run(Options(inputs=(tmp_path / "in.jsonl",), output=tmp_path / "out.jsonl"))
    assert [problem.line for problem in caught.value.problems] == [1, 2, 3]


def test_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    data = line("a").encode() + b"\n" + line("b?").encode().replace(b"?", b"\xff") + b"\n"
    (tmp_path / "in.jsonl").write_bytes(data)
    with pytest.raises(InputError, match=r"in\.jsonl:2: is not valid UTF-8"):
        run(Options(inputs=(tmp_path / "in.jsonl",), output=tmp_path / "out.jsonl"))


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_line_too_long(tmp_path: Path, end: str) -> None:
    long = line("b", x="x" * MAX_LINE_BYTES * 2) + end
    (tmp_path / "in.jsonl").write_text(f"{line('a')}\n{long}{line('a', x=1) if end else ''}")
    with pytest.raises(InputError) as caught:
        run(Options(inputs=(tmp_path / "in.jsonl",), output=tmp_path / "out.jsonl"))
    assert [str(problem) for problem in caught.value.problems] == [
        f"{tmp_path / 'in.jsonl'}:2: is longer than 16 MiB"
    ]


def test_a_line_just_short_enough(tmp_path: Path) -> None:
    room = MAX_LINE_BYTES - len(line("b", x=""))
    lines = [line("a"), line("b", x="x" * room), line("c")]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    run(Options(inputs=(tmp_path / "in.jsonl",), output=tmp_path / "out.jsonl", sort="sample_id"))
    assert written(tmp_path)[0] == [text.encode() for text in lines]


def test_many_duplicates_are_counted_and_few_are_listed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lines = [line(f"e{n}", note=name if n == 70 else "") for n in range(80)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    inputs = (tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    with pytest.raises(InputError) as caught:
        run(Options(inputs=inputs, output=tmp_path / "out.jsonl"))
    assert (len(caught.value.problems), caught.value.total) == (20, 80)
    run(Options(inputs=inputs, output=tmp_path / "out.jsonl", on_duplicate="first"))
    found = written(tmp_path)[1]["duplicates"]
    assert (found["conflicts"], found["identical"], len(found["listed"])) == (1, 79, 50)
    assert found["listed"][0]["again"] == f"{inputs[1]}:71"


def test_true_is_not_one(tmp_path: Path) -> None:
    lines = [line("a", x=1), line("a", x=True), line("a", x=1.0), line("a", x=2**64 + 1)]
    (tmp_path / "in.jsonl").write_text("\n".join([*lines, line("b", x=[{"y": 0}])]))
    (tmp_path / "more.jsonl").write_text(line("b", x=[{"y": False}]))
    inputs = (tmp_path / "in.jsonl", tmp_path / "more.jsonl")
    merged = run(Options(inputs=inputs, output=tmp_path / "out.jsonl", on_duplicate="first"))
    assert (merged.conflicts, merged.identical) == (3, 1)


def test_an_input_may_be_its_own_output(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text(line("b") + "\n" + line("a"))
    run(Options(inputs=(path,), output=path, sort="sample_id"))
    assert written(tmp_path)[0] == [line("a").encode(), line("b").encode()]


def test_standard_input_and_patterns(
    tmp_path: Path, drumgate: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (2, 1):
        (tmp_path / f"part{number}.jsonl").write_text(line(f"e{number}"))
    data = gzip.compress(line("piped").encode())
    monkeypatch.setattr(merge, "worker_count", lambda size: 0)
    read_end, write_end = os.pipe()
    os.write(write_end, data)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as stream:

        class Standard(io.TextIOWrapper):
            pass

        monkeypatch.setattr(sys, "stdin", Standard(stream))
        inputs = (Path("-"), *sorted(tmp_path.glob("part*.jsonl")))
        run(Options(inputs=inputs, output=tmp_path / "out.jsonl", add_source=True))
    lines, sidecar = written(tmp_path)
    found = [json.loads(text) for text in lines]
    assert [(event["sample_id"], event["source_set"]) for event in found] == [
        ("piped", "stdin"),
        ("e1", "part1"),
        ("e2", "part2"),
    ]
    assert sidecar["inputs"][0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert sidecar["inputs"][0]["bytes"] == len(data)

    out = tmp_path / "all.jsonl"
    result = drumgate("merge-manifests", "--input", tmp_path / "part*.jsonl", "--output", out)
    assert result.exit_code == 0, result.stderr
    assert out.read_text().splitlines() == [line("e1"), line("e2")]


def test_a_pipe_is_an_input(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(line("a"),))
    writer.start()
    run(Options(inputs=(tmp_path / "pipe",), output=tmp_path / "out.jsonl"))
    writer.join()
    assert written(tmp_path)[0] == [line("a").encode()]


def test_a_gzip_cut_short(tmp_path: Path) -> None:
    data = gzip.compress("\n".join(line(f"e{os.urandom(8).hex()}") for _ in range(5000)).encode())
    (tmp_path / "in.jsonl.gz").write_bytes(data[:-1000])
    with pytest.raises(InputError, match=r"in\.jsonl\.gz:\d+: the compressed data is damaged"):
        run(Options(inputs=(tmp_path / "in.jsonl.gz",), output=tmp_path / "out.jsonl"))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"onset_time": float("nan")}, "in.parquet:2"),
        ({"loudness": {"LUFS_i": float("inf")}}, "in.parquet:2"),
        ({"session_id": ""}, "in.parquet:2: session_id: must not be empty"),
    ],
)
def test_rows_of_parquet_that_are_no_events(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    base = {**json.loads(line("a", onset=1.0)), "loudness": {"LUFS_i": -20.0}}
    pq.write_table(pa.Table.from_pylist([base, {**base, **row}]), tmp_path / "in.parquet")
    with pytest.raises(InputError, match=why):
        run(Options(inputs=(tmp_path / "in.parquet",), output=tmp_path / "out.jsonl"))


def test_a_file_that_changes_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text(line("a"))
    suspects = merge_duplicates.IdSpill.repeats

    def disturb(self: Any, store: LineStore) -> Iterator[Any]:
        path.write_text(line("another"))
        return suspects(self, store)

    monkeypatch.setattr(merge_duplicates.IdSpill, "repeats", disturb)
    with pytest.raises(InputError, match="has changed while it was read"):
        run(Options(inputs=(path,), output=tmp_path / "out.jsonl"))
    assert not (tmp_path / "out.jsonl").exists()


def test_a_full_disk_leaves_the_old_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.jsonl").write_text(line("a"))
    (tmp_path / "out.jsonl").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DrumgateError, match="No space left on device"):
        run(Options(inputs=(tmp_path / "in.jsonl",), output=tmp_path / "out.jsonl"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]
    assert (tmp_path / "out.jsonl").read_text() == "old"


def test_a_worker_that_dies_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(line(f"e{n}") for n in range(50)))
    with indexing.IndexPool("none", 1) as pool, (tmp_path / "in.jsonl").open("rb") as file:
        pool._processes[0].kill()
        found = pool.map(indexing.read_blocks(file, tmp_path / "in.jsonl", 0, 0))
        with pytest.raises(DrumgateError, match="worker process ended"):
            next(found)


@FEW
@given(
    records=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 10**9)), max_size=60),
    size=st.sampled_from([1, 40, 10**6]),
)
def test_a_spill_keeps_the_order_inside_buckets(
    tmp_path: Path, records: list[tuple[int, int]], size: int
) -> None:
    dtype = np.dtype([("bucket", "<i8"), ("value", "<i8")])
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "SPILL_BYTES", size)
        spill = Spill(tmp_path, "spill", dtype)
        for record in records:
            part = np.array([record], dtype=dtype)
            spill.add(part, part["bucket"])
        found = [tuple(record) for part in spill for record in part.tolist()]
    assert found == sorted(records, key=lambda record: record[0])


@FEW
@given(
    parts=st.lists(st.lists(st.binary(max_size=9), max_size=20), max_size=12),
    run_bytes=st.sampled_from([1, 300, 10**6]),
    chunk_bytes=st.sampled_from([1, 120, 10**6]),
)
def test_sorted_runs_sort(
    tmp_path: Path, parts: list[list[bytes]], run_bytes: int, chunk_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(external, "RUN_BYTES", run_bytes)
        patch.setattr(external, "CHUNK_BYTES", chunk_bytes)
        runs = SortedRuns(tmp_path, "runs")
        for part in parts:
            runs.add(part)
        found = list(runs)
    assert [key for keys in found for key in keys] == sorted(key for part in parts for key in part)
    assert all(found)


@FEW
@given(pairs=st.lists(st.tuples(texts, st.floats(0, 1e6), texts), min_size=2, max_size=8))
def test_keys_are_in_the_order_of_the_events(pairs: list[tuple[str, float, str]]) -> None:
    entries = np.zeros(len(pairs), dtype=indexing.ENTRY)
    entries["row"] = np.arange(len(pairs))
    ids, order = [pair[2] for pair in pairs], [(pair[0], pair[1]) for pair in pairs]
    for sort, expected in (
        ("session", sorted(range(len(pairs)), key=lambda row: (*order[row], ids[row]))),
        ("sample_id", sorted(range(len(pairs)), key=lambda row: ids[row])),
    ):
        keys = indexing._sort_keys(sort, ids, order, entries)  # type: ignore[arg-type]
        tails = [np.frombuffer(key[-indexing.TAIL.itemsize :], indexing.TAIL)[0] for key in keys]
        assert [int(tail["row"]) for tail in tails] == expected


@FEW
@given(ids=st.lists(texts, min_size=1, max_size=20))
def test_a_hash_depends_on_the_id_alone(ids: list[str]) -> None:
    together = indexing.hash_ids(ids).tolist()
    assert together == [int(indexing.hash_ids([name])[0]) for name in ids]


def test_hashes_of_ids_that_differ_little_differ() -> None:
    ids = [f"prod_{n:06d}_{m:05d}" for n in range(300) for m in range(300)]
    assert len(set(indexing.hash_ids(ids).tolist())) == len(ids)
    halves = [f"{'x' * 100}{n}" for n in range(1000)]
    assert len(set(indexing.hash_ids(halves).tolist())) == len(halves)


@pytest.mark.parametrize("name", ["a", "é", "prod_000001_00002"])
def test_the_hash_is_splitmix_over_the_words_of_the_text(name: str) -> None:
    state, most = 0, 2**64 - 1
    raw = name.encode().ljust(64, b"\0")
    for start in range(0, 64, 8):
        state ^= int.from_bytes(raw[start : start + 8], "little")
        state = (state + 0x9E3779B97F4A7C15) & most
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & most
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & most
        state ^= state >> 31
    assert indexing.hash_ids([name]).tolist() == [state]
