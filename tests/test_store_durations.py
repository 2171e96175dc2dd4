"""Expected durations: what is off or absent is named, and a list that is wrong is refused."""

from __future__ import annotations

import pytest
import soundfile
from test_build_training_dataset import RATE, dataset

from training.checks.build_dataset import Options, run
from training.dataset.durations import compare_durations, read_expected_durations
from training.errors import InputError

RECORDINGS = [
    ("a/1.wav", {"s1"}, 10.0),
    ("a/2.wav", {"s1"}, 5.0),
    ("b.wav", {"s2"}, 7.0),
    ("c.wav", {"s3"}, 1.0),
]


def test_by_hand():
    expected = {
        ("audio_path", "a/1.wav"): 10.05,
        ("session_id", "s1"): 15.2,
        ("audio_path", "b.wav"): 6.9,
        ("session_id", "s9"): 3.0,
    }
    check = compare_durations(expected, RECORDINGS, tolerance_ms=100.0)
    assert check.compared == 3
    assert check.off == (
        {"session_id": "s1", "expected_s": 15.2, "found_s": 15.0, "difference_s": -0.2},
    )
    assert check.absent == ({"session_id": "s9", "expected_s": 3.0},)
    assert check.unlisted == ("c.wav",)
    assert check.mismatches == 2
    # exactly the tolerance passes, though 7.0 - 6.9 is a little more than 0.1 in binary
    assert compare_durations(expected, RECORDINGS, tolerance_ms=99.9).mismatches == 3
    assert compare_durations({}, [], tolerance_ms=0.0).mismatches == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r":1: must have the columns duration_s and audio_path or session_id"),
        ("session_id,seconds\ns1,2\n", ":1: must have the columns"),
        ("session_id,duration_s\n", "lists no duration"),
        ("session_id,duration_s\ns1,2\ns1,2\n", ":3: session_id: stands twice"),
        ("session_id,duration_s\ns1,two\n", ':2: duration_s: must be a number above 0 .got "two"'),
        ("session_id,duration_s\ns1,nan\n", "must be a number above 0"),
        ("session_id,duration_s\ns1,-1\n", "must be a number above 0"),
        ("session_id,duration_s\ns1\n", "must be a number above 0"),
        ("session_id,duration_s\n,1\n", "must name an audio_path or a session_id"),
        ("session_id,duration_s,audio_path\ns1,1,a.wav\n", "not both"),
        ("session_id,duration_s\ns1,1,2\n", "more cells than the header"),
        ('session_id,duration_s\n"s1,1\n', "is not CSV"),
    ],
)
def test_a_list_that_is_wrong_is_refused(tmp_path, content, message):
    path = tmp_path / "durations.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_expected_durations(path)
    path.write_bytes(b"session_id,duration_s\n\xff,1\n")
    with pytest.raises(InputError, match="is not CSV"):
        read_expected_durations(path)


def test_excel_writes_a_mark_in_front(tmp_path):
    path = tmp_path / "durations.csv"
    path.write_text("\ufeffsession_id,note,duration_s\r\ns1,x,2.5\r\n", encoding="utf-8")
    assert read_expected_durations(path) == {("session_id", "s1"): 2.5}


def test_the_build_and_the_verification_block_on_a_recording_cut_short(tmp_path, drumgate):
    path = dataset(tmp_path / "data")
    expected = tmp_path / "durations.csv"
    expected.write_text("session_id,duration_s\n" + "".join(f"s{i},1.0\n" for i in range(8)))
    out, report = tmp_path / "out", tmp_path / "report.json"
    build = ["build-training-dataset", path, out, "--sample-rate", RATE]
    build += ["--expected-duration-csv", expected, "--summary-json", report]
    result = drumgate(*build)
    assert result.exit_code == 0, result.output
    assert '"compared": 8' in report.read_text()
    assert drumgate(*build, "--verify-only").exit_code == 0
    samples, _ = soundfile.read(tmp_path / "data" / "s3.wav")
    soundfile.write(tmp_path / "data" / "s3.wav", samples[: RATE // 2], RATE)
    result = drumgate(*build, "--force")
    assert result.exit_code == 1, result.output
    assert "max_duration_mismatches" in result.output
    assert "1 off (s3)" in result.output
    result = drumgate(*build, "--verify-only")
    assert result.exit_code == 1
    assert "1 off (s3)" in result.output
    assert drumgate(*build, "--force", "--duration-tolerance-ms", 500).exit_code == 0


def test_metadata_that_do_not_list_the_recordings_are_named(tmp_path):
    import json

    path = dataset(tmp_path / "data")
    out, expected = tmp_path / "out", tmp_path / "durations.csv"
    expected.write_text("session_id,duration_s\ns1,1.0\n")
    run(Options(events=path, out=out, sample_rate=RATE))
    metadata = json.loads((out / "metadata.json").read_text())
    for hostile in (None, [], {"train": [1]}, {"train": [{"audio_path": "x"}]}):
        (out / "metadata.json").write_text(json.dumps({**metadata, "recordings": hostile}))
        with pytest.raises(InputError, match=r"recordings\.train: must list audio_path"):
            run(Options(events=path, out=out, verify_only=True, expected_duration_csv=expected))
