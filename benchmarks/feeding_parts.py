"""What benchmarks/feeding.py measures with: recordings, clips, CPU time and memory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from pathlib import Path

import numpy as np

SPAN_S = 60


def make(folder: Path, minutes: int, clips: int, rate: int = 44_100) -> None:
    """Write recordings of noise, a store of them, and a copy of it."""
    import soundfile

    from training.checks.build_dataset import Options, run

    rng = np.random.default_rng(0)
    lines = []
    for session in range(minutes):
        samples = rng.integers(-8000, 8000, rate * SPAN_S, dtype=np.int16)
        soundfile.write(folder / f"s{session}.wav", samples, rate)
        mine = clips // minutes + (session < clips % minutes)
        for hit, onset in enumerate(np.sort(rng.uniform(0, SPAN_S - 0.01, mine))):
            event = {"sample_id": f"s{session}-{hit}", "session_id": f"s{session}"}
            event |= {"onset_time": float(onset), "components": [{"label": "kick"}]}
            lines.append(json.dumps(event | {"audio_path": f"s{session}.wav"}))
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    out = folder / "store"
    run(Options(events=folder / "events.jsonl", out=out, val_ratio=0, test_ratio=0))
    shutil.copytree(out, folder / "cold")


def cut(folder: Path, preset: str) -> None:
    """Write one WAV a clip, of the preset's length."""
    import soundfile

    from training.dataset.store import ClipStore
    from training.loop.config import load_recipe

    features = load_recipe(preset).features
    split = ClipStore.open(folder / "store").split("train")
    shutil.rmtree(folder / "clips", ignore_errors=True)
    (folder / "clips").mkdir()
    for row in range(len(split)):
        rows = np.array([row])
        clip = split.gather(rows, pre=features.read_before, length=features.read_samples)[0]
        soundfile.write(folder / "clips" / f"{row}.wav", clip, features.sample_rate)


def children() -> list[Path]:
    """Return the folders below /proc of this process's workers (Linux only)."""
    try:
        return [
            Path("/proc") / p
            for p in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        ]
    except OSError:
        return []


def cpu_s() -> float:
    """Return the CPU time that this process and its workers have used."""
    ticks = [
        sum(map(int, (child / "stat").read_text().rpartition(")")[2].split()[11:13]))
        for child in children()
    ]
    return time.process_time() + sum(ticks) / os.sysconf("SC_CLK_TCK")


def peak_mib() -> float:
    """Return the most that this process and its workers have held, mapped files included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    for child in children():
        for line in (child / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak += int(line.split()[1]) / 1024
    return peak
