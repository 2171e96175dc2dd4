"""Augmentation in batches, on the device.

On the waveform: speed (a drum played faster is a smaller drum, tuned higher); gain; overlays
(another clip of the batch added at the onset: two drums struck together, so the labels are the
union of both); mixup (a weighted mean of two clips and of their labels; Zhang et al. 2018); and
cuts (silence before or after some moment near the onset, as a model hears an event at the edge of
a streaming window). On the log-mel: equalisation as a smooth dB offset a mel band, which costs 150
times less than filtering the waveform, and masks over time and frequency (SpecAugment; Park et al.
2019). Random numbers come from PyTorch's generator, which the trainer seeds anew at every step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.audio.logmel import INT16_SCALE, FeatureConfig

__all__ = ["AugmentConfig", "SpectralAugment", "WaveAugment"]


@dataclass(frozen=True, kw_only=True, slots=True)
class AugmentConfig:
    """How much training clips are varied; 0 turns a kind off. Checked when made (ValueError)."""

    jitter_ms: float = 5.0
    """Largest shift of the onset within the window, either way, in ms."""
    speed: float = 0.08
    """Largest change of playing speed, either way, as a share: pitch and decay change with it."""
    gain_db: float = 6.0
    """Largest gain, either way, in dB."""
    overlay: float = 0.0
    """Share of clips that get another clip of the batch added."""
    overlay_gain_db: float = 6.0
    """Largest gain of the added clip, either way, in dB."""
    mixup: float = 0.0
    """Share of clips that become a weighted mean of themselves and another clip of the batch."""
    mixup_alpha: float = 0.2
    """The weight is drawn from Beta(alpha, alpha), the larger part for the clip itself."""
    cut: float = 0.2
    """Share of clips that are silenced from a moment after the onset on, or up to one before it."""
    cut_after_ms: float = 5.0
    """Least audio left after the onset, in ms."""
    eq_db: float = 6.0
    """Largest offset of the equalisation curve, either way, in dB."""
    eq_points: int = 6
    """Points of the curve along the mel axis; linear between them."""
    time_mask: float = 0.1
    """Largest share of the frames under the time mask."""
    frequency_mask: float = 0.1
    """Largest share of the mel bands under the frequency mask."""
    mask_share: float = 0.5
    """Share of the clips that are masked."""

    def __post_init__(self) -> None:
        for name in ("jitter_ms", "speed", "gain_db", "overlay_gain_db", "cut_after_ms", "eq_db"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("overlay", "mixup", "cut", "time_mask", "frequency_mask", "mask_share"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.speed > 0.5:
            raise ValueError(f"speed must be at most 0.5, got {self.speed}")
        if not 0.0 < self.mixup_alpha < math.inf:
            raise ValueError(f"mixup_alpha must be positive, got {self.mixup_alpha}")
        if self.eq_points < 2:
            raise ValueError(f"eq_points must be at least 2, got {self.eq_points}")


class WaveAugment:
    """Speed, gain, overlays and cuts for a batch of clips and its targets.

    Clips come with `margin` more samples on either side than the features read, which playing
    faster needs, and leave without them.
    """

    def __init__(
        self, config: AugmentConfig, features: FeatureConfig, *, task: str = "multilabel"
    ) -> None:
        self.config = config
        self.task = task
        self.features = features
        longest = max(features.read_before, features.read_samples - features.read_before)
        self.margin = math.ceil(config.speed * longest) + 1 if config.speed > 0 else 0

    def __call__(
        self, audio: Tensor, targets: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the varied clips (float, in place of int16) and their targets.

        An overlaid clip has the union of both label sets, a mixed one the weighted mean of both
        label vectors. Either is annotated where both clips are, and has no known velocity or
        openness: neither is defined for two hits at once.
        """
        config = self.config
        audio = audio.float() * INT16_SCALE if audio.dtype == torch.int16 else audio
        batch = audio.shape[0]
        if self.margin:
            audio = self._change_speed(audio)
        if config.gain_db > 0:
            audio = audio * _gain(batch, config.gain_db, audio)
        if config.overlay > 0 and batch > 1:
            audio, targets = self._overlay(audio, targets)
        if config.mixup > 0 and batch > 1:
            audio, targets = self._mix(audio, targets)
        if config.cut > 0:
            audio = torch.where(self._cut(audio), 0.0, audio)
        return audio, targets

    def _overlay(
        self, audio: Tensor, targets: dict[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        batch = audio.shape[0]
        mixed = torch.rand(batch, device=audio.device) < self.config.overlay
        other = torch.randperm(batch, device=audio.device)
        added = audio[other] * _gain(batch, self.config.overlay_gain_db, audio)
        labels = targets["labels"]
        joined = torch.where(mixed[:, None], torch.maximum(labels, labels[other]), labels)
        audio = torch.where(mixed[:, None], audio + added, audio)
        return audio, _of_two(targets, joined, mixed, other)

    def _mix(self, audio: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        batch, alpha = audio.shape[0], self.config.mixup_alpha
        mixed = torch.rand(batch, device=audio.device) < self.config.mixup
        other = torch.randperm(batch, device=audio.device)
        # Drawn on the device, and not checked: either would have the host wait for it.
        alphas = torch.full((), alpha, device=audio.device)
        beta = torch.distributions.Beta(alphas, alphas, validate_args=False)
        share = beta.sample((batch,))
        share = torch.maximum(share, 1.0 - share)
        labels = targets["labels"]
        if self.task == "multiclass":
            # A mean of two labels is a distribution over classes only where each has exactly one.
            single = labels.sum(dim=1) == 1.0
            mixed = mixed & single & single[other]
        weight = torch.where(mixed, share, 1.0)[:, None]
        joined = weight * labels + (1.0 - weight) * labels[other]
        audio = weight * audio + (1.0 - weight) * audio[other]
        return audio, _of_two(targets, joined, mixed, other)

    def _change_speed(self, audio: Tensor) -> Tensor:
        """Play each clip at a speed of its own, its onset where it was (linear interpolation)."""
        batch = audio.shape[0]
        low, high = math.log1p(-self.config.speed), math.log1p(self.config.speed)
        speed = torch.exp(torch.rand(batch, 1, device=audio.device) * (high - low) + low)
        steps = torch.arange(self.features.read_samples, device=audio.device)[None, :]
        before = self.features.read_before
        position = self.margin + before + (steps - before) * speed
        first = position.floor().long().clamp(0, audio.shape[1] - 2)
        share = position - first
        return torch.lerp(audio.gather(1, first), audio.gather(1, first + 1), share)

    def _cut(self, audio: Tensor) -> Tensor:
        """Draw which samples are silenced [shape as audio]: before one moment or after another.

        Either moment is drawn so that short remainders are as likely as long ones (log-uniform
        after the onset, uniform before it).
        """
        batch, length = audio.shape
        onset = self.features.read_before
        least = max(1.0, self.config.cut_after_ms * self.features.sample_rate / 1000.0)
        share = torch.rand(batch, 1, device=audio.device)
        place = torch.rand(batch, 1, device=audio.device)
        stop = onset + least * (max(length - onset, least) / least) ** place
        start = onset * place
        position = torch.arange(length, device=audio.device)[None, :]
        late = (share < self.config.cut / 2) & (position >= stop)
        early = (share >= 1.0 - self.config.cut / 2) & (position < start)
        return late | early


class SpectralAugment(nn.Module):
    """Equalisation and masks for standardised log-mel clips; does nothing outside training.

    `std` is the deviation of each mel band in dB [shape=(n_mels,)], by which an offset in dB is
    divided to fit standardised values. A mask sets cells to 0, the mean.
    """

    def __init__(self, config: AugmentConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, features: Tensor, std: Tensor) -> Tensor:
        """Return the varied clips [shape=(batch, n_mels, frames)]."""
        config = self.config
        if not self.training:
            return features
        batch, n_mels, frames = features.shape
        if config.eq_db > 0:
            points = torch.rand(batch, 1, config.eq_points, device=features.device) * 2.0 - 1.0
            curve = nn.functional.interpolate(
                points * config.eq_db, size=n_mels, mode="linear", align_corners=True
            ).squeeze(1)
            features = features + (curve / std)[:, :, None]
        if config.time_mask > 0:
            masked = _mask(batch, frames, config.time_mask, config.mask_share, features)
            features = features.masked_fill(masked[:, None, :], 0.0)
        if config.frequency_mask > 0:
            masked = _mask(batch, n_mels, config.frequency_mask, config.mask_share, features)
            features = features.masked_fill(masked[:, :, None], 0.0)
        return features


def _of_two(
    targets: dict[str, Tensor], labels: Tensor, mixed: Tensor, other: Tensor
) -> dict[str, Tensor]:
    """Return the targets of clips of which those under `mixed` hold another clip as well."""
    annotated = targets["annotated"]
    both = torch.where(mixed[:, None], annotated * annotated[other], annotated)
    unknown: dict[str, Tensor] = {
        name: torch.where(mixed, torch.nan, targets[name])
        for name in ("velocity", "openness")
        if name in targets
    }
    return {**targets, "labels": labels, "annotated": both, **unknown}


def _gain(batch: int, limit_db: float, like: Tensor) -> Tensor:
    decibels = (torch.rand(batch, 1, device=like.device) * 2.0 - 1.0) * limit_db
    return torch.pow(10.0, decibels / 20.0)


def _mask(batch: int, size: int, largest: float, share: float, like: Tensor) -> Tensor:
    """Draw one masked stretch a clip [shape=(batch, size)], for a share of the clips."""
    width = torch.rand(batch, 1, device=like.device) * largest * size
    width = width * (torch.rand(batch, 1, device=like.device) < share)
    start = torch.rand(batch, 1, device=like.device) * (size - width)
    position = torch.arange(size, device=like.device)[None, :]
    return (position >= start) & (position < start + width)
