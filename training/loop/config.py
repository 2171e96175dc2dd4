"""The recipe of a training run: typed, frozen, checked, read from TOML.

A recipe has three tables, ``[features]``, ``[augment]`` and ``[training]``. The presets
`configs/train/{default,short,fast}.toml` are recipes; a user's own TOML is laid over one. An
unknown table or key is an error that names the nearest known one.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import msgspec

from training.audio.logmel import FeatureConfig
from training.errors import InputError
from training.loop.augment import AugmentConfig
from training.loop.schedule import SCHEDULES
from training.resources import config_path

__all__ = ["PRESETS", "Recipe", "TrainingConfig", "load_recipe"]

PRESETS: Final = ("default", "short", "fast")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a model is fitted. Checked when it is made (ValueError)."""

    task: Literal["multilabel", "multiclass"] = "multilabel"
    """Several labels an event (sigmoid) or exactly one (softmax)."""
    epochs: int = 50
    """Passes over the training clips; with a time budget, an upper limit."""
    max_minutes: float | None = None
    """Time budget: the schedule is laid over it, so that the run ends annealed. Not bit-exact."""
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["onecycle", "cosine", "linear", "constant"] = "onecycle"
    warmup: float = 0.1
    """Share of the run in which the learning rate rises."""
    gradient_clip: float | None = 1.0
    """Largest gradient norm; None does not clip."""
    label_smoothing: float = 0.05
    """Half of the usual 0.1: a sigmoid a class has no other classes to share it with."""
    dropout: float = 0.3
    velocity_weight: float = 0.5
    openness_weight: float = 0.5
    balance: float = 0.5
    """0 draws every clip alike; 1 draws by the inverse frequency of its rarest label; 0.5 between.
    """
    pos_weight_max: float = 1.0
    """Weight positives by negatives / positives of their class, at most this much; 1 = off."""
    ema_decay: float = 0.0
    """Decay a step of the averaged weights that are evaluated and kept; 0 = off."""
    patience: int = 15
    """Evaluations without improvement after which training stops."""
    min_delta: float = 0.001
    """What counts as improvement of the monitored figure."""
    monitor: str = "macro_f1"
    """The validation figure that selects the weights to keep."""
    mode: Literal["max", "min"] = "max"
    save_every: int = 500
    """Steps between resumable checkpoints; one is also written at the end of every epoch."""
    log_every: int = 20
    """Steps between looks at the loss (each waits for the device)."""
    amp: bool = True
    """bf16 autocast on CUDA. Never used on a CPU, where it is slower."""
    channels_last: bool = True
    threads: int | None = None
    """CPU threads for PyTorch; None leaves its default."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience", "save_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("label_smoothing", "dropout", "warmup", "ema_decay"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "velocity_weight", "openness_weight", "min_delta", "balance"):
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0.0 < self.learning_rate < 10.0:
            raise ValueError(f"learning_rate must lie in (0, 10), got {self.learning_rate}")
        for name in ("max_minutes", "gradient_clip", "threads"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be positive, got {value}")
        if self.pos_weight_max < 1.0:
            raise ValueError(f"pos_weight_max must be at least 1, got {self.pos_weight_max}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """All that a run depends on beside its data: features, augmentation, training."""

    preset: str = "default"
    features: FeatureConfig = field(default_factory=FeatureConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as plain values, defaults included."""
        return asdict(self)

    @property
    def signature(self) -> str:
        """A short hash of the whole recipe: the same settings give the same one."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_recipe(
    preset: str = "default",
    overlay: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Recipe:
    """Read a preset, lay the user's TOML over it, then the training settings of `overrides`.

    An override of None keeps what is there.

    Raises InputError for a file that is missing, not TOML, or has an unknown or ill-typed key.
    """
    path = config_path(f"train/{preset}.toml")
    tables = _read_toml(path)
    source: Path = path
    if overlay is not None:
        source = overlay
        for name, table in _read_toml(overlay).items():
            tables.setdefault(name, {}).update(table)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    tables.setdefault("training", {}).update(given)
    return Recipe(
        preset=preset,
        features=_convert(source, "features", tables.get("features", {}), FeatureConfig),
        augment=_convert(source, "augment", tables.get("augment", {}), AugmentConfig),
        training=_convert(source, "training", tables["training"], TrainingConfig),
    )


def _read_toml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.at(path, f"cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError.at(path, f"not TOML ({error})") from error
    for name, table in tables.items():
        _require_known(path, name, {"features", "augment", "training"}, "table")
        if not isinstance(table, dict):
            raise InputError.at(path, "must be a table", field=name, got=table)
    return tables


def _convert(path: Path, table: str, values: Mapping[str, Any], kind: type[T]) -> T:
    known = {item.name for item in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        _require_known(path, key, known, "key", prefix=f"{table}.")
    try:
        return msgspec.convert(dict(values), kind)
    except msgspec.ValidationError as error:
        why, _, where = str(error).partition(" - at `$.")
        name = f"{table}.{where.rstrip('`')}" if where else table
        raise InputError.at(path, why, field=name) from error


def _require_known(path: Path, name: str, known: set[str], what: str, prefix: str = "") -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(sorted(known))}"
    raise InputError.at(path, f"unknown {what}{hint}", field=f"{prefix}{name}")
