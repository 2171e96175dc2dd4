"""Features of predicted clips, with what the model knows of training: what openset-eval reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.manifest import atomic_write
from training.model.inference import Predictor


def write_features(
    path: Path,
    features: Mapping[int, NDArray[np.float32]],
    sample_ids: Sequence[str],
    predictor: Predictor,
) -> None:
    """Write a NumPy archive, whole or not at all; nothing in it is pickled.

    Args:
        path: where it goes.
        features: place of the row → its features [shape=(n_features,)]; at least one.
        sample_ids: of every row of the manifest.
        predictor: the model; its class layer and open-set statistics are written too.

    Raises:
        InputError: the file cannot be written there.
    """
    order = sorted(features)
    arrays: dict[str, Any] = {
        "sample_id": np.array([sample_ids[index] for index in order], dtype=np.str_),
        "features": np.stack([features[index] for index in order]),
        "classes": np.array(predictor.labels, dtype=np.str_),
        **predictor.statistics(),
    }
    with atomic_write(path, binary=True) as file:
        np.savez(file, **arrays)
