"""The alignment check as a tool: sessions in, verdicts and exit codes out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from alignment_signals import RATE, delayed, drifting, jumping, two_mics
from click.testing import Result

from training.audio.reading import read_audio, resample
from training.audio.synth.session import render_session, session_spec
from training.checks.alignment import Options, run
from training.errors import DrumgateError, InputError
from training.gates import Report
from training.metrics.alignment import measure_pair

LAG_MS = 4.0


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    anchor, target = two_mics(seconds=30.0, lag_ms=LAG_MS)
    return 0.4 * anchor / np.abs(anchor).max(), 0.4 * target / np.abs(target).max()


def write_session(
    folder: Path, mics: dict[str, tuple[np.ndarray, int]], session_id: str = "s1", **extra: Any
) -> Path:
    """Write recordings, the first the anchor, and a manifest that declares the true lag."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for name, (audio, rate) in mics.items():
        soundfile.write(folder / f"{name}.wav", audio.T, rate, subtype="FLOAT")
        entries.append({"name": name, "path": f"{name}.wav"})
    for entry in entries[1:]:
        entry["expected_delay_ms"] = LAG_MS
    manifest = {"session_id": session_id, "anchor_mic": next(iter(mics)), "mics": entries}
    path = folder / "session.json"
    path.write_text(json.dumps(manifest | extra))
    return path


def statuses(report: Report, mic: str = "s1/far") -> dict[str, str]:
    return {
        verdict.name.split("[")[0].removeprefix("alignment."): str(verdict.status)
        for verdict in report.verdicts
        if verdict.name.endswith(f"[{mic}]")
    }


def check(folder: Path, anchor: np.ndarray, target: np.ndarray, **options: Any) -> Report:
    path = write_session(folder, {"near": (anchor, RATE), "far": (target, RATE)})
    return run(Options(manifests=(path,), **options))


