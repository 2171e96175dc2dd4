"""How PyTorch is set up for a run: algorithms, compiling, and what a device cannot do."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from training.errors import DrumgateError
from training.loop.config import TrainingConfig
from training.loop.distributed import World
from training.loop.optimisers import precision
from training.model.precision import whole_float32

__all__ = ["algorithms", "as_written", "compile_network", "notes", "prepare", "with_shared_norms"]

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def prepare(config: TrainingConfig) -> None:
    """Set what must be set before PyTorch computes anything: threads, cuBLAS's workspace."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.deterministic:
        os.environ.setdefault(WORKSPACE, ":4096:8")


@contextmanager
def algorithms(config: TrainingConfig, device: torch.device) -> Iterator[None]:
    """Choose algorithms for as long as the block lasts: deterministic ones, or the fastest.

    What is computed in float32 is computed with all its digits (`whole_float32`), so that the
    figures of a validation are those of the model that is saved, whatever the device.

    cuBLAS reads its workspace setting when it is first used; a run sets it before anything else. On
    CUDA an operation without a deterministic form warns and goes on, since PyTorch also names some
    whose result does not vary: max-pooling whose windows do not overlap, for one.
    """
    cudnn = torch.backends.cudnn
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.deterministic,
        cudnn.benchmark,
    )
    cudnn.benchmark = device.type == "cuda" and not config.deterministic
    if config.deterministic:
        os.environ.setdefault(WORKSPACE, ":4096:8")
        cudnn.deterministic = True
        torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    try:
        with whole_float32(device), warnings.catch_warnings():
            # Inductor recommends TF32 whenever it compiles for a GPU that has it.
            warnings.filterwarnings("ignore", message="TensorFloat32 tensor cores")
            yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        cudnn.deterministic, cudnn.benchmark = before[2], before[3]


def compile_network(network: nn.Module, config: TrainingConfig, device: torch.device) -> bool:
    """Have a network compiled when it is first run, if the config says so; return whether.

    It is compiled in place: names of its weights and the object stay as they are. Each shape is
    compiled for itself: an epoch has two, its last batch being smaller, and code for shapes of any
    size would be slower, round otherwise, and take over in the middle of the run.

    Raises:
        DrumgateError: CUDA graphs are asked for without CUDA, or there is no compiler.
    """
    if config.cuda_graphs and device.type != "cuda":
        raise DrumgateError(
            f"cuda_graphs: there are none on {device.type}; use compile, or --device cuda"
        )
    if not (config.compile or config.cuda_graphs):
        return False
    compilers = (os.environ.get("CXX", ""), "g++", "clang++", "c++", "cc", "gcc")
    if not any(shutil.which(each) for each in compilers if each):
        raise DrumgateError("compile: PyTorch needs a C++ compiler (g++ or clang++), found none")
    mode = "reduce-overhead" if config.cuda_graphs else "default"
    network.compile(mode=mode, dynamic=False)
    return True


@contextmanager
def as_written(compiled: bool) -> Iterator[None]:
    """Run compiled networks uncompiled for as long as the block lasts.

    Validation figures are then those of the model that is saved, and the last batch of another
    size costs no compilation.
    """
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def with_shared_norms(
    model: nn.Module, config: TrainingConfig, world: World, device: torch.device
) -> nn.Module:
    """Let batch norms count the clips of all GPUs, unless some of them are frozen."""
    norms = _batch_norms(model)
    if not norms or world.size == 1 or device.type != "cuda" or not config.sync_batch_norm:
        return model
    if any(norm.affine and not norm.weight.requires_grad for norm in norms):
        return model
    shared: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return shared


def notes(
    model: nn.Module, config: TrainingConfig, world: World, device: torch.device
) -> tuple[str, ...]:
    """Say which settings do not do here what one may expect of them."""
    said = []
    norms = _batch_norms(model)
    shared = any(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    if norms and world.size > 1 and not shared:
        said.append(
            "batch norm counts the clips of each process alone: the result differs a little from "
            "one process with the whole batch"
        )
    if norms and config.accumulate_steps > 1:
        said.append(
            f"batch norm counts {config.batch_size} clips at a time, not the "
            f"{config.batch_size * config.accumulate_steps} of a step"
        )
    if device.type != "cuda" and config.amp_dtype == "fp16":
        said.append(f"amp_dtype: fp16 is for CUDA; {device.type} computes in float32")
    if precision(config, device) == "bf16" and not torch.cuda.is_bf16_supported(
        including_emulation=False
    ):
        said.append("amp_dtype: this GPU has no bf16 and would imitate it, slowly; set fp16")
    return tuple(said)


def _batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
