"""validate-manifest: every rule broken and kept, and counts against a plain loop."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifest_checks import checked, event, said, wave
from strategies import manifests

from training.checks.validate import Options, Validation, run
from training.errors import InputError
from training.metrics.finding_rules import RULES
from training.metrics.findings import fair_shares, why_outside
from training.render.findings import render_jsonl, render_sarif
from training.taxonomy import load_components, load_techniques


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Validation]:
    """Check lists of events, one list a file."""
    return partial(checked, tmp_path)


def test_nothing_wrong(check: Callable[..., Validation]) -> None:
    found = check([event("a", components=[{"label": "kick"}], techniques=["flam"]), event("b")])
    assert (found.records, found.counts, found.findings) == (2, {}, ())
    assert not found.blocks(strict=True)


def test_repeated_ids_across_files(check: Callable[..., Validation]) -> None:
    found = check([event("a"), event("b"), event("a")], [event("c"), event("b")])
    assert said(found) == [
        ("duplicate-sample-id", "m0.jsonl", 3, "sample_id", 1),
        ("duplicate-sample-id", "m1.jsonl", 2, "sample_id", 1),
    ]
    assert found.findings[1].problem.why.startswith("stands already in ")
    assert found.findings[1].problem.why.endswith("m0.jsonl:2")
    assert found.findings[1].problem.got == "b"


@pytest.mark.parametrize(
    ("rule", "field", "values", "level"),
    [
        ("sample-rate-conflict", "sample_rate", (44100, 48000), "error"),
        ("channels-conflict", "channels", (1, 2), "error"),
        ("session-conflict", "session_id", ("s1", "s2"), "error"),
        ("track-conflict", "track_id", ("t1", "t2"), "warning"),
    ],
)
def test_one_file_has_one_of_each(
    check: Callable[..., Validation], rule: str, field: str, values: tuple[Any, Any], level: str
) -> None:
    first, second = values
    rows = [
        event("a", audio_path="x.wav", **{field: first}),
        event("b", audio_path="y.wav", **{field: second}),
        event("c", audio_path="x.wav", **{field: second}),
        event("d", audio_path="x.wav", **{field: second}),
    ]
    found = check(rows)
    assert said(found) == [(rule, "m0.jsonl", 3, field, 2)]
    assert found.findings[0].problem.got == second
    assert found.findings[0].level == level
    expected = f'differs from {json.dumps(first)}, which audio_path "x.wav" has in '
    assert found.findings[0].problem.why.startswith(expected)
    assert found.findings[0].problem.why.endswith("m0.jsonl:1")


def test_values_that_are_not_stated_contradict_nothing(check: Callable[..., Validation]) -> None:
    rows = [
        event("a", audio_path="x.wav", sample_rate=44100, split="train"),
        event("b", audio_path="x.wav", sample_rate=None),
        event("c", sample_rate=8000),
        event("d", sample_rate=16000),
    ]
    assert check(rows).counts == {}


def test_split_conflict(check: Callable[..., Validation]) -> None:
    rows = [event("a", split="train"), event("b", split="test"), event("c", split="test")]
    found = check(rows)
    assert said(found) == [("split-conflict", "m0.jsonl", 2, "split", 2)]
    assert not found.blocks(strict=False)
    assert found.blocks(strict=True)


def test_names_that_nobody_knows(check: Callable[..., Validation]) -> None:
    rows = [
        event("a", components=[{"label": "kick"}, {"label": "BD"}], techniques=["flam", "juggle"]),
        event("b", components=[{"label": "snare"}, {"label": "gong?"}, {"label": "gong?"}]),
        event("c", components=[{"label": "gong?"}], techniques=["juggle"]),
    ]
    assert said(check(rows)) == [
        ("unknown-label", "m0.jsonl", 2, "components[1].label", 2),
        ("unknown-technique", "m0.jsonl", 1, "techniques[1]", 2),
    ]


def test_labels_outside_what_is_annotated(check: Callable[..., Validation]) -> None:
    rows = [
        event("a", components=[{"label": "bd"}], annotated_labels=["kick"]),
        event("b", components=[{"label": "kick"}, {"label": "snare"}], annotated_labels=["kick"]),
        event("c", components=[{"label": "snare"}], annotated_labels=[]),
        event("d", components=[{"label": "snare"}]),
    ]
    assert said(check(rows)) == [("unannotated-label", "m0.jsonl", 2, "components[1].label", 2)]


@pytest.mark.parametrize(
    ("path", "outside"),
    [
        ("a/b.wav", False),
        ("a/../b.wav", False),
        ("..a/b..wav", False),
        ("/etc/passwd", True),
        ("../b.wav", True),
        ("a/../../b.wav", True),
        ("..", True),
        ("a\0b", True),
        ("C:\\takes\\b.wav", True),
        ("a\\..\\..\\b.wav", True),
    ],
)
def test_paths_stay_inside(check: Callable[..., Validation], path: str, outside: bool) -> None:
    found = check([event("a", audio_path=path), event("b", audio_path=path)])
    expected = [("audio-outside-root", "m0.jsonl", 1, "audio_path", 2)] if outside else []
    assert said(found) == expected
    assert bool(why_outside(path)) is outside


def test_audio_headers(check: Callable[..., Validation], tmp_path: Path) -> None:
    root = tmp_path / "audio"
    wave(root / "good.wav", seconds=1.0)
    wave(root / "stereo.wav", rate=16000, channels=2)
    wave(root / "silent.wav", seconds=0.0)
    (root / "zero.wav").write_bytes(b"")
    (root / "text.wav").write_text("no audio at all")
    whole = root / "whole.wav"
    wave(whole)
    (root / "cut.wav").write_bytes(whole.read_bytes()[:4000])
    os.symlink(tmp_path, root / "link")
    wave(tmp_path / "outside.wav")
    rows = [
        event("a", audio_path="good.wav", sample_rate=8000, channels=1, offset_time=1.001),
        event("b", audio_path="stereo.wav", sample_rate=8000, channels=1),
        event("c", audio_path="stereo.wav", sample_rate=8000, channels=2),
        event("d", audio_path="silent.wav"),
        event("e", audio_path="zero.wav"),
        event("f", audio_path="text.wav"),
        event("g", audio_path="cut.wav"),
        event("h", audio_path="none/there.wav"),
        event("i", audio_path="none/there.wav"),
        event("j", audio_path="link/outside.wav"),
        event("k", audio_path="../outside.wav"),
        event("l", audio_path="good.wav", onset_time=1.0),
        event("m", audio_path="good.wav", onset_time=0.999),
        event("n", audio_path="good.wav", offset_time=1.0011),
        event("o"),
        event("p"),
    ]
    found = check(rows, audio_root=root)
    assert {row[1] for row in said(found)} == {"m0.jsonl"}
    assert sorted((row[0], row[2], row[3], row[4]) for row in said(found)) == [
        ("audio-empty", 4, "audio_path", 1),
        ("audio-empty", 5, "audio_path", 1),
        ("audio-missing", 8, "audio_path", 2),
        ("audio-outside-root", 10, "audio_path", 1),
        ("audio-outside-root", 11, "audio_path", 1),
        ("audio-unreadable", 6, "audio_path", 1),
        ("audio-unreadable", 7, "audio_path", 1),
        ("channels-conflict", 3, "channels", 1),
        ("channels-mismatch", 2, "channels", 1),
        ("no-audio-path", 15, "audio_path", 2),
        ("offset-beyond-audio", 14, "offset_time", 1),
        ("onset-beyond-audio", 12, "onset_time", 1),
        ("sample-rate-mismatch", 2, "sample_rate", 2),
    ]
    assert (found.audio_files, found.audio_headers) == (9, 2)
    why = {each.rule: each.problem.why for each in found.findings}
    assert why["sample-rate-mismatch"] == 'differs from "stereo.wav", which has 16000 Hz'
    assert why["onset-beyond-audio"] == 'lies beyond the audio: "good.wav" ends at 1.0 s'


def test_each_header_is_read_once(
    check: Callable[..., Validation], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.checks import validate_audio

    seen: Counter[str] = Counter()
    real = validate_audio.audio_info

    def counted(path: Path) -> Any:
        seen[path.name] += 1
        return real(path)

    monkeypatch.setattr(validate_audio, "audio_info", counted)
    monkeypatch.setattr(validate_audio, "BLOCK", 3)
    names = [f"{number}.wav" for number in range(8)]
    for name in names:
        wave(tmp_path / name)
    rows = [event(f"{name}{turn}", audio_path=name) for turn in range(4) for name in names]
    assert check(rows, audio_root=tmp_path).audio_headers == 8
    assert seen == dict.fromkeys(names, 1)


def test_a_missing_root_is_the_users_error(check: Callable[..., Validation]) -> None:
    with pytest.raises(InputError, match="no such folder"):
        check([event("a")], audio_root=Path("not-there"))


BAD_LINES = [
    ("{", "invalid-json"),
    ("", None),
    ('{"sample_id": "x"}', "invalid-record"),
    (json.dumps(event("q", onset_time="0.5")), "invalid-record"),
    (json.dumps(event("q")).replace("0.1", "NaN"), "invalid-json"),
    (json.dumps(event("q"))[:-1] + ', "split": "a", "split": "b"}', "invalid-json"),
    ("[1]", "invalid-record"),
    ("[" * 100_000, "invalid-json"),
    (json.dumps(event("q", offset_time=0.01)), "invalid-record"),
]


def test_every_line_is_checked(check: Callable[..., Validation]) -> None:
    found = check([event("a"), *(line for line, _ in BAD_LINES), event("a")])
    expected = [
        (rule, number) for number, (_, rule) in enumerate(BAD_LINES, start=2) if rule is not None
    ]
    schema = [(each.rule, each.problem.line) for each in found.findings if RULES[each.rule].schema]
    assert schema == expected
    # What is valid is compared all the same.
    assert said(found)[-1] == ("duplicate-sample-id", "m0.jsonl", 11, "sample_id", 1)
    assert found.records == 2
    assert found.total_schema == len(expected)


def test_a_line_too_long_does_not_hide_the_next(tmp_path: Path) -> None:
    long = json.dumps(event("x", note="n" * 17 * 2**20))
    lines = [json.dumps(event("a")), long, "{", json.dumps(event("a"))]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    found = run(Options(inputs=(tmp_path / "m.jsonl",)))
    assert [(each.rule, each.problem.line) for each in found.findings] == [
        ("invalid-json", 2),
        ("invalid-json", 3),
        ("duplicate-sample-id", 4),
    ]
    assert found.records == 2


def test_one_damaged_file_does_not_hide_the_others(tmp_path: Path) -> None:
    good = "".join(json.dumps(event(f"g{number}")) + "\n" for number in range(1000))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(good.encode())[:-20])
    (tmp_path / "b.jsonl").write_text("{\n")
    (tmp_path / "c.jsonl").write_text(json.dumps(event("g")) + "\n" + json.dumps(event("g")))
    (tmp_path / "d.jsonl").write_bytes(b"")
    paths = [tmp_path / name for name in ("a.jsonl.gz", "b.jsonl", "c.jsonl", "d.jsonl", "e")]
    found = run(Options(inputs=tuple(paths)))
    assert [(row[0], row[1]) for row in said(found)] == [
        ("unreadable-input", "a.jsonl.gz"),
        ("invalid-json", "b.jsonl"),
        ("unreadable-input", "b.jsonl"),
        ("unreadable-input", "d.jsonl"),
        ("unreadable-input", "e"),
        ("duplicate-sample-id", "c.jsonl"),
    ]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), rows=manifests(max_events=6))
def test_whatever_is_broken_is_counted(
    data: st.DataObject, rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    text = bytearray("\n".join(map(json.dumps, rows)).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text) - 1))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from([b"", b"\n", b"\xff", b'"', b"NaN", b"}", b"1e999", b"\0", b"\r\n"])
        )
    path = tmp_path / "m.jsonl"
    path.write_bytes(text)
    found = run(Options(inputs=(path,), max_problems=1000))
    lines = sum(
        1 for line in bytes(text).removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip()
    )
    bad = [each for each in found.findings if each.rule in ("invalid-json", "invalid-record")]
    assert found.records + len(bad) == lines
    assert found.hidden == 0
    render_jsonl(found)
    render_sarif(found)


def test_more_than_twenty_bad_lines_can_be_shown(check: Callable[..., Validation]) -> None:
    found = check([event("a"), *["{"] * 50], max_problems=40)
    assert (found.counts["invalid-json"].findings, len(found.findings), found.hidden) == (
        50,
        40,
        10,
    )


def test_the_cap_leaves_room_for_every_rule(check: Callable[..., Validation]) -> None:
    rows = [event("same") for _ in range(50)] + [event("z", components=[{"label": "gong?"}])]
    found = check(rows, max_problems=5)
    assert Counter(each.rule for each in found.findings) == {
        "duplicate-sample-id": 4,
        "unknown-label": 1,
    }
    assert found.counts["duplicate-sample-id"].findings == 49
    nothing = check(rows, max_problems=0)
    assert (nothing.findings, nothing.counts) == ((), found.counts)


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 40)),
    st.integers(0, 120),
)
def test_fair_shares(wanted: dict[str, int], limit: int) -> None:
    shares = fair_shares(wanted, limit)
    assert sum(shares.values()) == min(limit, sum(wanted.values()))
    assert all(0 <= shares[rule] <= wanted[rule] for rule in wanted)
    # Nobody gets two more than one who still wants some.
    short = [shares[rule] for rule in wanted if shares[rule] < wanted[rule]]
    assert all(share <= min(short) + 1 for share in shares.values() if short)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=manifests())
def test_counts_against_a_plain_loop(
    rows: list[dict[str, Any]], check: Callable[..., Validation]
) -> None:
    found = check(rows, max_problems=1000)
    got = {rule: (count.findings, count.events) for rule, count in found.counts.items()}
    assert got == oracle(rows)
    assert len(found.findings) == sum(number for number, _ in got.values())


def oracle(rows: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """The same counts by dictionaries, a rule at a time."""
    known, shown = load_components().canonical, load_techniques().canonical
    made: dict[str, tuple[int, int]] = {}
    repeats = len(rows) - len({row["sample_id"] for row in rows})
    made["duplicate-sample-id"] = (repeats, repeats)
    for rule, key, field in (
        ("session-conflict", "audio_path", "session_id"),
        ("track-conflict", "audio_path", "track_id"),
        ("split-conflict", "session_id", "split"),
    ):
        values: dict[Any, list[Any]] = defaultdict(list)
        for row in rows:
            if row.get(key) is not None and row.get(field) is not None:
                values[row[key]].append(row[field])
        later = [value for group in values.values() for value in group if value != group[0]]
        kinds = sum(len(set(group)) - 1 for group in values.values())
        made[rule] = (kinds, len(later))
    labels = [{part["label"] for part in row["components"]} for row in rows]
    techniques = [set(row.get("techniques", ())) for row in rows]
    for rule, names, canonical in (
        ("unknown-label", labels, known),
        ("unknown-technique", techniques, shown),
    ):
        strange = [{name for name in each if canonical(name) is None} for each in names]
        made[rule] = (len(set().union(*strange)), sum(map(len, strange)))
    outside = [
        {
            label
            for label in each
            if "annotated_labels" in row
            and (known(label) or label)
            not in {known(name) or name for name in row["annotated_labels"]}
        }
        for each, row in zip(labels, rows, strict=True)
    ]
    made["unannotated-label"] = (len(set().union(*outside)), sum(map(len, outside)))
    return {rule: counts for rule, counts in made.items() if counts[0]}


def test_parquet_has_rows(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(pa.Table.from_pylist([event("a"), event("b"), event("a")]), path)
    found = run(Options(inputs=(path,)))
    assert said(found) == [("duplicate-sample-id", "m.parquet", 3, "sample_id", 1)]
    pq.write_table(pa.Table.from_pylist([event("a"), event("")]), path)
    found = run(Options(inputs=(path,)))
    assert said(found) == [("invalid-record", "m.parquet", 2, "sample_id", 1)]
