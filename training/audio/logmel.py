"""Log-mel spectrograms in batches, on the device that trains.

Convention: frame `k` of a clip is centred on sample ``k * hop`` of its window, as in librosa with
``center=True``. The first and the last frames look ``n_fft / 2`` samples beyond the window, so a
clip is read with that much audio on either side (`FeatureConfig.read_samples`), and every one of
its `frames` frames holds real audio: 25,400 samples (576 ms) at hop 200 are
``1 + 25400 / 200 = 128`` frames, read from 25,400 + 2,048 samples. A clip without that context,
exactly the window, is taken to be surrounded by silence (librosa's ``pad_mode="constant"``).

Values are ``librosa.power_to_db(librosa.feature.melspectrogram(...))`` with librosa's defaults
(Slaney mel scale and area normalisation, power 2, ``amin=1e-10``, ``top_db=80``), to 0.01 dB.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

__all__ = ["FEATURE_PRESETS", "FeatureConfig", "LogMel", "mel_filters"]

AMIN: Final = 1e-10
INT16_SCALE: Final = 1.0 / 32768.0
DB_PER_NEPER: Final = 10.0 / np.log(10.0)
CACHED_BYTES: Final = 1 << 21
"""Spectra that a CPU thread computes at a time: what stays in its cache is read back for nothing,
and arrays of this size are not asked of the system anew each time. Three times as fast as a batch
at once."""
GROUP: Final = 16
"""Mel bands that are computed together on a CPU, from the bins that any of them uses."""
Bands = tuple[tuple[int, int, int, int], ...]
"""For each group of mel bands: its first and last band, and the first and last bin, exclusive."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureConfig:
    """What a model hears of an event, and how. Checked when it is made (ValueError).

    The window is ``(frames - 1) * hop`` samples long and starts `preroll_ms` before the onset.
    """

    sample_rate: int = 44_100
    """Hz; audio of another rate is resampled."""
    n_fft: int = 2048
    """Length of the Hann analysis window, in samples."""
    hop: int = 200
    """Samples between frames."""
    n_mels: int = 128
    frames: int = 128
    preroll_ms: float = 50.0
    """How much of the window lies before the onset, in ms."""
    fmin: float = 20.0
    """Lower edge of the first mel band, in Hz."""
    fmax: float = 16_000.0
    """Upper edge of the last mel band, in Hz: most lossy codecs keep nothing above 16 kHz."""
    top_db: float | None = 80.0
    """Values below the clip's maximum less this are raised to it; None keeps them."""

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "hop", "n_mels", "frames"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if self.n_fft % 2:
            raise ValueError(f"n_fft must be even, got {self.n_fft}")
        if self.frames < 8 or self.n_mels < 8:
            raise ValueError("frames and n_mels must be at least 8: the model halves them 3 times")
        if not 0.0 <= self.fmin < self.fmax <= self.sample_rate / 2:
            raise ValueError(
                f"needs 0 <= fmin < fmax <= sample_rate / 2, got {self.fmin} and {self.fmax} Hz"
            )
        if not 0.0 <= self.preroll_ms < self.window_ms:
            raise ValueError(
                f"preroll_ms must lie in [0, {self.window_ms:.1f}), got {self.preroll_ms}"
            )
        if self.top_db is not None and not self.top_db > 0:
            raise ValueError(f"top_db must be positive or None, got {self.top_db}")

    @property
    def window_samples(self) -> int:
        """Samples from the centre of the first frame to that of the last."""
        return (self.frames - 1) * self.hop

    @property
    def window_ms(self) -> float:
        """The window's length in ms."""
        return 1000.0 * self.window_samples / self.sample_rate

    @property
    def read_samples(self) -> int:
        """Samples to read: the window and ``n_fft / 2`` on either side."""
        return self.window_samples + self.n_fft

    @property
    def read_before(self) -> int:
        """How many of the read samples lie before the onset."""
        return round(self.preroll_ms * self.sample_rate / 1000.0) + self.n_fft // 2

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for a checkpoint or a report."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FeatureConfig:
        """Make a config of `as_dict`'s result; ValueError for a missing or unknown field."""
        wanted = {field.name for field in fields(cls)}
        if set(values) != wanted:
            raise ValueError(f"feature fields differ: {sorted(set(values) ^ wanted)}")
        return cls(**values)


FEATURE_PRESETS: Final[dict[str, FeatureConfig]] = {
    # 576 ms, 128 × 128: the reference.
    "default": FeatureConfig(),
    # 181 ms with 25 ms before the onset: on dense playing a long window holds the next hits.
    "short": FeatureConfig(hop=63, preroll_ms=25.0),
    # 200 ms, 64 × 64: a quarter of the work, for two CPU cores.
    "fast": FeatureConfig(hop=140, n_mels=64, frames=64, preroll_ms=25.0),
}


