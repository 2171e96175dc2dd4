"""What float32 means on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["whole_float32"]


@contextmanager
def whole_float32(device: torch.device) -> Iterator[None]:
    """Have convolutions of float32 computed with all its digits for as long as the block lasts.

    On GPUs since Ampere cuDNN rounds their inputs to TF32, 10 bits, unless it is told not to; a
    score near its threshold would then depend on the device. Matrix products are exact by
    PyTorch's own default. Nothing changes on other devices, nor for bf16 and fp16; where a program
    has set TF32 for one kind of operation alone, its setting stands.
    """
    cudnn = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # set apart for convolutions and recurrent layers: not ours to change
        yield
        return
    if device.type == "cuda":
        cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = before
