"""Arrays as small PNG files, in colours that read on light and on dark paper."""

from __future__ import annotations

import struct
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt

LEVELS: Final = 64
# Stops of the "magma" map (van der Walt and Smith, CC0): even steps in lightness, also in grey.
_STOPS: Final = (
    (0, 0, 4), (28, 16, 68), (79, 18, 123), (129, 37, 129), (181, 54, 122),
    (229, 80, 100), (251, 135, 97), (254, 194, 135), (252, 253, 191),
)  # fmt: skip


def png(values: npt.NDArray[np.floating[Any]]) -> bytes:
    """Return a picture of a matrix: its first row at the bottom, its smallest value darkest.

    Args:
        values: shape (rows, columns), finite. A matrix of one value gives a dark picture.

    Raises:
        ValueError: the matrix is empty, not two-dimensional, or holds what is not finite.
    """
    if values.ndim != 2 or values.size == 0 or not np.isfinite(values).all():
        raise ValueError(f"needs a finite matrix that is not empty, got shape {values.shape}")
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low if high > low else 1.0)
    pixels = np.rint(scaled * (LEVELS - 1)).astype(np.uint8)[::-1]
    rows, columns = pixels.shape
    # Each line starts with its filter; "sub" (1) suits pictures that change slowly along time.
    differences = np.diff(pixels, axis=1, prepend=np.zeros((rows, 1), np.uint8))
    lines = np.concatenate([np.ones((rows, 1), np.uint8), differences.astype(np.uint8)], axis=1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 3, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        _chunk(kind, body)
        for kind, body in (
            (b"IHDR", header),
            (b"PLTE", _palette().tobytes()),
            (b"IDAT", zlib.compress(lines.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


def _palette() -> npt.NDArray[np.uint8]:
    stops = np.asarray(_STOPS, dtype=np.float64)
    at = np.linspace(0, len(stops) - 1, LEVELS)
    channels = [np.interp(at, np.arange(len(stops)), stops[:, c]) for c in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


def _chunk(kind: bytes, body: bytes) -> bytes:
    checked = kind + body
    return struct.pack(">I", len(body)) + checked + struct.pack(">I", zlib.crc32(checked))
