"""SIGINT and SIGTERM as a wish that is granted at the next good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Signals", "termination_interrupts"]


class Signals:
    """Notes the first SIGINT or SIGTERM while it watches; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None

    @property
    def came(self) -> bool:
        """Whether a signal has come."""
        return self.number is not None

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Take the signals over for as long as the block lasts; only the main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number: int, _frame: FrameType | None) -> None:
            self.number = number
            for each, handler in previous.items():
                signal.signal(each, handler)

        previous = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
        for each in previous:
            signal.signal(each, note)
        try:
            yield
        finally:
            for each, handler in previous.items():
                signal.signal(each, handler)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as SIGINT does, for as long as the block lasts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
