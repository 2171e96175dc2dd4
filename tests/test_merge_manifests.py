"""Merging manifests: what is kept, in which order, byte for byte."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import manifests

from training.checks.merge import Options, run
from training.errors import InputError


def line(sample: str, session: str = "s", onset: float = 0.0, **fields: Any) -> str:
    return json.dumps(
        {
            "sample_id": sample,
            "session_id": session,
            "onset_time": onset,
            "components": [],
            **fields,
        }
    )


@pytest.fixture
def merge(tmp_path: Path) -> Callable[..., list[str]]:
    """Merge lists of lines and return the lines that came out."""

    def call(*inputs: list[str], **options: Any) -> list[str]:
        paths = []
        for number, lines in enumerate(inputs):
            paths.append(tmp_path / f"in{number}.jsonl")
            paths[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
        run(Options(inputs=tuple(paths), output=tmp_path / "out.jsonl", **options))
        return (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()

    return call


def sidecar(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "out.jsonl.provenance.json").read_text())
    return content


def test_lines_survive_byte_for_byte(merge: Callable[..., list[str]]) -> None:
    odd = (
        '{ "sample_id":"ä", "x": 123456789012345678901234567890, "session_id":"s",'
        '"y":1.10,"onset_time":1e0,"components":[] , "z":{"deep":[null,"\\u00e4"]}}'
    )
    assert merge([odd], [line("b")]) == [odd, line("b")]


def test_order_is_that_of_the_inputs_or_sorted(merge: Callable[..., list[str]]) -> None:
    first = [line("d", "s2", 1), line("a", "s1", 2)]
    second = [line("c", "s1", 1), line("b", "s1", 1)]
    ids = [
        "".join(json.loads(text)["sample_id"] for text in merge(first, second, sort=sort))
        for sort in ("none", "session", "sample_id")
    ]
    assert ids == ["dacb", "bcad", "abcd"]


def test_duplicates_by_policy(merge: Callable[..., list[str]], tmp_path: Path) -> None:
    first = [line("a"), line("b", note=1)]
    second = [line("b", note=2), line("a"), line("c")]
    assert merge(first, second, on_duplicate="first") == [*first, line("c")]
    assert merge(first, second, on_duplicate="last") == second
    assert merge(first, second, on_duplicate="keep") == [*first, *second]
    found = sidecar(tmp_path)["duplicates"]
    assert (found["identical"], found["conflicts"], found["dropped"]) == (1, 1, 0)
    assert [(entry["sample_id"], entry["conflict"]) for entry in found["listed"]] == [
        ("b", True),
        ("a", False),
    ]


def test_duplicates_are_refused_by_default(merge: Callable[..., list[str]], tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        merge([line("a"), line("b")], [line("b", note=2), line("a")])
    where = [
        (Path(p.path).name, p.line, p.why.rpartition("with")[2]) for p in caught.value.problems
    ]
    assert where == [("in1.jsonl", 1, " other content"), ("in1.jsonl", 2, " the same content")]
    assert not (tmp_path / "out.jsonl").exists()


def test_key_order_is_no_conflict(merge: Callable[..., list[str]], tmp_path: Path) -> None:
    turned = json.dumps(dict(reversed(json.loads(line("a")).items())))
    merge([line("a")], [turned], on_duplicate="first")
    assert sidecar(tmp_path)["duplicates"]["identical"] == 1


def test_sources_are_added_where_none_is_stated(merge: Callable[..., list[str]]) -> None:
    lines = [line("a", x=1.50), line("b", source_set="mine"), line("c", source_set=None)]
    out = merge(lines, add_source=True)
    assert out[0] == lines[0][:-1] + ',"source_set":"in0"}'
    assert out[1] == lines[1]
    assert json.loads(out[2])["source_set"] == "in0"


def test_provenance_says_what_went_in(merge: Callable[..., list[str]], tmp_path: Path) -> None:
    merge([line("a")], [line("b"), line("c")])
    found = sidecar(tmp_path)
    assert [entry["records"] for entry in found["inputs"]] == [1, 2]
    for entry in found["inputs"]:
        assert entry["sha256"] == hashlib.sha256(Path(entry["path"]).read_bytes()).hexdigest()
    written = (tmp_path / "out.jsonl").read_bytes()
    assert found["output"]["sha256"] == hashlib.sha256(written).hexdigest()


def test_packed_inputs(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(line("a").encode()))
    pq.write_table(
        pa.Table.from_pylist([{**json.loads(line("b")), "x": 7}]), tmp_path / "b.parquet"
    )
    inputs = (tmp_path / "a.jsonl.gz", tmp_path / "b.parquet")
    run(Options(inputs=inputs, output=tmp_path / "out.jsonl"))
    rows = [json.loads(text) for text in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["sample_id"] for row in rows] == ["a", "b"]
    assert rows[1]["x"] == 7


def test_a_failed_merge_leaves_the_old_output(
    merge: Callable[..., list[str]], tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").write_text("old")
    with pytest.raises(InputError, match=r"in1\.jsonl:1: session_id: is required"):
        merge([line("a")], ['{"sample_id": "b", "onset_time": 0, "components": []}'])
    assert (tmp_path / "out.jsonl").read_text() == "old"


def test_moving_a_manifest_away_from_its_audio_warns(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text(line("a", audio_path="a.wav"))
    inputs = (tmp_path / "in.jsonl",)
    assert run(Options(inputs=inputs, output=tmp_path / "out.jsonl")).warnings == ()
    (warning,) = run(Options(inputs=inputs, output=tmp_path / "sub" / "out.jsonl")).warnings
    assert "audio paths" in warning


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    first=manifests(), second=manifests(), sort=st.sampled_from(["none", "session", "sample_id"])
)
def test_nothing_is_lost_when_all_is_kept(
    merge: Callable[..., list[str]],
    first: list[dict[str, Any]],
    second: list[dict[str, Any]],
    sort: str,
) -> None:
    lines = [[json.dumps(row) for row in rows] for rows in (first, second)]
    out = merge(*lines, on_duplicate="keep", sort=sort)
    assert sorted(out) == sorted([*lines[0], *lines[1]])
    kept = merge(*lines, on_duplicate="first", sort=sort)
    ids = [json.loads(text)["sample_id"] for text in kept]
    assert sorted(ids) == sorted({row["sample_id"] for row in [*first, *second]})
