"""What a trained model says of clips: scores at an operating point, and how unknown a sound is.

Scores. The logits of a class are divided by one temperature, shared by all classes and fitted to
the validation set (Guo et al. 2017), and shifted by a threshold, chosen there for F1. So a score
of 0.5 is the operating point of every class; scores are *decisions with a margin*, not
probabilities. The thresholds in probability are kept beside them.

Unknown scores, higher = more unknown:
    ``mahalanobis``: relative Mahalanobis distance (Ren et al. 2021) of the model's 256 features:
        the distance to the nearest label set seen in training (shared covariance) less the distance
        to all of training. The default: it looks at what the trunk heard, not at which known class
        it happens to excite.
    ``energy``: minus the sum of ``log(1 + exp(logit))`` over the classes (Wang et al. 2021).
    ``max_probability``: one minus the largest probability.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.audio.logmel import FeatureConfig
from training.errors import DrumgateError, InputError
from training.model.checkpoint import MODEL_FORMAT, load_checkpoint
from training.model.cnn import DrumClassifier, ModelConfig
from training.model.precision import whole_float32

__all__ = [
    "UNKNOWN_SCORES",
    "Calibration",
    "ClipPredictions",
    "OpenSet",
    "Predictor",
    "fit_calibration",
    "fit_openset",
    "resolve_device",
]

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
UNKNOWN_SCORES: Final = ("mahalanobis", "energy", "max_probability")
FEWEST_TO_TUNE: Final = 10
PULL_TO_HALF: Final = 0.02
FEWEST_A_LABEL_SET: Final = 8
MOST_LABEL_SETS: Final = 64


def resolve_device(name: str) -> torch.device:
    """Return the device that a name means.

    Raises:
        DrumgateError: CUDA was asked for and is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise DrumgateError(
            "--device cuda: PyTorch sees no CUDA device here; use --device cpu (or auto)"
        )
    return torch.device(name)


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """One temperature, and a shift a class in units of the tempered logit."""

    temperature: float
    shift: FloatArray
    """[shape=(n_classes,)]"""

    @property
    def thresholds(self) -> FloatArray:
        """The operating point of each class as a probability."""
        return 1.0 / (1.0 + np.exp(-self.shift))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return {
            "temperature": self.temperature,
            "shift": self.shift.tolist(),
            "thresholds": self.thresholds.tolist(),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSet:
    """Gaussian statistics of the features: label-set means and precisions (inverse covariances)."""

    means: Tensor
    """[shape=(n_sets, n_features)]"""
    precision: Tensor
    """Within label sets [shape=(n_features, n_features)]."""
    centre: Tensor
    """[shape=(n_features,)]"""
    background: Tensor
    """Precision over all training clips [shape=(n_features, n_features)]."""

    def score(self, features: Tensor) -> Tensor:
        """Return the relative Mahalanobis distance of each row [shape=(batch,)].

        Large numbers are subtracted from one another, so they are computed in float64.
        """
        rows, means = features.double(), self.means.double()
        nearest = _distances(rows, means, self.precision.double()).amin(dim=1)
        everything = _distances(rows, self.centre.double()[None], self.background.double())
        return (nearest - everything[:, 0]).to(features.dtype)

    def as_dict(self) -> dict[str, Tensor]:
        """Return the tensors, for a checkpoint."""
        return {name: getattr(self, name) for name in self.__slots__}


def _distances(rows: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """Return the squared Mahalanobis distances of rows to means [shape=(n_rows, n_means)].

    Multiplied out: the differences of all rows to all means would take n_means times as long.
    """
    weighted = rows @ precision
    own = (weighted * rows).sum(dim=1, keepdim=True)
    theirs = (means @ precision * means).sum(dim=1)
    return own - 2.0 * weighted @ means.T + theirs


def fit_calibration(
    logits: NDArray[Any], labels: NDArray[Any], annotated: NDArray[Any], *, task: str
) -> Calibration:
    """Fit temperature and operating points on a validation set.

    All arrays have shape (n, n_classes). The temperature minimises the cross-entropy. A class's
    threshold lies halfway between the one that gives all classes together the best macro F1 and its
    own best, which is pulled towards 0.5 by 0.02 of F1 a squared unit; a class with fewer than 10
    positives or negatives has no own one (0.5 stands for it). A multiclass model has no thresholds.
    """
    from scipy.optimize import minimize_scalar

    z = np.asarray(logits, dtype=np.float64)
    y = np.asarray(labels) > 0.5
    known = np.asarray(annotated) > 0.5
    shift = np.zeros(z.shape[1])
    if not known.any():
        return Calibration(temperature=1.0, shift=shift)

    def cost(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        if task == "multiclass":
            log_p = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
            return -float(log_p[y & known].mean()) if (y & known).any() else 0.0
        return float(np.logaddexp(0.0, np.where(y, -scaled, scaled))[known].mean())

    found = minimize_scalar(cost, bounds=(-2.0, 2.0), method="bounded")
    temperature = float(np.exp(found.x))
    if task != "multiclass":
        shift = _operating_points(z / temperature, y, known)
    return Calibration(temperature=temperature, shift=shift)


def _operating_points(z: FloatArray, y: BoolArray, known: BoolArray) -> FloatArray:
    """Choose a threshold a class on tempered logits: halfway between a shared one and its own.

    Own thresholds follow the few kits of a validation set too closely, one shared by all classes
    knows nothing of a class; halfway did better than either on kits in neither set.
    """
    shift = np.zeros(z.shape[1])
    positives, negatives = (y & known).sum(axis=0), (~y & known).sum(axis=0)
    tunable = (positives >= FEWEST_TO_TUNE) & (negatives >= FEWEST_TO_TUNE)
    if not tunable.any():
        return shift
    # Nearest to 0.5 first: of equals, the first is taken.
    cuts = np.array(sorted(np.linspace(-3.0, 3.0, 61), key=abs))
    f1 = np.zeros((len(cuts), z.shape[1]))
    for row, cut in enumerate(cuts):
        said = (z >= cut) & known
        f1[row] = 2.0 * (said & y).sum(axis=0) / np.maximum(said.sum(axis=0) + positives, 1)
    shared = cuts[f1[:, tunable].mean(axis=1).argmax()]
    own = cuts[(f1 - PULL_TO_HALF * cuts[:, None] ** 2).argmax(axis=0)]
    shift[:] = (shared + np.where(tunable, own, 0.0)) / 2.0
    return shift


def fit_openset(features: NDArray[Any], labels: NDArray[Any]) -> OpenSet | None:
    """Fit the Gaussian statistics on training clips; None with fewer than two label sets or clips.

    Args:
        features: [shape=(n, n_features)].
        labels: [shape=(n, n_classes)]; clips without labels (background) are left out.

    Label sets with fewer than 8 clips are left out of the means, and at most the 64 most frequent
    are kept. Both covariances are shrunk (Ledoit and Wolf 2004).
    """
    from sklearn.covariance import ledoit_wolf

    some = np.asarray(labels).any(axis=1)
    x = np.asarray(features, dtype=np.float64)[some]
    keys = [row.tobytes() for row in (np.asarray(labels)[some] > 0)]
    frequent = [
        key for key, n in Counter(keys).most_common(MOST_LABEL_SETS) if n >= FEWEST_A_LABEL_SET
    ]
    if not frequent:
        return None
    index = {key: number for number, key in enumerate(frequent)}
    which = np.array([index.get(key, -1) for key in keys])
    means = np.stack([x[which == number].mean(axis=0) for number in range(len(frequent))])
    within = x[which >= 0] - means[which[which >= 0]]
    centre = x.mean(axis=0)

    def precision(residuals: FloatArray) -> Tensor:
        covariance, _ = ledoit_wolf(residuals, assume_centered=True)
        ridge = 1e-6 * max(float(np.trace(covariance)) / len(covariance), 1e-12)
        inverse = np.linalg.inv(covariance + ridge * np.eye(len(covariance)))
        return torch.from_numpy(inverse.astype(np.float32))

    return OpenSet(
        means=torch.from_numpy(means.astype(np.float32)),
        precision=precision(within),
        centre=torch.from_numpy(centre.astype(np.float32)),
        background=precision(x - centre),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClipPredictions:
    """What the model says of a batch; a head that the model lacks is None."""

    scores: NDArray[np.float32]
    """[shape=(batch, n_classes)], 0.5 = the operating point."""
    velocity: NDArray[np.float32] | None
    openness: NDArray[np.float32] | None
    unknown: NDArray[np.float32]
    """[shape=(batch,)], higher = more unknown."""
    logits: NDArray[np.float32]
    """As the class layer gives them, without temperature [shape=(batch, n_classes)]."""
    features: NDArray[np.float32]
    """What the class layer sees [shape=(batch, n_features)]."""


class Predictor:
    """A trained model, ready to say something of clips.

    Make it with `Predictor.load`. `labels`, `features` and `task` are those it was trained with.
    """

    def __init__(self, content: Mapping[str, Any], device: torch.device) -> None:
        self.labels: tuple[str, ...] = tuple(content["labels"])
        self.task: str = content["task"]
        self.features = FeatureConfig.from_dict(content["features"])
        self.device = device
        self.model = DrumClassifier(self.features, ModelConfig(**content["model"]))
        self.model.load_state_dict(content["weights"])
        self.model.to(device).eval()
        calibration = content["calibration"]
        self.calibration = Calibration(
            temperature=float(calibration["temperature"]),
            shift=np.asarray(calibration["shift"], dtype=np.float64),
        )
        stored = content["openset"]
        self.openset = (
            None if stored is None else OpenSet(**{k: v.to(device) for k, v in stored.items()})
        )

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Predictor:
        """Load a model file.

        Raises:
            InputError: the file is missing, damaged, unsafe, or not a model of this program.
        """
        content = load_checkpoint(path, format=MODEL_FORMAT, device=device)
        try:
            return cls(content, torch.device(device))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError.at(path, f"is not a complete model file ({error})") from error

    @torch.inference_mode()
    def predict(self, audio: Tensor, *, unknown_score: str = "mahalanobis") -> ClipPredictions:
        """Judge clips, int16 or float [shape=(batch, read_samples)].

        Raises:
            ValueError: `unknown_score` is not one of `UNKNOWN_SCORES`, or is ``mahalanobis`` for a
                model that was saved without open-set statistics.
        """
        with whole_float32(self.device):
            out = self.model(audio.to(self.device))
        tempered = out["logits"].float() / self.calibration.temperature
        if self.task == "multiclass":
            probabilities = torch.softmax(tempered, dim=1)
            scores = probabilities
        else:
            probabilities = torch.sigmoid(tempered)
            shift = torch.as_tensor(self.calibration.shift, dtype=torch.float32).to(self.device)
            scores = torch.sigmoid(tempered - shift)
        if unknown_score == "energy":
            unknown = -torch.nn.functional.softplus(tempered).sum(dim=1)
        elif unknown_score == "max_probability":
            unknown = 1.0 - probabilities.amax(dim=1)
        elif unknown_score == "mahalanobis" and self.openset is not None:
            unknown = self.openset.score(out["features"].float())
        else:
            have = UNKNOWN_SCORES if self.openset else UNKNOWN_SCORES[1:]
            raise ValueError(f"unknown_score must be one of {', '.join(have)} for this model")
        heads = {
            name: out[name].float().cpu().numpy()
            for name in ("velocity", "openness")
            if name in out
        }
        return ClipPredictions(
            scores=scores.cpu().numpy(),
            velocity=heads.get("velocity"),
            openness=heads.get("openness"),
            unknown=unknown.cpu().numpy(),
            logits=out["logits"].float().cpu().numpy(),
            features=out["features"].float().cpu().numpy(),
        )

    def statistics(self) -> dict[str, NDArray[np.float32]]:
        """Return the class layer and, where the model has them, the open-set statistics.

        `weight` [shape=(n_classes, n_features)], `bias` [shape=(n_classes,)] and the arrays of
        `OpenSet`.
        """
        layer = self.model.cnn.classes
        found = {"weight": layer.weight, "bias": layer.bias}
        if self.openset is not None:
            found |= self.openset.as_dict()
        return {name: value.detach().float().cpu().numpy() for name, value in found.items()}
