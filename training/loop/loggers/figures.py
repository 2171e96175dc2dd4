"""What loggers may write: plain, finite values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["finite", "scalars"]


def finite(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields without the numbers that are NaN or infinite, also those of tables in it.

    In a list such a number becomes None: leaving it out would move the others.
    """
    return {name: _plain(value) for name, value in fields.items() if not _is_lost(value)}


def scalars(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the finite numbers of a history line; truth values, lists and texts are left out."""
    return {
        name: float(value)
        for name, value in finite(entry).items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return finite(value)
    if isinstance(value, list | tuple):
        return [None if _is_lost(each) else _plain(each) for each in value]
    return value


def _is_lost(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
