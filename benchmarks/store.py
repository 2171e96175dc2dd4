"""How fast a clip store hands out batches, against one WAV file a clip, measured in one run.

    python benchmarks/store.py [--minutes 60] [--clips 3000] [--batches 200]

Makes recordings of noise in a temporary folder, cuts clips of 25,400 samples (576 ms at 44.1 kHz)
out of them, then reads the same random batches of 64 clips both ways, each in a process of its
own. Both deliver int16 arrays of shape (64, 25400); the page cache is warm for both.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.store_maker import cut_clips, make_store

LENGTH, PRE, BATCH = 25_400, 2_205, 64


def make(folder: Path, minutes: int, clips: int) -> dict[str, int]:
    """Write recordings, a store of them, and one WAV a clip; return the bytes of either."""
    seconds = make_store(folder, minutes, clips)
    print(f"built the store of {minutes} min of audio in {seconds:.1f} s")
    cut_clips(folder, pre=PRE, length=LENGTH)
    wavs = sum(file.stat().st_size for file in (folder / "clips").iterdir())
    return {"blob_bytes": (folder / "store" / "train.pcm").stat().st_size, "wav_bytes": wavs}


def measure(folder: Path, mode: str, batches: int) -> dict[str, float]:
    """Read random batches; return clips a second and how far the process grew, in MiB."""
    import soundfile

    from training.dataset.store import ClipStore

    split = ClipStore.open(folder / "store").split("train")
    clips = folder / "clips"
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, len(split), BATCH) for _ in range(batches)]
    out = np.empty((BATCH, LENGTH), dtype=np.int16)
    checksum = 0
    before = memory_mib()
    for chosen in (rows[:5], rows):  # a few to warm up
        started = time.perf_counter()
        for batch in chosen:
            if mode == "store":
                split.gather(batch, pre=PRE, length=LENGTH, out=out)
            else:
                for index, row in enumerate(batch.tolist()):
                    out[index] = soundfile.read(clips / f"{row}.wav", dtype="int16")[0]
            checksum += int(out[:, LENGTH // 2].sum())
        seconds = time.perf_counter() - started
    rate, after = batches * BATCH / seconds, memory_mib()
    grown = {name: after[name] - before[name] for name in after}
    return {"clips_per_s": rate, "checksum": checksum, **grown}


def memory_mib() -> dict[str, float]:
    """Return what this process holds of its own, and what it has mapped of files (Linux only)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return {"own_mib": float("nan"), "mapped_mib": float("nan")}
    found = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if " kB" in line}
    return {"own_mib": found["RssAnon"], "mapped_mib": found["RssFile"]}


def main() -> None:
    """Make the data, run each way three times in turn, print the medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--clips", type=int, default=8000)
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--mode", choices=["store", "wavs"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.mode:
        print(json.dumps(measure(given.folder, given.mode, given.batches)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = make(folder, given.minutes, given.clips)
        command = [sys.executable, __file__, "--folder", name, "--batches", str(given.batches)]
        results: dict[str, list[dict[str, float]]] = {"store": [], "wavs": []}
        for _ in range(3):
            for mode, runs in results.items():
                said = subprocess.run(
                    [*command, "--mode", mode], check=True, capture_output=True, text=True
                ).stdout
                runs.append(json.loads(said))
    sums = {run["checksum"] for runs in results.values() for run in runs}
    if len(sums) > 1:
        raise SystemExit("the two ways did not deliver the same samples")
    rate = {m: float(np.median([run["clips_per_s"] for run in r])) for m, r in results.items()}
    print(f"{'':18}{'clips/s':>10}{'MiB on disk':>13}{'own memory +MiB':>17}{'mapped +MiB':>13}")
    for mode, size in (("store", "blob_bytes"), ("wavs", "wav_bytes")):
        label = "clip store, gather" if mode == "store" else "one WAV a clip"
        mib = sizes[size] / 2**20
        own, mapped = (max(run[k] for run in results[mode]) for k in ("own_mib", "mapped_mib"))
        print(f"{label:18}{rate[mode]:>10,.0f}{mib:>13,.0f}{own:>17,.1f}{mapped:>13,.0f}")
    print(f"ratio {rate['store'] / rate['wavs']:.1f}x, the same samples both ways")


if __name__ == "__main__":
    main()
