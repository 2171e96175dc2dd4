"""Small drum data for the trainer's tests: three sounds that differ, in memory or as a store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from training.audio.logmel import FeatureConfig
from training.checks import build_dataset
from training.dataset.store import StoreSplit

RATE = 8000
NAMES = ("kick", "snare", "hihat_closed")
FEATURES = FeatureConfig(
    sample_rate=RATE, n_fft=256, hop=64, n_mels=16, frames=16, preroll_ms=10.0, fmax=4000.0
)
"""A window of 120 ms at 8 kHz: everything the real one has, 60 times cheaper."""

CONFIG = """
[features]
sample_rate = 8000
n_fft = 256
hop = 64
n_mels = 16
frames = 16
preroll_ms = 10.0
fmax = 4000.0

[training]
threads = 1
log_every = 1
patience = 50
learning_rate = 3e-3
"""


def hit(kind: int, rng: np.random.Generator, velocity: float = 1.0) -> np.ndarray:
    """A thump, a burst of noise, or a hiss; 100 ms."""
    t = np.arange(RATE // 10) / RATE
    if kind == 0:
        sound = np.sin(2 * np.pi * 90 * t) * np.exp(-t * 30)
    elif kind == 1:
        sound = rng.standard_normal(len(t)) * np.exp(-t * 40) * 0.5
    else:
        sound = np.diff(rng.standard_normal(len(t) + 1)) * np.exp(-t * 90) * 0.5
    return 0.3 * velocity * sound


def recording(
    n: int, rng: np.random.Generator, gap_s: float = 0.25
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A recording of `n` hits, one or two sounds each, and what was struck when."""
    samples = 1e-3 * rng.standard_normal(int((n + 1) * gap_s * RATE))
    events = []
    for index in range(n):
        onset = int((index + 0.5) * gap_s * RATE)
        kinds = sorted({int(k) for k in rng.integers(0, 3, size=rng.integers(1, 3))})
        velocity = float(rng.uniform(0.3, 1.0))
        for kind in kinds:
            sound = hit(kind, rng, velocity)
            samples[onset : onset + len(sound)] += sound
        events.append({"onset": onset, "kinds": kinds, "velocity": velocity})
    return samples, events


def split(n: int, seed: int = 0, name: str = "train") -> StoreSplit:
    """A split in memory: one recording of `n` hits."""
    rng = np.random.default_rng(seed)
    samples, events = recording(n, rng)
    guard = RATE
    blob = np.zeros(len(samples) + 2 * guard, dtype=np.int16)
    blob[guard : guard + len(samples)] = np.rint(samples * 32767).clip(-32768, 32767)
    labels = np.zeros((n, 3), dtype=np.uint8)
    for row, event in enumerate(events):
        labels[row, event["kinds"]] = 1
    return StoreSplit(
        name=name,
        sample_rate=RATE,
        guard=guard,
        blob=blob,
        sample_ids=[f"{name}_{index}" for index in range(n)],
        session_ids=[f"{name}_session"] * n,
        sources=["made"] * n,
        onset=np.array([guard + event["onset"] for event in events]),
        segment_start=np.full(n, guard),
        segment_stop=np.full(n, guard + len(samples)),
        labels=labels,
        annotated=np.ones_like(labels),
        velocity=np.array([event["velocity"] for event in events], dtype=np.float32),
        openness=np.full(n, np.nan, dtype=np.float32),
        is_background=np.zeros(n, dtype=np.uint8),
    )


def write_recordings(folder: Path, splits: dict[str, int], seed: int = 0) -> Path:
    """Write one recording a split below `folder` and return the manifest of them all."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for name, n in splits.items():
        samples, events = recording(n, rng)
        soundfile.write(folder / f"{name}.wav", samples, RATE, subtype="PCM_16")
        for index, event in enumerate(events):
            lines.append(
                {
                    "sample_id": f"{name}_{index:03d}",
                    "session_id": f"{name}_session",
                    "onset_time": event["onset"] / RATE,
                    "components": [
                        {"label": NAMES[kind], "velocity": round(event["velocity"], 3)}
                        for kind in event["kinds"]
                    ],
                    "audio_path": f"{name}.wav",
                    "split": name,
                }
            )
    manifest = folder / "events.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def build_store(folder: Path, splits: dict[str, int], seed: int = 0) -> tuple[Path, Path]:
    """Make recordings and a clip store of them; return the manifest and the store."""
    manifest = write_recordings(folder / "audio", splits, seed)
    store = folder / "dataset"
    build_dataset.run(
        build_dataset.Options(
            events=manifest,
            out=store,
            split_by="official",
            val_ratio=0.1 if "val" in splits else 0.0,
            sample_rate=RATE,
        )
    )
    return manifest, store


def write_readiness(path: Path, manifest_sha256: str, status: str = "pass", **extra: Any) -> Path:
    """Write what the trainer reads of a readiness report."""
    report = {
        "tool": "run-readiness-checks",
        "status": status,
        "inputs": [{"path": "events.jsonl", "sha256": manifest_sha256, "bytes": 1}],
        "gating_results": [{"name": "health.min_class_count", "status": status}],
        **extra,
    }
    path.write_text(json.dumps(report))
    return path
