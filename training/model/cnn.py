"""The drum CNN: four convolution blocks, a class head, and optional velocity and openness heads.

Shapes, for the default features: ``(batch, 128 mel, 128 frames)`` → four blocks of 3 × 3
convolution, batch norm, max-pool (the first three) and ReLU, with 32, 64, 128 and 256 channels →
mean over both axes (256 numbers: the *features*) → dropout → one linear layer a head.

Parameters at 12 classes: 391,884 for trunk and class head, 392,398 with both other heads. The
size of the input does not change them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Protocol

import torch
from torch import Tensor, nn

from training.audio.logmel import FeatureConfig, LogMel

__all__ = ["DrumCNN", "DrumClassifier", "ModelConfig", "count_parameters"]

CHANNELS: Final = (32, 64, 128, 256)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """The shape of a `DrumCNN`. Checked when it is made (ValueError)."""

    n_classes: int = 12
    dropout: float = 0.3
    velocity_head: bool = True
    """Predict how hard the (loudest) component was struck, 0..1."""
    openness_head: bool = True
    """Predict how open the hi-hat was, 0 closed .. 1 open."""

    def __post_init__(self) -> None:
        if self.n_classes < 1:
            raise ValueError(f"n_classes must be at least 1, got {self.n_classes}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a checkpoint."""
        return asdict(self)


class DrumCNN(nn.Module):
    """Say of log-mel clips what was struck, how hard, and how open the hi-hat was.

    Input: standardised log-mel [shape=(batch, n_mels, frames)]. Output: a dict with ``logits``
    [shape=(batch, n_classes)], ``features`` [shape=(batch, 256)] and, where the heads are there,
    ``velocity`` and ``openness`` [shape=(batch,)], both in 0..1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        blocks: list[nn.Module] = []
        incoming = 1
        for index, outgoing in enumerate(CHANNELS):
            blocks += [
                nn.Conv2d(incoming, outgoing, kernel_size=3, padding=1),
                nn.BatchNorm2d(outgoing),
            ]
            # Max-pool and ReLU commute; pooling first leaves a quarter of the values to rectify.
            if index < len(CHANNELS) - 1:
                blocks.append(nn.MaxPool2d(2))
            blocks.append(nn.ReLU(inplace=True))
            incoming = outgoing
        self.trunk = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(config.dropout)
        self.classes = nn.Linear(incoming, config.n_classes)
        self.velocity = nn.Linear(incoming, 1) if config.velocity_head else None
        self.openness = nn.Linear(incoming, 1) if config.openness_head else None

    def forward(self, features: Tensor) -> dict[str, Tensor]:
        """Return the heads' outputs for a batch of log-mel clips."""
        pooled = self.trunk(features.unsqueeze(1)).mean(dim=(2, 3))
        dropped = self.dropout(pooled)
        out = {"logits": self.classes(dropped), "features": pooled}
        if self.velocity is not None:
            out["velocity"] = torch.sigmoid(self.velocity(dropped)).squeeze(1)
        if self.openness is not None:
            out["openness"] = torch.sigmoid(self.openness(dropped)).squeeze(1)
        return out


class FeatureAugment(Protocol):
    """Varies standardised features during training, given the deviation of each mel band."""

    def __call__(self, features: Tensor, std: Tensor) -> Tensor:
        """Return the varied features."""


class DrumClassifier(nn.Module):
    """From int16 clips to the heads' outputs: log-mel, augmentation in training, CNN.

    Input and output are those of `LogMel` and `DrumCNN`. The state dict holds the CNN's weights
    and the features' mean and deviation.
    """

    def __init__(
        self,
        features: FeatureConfig,
        model: ModelConfig,
        *,
        augment: FeatureAugment | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.logmel = LogMel(features)
        self.augment = augment
        self.cnn = DrumCNN(model)
        if channels_last:
            self.cnn = self.cnn.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Return the heads' outputs for a batch of clips."""
        features = self.logmel(audio)
        if self.training and self.augment is not None:
            features = self.augment(features, self.logmel.std)
        out: dict[str, Tensor] = self.cnn(features)
        return out


def count_parameters(model: nn.Module, *, heads: bool = True, frozen: bool = False) -> int:
    """Count trainable parameters, and frozen ones where asked for.

    Without `heads`, those of trunk and class head only.
    """
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if (parameter.requires_grad or frozen)
        and (heads or not {"velocity", "openness"} & set(name.split(".")))
    )
