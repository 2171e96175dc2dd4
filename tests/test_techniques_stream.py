"""Annotating whole manifests: any order of lines, any packing, nothing lost, nothing held."""

from __future__ import annotations

import gzip
import json
import random
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from strategies import manifests

from training.checks import techniques
from training.errors import InputError
from training.manifest import Event, rewrite
from training.taxonomy import annotate, rules
from training.taxonomy.techniques import load_techniques


def dumped(rows: list[dict[str, Any]], end: str = "\n") -> bytes:
    return "".join(json.dumps(row) + end for row in rows).encode()


def expected(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The whole thing in memory, the plain way: the oracle of these tests."""
    catalogue = load_techniques()
    performances: dict[Any, list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        performances[row["session_id"], row.get("track_id")].append(place)
    made = list(rows)
    for places in performances.values():
        in_time = sorted(places, key=lambda place: rows[place]["onset_time"])
        events = [msgspec.convert(rows[place], Event) for place in in_time]
        for place, names in zip(in_time, rules.infer(events, rules.RuleSettings()), strict=True):
            before = rows[place].get("techniques", [])
            standing = {catalogue.canonical(name) for name in before}
            new = [name for name in names if name not in standing]
            if new:
                made[place] = {**rows[place], "techniques": [*before, *new]}
    return made


@st.composite
def files(draw: st.DrawFn) -> tuple[list[dict[str, Any]], bytes]:
    """A manifest in some order, as rows and as a file with blank lines, BOM and line ends."""
    rows = draw(manifests())
    if draw(st.booleans()):
        rows = sorted(rows, key=lambda row: row["session_id"])
    else:
        rows = draw(st.permutations(rows))
    end = draw(st.sampled_from(["\n", "\r\n"]))
    parts = [json.dumps(row) + end for row in rows]
    for place in draw(st.lists(st.integers(0, len(rows)), max_size=3)):
        parts.insert(place, draw(st.sampled_from(["\n", "  \r\n"])))
    text = "".join(parts)
    if draw(st.booleans()):
        text = text.rstrip()
    return rows, (b"\xef\xbb\xbf" if draw(st.booleans()) else b"") + text.encode()


@given(files(), st.sampled_from([1, 3, 26]), st.sampled_from([64, 2**20]))
def test_a_stream_gives_what_memory_gives(
    tmp_path_factory: pytest.TempPathFactory,
    made: tuple[list[dict[str, Any]], bytes],
    marks_bits: int,
    part_bytes: int,
) -> None:
    rows, data = made
    folder = tmp_path_factory.mktemp("stream")
    source, output = folder / "in.jsonl", folder / "out.jsonl"
    source.write_bytes(data)
    with (
        # Few marks: sessions share one and are taken for scattered. Small parts: there are many.
        mock.patch.object(annotate, "_MARKS_BITS", max(3, marks_bits)),
        mock.patch.object(annotate, "_PART_BYTES", part_bytes),
        mock.patch.object(rewrite, "BLOCK_BYTES", part_bytes),
    ):
        outcome = techniques.run(techniques.Options(source=source, output=output))
    paths: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.get("track_id") is None and row.get("audio_path") is not None:
            paths[row["session_id"]].add(row["audio_path"])
    assert len(outcome.additions.mixed) == sum(len(named) > 1 for named in paths.values())
    wanted = expected(rows)
    old, new = data.split(b"\n"), output.read_bytes().split(b"\n")
    assert len(old) == len(new), "blank lines and line ends stay"
    rows_old = iter(zip(rows, wanted, strict=True))
    for before, after in zip(old, new, strict=True):
        if not before.removeprefix(b"\xef\xbb\xbf").strip():
            assert after == before
            continue
        row, want = next(rows_old)
        if want is row:
            assert after == before, "a line to which nothing is added stays byte for byte"
        else:
            assert json.loads(after.removeprefix(b"\xef\xbb\xbf")) == want
    assert outcome.additions.changed == sum(a is not b for a, b in zip(rows, wanted, strict=True))
    added = sum(len(w.get("techniques", [])) for w in wanted)
    assert outcome.additions.added.total() == added - sum(
        len(r.get("techniques", [])) for r in rows
    )


def bark(number: int, session: str = "s", **more: Any) -> list[dict[str, Any]]:
    """Two events, of which the first is a bark."""
    return [
        {
            "sample_id": f"{session}{number}{label}",
            "session_id": session,
            "onset_time": number + late,
            "components": [{"label": label}],
            **more,
        }
        for label, late in (("hihat_open", 0.0), ("hihat_closed", 0.125))
    ]


def test_only_the_techniques_of_a_changed_line_are_written_anew(tmp_path: Path) -> None:
    odd = (
        '{"x":1.10, "big":123456789012345678901234567890,"y" : [1e5, -0.0, null,"\\u00e9/\\/"],'
        '"sample_id":"a","session_id":"s","onset_time":0.50,'
        '"components":[{"label":"crash","pad":7.0},{"label":"ride"}] ,"z":0.1000}'
    )
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text(odd + "\r\n")
    techniques.run(techniques.Options(source=source, output=output))
    line = output.read_bytes()
    assert line.endswith(b',"techniques":["crash_dual_label"]}\r\n')
    for kept in (
        b'"x":1.10',
        b'"big":123456789012345678901234567890',
        b'[1e5, -0.0, null,"\\u00e9/\\/"]',
        b'"onset_time":0.50',
        b'[{"label":"crash","pad":7.0},{"label":"ride"}]',
        b'"z":0.1000',
    ):
        assert kept in line


def test_every_packing_gives_the_same(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    rows = [row for n in range(3) for s in "ab" for row in bark(n, s, x={"y": [n, None]})]
    data = dumped(rows)
    plain = tmp_path / "p.jsonl"
    plain.write_bytes(data)
    (tmp_path / "g.jsonl").write_bytes(gzip.compress(data))
    with pa.CompressedOutputStream(str(tmp_path / "z.jsonl"), "zstd") as file:
        file.write(data)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.jsonl")
    outputs = []
    for name in "pgzq":
        output = tmp_path / f"{name}.out"
        result = drumgate(
            "annotate-techniques", "--input", tmp_path / f"{name}.jsonl", "--output", output
        )
        assert result.exit_code == 0, result.stderr
        outputs.append([json.loads(line) for line in output.read_bytes().splitlines()])
    assert outputs[0] == outputs[1] == outputs[2] == outputs[3] == expected(rows)


def test_scattered_sessions_are_counted(tmp_path: Path) -> None:
    rows = [row for n in range(5) for s in ("a", "b", "alone") for row in bark(n, s)]
    rows = [row for row in rows if row["session_id"] != "alone" or row["onset_time"] < 1]
    source = tmp_path / "in.jsonl"
    source.write_bytes(dumped(rows))
    found = techniques.run(techniques.Options(source=source)).additions
    assert (found.gathered, found.changed, len(found.masks)) == (20, 11, 22)


def test_a_performance_cut_in_two_is_one(tmp_path: Path) -> None:
    # The open stroke and the one that closes it stand on either side of another session.
    opened, closed = bark(0)
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(dumped([opened, *bark(0, "other"), closed]))
    techniques.run(techniques.Options(source=source, output=output))
    first = json.loads(output.read_bytes().splitlines()[0])
    assert first["techniques"] == ["hihat_bark"]


def test_a_bad_line_leaves_everything_as_it_was(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    rows = bark(0) + bark(1)
    rows[1]["onset_time"] = "0.5"
    rows[3].pop("session_id")
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(dumped(rows))
    output.write_text("old")
    result = drumgate("annotate-techniques", "--input", source, "--output", output)
    assert result.exit_code == 2
    assert 'in.jsonl:2: onset_time: must be a number (got "0.5")' in result.stderr
    assert "in.jsonl:4: session_id: is required" in result.stderr
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


GOOD = '"session_id":"s","onset_time":0,"components":[]'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"sample_id":"a",%s,"x":NaN}'.replace('%s', GOOD), "NaN"),
        ('{"sample_id":"a",%s,"x":{"k":1,"k":2}}'.replace('%s', GOOD), "'k' stands twice"),
        ('{"sample_id":"a","sample_id":"b",%s}'.replace('%s', GOOD), "'sample_id' stands twice"),
        ('{"sample_id":"a",%s,"tempo_bpm":1e999}'.replace('%s', GOOD), "out of range"),
        ("[1]", "object"),
        ('{"sample_id":"a",', "JSON"),
        ('{"x":' + "[" * 5000 + "]" * 5000 + "}", "deep"),
    ],
)  # fmt: skip
def test_hostile_lines(
    tmp_path: Path, drumgate: Callable[..., Result], line: str, why: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(line + "\n")
    result = drumgate("annotate-techniques", "--input", source, "--output", tmp_path / "o")
    assert result.exit_code == 2, result.stdout
    assert "in.jsonl:1: " in result.stderr
    assert why in result.stderr
    assert not (tmp_path / "o").exists()


def test_a_line_too_long(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    source = tmp_path / "in.jsonl"
    with source.open("wb") as file:
        file.write(dumped(bark(0)))
        for _ in range(17):
            file.write(b" " * 2**20)
        file.write(b"\n")
    result = drumgate("annotate-techniques", "--input", source, "--dry-run")
    assert result.exit_code == 2
    assert "in.jsonl:3: is longer than 16 MiB" in result.stderr


def test_a_manifest_that_changes_meanwhile_is_refused(tmp_path: Path) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(dumped(bark(0)))
    manifest = rewrite.RawManifest(source)
    assert len(list(manifest.events("reading"))) == 2
    source.write_bytes(dumped(bark(1) + bark(2)))
    with pytest.raises(InputError, match="has changed while it was read"):
        list(manifest.lines("writing"))
    assert not output.exists()


def test_in_place_touches_nothing_when_there_is_nothing_to_add(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(dumped(bark(0)))
    assert drumgate("annotate-techniques", "--input", source, "--in-place").exit_code == 0
    before = source.stat()
    result = drumgate("annotate-techniques", "--input", source, "--in-place")
    assert "nothing to add" in result.stdout
    assert (source.stat().st_ino, source.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_in_place_refuses_a_packed_manifest(
    tmp_path: Path, drumgate: Callable[..., Result]
) -> None:
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(dumped(bark(0))))
    result = drumgate("annotate-techniques", "--input", source, "--in-place")
    assert result.exit_code == 2
    assert "--in-place needs plain JSON Lines" in result.stderr


def test_in_place_goes_through_a_link(tmp_path: Path, drumgate: Callable[..., Result]) -> None:
    source, link = tmp_path / "in.jsonl", tmp_path / "link.jsonl"
    source.write_bytes(dumped(bark(0)))
    link.symlink_to(source)
    assert drumgate("annotate-techniques", "--input", link, "--in-place").exit_code == 0
    assert link.is_symlink()
    assert b"hihat_bark" in source.read_bytes()


def test_marks_never_lack_what_was_added() -> None:
    with mock.patch.object(annotate, "_MARKS_BITS", 10):
        marks = annotate._Marks()
        assert not marks
        names = [(f"session {i}", None) for i in range(500)]
        for name in names[:250]:
            marks.add(name)
        assert marks
        assert all(name in marks for name in names[:250])
        assert sum(name in marks for name in names[250:]) < 125


def peak_bytes(folder: Path, sessions: int, *, scattered: bool) -> int:
    """Peak of Python's allocations over one run."""
    source, output = folder / f"{sessions}.jsonl", folder / "out.jsonl"
    pairs = ((s, n) for s in range(sessions) for n in range(20))
    rows = [row for s, n in pairs for row in bark(n, f"s{s}", pad="x" * 300)]
    if scattered:
        random.Random(0).shuffle(rows)
    source.write_bytes(dumped(rows))
    del rows
    tracemalloc.start()
    try:
        techniques.run(techniques.Options(source=source, output=output))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("scattered", [False, True])
def test_memory_does_not_grow_with_the_manifest(tmp_path: Path, scattered: bool) -> None:
    with (
        mock.patch.object(annotate, "_PART_BYTES", 2**16),
        mock.patch.object(rewrite, "BLOCK_BYTES", 2**16),
    ):
        peak_bytes(tmp_path, 10, scattered=scattered)  # what is made once a process
        small = peak_bytes(tmp_path, 50, scattered=scattered)
        large = peak_bytes(tmp_path, 200, scattered=scattered)
    # 6,000 more events of 450 bytes: 2.7 MB as text, several times that as objects.
    assert large - small < 400_000


@pytest.mark.parametrize("together", [True, False])
def test_sessions_of_several_files_without_a_track_are_warned_of(
    tmp_path: Path, drumgate: Callable[..., Result], together: bool
) -> None:
    """Two takes that start at 0: a soft stroke of one just before a loud one of the other."""
    takes = [("a.wav", 0.0, 0.3), ("a.wav", 5.0, 0.9), ("b.wav", 0.02, 0.9), ("b.wav", 6.0, 0.9)]
    rows = [
        {
            "sample_id": f"{file}{onset}",
            "session_id": "s",
            "onset_time": onset,
            "audio_path": file,
            "components": [{"label": "snare", "velocity": velocity}],
        }
        for file, onset, velocity in takes
    ]
    other = {**rows[0], "sample_id": "o", "session_id": "t"}
    source = tmp_path / "in.jsonl"
    source.write_bytes(dumped([*rows, other] if together else [*rows[:2], other, *rows[2:]]))
    said = drumgate("annotate-techniques", "--input", source, "--dry-run").stderr
    assert "1 sessions name several audio files and no track" in said
    source.write_bytes(dumped([{**row, "track_id": row["audio_path"]} for row in rows]))
    result = drumgate("annotate-techniques", "--input", source, "--dry-run")
    assert "several audio files" not in result.stderr
    assert "flam                             0 added" in result.stdout