def mel_filters(config: FeatureConfig) -> tuple[npt.NDArray[np.float32], int]:
    """Return the mel filters, cut to the STFT bins that any filter uses, and the first such bin.

    The filters have shape ``(n_mels, bins)`` and are those of ``librosa.filters.mel``.

    Raises ValueError where a filter is empty: too many bands for so short an `n_fft`.
    """
    import librosa

    weights: npt.NDArray[np.float32] = librosa.filters.mel(
        sr=config.sample_rate,
        n_fft=config.n_fft,
        n_mels=config.n_mels,
        fmin=config.fmin,
        fmax=config.fmax,
    )
    empty = int(np.sum(~weights.any(axis=1)))
    if empty:
        raise ValueError(
            f"{empty} of {config.n_mels} mel bands hold no STFT bin: raise n_fft ({config.n_fft}) "
            "or lower n_mels"
        )
    used = np.flatnonzero(weights.any(axis=0))
    first, last = int(used[0]), int(used[-1])
    return np.ascontiguousarray(weights[:, first : last + 1]), first


def _band_groups(filters: npt.NDArray[np.float32]) -> Bands:
    """Return the bins that each `GROUP` of neighbouring bands uses; the rest of a filter is 0."""
    groups = []
    for low in range(0, len(filters), GROUP):
        used = np.flatnonzero(filters[low : low + GROUP].any(axis=0))
        high = min(low + GROUP, len(filters))
        groups.append((low, high, int(used[0]), int(used[-1]) + 1))
    return tuple(groups)


class LogMel(nn.Module):
    """Batched log-mel features in dB, standardised by the training set's statistics.

    Input: clips [shape=(batch, read_samples)] or [shape=(batch, window_samples)], int16 or float in
    [-1, 1). Output: float32 [shape=(batch, n_mels, frames)]. An empty batch gives an empty result.

    `mean` and `std` hold one value a mel band (0 and 1 until `set_statistics`); they travel with
    the model in its checkpoint. The other buffers follow from the config and are not saved.
    """

    mean: Tensor
    std: Tensor
    filters: Tensor
    hann: Tensor

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        self.config = config
        filters, self.first_bin = mel_filters(config)
        self._bands = _band_groups(filters)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)
        self.register_buffer("hann", torch.hann_window(config.n_fft), persistent=False)
        self.register_buffer("mean", torch.zeros(config.n_mels))
        self.register_buffer("std", torch.ones(config.n_mels))

    def forward(self, audio: Tensor) -> Tensor:
        """Return the standardised log-mel of a batch."""
        return self.standardise(self.decibels(audio))

    def standardise(self, decibels: Tensor) -> Tensor:
        """Subtract the mean and divide by the deviation of each mel band."""
        return (decibels - self.mean[:, None]) / self.std[:, None]

    @torch.autocast("cuda", enabled=False)
    def decibels(self, audio: Tensor) -> Tensor:
        """Return the log-mel of a batch in dB, not standardised.

        Raises ValueError when the clips are neither `read_samples` nor `window_samples` long.
        """
        config = self.config
        audio = audio.float() * INT16_SCALE if audio.dtype == torch.int16 else audio.float()
        length = audio.shape[-1]
        if audio.ndim != 2 or length not in (config.read_samples, config.window_samples):
            raise ValueError(
                f"clips must be (batch, {config.read_samples}) or (batch, {config.window_samples}),"
                f" got {tuple(audio.shape)}"
            )
        if audio.shape[0] == 0:
            return audio.new_zeros((0, config.n_mels, config.frames))
        if length == config.window_samples:
            audio = nn.functional.pad(audio, (config.n_fft // 2, config.n_fft // 2))
        if audio.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._decibels(audio, ((0, config.n_mels, 0, self.filters.shape[1]),))
        size = CACHED_BYTES * torch.get_num_threads() // (4 * config.n_fft * config.frames)
        parts = audio.split(max(1, size))
        return torch.cat([self._decibels(part, self._bands) for part in parts])

    def _decibels(self, audio: Tensor, bands: Bands) -> Tensor:
        config = self.config
        spectrum = torch.stft(
            audio,
            config.n_fft,
            hop_length=config.hop,
            window=self.hann,
            center=False,
            return_complex=True,
        )[:, self.first_bin : self.first_bin + self.filters.shape[1]]
        power = spectrum.real.square() + spectrum.imag.square()
        mels = [
            torch.matmul(self.filters[low:high, first:last], power[:, first:last])
            for low, high, first, last in bands
        ]
        mel = torch.cat(mels, dim=1) if len(mels) > 1 else mels[0]
        decibels = mel.clamp_min(AMIN).log() * DB_PER_NEPER
        if config.top_db is not None:
            floor = decibels.amax(dim=(1, 2), keepdim=True) - config.top_db
            decibels = torch.maximum(decibels, floor)
        return decibels

    def set_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and the deviation [shape=(n_mels,)] that `forward` standardises with.

        Raises ValueError when a value is not finite or a deviation is not positive.
        """
        if not (torch.isfinite(mean).all() and torch.isfinite(std).all() and (std > 0).all()):
            raise ValueError("statistics must be finite, deviations positive")
        self.mean.copy_(mean)
        self.std.copy_(std)
