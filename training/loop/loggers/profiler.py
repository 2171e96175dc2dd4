"""Where the time of a training step goes, by section: wall time, and time on the device.

The trainer opens the sections (`training.loop.callbacks.Sections`); ``features``, the part of
``forward`` that computes the log-mel, is told apart by hooks on that module.

Wall time is the host's. On CUDA the host only queues work, so it says where the host waited;
events on the stream give the time between the same marks on the device. Reading them waits for
the device, so they are read in blocks.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from training.loop.callbacks import Callback, EndInfo, RunInfo
from training.manifest import atomic_write, write_json

__all__ = ["SectionProfiler", "TraceRecorder", "profile_table"]

ORDER: Final = ("data", "augment", "features", "forward", "backward", "optimiser", "other")
BESIDE: Final = ("validation", "checkpoint")
"""Sections that are no part of a step."""
WARM_UP: Final = 5
"""Steps that are left out: the first ones allocate, tune and compile."""
BLOCK: Final = 256
"""Marks on the device that are kept before they are read."""

Interval = tuple[str, float, Any, Any]
"""Section, wall seconds, events on the device before and after it (None on a CPU)."""


class SectionProfiler(Callback):
    """Measures the sections of training steps.

    Args:
        device: where the model trains; with CUDA, times on the device are measured as well.
        features: the module whose time within ``forward`` is counted as ``features``.
        path: where the summary is written at the end, as JSON; None writes nothing.
        show: is given the summary as text at the end.
        warm_up: steps at the start that are left out.
        clock: returns seconds.
    """

    def __init__(
        self,
        device: torch.device | str = "cpu",
        *,
        features: nn.Module | None = None,
        path: Path | None = None,
        show: Callable[[str], object] | None = None,
        warm_up: int = WARM_UP,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.device = torch.device(device)
        self.features = features
        self.path = path
        self.show = show
        self.warm_up = warm_up
        self.steps = 0
        self._clock = clock
        self._wall: dict[str, float] = {}
        self._on_device: dict[str, float] = {}
        self._seen = 0
        self._step: list[Interval] = []
        self._unread: list[Interval] = []
        self._open: tuple[str, float, Any] | None = None
        self._last: tuple[float, Any] | None = None
        self._handles: list[Any] = []

    def on_train_start(self, info: RunInfo) -> None:
        """Begin. Hooks would break the graph of a compiled model: `features` stay in forward."""
        if self.features is not None and not info.compiled:
            self._handles = [
                self.features.register_forward_pre_hook(self._before_features),
                self.features.register_forward_hook(self._after_features),
            ]

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Time a section while it is open. Sections do not overlap."""
        self._open = (name, *self._mark())
        try:
            yield
        finally:
            self._close_section()

    def next_step(self) -> None:
        """Take the sections of a step in; what lies between them and the last step is ``other``."""
        now, event = self._mark()
        step, self._step = self._step, []
        self._seen += 1
        if self._seen > self.warm_up and self._last is not None:
            self.steps += 1
            whole: Interval = ("step", now - self._last[0], self._last[1], event)
            self._unread += [*step, whole]
            if len(self._unread) >= BLOCK:
                self._read()
        self._last = (now, event)

    def on_end(self, info: EndInfo) -> None:
        """Take the hooks away, write the summary and show it."""
        self.close()
        if self.show is not None:
            self.show(profile_table(self.summary()))

    def detach(self) -> None:
        """Take the hooks away; may be called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def close(self) -> None:
        """Take the hooks away and write what was measured, however the run ended."""
        self.detach()
        path, self.path = self.path, None
        if path is not None and self._seen:
            write_json(path, self.summary())

    def summary(self) -> dict[str, Any]:
        """Return seconds, milliseconds a step and shares by section.

        ``sections`` is empty where no step lies after those left out. ``other`` is the rest of
        the steps' time; ``beside`` has the seconds of validation and checkpoints.
        """
        self._read()
        steps: dict[str, dict[str, float]] = {}
        for kind, times in (("wall", self._wall), ("device", self._on_device)):
            whole = times.get("step", 0.0) - sum(times.get(name, 0.0) for name in BESIDE)
            if not self.steps or whole <= 0.0:
                continue
            known = {name: times[name] for name in times if name not in ("step", *BESIDE)}
            known["other"] = max(0.0, whole - sum(known.values()))
            for name in sorted(known, key=_place):
                steps.setdefault(name, {}).update(
                    {
                        f"{kind}_s": known[name],
                        f"{kind}_ms_a_step": 1000.0 * known[name] / self.steps,
                        f"{kind}_share": known[name] / whole,
                    }
                )
        beside = {name: self._wall[name] for name in BESIDE if name in self._wall}
        return {
            "device": str(self.device),
            "steps": self.steps,
            "sections": steps,
            "beside_wall_s": beside,
        }

    def _before_features(self, module: nn.Module, _inputs: Any) -> None:
        if module.training and self._open is not None:
            name = self._open[0]
            self._close_section()
            self._open = (name, *self._mark())

    def _after_features(self, module: nn.Module, _inputs: Any, _outputs: Any) -> None:
        if module.training and self._open is not None:
            name = self._open[0]
            self._open = ("features", *self._open[1:])
            self._close_section()
            self._open = (name, *self._mark())

    def _close_section(self) -> None:
        if self._open is not None:
            name, since, before = self._open
            now, after = self._mark()
            self._step.append((name, now - since, before, after))
            self._open = None

    def _mark(self) -> tuple[float, Any]:
        event = None
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self.device))
        return self._clock(), event

    def _read(self) -> None:
        if self._unread and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        for name, seconds, before, after in self._unread:
            self._wall[name] = self._wall.get(name, 0.0) + seconds
            if after is not None:
                on_device = before.elapsed_time(after) / 1000.0
                self._on_device[name] = self._on_device.get(name, 0.0) + on_device
        self._unread = []


def profile_table(summary: Mapping[str, Any]) -> str:
    """Return a profile as text, a line a section."""
    rows: Mapping[str, Mapping[str, float]] = summary["sections"]
    if not rows:
        return "profile: too few steps were made to measure anything"
    kinds = [kind for kind in ("wall", "device") if f"{kind}_share" in next(iter(rows.values()))]
    lines = [
        f"{'section':<12}" + "".join(f"{kind + ' ms a step':>18}{'share':>9}" for kind in kinds)
    ]
    for name, row in rows.items():
        line = f"{name:<12}"
        for kind in kinds:
            share = 100.0 * row.get(f"{kind}_share", 0.0)
            line += f"{row.get(f'{kind}_ms_a_step', 0.0):>18.3f}{share:>7.1f} %"
        lines.append(line)
    lines.append(f"({summary['steps']} steps on {summary['device']})")
    return "\n".join(lines)


class TraceRecorder(Callback):
    """Records a few steps with `torch.profiler`, for chrome://tracing or Perfetto.

    It goes round another recorder of sections, so that both can watch one run.

    Args:
        path: where the trace goes (Chrome's JSON).
        device: where the model trains.
        inner: takes the sections as well.
        after: steps before the first that is recorded.
        steps: how many are recorded.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device | str = "cpu",
        *,
        inner: SectionProfiler | None = None,
        after: int = WARM_UP,
        steps: int = 5,
    ) -> None:
        self.path = path
        self.device = torch.device(device)
        self.inner = inner
        self.after = after
        self.steps = steps
        self.written = False
        self._seen = 0
        self._watching = False
        self._profile: Any = None

    def on_train_start(self, info: RunInfo) -> None:
        """Be ready; start at once where the first step is wanted.

        Of several processes only the one that is told of the run records.
        """
        self._watching = True
        if self.inner is not None:
            self.inner.on_train_start(info)
        if self.after == 0:
            self._start()

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Name what is done within it in the trace."""
        inner: AbstractContextManager[Any] | None
        inner = None if self.inner is None else self.inner.section(name)
        with torch.profiler.record_function(f"drumgate:{name}"):
            if inner is None:
                yield
            else:
                with inner:
                    yield

    def next_step(self) -> None:
        """Start or stop where the step that has ended says so."""
        if self.inner is not None:
            self.inner.next_step()
        self._seen += 1
        if self._seen == self.after and self._watching:
            self._start()
        elif self._seen == self.after + self.steps:
            self._write()

    def on_end(self, info: EndInfo) -> None:
        """Write what was recorded of a run that was shorter than expected."""
        self._write()
        if self.inner is not None:
            self.inner.on_end(info)

    def close(self) -> None:
        """Stop recording, however the run ended."""
        self._write()
        if self.inner is not None:
            self.inner.close()

    def _start(self) -> None:
        kinds = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            kinds.append(torch.profiler.ProfilerActivity.CUDA)
        self._profile = torch.profiler.profile(activities=kinds)
        self._profile.start()

    def _write(self) -> None:
        if self._profile is None:
            return
        profile, self._profile = self._profile, None
        profile.stop()
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "trace.json"
            profile.export_chrome_trace(str(made))
            with atomic_write(self.path, binary=True) as file:
                file.write(made.read_bytes())
        self.written = True


def _place(name: str) -> int:
    return ORDER.index(name) if name in ORDER else len(ORDER)
