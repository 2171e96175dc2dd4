"""What benchmarks/feeding.py measures with: recordings, clips, CPU time and memory."""

from __future__ import annotations

import os
import resource
import shutil
import time
from pathlib import Path

from benchmarks.store_maker import cut_clips, make_store


def make(folder: Path, minutes: int, clips: int) -> None:
    """Write recordings of noise, a store of them, and a copy of it."""
    make_store(folder, minutes, clips)
    shutil.copytree(folder / "store", folder / "cold")


def cut(folder: Path, preset: str) -> None:
    """Write one WAV a clip, of the preset's length."""
    from training.loop.config import load_recipe

    features = load_recipe(preset).features
    cut_clips(folder, pre=features.read_before, length=features.read_samples)


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
