"""validate-manifest with a folder of audio for each source, and with names that look alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from manifest_checks import checked, event, said, wave

from training.checks.validate import Validation
from training.errors import InputError


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Validation]:
    """Check lists of events, one list a file."""
    return partial(checked, tmp_path)


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """Two sources whose files have the same name and differ in everything else."""
    wave(tmp_path / "a" / "take.wav", rate=8000, seconds=1.0)
    wave(tmp_path / "b" / "take.wav", rate=16000, channels=2, seconds=3.0)
    return {"a": tmp_path / "a", "b": tmp_path / "b"}


def take(sample: str, source: str | None, **fields: Any) -> dict[str, Any]:
    stated = {} if source is None else {"source_set": source}
    return event(sample, audio_path="take.wav", **stated, **fields)


def test_each_source_has_its_own_file_of_that_name(
    check: Callable[..., Validation], roots: dict[str, Path]
) -> None:
    rows = [
        take("1", "a", sample_rate=8000, channels=1, session_id="s1"),
        take("2", "b", sample_rate=16000, channels=2, session_id="s2", onset_time=2.5),
    ]
    found = check(rows, audio_roots=roots)
    assert said(found) == []
    assert (found.audio_files, found.audio_headers) == (2, 2)
    # In one folder they would be one file, which contradicts itself.
    assert {row[0] for row in said(check(rows))} == {
        "sample-rate-conflict",
        "channels-conflict",
        "session-conflict",
    }


def test_each_file_is_compared_with_its_own_events(
    check: Callable[..., Validation], roots: dict[str, Path]
) -> None:
    rows = [
        take("1", "a", sample_rate=16000),
        take("2", "b", sample_rate=8000, onset_time=2.5),
        take("3", "a", onset_time=2.5),
        take("4", "b", sample_rate=8000, session_id="s2"),
        take("5", "b") | {"audio_path": "lost.wav"},
    ]
    found = check(rows, audio_roots=roots)
    assert [row[:1] + row[2:] for row in said(found)] == [
        ("session-conflict", 4, "session_id", 1),
        ("audio-missing", 5, "audio_path", 1),
        ("sample-rate-mismatch", 1, "sample_rate", 1),
        ("sample-rate-mismatch", 2, "sample_rate", 2),
        ("onset-beyond-audio", 3, "onset_time", 1),
    ]


def test_what_has_no_folder_has_not_passed(
    check: Callable[..., Validation], roots: dict[str, Path], tmp_path: Path
) -> None:
    rows = [take("1", "a"), take("2", "b"), take("3", None), take("4", "b"), event("5")]
    found = check(rows, audio_roots={"a": roots["a"]})
    assert [row[:1] + row[2:] for row in said(found)] == [
        ("no-audio-path", 5, "audio_path", 1),
        ("no-audio-root", 2, "source_set", 2),
        ("no-audio-root", 3, "source_set", 1),
    ]
    assert (found.audio_files, found.audio_headers) == (1, 1)
    assert found.blocks(strict=False)
    found = check(rows[:4], audio_roots={"a": roots["a"]}, audio_root=roots["b"])
    assert said(found) == []
    assert found.audio_files == 2


def test_a_folder_for_nobody_and_a_folder_that_is_not_there(
    check: Callable[..., Validation], roots: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r'source_set: no event is of the source .* \(got "c\'d"'):
        check([take("1", "a")], audio_roots={"a": roots["a"], "c'd": roots["b"]})
    with pytest.raises(InputError, match="none: no such folder"):
        check([take("1", "a")], audio_roots={"a": tmp_path / "none"})


def test_a_link_out_of_its_own_folder_is_seen(
    check: Callable[..., Validation], roots: dict[str, Path]
) -> None:
    (roots["a"] / "link.wav").symlink_to(roots["b"] / "take.wav")
    rows = [{**take("1", "a"), "audio_path": "link.wav"}]
    found = check(rows, audio_roots={"a": roots["a"]}, audio_root=roots["b"])
    assert [row[0] for row in said(found)] == ["audio-outside-root"]


def test_the_flags(tmp_path: Path, roots: dict[str, Path], drumgate: Callable[..., Result]) -> None:
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps(take("1", "a")) + "\n" + json.dumps(take("2", "b")) + "\n")
    flags = [f"--audio-root-map={name}={folder}" for name, folder in roots.items()]
    result = drumgate("validate-manifest", manifest, *flags, "--strict")
    assert result.exit_code == 0, result.output
    assert "2 of 2 audio files read" in result.stdout
    result = drumgate("validate-manifest", manifest, flags[0])
    assert result.exit_code == 1
    assert "source_set: has no folder: give --audio-root, or --audio-root-map" in result.stdout
    assert drumgate("validate-manifest", manifest, flags[0], flags[0]).exit_code == 2
    assert drumgate("validate-manifest", manifest, "--audio-root-map", "a").exit_code == 2
    other = drumgate("validate-manifest", manifest, "--record", "prediction", flags[0])
    assert other.exit_code == 2
    assert "need events" in other.stderr


def test_names_that_look_alike(check: Callable[..., Validation]) -> None:
    composed, apart = "Ren\u00e9", "Rene\u0301"
    rows = [
        event("1", drummer_id=composed, split="train", session_id="s 1"),
        event("2", drummer_id=apart, split="Train", session_id="s  1 "),
        event("3", drummer_id=apart, split="train", session_id="s1"),
        event("4", drummer_id="Rene", split="TRAIN", session_id="s-1", kit_id=composed),
    ]
    found = check(rows)
    assert [row[:1] + row[2:] for row in said(found)] == [
        ("lookalike-name", 2, "drummer_id", 2),
        ("lookalike-name", 2, "session_id", 1),
        ("lookalike-name", 2, "split", 1),
        ("lookalike-name", 4, "split", 1),
    ]
    assert found.findings[0].problem.why == (
        f'differs only in case, spaces or Unicode form from "{composed}", which is in '
        f"{found.inputs[0]}:1"
    )
    assert not found.blocks(strict=False)
    assert found.blocks(strict=True)
