"""Choose the tier that the audio is trained from, by its size and what there is room for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import torch

from training.dataset.store import StoreSplit
from training.errors import DrumgateError
from training.loop.tiers import DeviceTier, DiskTier, MemoryTier, Tier, file_of

__all__ = ["TierName", "available_memory", "choose_tier", "open_tiers"]

TierName = Literal["auto", "device", "memory", "disk"]
_CGROUPS: Final = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "inactive_file"),
    (
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        "total_inactive_file",
    ),
)


def open_tiers(
    splits: Sequence[StoreSplit],
    device: torch.device,
    *,
    wanted: TierName = "auto",
    fraction: float = 0.5,
) -> tuple[list[Tier], str]:
    """Open the tier of each split, the same for all, and say which one it is and why.

    Args:
        splits: what will be fed.
        device: where the model is.
        wanted: a tier by name, or ``auto``.
        fraction: the largest share of free memory that the audio of ``auto`` may take.

    Raises:
        DrumgateError: a tier was asked for that there is not.
        InputError: a blob is missing or damaged.
    """
    size = sum(split.blob.nbytes for split in splits)
    on_device = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None
    in_memory = available_memory()
    name = wanted
    if wanted == "auto":
        name = choose_tier(size, on_device, in_memory, fraction=fraction)
    if name == "device" and on_device is None:
        raise DrumgateError(
            f"tier: there is no device beside the {device.type}; use memory, or --device cuda"
        )
    files = [file_of(split) for split in splits]
    if name == "disk" and None in files:
        if wanted == "disk":
            raise DrumgateError("tier: these clips lie in memory, not on disk")
        name = "memory"
    tiers: list[Tier] = []
    for split, path in zip(splits, files, strict=True):
        if name == "device":
            tiers.append(DeviceTier(split.blob, device=device))
        elif name == "disk" and path is not None:
            tiers.append(DiskTier(path, len(split.blob), device=device))
        else:
            tiers.append(MemoryTier(split.blob, device=device, load=True))
    room = f"{_size(in_memory)} of memory are free"
    if on_device is not None:
        room = f"{_size(on_device)} are free on the GPU, {room}"
    why = "as asked" if wanted != "auto" else f"at most {fraction:.0%} may be taken"
    where = {"device": "GPU memory", "memory": "memory", "disk": "disk"}[name]
    return tiers, f"{_size(size)} of audio are fed from {where} ({room}; {why})"


def choose_tier(
    size: int, on_device: int | None, in_memory: int, *, fraction: float = 0.5
) -> Literal["device", "memory", "disk"]:
    """Return the fastest tier that has room: all sizes in bytes, `on_device` None without a GPU."""
    if on_device is not None and size <= fraction * on_device:
        return "device"
    return "memory" if size <= fraction * in_memory else "disk"


def available_memory() -> int:
    """Return how many bytes of memory this process may still take.

    What files of others occupy in the page cache counts as free, and a container's limit as the
    end of it. Where the system does not say, half of its memory counts.
    """
    free: list[int] = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free += [int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    for limit_file, usage_file, reclaimable in _CGROUPS:
        limit = _number(Path(limit_file))
        usage = _number(Path(usage_file))
        if limit is not None and usage is not None:
            usage -= _statistic(Path(usage_file).parent / "memory.stat", reclaimable)
            free.append(max(0, limit - usage))
    if not free:
        free.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min(free)


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None


def _statistic(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key == name:
                return int(value)
    except (OSError, ValueError):
        pass
    return 0


def _size(number: int) -> str:
    for unit, step in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if number >= step:
            return f"{number / step:.1f} {unit}"
    return f"{number / 1024:.1f} KiB"
