"""Reading manifests: whatever is wrong is named by path, line, field and why."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from training.errors import InputError, Problem
from training.manifest import (
    Event,
    GroundTruth,
    Prediction,
    json_schema,
    read_json,
    read_raw,
    read_records,
    reject_duplicates,
    resolve_inside,
)
from training.resources import config_path

GOOD: dict[str, Any] = {
    "sample_id": "a",
    "session_id": "s",
    "onset_time": 0.5,
    "components": [{"label": "kick", "velocity": 0.5}],
}


def line(**changes: Any) -> str:
    return json.dumps({name: value for name, value in {**GOOD, **changes}.items() if value != "-"})


def fault(path: Path, kind: type = Event) -> str:
    with pytest.raises(InputError) as caught:
        read_records(path, kind)
    return str(caught.value).replace(str(path), path.name)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (line(onset_time="0.5"), 'onset_time: must be a number (got "0.5")'),
        (line(onset_time=True), "onset_time: must be a number (got true)"),
        (line(onset_time=-0.1), "onset_time: must be >= 0 (got -0.1)"),
        (line(sample_id=7), "sample_id: must be a string (got 7)"),
        (line(sample_id=""), 'sample_id: must not be empty (got "")'),
        (line(session_id="-"), "session_id: is required"),
        (line(components=None), "components: must be a list (got null)"),
        (line(components=[{}]), "components[0].label: is required"),
        (
            line(components=[{"label": "kick", "velocity": 2}]),
            "components[0].velocity: must be <= 1",
        ),
        (line(is_synthetic="false"), 'is_synthetic: must be true or false (got "false")'),
        (line(offset_time=0.1), "offset_time: must not lie before onset_time (0.5) (got 0.1)"),
        (line(bleed_level="loud"), 'bleed_level: is not one of the values allowed (got "loud")'),
        (line().replace("0.5", "NaN", 1), "is not valid JSON: NaN is not a JSON number"),
        (line().replace("0.5", "Infinity", 1), "is not valid JSON: Infinity is not a JSON number"),
        (
            line().replace("0.5", "1e999", 1),
            'is not valid JSON: the number "1e999" is out of range',
        ),
        (line()[:-1] + ",}", "is not valid JSON"),
        (line()[:20], "is not valid JSON"),
        ("[]", "must be an object"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f"{line()}\n\n{text}\n")
    message = fault(path)
    assert message.startswith("events.jsonl:3: ")
    assert said in message


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(line().encode() + b"\n\xff\xfe\n")
    assert fault(path) == "events.jsonl:2: is not valid UTF-8 (byte 1 of the line)"


def test_every_bad_line_is_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("{}\n" * 50 + line())
    said = fault(path).splitlines()
    assert len(said) == 21
    assert said[0] == "events.jsonl:1: sample_id: is required"
    assert said[-1] == "… and 30 more"


def test_a_message_cannot_drive_the_terminal() -> None:
    problem = Problem("e.jsonl", "is odd", 1, "x\x1b[2J", got="\x1b]0;owned\x07")
    assert "\x1b" not in str(problem)
    assert "\x07" not in str(problem)


@pytest.mark.parametrize("kind", [Event, GroundTruth])
def test_missing_empty_and_folder(tmp_path: Path, kind: type) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    blank = tmp_path / "blank.jsonl"
    blank.write_text("\n\n")
    assert fault(tmp_path / "none.jsonl", kind) == "none.jsonl: no such file"
    assert fault(empty, kind) == "empty.jsonl: is empty"
    assert fault(blank, kind) == "blank.jsonl: holds no record"
    with pytest.raises(InputError, match="is a folder"):
        read_records(tmp_path, kind)


def test_packings_hold_the_same_records(tmp_path: Path) -> None:
    rows = [{**GOOD, "sample_id": str(number), "unknown_field": [1]} for number in range(5)]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    # The names mislead on purpose: the content decides.
    (tmp_path / "plain.gz").write_bytes(b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n").rstrip())
    (tmp_path / "gzip.jsonl").write_bytes(gzip.compress(text))
    with pa.output_stream(tmp_path / "zstd.jsonl", compression="zstd") as file:
        file.write(text)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet.jsonl")
    wanted = [msgspec.convert(row, Event) for row in rows]
    for name in ("plain.gz", "gzip.jsonl", "zstd.jsonl", "parquet.jsonl"):
        assert read_records(tmp_path / name, Event).rows == wanted, name
        assert [raw for _, raw in read_raw(tmp_path / name, Event)] == rows, name


def test_damaged_packings(tmp_path: Path) -> None:
    packed = gzip.compress((line() + "\n").encode() * 1000)
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    assert "damaged or cut short" in fault(tmp_path / "cut.gz")
    (tmp_path / "cut.zst").write_bytes(b"\x28\xb5\x2f\xfd nonsense")
    assert "damaged or cut short" in fault(tmp_path / "cut.zst")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 nonsense")
    assert "not a readable Parquet file" in fault(tmp_path / "cut.parquet")


def test_parquet_rows_are_validated_too(tmp_path: Path) -> None:
    pq.write_table(
        pa.Table.from_pylist([GOOD, {**GOOD, "onset_time": -1.0}]), tmp_path / "e.parquet"
    )
    assert fault(tmp_path / "e.parquet") == "e.parquet:2: onset_time: must be >= 0 (got -1.0)"


def test_skipping_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f"{line()}\nnonsense\n{line(sample_id='b')}\n")
    records = read_records(path, Event, skip_invalid=True)
    assert [row.sample_id for row in records] == ["a", "b"]
    assert (records.skipped, records.lines, records.source.records) == (1, [1, 3], 2)


def test_duplicates_name_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f"{line()}\n{line(sample_id='b')}\n{line()}\n")
    with pytest.raises(InputError, match=r':3: sample_id: stands already in line 1 \(got "a"\)'):
        reject_duplicates(read_records(path, Event))


def test_a_bad_score_is_named_by_its_label(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"sample_id": "a", "scores": {"kick": 0.5, "tom.high": 1.5}}\n')
    assert fault(path, Prediction) == "p.jsonl:1: scores.tom.high: must be <= 1 (got 1.5)"


def test_evaluation_records() -> None:
    truth = msgspec.convert(GOOD, GroundTruth)
    assert truth.label_set == {"kick"}
    assert msgspec.convert({"sample_id": "a", "labels": []}, GroundTruth).label_set == frozenset()
    bare = msgspec.convert({"sample_id": "a", "labels": ["kick"]}, Prediction)
    assert bare.label_scores == {"kick": 1.0}
    for kind in (GroundTruth, Prediction):
        with pytest.raises(msgspec.ValidationError, match="is required where"):
            msgspec.convert({"sample_id": "a"}, kind)


@pytest.mark.parametrize("record", ["event", "ground_truth", "prediction"])
def test_published_schema_is_the_one_in_force(record: str) -> None:
    published = json.loads(config_path(f"schemas/{record}.schema.json").read_text())
    assert published == json_schema(record)
    Draft202012Validator.check_schema(published)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False)
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@given(st.sampled_from([*sorted(GOOD), "velocity", "techniques", "meter", "loudness"]), JSON)
def test_the_schema_and_the_reader_agree(field: str, value: Any) -> None:
    record = {**GOOD, field: value}
    validator = Draft202012Validator(json_schema("event"))
    try:
        msgspec.convert(json.loads(json.dumps(record)), Event, strict=True)
        accepted = True
    except msgspec.ValidationError:
        accepted = False
    finite = not (isinstance(value, float) and math.isinf(value))
    if finite:
        assert accepted == validator.is_valid(record)


def test_json_files(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text('{"a": 1,\n "a": 2}')
    with pytest.raises(InputError, match="the key 'a' stands twice"):
        read_json(path, dict)
    path.write_text('{"a": 1,\n')
    with pytest.raises(InputError, match=r"f\.json:2: is not valid JSON"):
        read_json(path, dict)
    path.write_text('["a"]')
    with pytest.raises(InputError, match="must be an object"):
        read_json(path, dict)


@pytest.mark.parametrize("bad", ["/etc/passwd", "../x.wav", "a/../../x.wav", "a\0b"])
def test_paths_stay_inside(tmp_path: Path, bad: str) -> None:
    with pytest.raises(InputError, match=r"m\.json:3: audio_path: "):
        resolve_inside(tmp_path, bad, source="m.json", line=3)


def test_a_link_may_not_lead_outside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="leads outside"):
        resolve_inside(root, "link/x.wav", source="m.json")
    assert resolve_inside(root, "a/../b.wav", source="m.json") == root.resolve() / "b.wav"
