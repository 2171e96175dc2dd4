"""How fast and how exact is the alignment check? `python benchmarks/alignment.py --help`.

Speed: a synthesised five-mic session is written as 48 kHz WAV and checked, files and all, on one
core in a fresh process. Accuracy: lags, drifts, jumps and inversions are put into a synthesised
session (and, where MDB Drums is at hand, into real recordings) and measured again; the error is
against the same pair untouched. Jumps far beyond the search range and mics that go dead part-way
are put in as well, and what would pass is counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
import soundfile  # noqa: E402
from alignment_signals import delayed, drifting, jumping  # noqa: E402

from training.audio.reading import read_audio  # noqa: E402
from training.audio.synth.session import render_session, session_spec  # noqa: E402
from training.checks.alignment_judge import lost_stretches  # noqa: E402
from training.metrics.alignment import PairLag, measure_pair  # noqa: E402

RUN = """
import resource, sys, time
from pathlib import Path
from training.checks.alignment import Options, run

def peak():
    # On Linux ru_maxrss is inherited from the parent process; VmHWM is this process's own.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

base = peak()
wall, cpu = time.perf_counter(), time.process_time()
report = run(Options(manifests=(Path(sys.argv[1]),), jobs=1))
wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
print(wall, cpu, peak() - base, str(report.status))
"""
LAGS = (1.0, 10.0, 0.25, 0.5, 7.37, -20.81, 132.25)
DRIFTS = (1.5, -5.0, 30.0, -100.0)
JUMPS = (16, -32, 132)
LARGE_JUMPS_MS = (-30.0, 100.0, 500.0)
PLACES = (0.25, 0.4, 0.6, 0.75)
"""Where in the recording a mic jumps, or goes dead, as a share of its length."""
MIN_SUPPORT = 8


def speed(minutes: float, runs: int) -> None:
    """Print how much faster than real time a five-mic session is checked."""
    audio = render_session(session_spec(seed=1, duration_s=60.0 * minutes, sample_rate=48_000))
    with tempfile.TemporaryDirectory() as folder:
        mics = []
        for name, samples in audio.mics.items():
            soundfile.write(Path(folder, f"{name}.wav"), samples, 48_000, subtype="PCM_16")
            delay = round(audio.kick_delay_ms[name], 4)
            mics.append({"name": name, "path": f"{name}.wav", "expected_delay_ms": delay})
        manifest = Path(folder, "session.json")
        manifest.write_text(
            json.dumps({"session_id": "long", "anchor_mic": "kick_in", "mics": mics})
        )
        one_core = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        environment = {**os.environ, **one_core, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", RUN, str(manifest)]
        best = (np.inf, np.inf, 0.0, "")
        for _ in range(runs):
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=True
            )
            wall, cpu, memory, status = done.stdout.split()
            best = min(best, (float(wall), float(cpu), float(memory), status))
    wall, cpu, memory, status = best
    seconds = 60.0 * minutes
    print(f"{minutes:g} min, {len(mics)} mics, 48 kHz, PCM_16 WAV; best of {runs}; {status}")
    print(f"  wall {wall:6.2f} s   1/{seconds / wall:.0f} of the recording")
    print(f"  CPU  {cpu:6.2f} s   1/{seconds / cpu:.0f} of the recording")
    print(f"  memory on top of the imports: {memory:.0f} MiB")


def _row(name: str, lag: list[float], drift: list[float], jump: list[float], ok: bool) -> None:
    figures = [f"{max(values):9.4f}" if values else f"{'-':>9}" for values in (lag, drift, jump)]
    print(f"| {name:<34} |{figures[0]} |{figures[1]} |{figures[2]} | {'yes' if ok else 'NO':<8} |")


def _errors(name: str, anchor: np.ndarray, target: np.ndarray, rate: int, **given: float) -> None:
    """Print the largest error of every kind of change, against the untouched pair."""

    def measure(changed: np.ndarray) -> PairLag:
        return measure_pair(anchor, changed, rate, **given)

    base = measure(target)
    if not base.measured:
        print(f"| {name:<34} | {base.reason}")
        return
    lag_errors, drift_errors, jump_errors = [], [], []
    for samples in LAGS:
        found = measure(delayed(target, samples))
        change = found.median_delay_ms - base.median_delay_ms
        lag_errors.append(abs(change - 1000.0 * samples / rate))
        drift_errors.append(abs(found.drift_samples_per_min - base.drift_samples_per_min))
    for per_minute in DRIFTS:
        found = measure(drifting(target, per_minute, rate))
        change = found.drift_samples_per_min - base.drift_samples_per_min
        drift_errors.append(abs(change - per_minute))
    told = True
    for samples in JUMPS:
        found = measure(jumping(target, 0.45 * len(target) / rate, samples, rate))
        told = told and len(found.jumps) == 1
        for jump in found.jumps:
            jump_errors.append(abs(jump.delay_ms - 1000.0 * samples / rate))
    turned = measure(-target).polarity_inverted is not base.polarity_inverted
    _row(name, lag_errors, drift_errors, jump_errors, told and turned)


def _lost(name: str, anchor: np.ndarray, target: np.ndarray, rate: int, **given: float) -> None:
    """Print how many spoilt copies of a pair would pass, and whether the pair itself does."""

    def passes(changed: np.ndarray) -> bool:
        found = measure_pair(anchor, changed, rate, **given)
        counts, _ = lost_stretches(found, MIN_SUPPORT)
        return found.measured and not (found.max_jump_ms or counts)

    seconds = len(target) / rate
    passed = [
        sum(passes(jumping(target, at * seconds, round(ms * rate / 1000), rate)) for at in PLACES)
        for ms in LARGE_JUMPS_MS
    ]
    dead = sum(
        passes(np.where(np.arange(len(target)) < at * len(target), target, 0.0).astype("f4"))
        for at in PLACES
    )
    cells = " | ".join(f"{count} of {len(PLACES)}" for count in (*passed, dead))
    print(f"| {name:<34} | {cells} | {'yes' if passes(target) else 'NO':<8} |")


def accuracy(data: Path) -> None:
    """Print the largest errors on synthesised and on real recordings, and what is let through."""
    pairs = list(_pairs(data))
    print("| pair                               |  lag, ms | drift, sm/min | jump, ms | all told |")
    print("|---|---|---|---|---|")
    for name, anchor, target, rate, given in pairs:
        _errors(name, anchor, target, rate, **given)
    heads = " | ".join(f"{ms:g} ms" for ms in LARGE_JUMPS_MS)
    print(f"\n| let through: a jump of             | {heads} | a dead mic | itself |")
    print("|---|---|---|---|---|---|")
    for name, anchor, target, rate, given in pairs:
        _lost(name, anchor, target, rate, **given)


def _pairs(data: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray, int, dict[str, float]]]:
    """Make the pairs: name, anchor, target, rate and the expected delay."""
    audio = render_session(session_spec(seed=3, duration_s=60.0))
    for name, samples in audio.mics.items():
        if name != "kick_in":
            given = {"expected_delay_ms": audio.kick_delay_ms[name]}
            label = f"synthesised: kick_in to {name}"
            yield label, audio.mics["kick_in"], samples, audio.sample_rate, given
    root = data / "mdb_drums" / "audio"
    for song, number in (("Rock", 1), ("Zeppelin", 2)):
        name = f"MusicDelta_{song}_RAW"
        stem = root / f"multi-tracks/MusicDelta_{song}/{name}/{name}_{number:02d}_01.wav"
        mix = root / f"full_mix/MusicDelta_{song}_MIX.wav"
        if stem.is_file() and mix.is_file():
            drums, rate = read_audio(stem, mono=True)
            label = f"MDB {song}: drums to full mix"
            yield label, drums, read_audio(mix, mono=True)[0], rate, {}


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", choices=("speed", "accuracy"))
    given = parser.parse_args()
    if given.only != "accuracy":
        speed(given.minutes, given.runs)
    if given.only != "speed":
        accuracy(given.data)


if __name__ == "__main__":
    main()
