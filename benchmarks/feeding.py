"""How much of the model's own speed is left when clips come from a store, by tier, in one run.

    python benchmarks/feeding.py [--preset default] [--device auto] [--rounds 5] [--seconds 3]

The yardstick is a training step of the CNN alone on ready-made log-mel tensors on the device. Then,
each with the same step: batches from a store with the log-mel left out, with it, and with the
preset's augmentation as well, for each tier; and a DataLoader over one WAV file a clip with librosa
in ``__getitem__``, without worker processes and with one a core. The disk tier reads a file of its
own that is dropped from the page cache before each measurement. Clips a core-second count the CPU
time used, workers' included: on a machine that others use as well they say more than clips/s.

Every way has a process of its own, for its memory; they are measured in turn, round after round,
each right after the yardstick, and a ratio is the median of the rounds'.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

SPAN_S = 60
RATES = ("clips_per_s", "clips_per_core_s")
LOADER = "one WAV a clip, librosa"


def make(folder: Path, minutes: int, clips: int, preset: str) -> None:
    """Write recordings of noise, a store of them, a copy of it, and one WAV a clip."""
    import soundfile

    from training.checks.build_dataset import Options, run
    from training.dataset.store import ClipStore
    from training.loop.config import load_recipe

    features = load_recipe(preset).features
    rate = features.sample_rate
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
    split = ClipStore.open(out).split("train")
    (folder / "clips").mkdir()
    for row in range(len(split)):
        rows = np.array([row])
        clip = split.gather(rows, pre=features.read_before, length=features.read_samples)[0]
        soundfile.write(folder / "clips" / f"{row}.wav", clip, rate)


class Way:
    """One way of training, in a process of its own."""

    def __init__(self, given: argparse.Namespace) -> None:
        import torch

        from training.loop.augment import SpectralAugment, WaveAugment
        from training.loop.config import load_recipe
        from training.model.cnn import DrumClassifier, ModelConfig
        from training.model.inference import resolve_device
        from training.model.losses import DrumLoss

        self.torch = torch
        self.given = given
        self.device = resolve_device(given.device)
        self.recipe = load_recipe(given.preset)
        self.batch = given.batch or self.recipe.training.batch_size
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True
        self.model = DrumClassifier(
            self.recipe.features,
            ModelConfig(),
            augment=SpectralAugment(self.recipe.augment) if given.stage == "augmented" else None,
        ).to(self.device)
        bands = self.model.logmel.mean
        self.model.logmel.set_statistics(
            torch.full_like(bands, -30.0), torch.full_like(bands, 15.0)
        )
        self.augment = None
        if given.stage == "augmented":
            self.augment = WaveAugment(self.recipe.augment, self.recipe.features)
        self.optimiser = torch.optim.AdamW(
            self.model.parameters(), lr=1e-3, fused=self.device.type == "cuda"
        )
        self.criterion = DrumLoss().to(self.device)
        shape = (self.batch, self.recipe.features.n_mels, self.recipe.features.frames)
        self.ready = torch.randn(shape, device=self.device)
        self.stream = iter(self._batches())

    def _batches(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield (audio or log-mel, targets) for ever."""
        torch, batch = self.torch, self.batch
        if self.given.way == "model":
            targets = {
                "labels": (torch.rand(batch, 12) > 0.8).float().to(self.device),
                "annotated": torch.ones(batch, 12, device=self.device),
                "velocity": torch.rand(batch, device=self.device),
                "openness": torch.rand(batch, device=self.device),
            }
            while True:
                yield self.ready, targets
        if self.given.way.startswith("loader"):
            loader = self._loader()
            while True:
                yield from loader
        feed = self._feed()
        epoch = 0
        while True:
            yield from feed.batches(epoch)
            epoch += 1

    def _feed(self) -> Any:
        from training.dataset.samplers import Blocks, EpochSampler
        from training.dataset.store import ClipStore
        from training.loop.feed import ClipFeed
        from training.loop.placement import open_tiers

        name = self.given.way.partition("-")[0]
        folder = self.given.folder / ("cold" if name == "disk" else "store")
        split = ClipStore.open(folder).split("train")
        blocks = Blocks(positions=split.onset) if "blocks" in self.given.way else None
        (tier,), _ = open_tiers([split], self.device, wanted=name)
        return ClipFeed(
            split,
            self.recipe.features,
            batch_size=self.batch,
            sampler=EpochSampler(len(split), self.batch, 0, blocks=blocks),
            jitter_ms=self.recipe.augment.jitter_ms,
            margin=self.augment.margin if self.augment else 0,
            tier=tier,
        )

    def _loader(self) -> Any:
        import librosa

        torch, features = self.torch, self.recipe.features
        folder = self.given.folder / "clips"
        files = sorted(folder.iterdir())

        class Clips(torch.utils.data.Dataset):
            def __len__(self) -> int:
                return len(files)

            def __getitem__(self, index: int) -> tuple[Any, dict[str, Any]]:
                samples, rate = librosa.load(files[index], sr=None)
                mel = librosa.feature.melspectrogram(
                    y=samples,
                    sr=rate,
                    n_fft=features.n_fft,
                    hop_length=features.hop,
                    n_mels=features.n_mels,
                    fmin=features.fmin,
                    fmax=features.fmax,
                    center=False,
                )
                targets = {
                    "labels": np.eye(12, dtype=np.float32)[0],
                    "annotated": np.ones(12, dtype=np.float32),
                    "velocity": np.float32("nan"),
                    "openness": np.float32("nan"),
                }
                return librosa.power_to_db(mel)[:, : features.frames].astype(np.float32), targets

        workers = int(self.given.way.partition("-")[2])
        return torch.utils.data.DataLoader(
            Clips(),
            batch_size=self.batch,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def step(self) -> None:
        """Make one training step."""
        torch = self.torch
        inputs, targets = next(self.stream)
        inputs = inputs.to(self.device, non_blocking=True)
        targets = {k: v.to(self.device, non_blocking=True) for k, v in targets.items()}
        if self.augment is not None:
            inputs, targets = self.augment(inputs, targets)
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on_gpu):
            if self.given.stage in ("logmel", "augmented"):
                outputs = self.model(inputs)
            else:
                made = self.given.way == "model" or not self.given.way.startswith("loader")
                outputs = self.model.cnn(self.ready[: len(inputs)] if made else inputs)
            loss = self.criterion(outputs, targets)["total"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.seen += len(inputs)

    def measure(self, seconds: float) -> dict[str, float]:
        """Train for so long; return clips a second and the memory held at most, in MiB."""
        if self.given.way.startswith("disk"):
            file = os.open(self.given.folder / "cold" / "train.pcm", os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
        self.seen = 0
        self._wait()
        started, used = time.perf_counter(), cpu_s()
        while self.seen < 4 * self.batch or time.perf_counter() - started < seconds:
            for _ in range(10 if self.device.type == "cuda" else 1):
                self.step()
            self._wait()
        took = time.perf_counter() - started
        on_gpu = 0.0
        if self.device.type == "cuda":
            on_gpu = self.torch.cuda.max_memory_allocated(self.device) / 2**20
        return {
            "clips_per_s": self.seen / took,
            "clips_per_core_s": self.seen / (cpu_s() - used),
            "peak_mib": peak_mib(),
            "gpu_mib": on_gpu,
        }

    def _wait(self) -> None:
        if self.device.type == "cuda":
            self.torch.cuda.synchronize(self.device)


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


def work(given: argparse.Namespace) -> None:
    """Measure whenever a line comes, until they end."""
    way = Way(given)
    way.measure(given.seconds / 2)  # to warm up
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(way.measure(given.seconds)), flush=True)
    os._exit(0)  # loaders and threads go with the process


def ways(device: str) -> dict[str, tuple[str, str]]:
    """Return what is measured: a line of the table, and way and stage of the process."""
    tiers = ["device", "memory", "disk"] if device == "cuda" else ["memory", "disk"]
    found = {"the CNN alone, ready-made log-mel": ("model", "ready")}
    for stage, words in (
        ("ready", "without log-mel"),
        ("logmel", "with log-mel"),
        ("augmented", "with log-mel and augmentation"),
    ):
        found |= {f"store, {tier}, {words}": (tier, stage) for tier in tiers}
    found["store, disk in blocks, with log-mel"] = ("disk-blocks", "logmel")
    cores = len(os.sched_getaffinity(0))
    found[f"{LOADER}, no workers"] = ("loader-0", "ready")
    found[f"{LOADER}, {cores} workers"] = (f"loader-{cores}", "ready")
    return found


def compare(given: argparse.Namespace, folder: Path) -> dict[str, list[dict[str, float]]]:
    """Measure every way in turn, round after round."""
    command = [sys.executable, __file__, "--folder", str(folder), "--preset", given.preset]
    command += ["--device", given.device, "--batch", str(given.batch)]
    command += ["--seconds", str(given.seconds)]
    processes: dict[str, subprocess.Popen[str]] = {}
    results: dict[str, list[dict[str, float]]] = {}

    def heard(name: str) -> dict[str, float]:
        stream = processes[name].stdout
        line = stream.readline() if stream else ""
        if not line:
            raise SystemExit(f"{name}: the process has ended")
        answer: dict[str, float] = json.loads(line)
        return answer

    def measured(name: str) -> dict[str, float]:
        stream = processes[name].stdin
        assert stream is not None
        stream.write("go\n")
        stream.flush()
        return heard(name)

    try:
        for name, (way, stage) in ways(given.device).items():
            processes[name] = subprocess.Popen(
                [*command, "--way", way, "--stage", stage],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # as the commands have it
                start_new_session=True,
            )
            heard(name)
        yardstick, *others = processes
        for _ in range(given.rounds):
            for name in others:
                of, run = measured(yardstick), measured(name)
                for figure in RATES:
                    run[f"{figure}_ratio"] = run[figure] / of[figure]
                    of[f"{figure}_ratio"] = 1.0
                results.setdefault(yardstick, []).append(of)
                results.setdefault(name, []).append(run)
    finally:
        for process in processes.values():
            os.killpg(process.pid, signal.SIGKILL)  # its loader's workers too
            process.wait()
    return results


def table(results: dict[str, list[dict[str, float]]], on_gpu: bool) -> Iterator[str]:
    """Yield the lines of the table."""
    gpu = f"{'GPU MiB':>9}" if on_gpu else ""
    yield f"{'':45}{'clips/s':>9}{'ratio':>8}{'clips/core-s':>14}{'ratio':>8}{'peak MiB':>10}{gpu}"
    for name, runs in results.items():
        line = f"{name:45}"
        for figure, width in zip(RATES, (9, 14), strict=True):
            line += f"{np.median([run[figure] for run in runs]):>{width},.0f}"
            line += f"{np.median([run[f'{figure}_ratio'] for run in runs]):>8.1%}"
        line += f"{max(run['peak_mib'] for run in runs):>10,.0f}"
        yield line + (f"{max(run['gpu_mib'] for run in runs):>9,.0f}" if on_gpu else "")


def main() -> None:
    """Make the data, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="default", choices=["default", "short", "fast"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=0, help="clips a batch [the preset's]")
    parser.add_argument("--minutes", type=int, default=20)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.way:
        work(given)
        return
    import torch

    if given.device == "auto":
        given.device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as name:
        make(Path(name), given.minutes, given.clips, given.preset)
        results = compare(given, Path(name))
    for line in table(results, given.device == "cuda"):
        print(line)
    where = torch.cuda.get_device_name() if given.device == "cuda" else f"{os.cpu_count()} cores"
    print(f"preset {given.preset}, {where}, PyTorch {torch.__version__}, median of {given.rounds}")


if __name__ == "__main__":
    main()
