"""The honest floors: what a model must beat before it is worth anything.

`most_frequent`: always say the label set that is most frequent in training. `band_energy`: a
logistic regression a class on seven band energies of the first 100 ms after the onset. The second
is a serious opponent: it knows the onset, as the model does.
"""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.audio.logmel import FeatureConfig, LogMel
from training.loop.feed import ClipFeed
from training.metrics.classification import Summary, clip_counts, summarise

__all__ = [
    "BAND_EDGES_HZ",
    "FLOOR_FIGURE",
    "band_energies",
    "band_energy_floor",
    "band_energy_scores",
    "feed_band_energies",
    "floor_summary",
    "honest_floors",
    "most_frequent_floor",
    "most_frequent_scores",
]

BAND_EDGES_HZ: Final = (20.0, 100.0, 200.0, 400.0, 1000.0, 3000.0, 7000.0, 16_000.0)
SPAN_MS: Final = 100.0
MOST_TRAINING_CLIPS: Final = 8000
FLOOR_FIGURE: Final = "floor_macro_f1"
"""What stands beside macro F1 at every evaluation: that of the regression, the higher floor."""


def honest_floors(
    train: ClipFeed, test: ClipFeed, logmel: LogMel, names: tuple[str, ...], *, seed: int = 0
) -> dict[str, Summary]:
    """Fit the floors on training clips and judge them on `test`, by name."""
    split = test.split
    return {
        "most_frequent": most_frequent_floor(
            train.split.labels, split.labels, split.annotated, names
        ),
        "band_energy": band_energy_floor(train, test, logmel, names, seed=seed),
    }


def most_frequent_floor(
    train_labels: NDArray[Any],
    labels: NDArray[Any],
    annotated: NDArray[Any],
    names: tuple[str, ...],
) -> Summary:
    """Judge the guess that every clip has the label set most frequent in training."""
    scores = most_frequent_scores(train_labels, len(labels))
    return floor_summary(scores, labels, annotated, names)


def most_frequent_scores(train_labels: NDArray[Any], n_clips: int) -> NDArray[np.float64]:
    """Return 1 for the labels of the most frequent label set [shape=(n_clips, n_classes)].

    Of equally frequent sets the one that comes first in training is taken.

    Raises:
        ValueError: there is no training clip.
    """
    if not len(train_labels):
        raise ValueError("no training clip: no label set is the most frequent")
    sets = Counter(map(bytes, np.ascontiguousarray(train_labels > 0).astype(np.uint8)))
    guess = np.frombuffer(sets.most_common(1)[0][0], dtype=np.uint8).astype(np.float64)
    return np.tile(guess, (n_clips, 1))


def floor_summary(
    scores: NDArray[Any], labels: NDArray[Any], annotated: NDArray[Any], names: tuple[str, ...]
) -> Summary:
    """Judge a floor's scores at 0.5; all arrays have shape (n_clips, n_classes)."""
    return summarise(clip_counts(labels > 0, scores > 0.5, annotated=annotated > 0), names)


def band_energies(decibels: Tensor, config: FeatureConfig) -> Tensor:
    """Return the energy of seven bands after the onset, in dB [shape=(batch, 7)].

    `decibels` is a log-mel [shape=(batch, n_mels, frames)]; bands are sums of the mel bands whose
    centres lie in them, over the frames from the onset to 100 ms after it.
    """
    import librosa

    centres = librosa.mel_frequencies(config.n_mels + 2, fmin=config.fmin, fmax=config.fmax)[1:-1]
    per_frame_ms = 1000.0 * config.hop / config.sample_rate
    first = round(config.preroll_ms / per_frame_ms)
    last = min(config.frames, first + max(1, round(SPAN_MS / per_frame_ms)))
    power = torch.pow(10.0, decibels[:, :, first:last].mean(dim=2) / 10.0)
    bands = []
    for low, high in pairwise(BAND_EDGES_HZ):
        inside = torch.from_numpy((centres >= low) & (centres < high)).to(power.device)
        bands.append(power[:, inside].sum(dim=1) + 1e-10)
    return 10.0 * torch.stack(bands, dim=1).log10()


@torch.no_grad()
def feed_band_energies(feed: ClipFeed, logmel: LogMel, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return the band energies of some clips of a feed [shape=(len(rows), 7)]."""
    device = logmel.mean.device
    parts = []
    for first in range(0, len(rows), 256):
        audio, _ = feed.batch(rows[first : first + 256])
        parts.append(band_energies(logmel.decibels(audio.to(device)), logmel.config).cpu())
    return torch.cat(parts).numpy()


def band_energy_floor(
    train: ClipFeed, test: ClipFeed, logmel: LogMel, names: tuple[str, ...], *, seed: int = 0
) -> Summary:
    """Judge `band_energy_scores` on `test`."""
    scores = band_energy_scores(train, test, logmel, seed=seed)
    return floor_summary(scores, test.split.labels, test.split.annotated, names)


def band_energy_scores(
    train: ClipFeed,
    test: ClipFeed,
    logmel: LogMel,
    *,
    seed: int = 0,
    among: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """Fit one logistic regression a class on band energies; score the clips of `test`.

    Args:
        train: the feed whose clips are fitted, at most 8,000 of them.
        test: the feed whose clips are scored.
        logmel: computes the log-mel that the bands are sums of.
        seed: draws the clips, where there are more than 8,000.
        among: rows of `train` to fit, in place of all of them.

    Returns:
        Probabilities [shape=(n_clips, n_classes)]. A class that training never, or always,
        annotates as present is answered as it stands there; one that it never annotates gets 0.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(seed)
    among = np.arange(train.n_clips, dtype=np.int64) if among is None else among
    rows = among[np.sort(rng.permutation(len(among))[:MOST_TRAINING_CLIPS])]
    x = feed_band_energies(train, logmel, rows)
    x_test = feed_band_energies(test, logmel, np.arange(test.n_clips, dtype=np.int64))
    y = train.split.labels[rows] > 0
    known = train.split.annotated[rows] > 0
    scores = np.zeros((test.n_clips, y.shape[1]))
    for column in range(y.shape[1]):
        use = known[:, column]
        answers = np.unique(y[use, column])
        if len(answers) < 2:
            scores[:, column] = float(answers[0]) if len(answers) else 0.0
            continue
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        scores[:, column] = model.fit(x[use], y[use, column]).predict_proba(x_test)[:, 1]
    return scores
