"""Hashing texts by the thousand, for telling which of very many may be equal."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HASHED_BYTES = 64
"""Longer texts are shortened by a cryptographic hash first."""


def hash_ids(ids: list[str]) -> NDArray[Any]:
    """Hash texts to 64 bits each (`uint64`), the same on every machine and in every process.

    Equal texts have equal hashes. Others may: whoever relies on it compares the texts.
    """
    if not ids:
        return np.empty(0, dtype=np.uint64)
    texts: list[Any] = ids
    if not "".join(ids).isascii():
        texts = [text.encode() for text in ids]
    if max(map(len, texts)) > _HASHED_BYTES:
        texts = [_shortened(text) for text in texts]
    words = np.array(texts, dtype=f"S{_HASHED_BYTES}").view("<u8").reshape(len(ids), -1)
    state = np.zeros(len(ids), dtype=np.uint64)
    for column in range(words.shape[1]):
        # The finaliser of SplitMix64 (Steele et al. 2014), once a word.
        state ^= words[:, column]
        state += np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return state


def _shortened(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return raw if len(raw) <= _HASHED_BYTES else hashlib.blake2b(raw).hexdigest()[:64].encode()