def test_a_clean_session_passes(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    report = check(tmp_path, *pair)
    assert set(statuses(report).values()) == {"pass"}
    assert not report.blocks
    assert report.warnings == []
    (row,) = report.metrics["pairs"]
    assert (row["anchor"], row["target"], row["session_id"]) == ("near", "far", "s1")
    assert row["median_delay_ms"] == pytest.approx(LAG_MS, abs=0.02)
    assert row["residual_ms"] == pytest.approx(0.0, abs=0.02)
    assert row["support"] == len(row["series"])
    assert set(row["series"][0]) == {"time_s", "delay_ms"}
    json.dumps(report.to_dict(), allow_nan=False)
    assert [Path(file.path).name for file in report.inputs] == [
        "session.json",
        "near.wav",
        "far.wav",
    ]


@pytest.mark.parametrize(
    ("change", "gate"),
    [
        (lambda x: delayed(x, 0.001 * RATE), "max_delay_ms"),
        (lambda x: delayed(x, -0.0005 * RATE), "max_delay_ms"),
        (lambda x: delayed(x, 0.003 * RATE), "max_delay_ms"),
        (lambda x: drifting(x, 5.0), "max_drift_samples_per_min"),
        (lambda x: drifting(x, -20.0), "max_drift_samples_per_min"),
        (lambda x: jumping(x, 22.1, 132), "max_jump_ms"),
        (lambda x: jumping(x, 22.1, -32), "max_jump_ms"),
    ],
)
def test_each_gate_is_seen_failing(
    tmp_path: Path,
    pair: tuple[np.ndarray, np.ndarray],
    change: Callable[[np.ndarray], np.ndarray],
    gate: str,
) -> None:
    report = check(tmp_path, pair[0], change(pair[1]))
    assert {name for name, status in statuses(report).items() if status == "fail"} == {gate}
    assert report.blocks


@pytest.mark.parametrize(
    ("change", "status", "said"),
    [
        (lambda x: jumping(x, 24.1, -1323), "fail", "fit -30.000 ms beside the lag of the others"),
        (lambda x: jumping(x, 27.6, -1323), "fail", "the 3 hits from"),
        (lambda x: jumping(x, 20.1, 4410), "not_measured", "are not found"),
        (lambda x: jumping(x, 27.3, 88), "fail", "fit +1.99"),
        (lambda x: np.where(np.arange(len(x)) < 20 * RATE, x, 0.0), "not_measured", "not found"),
    ],
)
def test_a_lag_that_a_part_alone_supports_does_not_pass(
    tmp_path: Path,
    pair: tuple[np.ndarray, np.ndarray],
    change: Callable[[np.ndarray], np.ndarray],
    status: str,
    said: str,
) -> None:
    report = check(tmp_path, pair[0], change(pair[1]))
    found = statuses(report)
    assert found.pop("max_jump_ms") == status
    assert set(found.values()) == {"pass"}
    verdict = next(each for each in report.verdicts if "max_jump_ms" in each.name)
    assert said in verdict.detail
    assert report.blocks
    if status == "not_measured":
        assert "Listen to the mic from" in verdict.fix
    (row,) = report.metrics["pairs"]
    assert set(row["lost"][0]) == {"start_s", "stop_s", "hits", "step_ms", "at_end"}
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_short_stretch_elsewhere_and_ends_without_hits_are_named(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    anchor, target = pair
    report = check(tmp_path, anchor, jumping(jumping(target, 10.1, 88), 12.6, -88))
    assert not report.blocks
    assert any("another drum, or a jump too short to judge" in text for text in report.warnings)
    quiet = np.zeros(40 * RATE, dtype=np.float32)
    late = check(tmp_path, np.concatenate([quiet, anchor]), np.concatenate([quiet, target]))
    assert not late.blocks
    assert any("no hit to compare from 0.0 to 40." in text for text in late.warnings)
    same = check(tmp_path, anchor, anchor)
    assert "s1: far: the same file as the anchor near" in same.warnings


def test_inverted_polarity_warns(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    report = check(tmp_path, pair[0], -pair[1])
    assert statuses(report)["polarity_inverted"] == "warn"
    assert not report.blocks
    assert report.warnings == ["s1: far: its polarity is inverted"]


@pytest.mark.parametrize("which", ["near", "far"])
def test_a_silent_mic_is_not_measured(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray], which: str
) -> None:
    anchor, target = pair
    silence = np.full_like(anchor, 1e-6)
    report = check(tmp_path, *((silence, target) if which == "near" else (anchor, silence)))
    assert set(statuses(report).values()) == {"not_measured"}
    assert report.blocks
    assert f"s1: {which}: silent (never above -80 dBFS)" in report.warnings
    assert "silent" in report.verdicts[0].detail
    assert report.metrics["pairs"][0]["median_delay_ms"] is None


def test_too_few_hits_are_not_measured(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    report = check(tmp_path, pair[0][: 3 * RATE], pair[1][: 3 * RATE])
    assert set(statuses(report).values()) == {"not_measured"}
    more = check(tmp_path, *pair, min_support=1000)
    assert set(statuses(more).values()) == {"not_measured"}


def test_a_drift_that_cannot_be_told_is_not_measured(tmp_path: Path) -> None:
    """Few noisy hits: the drift may be large enough to matter, so it has not passed."""
    rng = np.random.default_rng(0)
    anchor, target = two_mics(seconds=12.0, lag_ms=LAG_MS)
    target += (0.05 * rng.standard_normal(len(target))).astype(np.float32)
    loose = check(tmp_path, anchor, target)
    assert statuses(loose)["max_drift_samples_per_min"] == "pass", "too small to matter"
    strict = check(tmp_path, anchor, target, max_delay_ms=0.01, max_drift_samples_per_min=0.5)
    assert statuses(strict)["max_drift_samples_per_min"] == "not_measured"


def test_a_lag_far_outside_the_search_names_about_where(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    report = check(tmp_path, pair[0], np.pad(pair[1], (RATE // 4, 0)))
    assert set(statuses(report).values()) == {"not_measured"}
    assert "about 25" in report.verdicts[0].detail
    wide = check(tmp_path, pair[0], np.pad(pair[1], (RATE // 4, 0)), max_shift_ms=300.0)
    assert statuses(wide)["max_delay_ms"] == "fail"


def test_rates_channels_lengths_clipping_and_offset_are_handled_and_named(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    anchor, target = pair
    mics = {
        "near": (anchor, RATE),
        "rate": (resample(target, RATE, 48_000), 48_000),
        "stereo": (np.stack([target, 0.5 * target]), RATE),
        "short": (target[: 20 * RATE], RATE),
        "clipped": (np.clip(12 * target, -0.9, 0.9), RATE),
        "offset": (target + 0.1, RATE),
    }
    report = run(Options(manifests=(write_session(tmp_path, mics),)))
    assert not report.blocks
    for row in report.metrics["pairs"]:
        assert row["residual_ms"] == pytest.approx(0.0, abs=0.02), row["target"]
    said = "\n".join(report.warnings)
    assert "s1: rate: 48000 Hz, resampled to the anchor's 44100 Hz" in said
    assert "s1: stereo: 2 channels, averaged into one" in said
    assert "s1: short: 10.00 s shorter than the anchor near" in said
    assert "s1: clipped: clipped: " in said
    assert "s1: offset: a DC offset of +0.1" in said
    assert len(report.warnings) == 5


def test_channels_that_cancel_count_as_silent(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    mics = {"near": (pair[0], RATE), "far": (np.stack([pair[1], -pair[1]]), RATE)}
    report = run(Options(manifests=(write_session(tmp_path, mics),)))
    assert set(statuses(report).values()) == {"not_measured"}


def test_a_distance_is_a_delay(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    path = write_session(tmp_path, {"near": (pair[0], RATE), "far": (pair[1], RATE)})
    manifest = json.loads(path.read_text())
    del manifest["mics"][1]["expected_delay_ms"]
    manifest["mics"][1]["distance_m"] = LAG_MS * 0.343
    path.write_text(json.dumps(manifest))
    report = run(Options(manifests=(path,)))
    assert not report.blocks
    assert report.metrics["pairs"][0]["expected_delay_ms"] == pytest.approx(LAG_MS)


def test_many_sessions_in_any_number_of_threads_give_one_report(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    paths = tuple(
        write_session(
            tmp_path / name,
            {"near": (pair[0], RATE), "far": (delayed(pair[1], number * 20.0), RATE)},
            name,
        )
        for number, name in enumerate(["a", "b", "c"])
    )
    reports = [run(Options(manifests=paths, jobs=jobs)).to_dict() for jobs in (1, 4)]
    for report in reports:
        del report["provenance"]
    assert reports[0] == reports[1]
    assert [row["session_id"] for row in reports[0]["metrics"]["pairs"]] == ["a", "b", "c"]
    failed = [row["name"] for row in reports[0]["gating_results"] if row["status"] == "fail"]
    assert failed == ["alignment.max_delay_ms[b/far]", "alignment.max_delay_ms[c/far]"]
    with pytest.raises(DrumgateError, match="'a' stands in two"):
        run(Options(manifests=(paths[0], paths[0])))


def test_folders_and_pairs(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray], drumgate: Callable[..., Result]
) -> None:
    write_session(tmp_path / "take1", {"near": (pair[0], RATE), "far": (pair[1], RATE)})
    near, far = tmp_path / "take1" / "near.wav", tmp_path / "take1" / "far.wav"
    from_folder = run(Options(session_dirs=(tmp_path / "take1",), anchor_mic="near"))
    from_pairs = run(Options(mics=(("near", near), ("far", far))))
    for report, name in ((from_folder, "take1"), (from_pairs, "command_line")):
        (row,) = report.metrics["pairs"]
        assert row["session_id"] == name
        assert row["residual_ms"] == pytest.approx(LAG_MS, abs=0.02)
        assert row["expected_declared"] is False
    back = run(Options(mics=(("near", near), ("far", far)), anchor_mic="far"))
    assert back.metrics["pairs"][0]["target"] == "near"

    assert drumgate("align-qc", f"near={near}", f"far={far}").exit_code == 0
    assert drumgate("align-qc", f"near={near}", f"far={far}", "--strict").exit_code == 1
    for wrong, message in {
        ("near",): "is not NAME=PATH",
        (f"near={near}",): "at least two mics",
        (f"near={near}", f"near={far}"): "two mics are named 'near'",
        (f"near={near}", "far=gone.wav"): "gone.wav: no such file",
        ("--session-dir", str(tmp_path)): "needs at least two audio files",
        ("--session-dir", str(tmp_path / "gone")): "no such folder",
        ("--session-dir", str(tmp_path / "take1")): "say which mic is the --anchor-mic: far, near",
        ("--session-dir", str(tmp_path / "take1"), "--anchor-mic", "nea"): "did you mean 'near'",
        ("--manifest", str(tmp_path / "take1" / "session.json"), "--anchor-mic", "x"): "none of",
    }.items():
        result = drumgate("align-qc", *wrong)
        assert result.exit_code == 2, wrong
        assert message in result.stderr


def test_another_anchor_than_the_manifest_names(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    path = write_session(tmp_path, {"near": (pair[0], RATE), "far": (pair[1], RATE)})
    report = run(Options(manifests=(path,), anchor_mic="far"))
    (row,) = report.metrics["pairs"]
    assert (row["anchor"], row["target"]) == ("far", "near")
    assert row["expected_delay_ms"] == -LAG_MS
    assert "were declared behind near" in report.warnings[0]


def test_every_fault_of_every_session_is_named(
    tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]
) -> None:
    mics = {"near": (pair[0], RATE), "far": (pair[1], RATE), "room": (pair[1], RATE)}
    paths = [write_session(tmp_path / name, mics, name) for name in ("a", "b")]
    for folder, mic in (("a", "far"), ("a", "room"), ("b", "near")):
        (tmp_path / folder / f"{mic}.wav").write_bytes(b"")
    with pytest.raises(InputError) as raised:
        run(Options(manifests=tuple(paths)))
    assert len(raised.value.problems) == 3


def test_a_gates_file_of_ones_own(tmp_path: Path, pair: tuple[np.ndarray, np.ndarray]) -> None:
    gates = tmp_path / "gates.toml"
    gates.write_text('[alignment.max_delay_ms]\nvalue = 2.0\nreason = "only loosely synced"\n')
    late = delayed(pair[1], 0.001 * RATE)
    assert check(tmp_path / "s", pair[0], late).blocks
    assert not check(tmp_path / "s", pair[0], late, gates=gates).blocks
    assert check(tmp_path / "s", pair[0], late, gates=gates, max_delay_ms=0.5).blocks


def test_senseless_options(tmp_path: Path) -> None:
    with pytest.raises(DrumgateError, match="nothing to check"):
        run(Options())
    with pytest.raises(DrumgateError, match="max_shift_ms"):
        run(Options(manifests=(tmp_path / "x.json",), max_shift_ms=float("nan")))


def test_a_rate_too_low_is_bad_input(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal(5000) * 0.1
    path = write_session(tmp_path, {"near": (noise, 500), "far": (noise, 500)})
    with pytest.raises(InputError, match=r"near\.wav: a sample rate of 500 Hz is too low"):
        run(Options(manifests=(path,)))


@pytest.mark.parametrize("seed", [0, 1])
def test_synthesised_sessions_pass_clean_and_fail_when_a_mic_is_late(
    tmp_path: Path, seed: int, drumgate: Callable[..., Result]
) -> None:
    audio = render_session(session_spec(seed=seed, duration_s=30.0))
    rate = audio.sample_rate
    for late_ms, code in ((0.0, 0), (1.0, 1), (3.0, 1)):
        folder = tmp_path / f"{late_ms:g}"
        mics = {name: (samples, rate) for name, samples in audio.mics.items()}
        mics["overhead_l"] = (delayed(audio.mics["overhead_l"], late_ms * rate / 1000), rate)
        path = write_session(folder, mics)
        manifest = json.loads(path.read_text())
        for entry in manifest["mics"]:
            entry["expected_delay_ms"] = audio.kick_delay_ms[entry["name"]]
        path.write_text(json.dumps(manifest))
        report_path = folder / "report.json"
        result = drumgate("align-qc", "--manifest", path, "--report", report_path, "--strict")
        assert result.exit_code == code, result.stdout
        report = json.loads(report_path.read_text())
        for row in report["metrics"]["pairs"]:
            late = late_ms if row["target"] == "overhead_l" else 0.0
            assert row["residual_ms"] == pytest.approx(late, abs=0.02)
        failed = [row["name"] for row in report["gating_results"] if not row["passed"]]
        assert failed == (["alignment.max_delay_ms[s1/overhead_l]"] if code else [])


# MDB Drums has one drum recording a song, not one a mic; but the full mix holds that recording
# among the other instruments, so drums against mix is a real pair with strong interference, and
# the stems of one song, which share no sound, are real pairs that must not be measured.
STEMS = {"Rock": 1, "Zeppelin": 2}


def _stem(root: Path, song: str, number: int) -> np.ndarray:
    name = f"MusicDelta_{song}_RAW"
    path = (
        root / f"mdb_drums/audio/multi-tracks/MusicDelta_{song}/{name}/{name}_{number:02d}_01.wav"
    )
    if not path.is_file():
        pytest.skip(f"needs {path}")
    audio, rate = read_audio(path, mono=True)
    assert rate == RATE
    return audio


@pytest.mark.parametrize("song", STEMS)
def test_real_drums_in_a_real_mix(shared_data: Path, song: str) -> None:
    drums = _stem(shared_data, song, STEMS[song])
    mix, _ = read_audio(
        shared_data / f"mdb_drums/audio/full_mix/MusicDelta_{song}_MIX.wav", mono=True
    )
    base = measure_pair(drums, mix, RATE)
    assert base.median_delay_ms == pytest.approx(0.0, abs=0.02)
    assert base.jumps == ()
    assert base.drift_ci[0] < 1.0
    assert base.drift_ci[1] > -1.0
    for samples in (10, 10.37, -30.5, 132.25):
        moved = measure_pair(drums, delayed(mix, samples), RATE)
        change = moved.median_delay_ms - base.median_delay_ms
        assert change == pytest.approx(samples * 1000 / RATE, abs=0.02)
        assert moved.drift_samples_per_min == pytest.approx(base.drift_samples_per_min, abs=0.2)
    for per_minute in (5.0, -40.0):
        moved = measure_pair(drums, drifting(mix, per_minute), RATE)
        change = moved.drift_samples_per_min - base.drift_samples_per_min
        assert change == pytest.approx(per_minute, abs=0.5)
    assert measure_pair(drums, -mix, RATE).polarity_inverted is not base.polarity_inverted
    seconds = len(mix) / RATE
    (jump,) = measure_pair(drums, jumping(mix, seconds / 2, 132), RATE).jumps
    assert jump.delay_ms == pytest.approx(132 * 1000 / RATE, abs=0.02)


@pytest.mark.parametrize("song", STEMS)
def test_real_recordings_that_share_nothing_are_not_measured(shared_data: Path, song: str) -> None:
    stems = [_stem(shared_data, song, number) for number in range(1, 5)]
    for anchor, target in itertools.permutations(stems, 2):
        assert not measure_pair(anchor, target, RATE).measured
