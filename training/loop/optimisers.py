"""The optimiser and the loss scaling that a `TrainingConfig` asks for."""

from __future__ import annotations

import torch
from torch import nn

from training.loop.config import TrainingConfig

__all__ = ["make_optimiser", "make_scaler", "precision"]


def make_optimiser(
    model: nn.Module, config: TrainingConfig, device: torch.device
) -> torch.optim.Optimizer:
    """Return the optimiser of all parameters that are to be trained.

    On CUDA its step is one fused kernel where PyTorch has one (not for RMSprop) and the config
    does not turn it off.

    Raises ValueError where no parameter is to be trained.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("every parameter of the model is frozen: there is nothing to train")
    rate, decay, momentum = config.learning_rate, config.weight_decay, config.momentum
    fused = True if config.fused and device.type == "cuda" else None
    if config.optimiser == "adamw":
        return torch.optim.AdamW(
            parameters, lr=rate, betas=config.betas, weight_decay=decay, fused=fused
        )
    if config.optimiser == "adam":
        return torch.optim.Adam(
            parameters, lr=rate, betas=config.betas, weight_decay=decay, fused=fused
        )
    if config.optimiser == "sgd":
        return torch.optim.SGD(
            parameters,
            lr=rate,
            momentum=momentum,
            nesterov=momentum > 0,
            weight_decay=decay,
            fused=fused,
        )
    return torch.optim.RMSprop(parameters, lr=rate, momentum=momentum, weight_decay=decay)


def precision(config: TrainingConfig, device: torch.device) -> str:
    """Return ``float32``, ``bf16`` or ``fp16``: what the network is run in."""
    return config.amp_dtype if config.amp and device.type == "cuda" else "float32"


def make_scaler(config: TrainingConfig, device: torch.device) -> torch.amp.GradScaler:
    """Return the scaling of the loss: at work for fp16, otherwise doing nothing."""
    return torch.amp.GradScaler(device.type, enabled=precision(config, device) == "fp16")
