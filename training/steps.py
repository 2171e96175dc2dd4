"""Telling whoever watches how far a long loop is; nobody watches unless a command line does.

A check or a metric wraps its loop in `steps` and knows nothing of terminals. What shows it is set
for the length of a command, and only in its own thread: a thread that was handed no context is
watched by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final, TypeVar

T = TypeVar("T")


def _unseen(items: Iterable[Any], _what: str, _total: int | None) -> Iterable[Any]:
    return items


watcher: Final[ContextVar[Callable[[Iterable[Any], str, int | None], Iterable[Any]]]] = ContextVar(
    "watcher", default=_unseen
)
"""Yields the items of a loop, and shows what it does and how far it is."""


def steps(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Return the items of a loop that may take long.

    Args:
        items: what the loop works through.
        what: what it does, in a few words, such as "resampling".
        total: how many items there are, where `items` does not know itself.
    """
    return watcher.get()(items, what, total)
