"""Kill runs of the trainer with SIGKILL at many points, resume each, and say how that came out.

A process of its own, which forks: ``kill_driver.py FOLDER`` prints ``{point: [killed, same]}``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from trainer_makers import At, assert_same, small_trainer

from training.loop import Callback
from training.manifest import write
from training.model import checkpoint


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def on_step(step: int) -> Callable[[], tuple[Callback, ...]]:
    return lambda: (At(step, die),)


def on_write(number: int, where: str) -> Callable[[], tuple[Callback, ...]]:
    """Die in the `number`-th write: half way through, before the sync, or after the rename."""

    def prepare() -> tuple[Callback, ...]:
        count = 0
        save, sync, replace = torch.save, os.fsync, Path.replace

        def half(content: Any, file: Any) -> None:
            nonlocal count
            count += 1
            save(content, file)
            if count == number and where == "half":
                file.truncate(file.tell() // 2)
                file.flush()
                die()

        def synced(descriptor: int) -> None:
            if count == number and where == "sync":
                die()
            sync(descriptor)

        def replaced(path: Path, target: Path) -> Any:
            if count == number and where == "before":
                die()
            found = replace(path, target)
            if count == number and where == "after":
                die()
            return found

        checkpoint.torch.save = half  # type: ignore[attr-defined]
        write.os.fsync = synced  # type: ignore[attr-defined]
        Path.replace = replaced  # type: ignore[assignment,method-assign]
        return ()

    return prepare


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    whole = small_trainer(ema_decay=0.9)
    whole.train()
    points: dict[str, Callable[[], tuple[Callback, ...]]] = {
        f"step {step}": on_step(step) for step in range(1, whole.step + 1)
    }
    for number in range(1, 22, 3):
        for where in ("half", "sync", "before", "after"):
            points[f"write {number} {where}"] = on_write(number, where)
    outcomes = {}
    for name, prepare in points.items():
        run_file = folder / name.replace(" ", "_") / "run.pth"
        child = os.fork()
        if child == 0:
            small_trainer(run_file, callbacks=prepare(), ema_decay=0.9).train()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        resumed = small_trainer(run_file, ema_decay=0.9)
        if run_file.exists():
            resumed.load_checkpoint(run_file)
        resumed.train()
        try:
            assert_same(resumed, whole)
            same = "same"
        except AssertionError as error:
            same = f"differs: {error}"
        outcomes[name] = ["killed" if killed else "ended", same]
    sys.stdout.write(json.dumps(outcomes))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
