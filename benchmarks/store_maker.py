"""Makes what the store benchmarks read: recordings of noise, a clip store of them, a WAV a clip."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np

SPAN_S = 60
RATE = 44_100


def make_store(folder: Path, minutes: int, clips: int) -> float:
    """Write recordings of a minute each and their store; return the seconds to build the store."""
    import soundfile

    from training.checks.build_dataset import Options, run

    rng = np.random.default_rng(0)
    lines = []
    for session in range(minutes):
        samples = rng.integers(-8000, 8000, RATE * SPAN_S, dtype=np.int16)
        soundfile.write(folder / f"s{session}.wav", samples, RATE)
        mine = clips // minutes + (session < clips % minutes)
        for hit, onset in enumerate(np.sort(rng.uniform(0, SPAN_S - 0.01, mine))):
            event = {"sample_id": f"s{session}-{hit}", "session_id": f"s{session}"}
            event |= {"onset_time": float(onset), "components": [{"label": "kick"}]}
            lines.append(json.dumps(event | {"audio_path": f"s{session}.wav"}))
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    started = time.perf_counter()
    out = folder / "store"
    run(Options(events=folder / "events.jsonl", out=out, val_ratio=0, test_ratio=0))
    return time.perf_counter() - started


def cut_clips(folder: Path, *, pre: int, length: int) -> None:
    """Write each clip of the store as a WAV of its own, below `clips`, in place of those there."""
    import soundfile

    from training.dataset.store import ClipStore

    split = ClipStore.open(folder / "store").split("train")
    shutil.rmtree(folder / "clips", ignore_errors=True)
    (folder / "clips").mkdir()
    for row in range(len(split)):
        clip = split.gather(np.array([row]), pre=pre, length=length)[0]
        soundfile.write(folder / "clips" / f"{row}.wav", clip, RATE)
