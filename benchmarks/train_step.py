"""Clips a second of a training step, by preset: with features from clips, and the CNN alone.

Synthetic clips, the batch size of each preset. `--threads` sets the CPU threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import click
import torch

from training.loop.augment import SpectralAugment, WaveAugment
from training.loop.config import load_recipe
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.losses import DrumLoss


def clips_per_s(
    step: Callable[[], None], batch: int, seconds: float, device: torch.device
) -> float:
    """Run `step` for about `seconds` and return the clips a second."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        step()
    wait()
    done, start = 0, time.perf_counter()
    together = 10 if device.type == "cuda" else 1  # the host queues work ahead, as in a run
    while time.perf_counter() - start < seconds:
        for _ in range(together):
            step()
        wait()
        done += together * batch
    return done / (time.perf_counter() - start)


@click.command()
@click.option("--threads", type=int, default=2, show_default=True)
@click.option("--seconds", type=float, default=4.0, show_default=True, help="A measurement.")
@click.option("--device", default="cpu", show_default=True)
def main(threads: int, seconds: float, device: str) -> None:
    """Print a table."""
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = True
    where = torch.device(device)
    print(f"{'preset':<10}{'batch':>6}{'whole step':>14}{'CNN alone':>14}{'features':>12}")
    for preset in ("default", "short", "fast"):
        recipe = load_recipe(preset)
        features, config = recipe.features, recipe.training
        if where.type == "cpu":
            config = replace(config, batch_size=min(config.batch_size, 32))
        batch = config.batch_size
        model = DrumClassifier(features, ModelConfig(), augment=SpectralAugment(recipe.augment)).to(
            where
        )
        on_gpu = where.type == "cuda"
        optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=on_gpu)
        criterion = DrumLoss().to(where)
        augment = WaveAugment(recipe.augment, features)
        audio = (torch.randn(batch, features.read_samples) * 3000).to(torch.int16).to(where)
        targets = {
            "labels": (torch.rand(batch, 12) > 0.8).float().to(where),
            "annotated": torch.ones(batch, 12, device=where),
            "velocity": torch.rand(batch, device=where),
            "openness": torch.rand(batch, device=where),
        }

        def learn(forward: Callable[[], dict[str, torch.Tensor]]) -> None:
            # As in a run: bf16 on a GPU, float32 elsewhere.
            with torch.autocast(where.type, torch.bfloat16, enabled=on_gpu):  # noqa: B023
                loss = criterion(forward(), targets)["total"]  # noqa: B023
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # noqa: B023
            optimiser.step()  # noqa: B023
            optimiser.zero_grad(set_to_none=True)  # noqa: B023

        def whole() -> None:
            varied, _ = augment(audio, targets)  # noqa: B023
            learn(lambda: model(varied))  # noqa: B023

        with torch.no_grad():
            spectrogram = model.logmel(audio)
        rates = [
            clips_per_s(whole, batch, seconds, where),
            clips_per_s(
                lambda: learn(lambda: model.cnn(spectrogram)),  # noqa: B023
                batch,
                seconds,
                where,
            ),
            clips_per_s(lambda: model.logmel(audio), batch, seconds, where),  # noqa: B023
        ]
        print(f"{preset:<10}{batch:>6}{rates[0]:>14.0f}{rates[1]:>14.0f}{rates[2]:>12.0f}")
    print(f"clips/s, {threads} threads, {device}, PyTorch {torch.__version__}")


if __name__ == "__main__":
    main()
