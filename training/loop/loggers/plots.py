"""Curves of a run as pictures: losses, figures of the validation, the learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training.loop.loggers.figures import scalars
from training.manifest import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_history"]

FORMS: Final = ("png", "svg")
NOT_CURVES: Final = {"epoch", "step", "learning_rate"}


def plot_history(
    history: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    per_class: Mapping[str, float] | None = None,
    floors: Mapping[str, float] | None = None,
) -> list[Path]:
    """Draw a run's history and write it as ``history.png`` and ``history.svg``; return the paths.

    Args:
        history: one mapping an evaluation; an empty one writes nothing.
        folder: where the pictures go.
        per_class: F1 of each class of the finished model.
        floors: F1 of each class of the logistic regression on band energies.

    Raises:
        InputError: a picture cannot be written there.
    """
    if not history:
        return []
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    lines = [scalars(entry) for entry in history]
    with rc_context({"svg.hashsalt": "drumgate", "svg.fonttype": "none"}):
        # A Figure of its own draws without pyplot: no window, no global state.
        figure = Figure(figsize=(11, 7), layout="constrained")
        axes = figure.subplots(2, 2)
        _curves(axes[0][0], lines, "loss", [n for n in _names(lines) if n.endswith("loss")])
        shares = [n for n in _names(lines) if _is_share(n)]
        _curves(axes[0][1], lines, "validation", shares, limit=1.0)
        _curves(axes[1][0], lines, "learning rate", ["learning_rate"])
        _classes(axes[1][1], per_class or {}, floors or {})
        best = next((line for line in reversed(history) if line.get("best")), None)
        if best is not None:
            for axis in (axes[0][0], axes[0][1], axes[1][0]):
                axis.axvline(best["epoch"], color="0.6", linewidth=0.8, linestyle=":")
        return _write(figure, folder)


def _names(lines: Sequence[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for line in lines for name in line if name not in NOT_CURVES))


def _is_share(name: str) -> bool:
    return name in ("map", "ece", "recall", "accuracy") or "f1" in name or name.startswith("top_")


def _curves(
    axis: Axes,
    lines: Sequence[Mapping[str, float]],
    title: str,
    names: Sequence[str],
    *,
    limit: float | None = None,
) -> None:
    from matplotlib.ticker import MaxNLocator

    for name in names:
        points = [(line["epoch"], line[name]) for line in lines if name in line]
        if points:
            axis.plot(*zip(*points, strict=True), marker=".", markersize=4, label=name)
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel("epoch")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.25)
    if limit is not None:
        axis.set_ylim(0.0, 1.02 * limit)  # a curve along the top is to be seen
    if axis.lines:
        axis.legend(fontsize=8, frameon=False)


def _classes(axis: Axes, per_class: Mapping[str, float], floors: Mapping[str, float]) -> None:
    axis.set_title("F1 a class; the line is the logistic regression", loc="left", fontsize=10)
    axis.set_xlim(0.0, 1.02)
    names = list(per_class)
    places = range(len(names))
    axis.barh(list(places), [per_class[name] for name in names], height=0.7)
    for place, name in zip(places, names, strict=True):
        if name in floors:
            axis.plot([floors[name]] * 2, [place - 0.42, place + 0.42], color="black", linewidth=2)
    axis.set_yticks(list(places), names, fontsize=8)
    axis.invert_yaxis()


def _write(figure: Figure, folder: Path) -> list[Path]:
    paths = []
    for form in FORMS:
        path = folder / f"history.{form}"
        metadata = {"Date": None} if form == "svg" else {"Software": None}
        with atomic_write(path, binary=True) as file:
            figure.savefig(file, format=form, dpi=120, metadata=metadata)
        paths.append(path)
    return paths
