"""How much of the model's own speed is left when clips come from a store, by tier, in one run.

    python benchmarks/feeding.py [--preset all] [--device auto] [--budget 330]

The yardstick is a training step of the CNN alone on ready-made log-mel tensors on the device. Then,
each with the same step: batches from a store with the log-mel left out, with it, and with the
preset's augmentation as well, for each tier; and a DataLoader over one WAV file a clip with librosa
in ``__getitem__``, without worker processes and with one a core. The disk tier reads a file of its
own that is dropped from the page cache before each measurement. Clips a core-second count the CPU
time used, workers' included: on a machine that others use as well they say more than clips/s.

Every way has a process of its own, for its memory; they are measured in turn, round after round,
two after each look at the yardstick, and a ratio is the median of the rounds'. Nothing that was
made ready before a measurement counts: a store begins with an epoch and is measured over whole
ones, and what a DataLoader has ready is thrown away. Presets share the time that `--budget` gives;
each has as many rounds as fit, one at least. On an idle machine the table of docs/data.md comes
out.
"""

from __future__ import annotations

import argparse
import json
import os
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

from benchmarks.feeding_parts import cpu_s, cut, make, peak_mib

PRESETS = ["default", "short", "fast"]
RATES = ("clips_per_s", "clips_per_core_s")
LOADER = "one WAV a clip, librosa"
TIERS = ("device", "memory", "disk")


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
        self.way = self.given.way.partition("-")[0]
        self.feed = self._feed() if self.way in TIERS else None
        self.loader = self._loader() if self.way == "loader" else None
        self.epoch = 0
        self.stream = self._batches()

    def _batches(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yield (audio or log-mel, targets): of one epoch from a store, else for ever."""
        torch, batch = self.torch, self.batch
        if self.way == "model":
            targets = {
                "labels": (torch.rand(batch, 12) > 0.8).float().to(self.device),
                "annotated": torch.ones(batch, 12, device=self.device),
                "velocity": torch.rand(batch, device=self.device),
                "openness": torch.rand(batch, device=self.device),
            }
            while True:
                yield self.ready, targets
        if self.loader is not None:
            yield from self.loader
        if self.feed is not None:
            yield from self.feed.batches(self.epoch)
            self.epoch += 1

    def _feed(self) -> Any:
        from training.dataset.samplers import Blocks, EpochSampler
        from training.dataset.store import ClipStore
        from training.loop import feed
        from training.loop.placement import open_tiers

        folder = self.given.folder / ("cold" if self.way == "disk" else "store")
        split = ClipStore.open(folder).split("train")
        blocks = Blocks(positions=split.onset) if "blocks" in self.given.way else None
        (tier,), _ = open_tiers([split], self.device, wanted=self.way)
        if self.device.type == "cpu":
            # Few clips make an epoch here. Read at once, as of many, none would be read ahead.
            feed.CHUNK_BYTES = 1 << 22
        return feed.ClipFeed(
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
        drawn = torch.utils.data.RandomSampler(Clips(), replacement=True, num_samples=10**7)
        return torch.utils.data.DataLoader(
            Clips(),
            batch_size=self.batch,
            sampler=drawn,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
        )

    def step(self) -> bool:
        """Make one training step; return False where an epoch is over."""
        torch = self.torch
        batch = next(self.stream, None)
        if batch is None:
            self.stream = self._batches()
            return False
        inputs, targets = batch
        inputs = inputs.to(self.device, non_blocking=True)
        targets = {k: v.to(self.device, non_blocking=True) for k, v in targets.items()}
        if self.augment is not None:
            inputs, targets = self.augment(inputs, targets)
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=on_gpu):
            if self.given.stage in ("logmel", "augmented"):
                outputs = self.model(inputs)
            else:
                made = inputs if self.way == "loader" else self.ready[: len(inputs)]
                outputs = self.model.cnn(made)
            loss = self.criterion(outputs, targets)["total"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.seen += len(inputs)
        return True

    def _begin(self) -> None:
        """Throw away what is ready, and what of a file lies in the page cache."""
        if self.way == "disk":
            file = os.open(self.given.folder / "cold" / "train.pcm", os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
        if self.loader is not None:
            for _ in range(2 * self.loader.num_workers):
                next(self.stream)
        self.seen = 0
        self._wait()

    def measure(self, seconds: float) -> dict[str, float]:
        """Train for so long; return clips a second and the memory held at most, in MiB."""
        self._begin()
        started, used = time.perf_counter(), cpu_s()
        at_end = self.feed is None
        while self.seen < 2 * self.batch or time.perf_counter() - started < seconds or not at_end:
            more = self.step()
            at_end = self.feed is None or not more
            if self.device.type != "cuda" or self.seen % (10 * self.batch) == 0 or not more:
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


def compare(
    given: argparse.Namespace, folder: Path, preset: str, until: float
) -> dict[str, list[dict[str, float]]]:
    """Measure every way in turn, round after round, as long as another round ends in time."""
    command = [sys.executable, __file__, "--folder", str(folder), "--preset", preset]
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
        for name in processes:
            heard(name)
        yardstick, *others = processes
        took = 0.0
        while not results or time.monotonic() + took < until:
            begun = time.monotonic()
            for number, name in enumerate(others):
                if number % 2 == 0:
                    of = measured(yardstick)
                run = measured(name)
                for figure in RATES:
                    run[f"{figure}_ratio"] = run[figure] / of[figure]
                    of[f"{figure}_ratio"] = 1.0
                if number % 2 == 0:
                    results.setdefault(yardstick, []).append(of)
                results.setdefault(name, []).append(run)
            took = time.monotonic() - begun
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
    parser.add_argument("--preset", default="all", choices=["all", *PRESETS])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=0, help="clips a batch [the preset's]")
    parser.add_argument("--minutes", type=int, help="of audio [10; on a GPU 60]")
    parser.add_argument("--clips", type=int, help="of it, an epoch [192; on a GPU 20,000]")
    parser.add_argument("--seconds", type=float, default=1.0, help="a measurement [1]")
    parser.add_argument("--budget", type=float, default=330.0, help="seconds for all [330]")
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
    on_gpu = given.device == "cuda"
    where = torch.cuda.get_device_name() if on_gpu else f"{len(os.sched_getaffinity(0))} CPU cores"
    presets = PRESETS if given.preset == "all" else [given.preset]
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        minutes, clips = (60, 20_000) if on_gpu else (10, 192)
        make(Path(name), given.minutes or minutes, given.clips or clips)
        for number, preset in enumerate(presets, start=1):
            cut(Path(name), preset)
            until = begun + given.budget * number / len(presets)
            results = compare(given, Path(name), preset, until)
            rounds = len(results[next(reversed(results))])
            print(f"{preset}: {where}, PyTorch {torch.__version__}, rounds: {rounds}")
            print("\n".join(table(results, on_gpu)), flush=True)


if __name__ == "__main__":
    main()
