"""Checkpoints: tensors and plain values only, written whole or not at all, never unpickled freely.

A *model* file holds all that predicting needs: weights, labels, features with their statistics,
calibration, open-set statistics, and where they came from. A *run* file holds all that going on
needs. Both are loaded with ``weights_only=True``: a file that would run code is refused.
"""

from __future__ import annotations

import glob
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any, Final

import torch

from training.errors import InputError
from training.manifest import atomic_write

__all__ = [
    "MODEL_FORMAT",
    "RUN_FORMAT",
    "clear_leftovers",
    "load_checkpoint",
    "save_checkpoint",
]

MODEL_FORMAT: Final = "drumgate-model"
RUN_FORMAT: Final = "drumgate-run"
VERSIONS: Final = {MODEL_FORMAT: 1, RUN_FORMAT: 2}


def save_checkpoint(path: Path, content: dict[str, Any], *, format: str) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        InputError: the file cannot be written there.
        OSError: it cannot be written to the end; the disk is full, say.
    """
    with atomic_write(path, binary=True) as file:
        try:
            torch.save({"format": format, "version": VERSIONS[format], **content}, file)
        except RuntimeError as error:
            # When a write has failed PyTorch fails again as it closes, and that is what it says.
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def clear_leftovers(path: Path) -> None:
    """Delete the unfinished files that writers of `path` left beside it when they were killed."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        leftover.unlink(missing_ok=True)


def load_checkpoint(
    path: Path, *, format: str, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint of the given format onto a device.

    Raises:
        InputError: the file is missing, damaged, holds more than tensors and plain values, or is
            of another format or version.
    """
    if not path.exists():
        raise InputError.at(path, "no such file")
    try:
        with warnings.catch_warnings():
            # A strange file makes PyTorch warn before it refuses; the error says all there is.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError as error:
        why = "holds more than tensors and plain values (or is damaged); refused"
        raise InputError.at(path, why) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError.at(path, "is not a readable checkpoint") from error
    if not isinstance(content, dict) or content.get("format") != format:
        raise InputError.at(path, f"is not a checkpoint of the kind {format}")
    if content.get("version") != VERSIONS[format]:
        why = f"must be of version {VERSIONS[format]}"
        raise InputError.at(path, why, field="version", got=content.get("version"))
    return content
