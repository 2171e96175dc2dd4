"""One of several processes that train together: ``ddp_driver.py FOLDER``, under torchrun."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from ddp_cases import CASES, ddp_trainer, finished
from trainer_makers import At

from training.loop import NonFiniteLossError
from training.loop.distributed import World, joined


def run(world: World, folder: Path, case: str) -> dict[str, Any]:
    settings: dict[str, Any] = CASES[case]
    run_file = folder / f"{case}.pth"
    seen: dict[str, Any] = {"rank": world.rank, "size": world.size}
    if case == "signal":
        stop = At(4, lambda: os.kill(os.getpid(), signal.SIGTERM))  # of rank 0 alone
        try:
            ddp_trainer(world, run_file, callbacks=(stop,), **settings).train()
        except KeyboardInterrupt:
            seen["interrupted"] = True
    trainer = ddp_trainer(world, run_file, **settings)
    if case == "signal":
        trainer.load_checkpoint(run_file)
        seen["step"] = trainer.step
    if case == "nan":
        trainer.train_loader.x[5] = torch.inf
    try:
        trainer.train()
    except NonFiniteLossError as error:
        return seen | {"error": str(error), "rows": list(error.rows)}
    return seen | finished(trainer)


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with joined(torch.device("cpu")) as (world, device):
        seen = {case: run(world, folder, case) for case in CASES}
        (folder / f"{world.rank}.json").write_text(json.dumps(seen))
        assert world.any(world.rank == 1, device)
        assert world.from_lead(world.rank, device) == 0


if __name__ == "__main__":
    main(Path(sys.argv[1]))
