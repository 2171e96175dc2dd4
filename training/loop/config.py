"""The recipe of a training run: typed, frozen, checked, read from TOML.

A recipe has three tables, ``[features]``, ``[augment]`` and ``[training]``. The presets
`configs/train/{default,short,fast}.toml` are recipes; a user's own TOML is laid over one, and
single settings (``training.learning_rate=3e-4``) over both. An unknown table or key is an error
that names the nearest known one. A setting that may be None is turned off by "none".
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
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
NONE: Final = "none"
FLAGS: Final = {"learning_rate": "--lr"}
"""Flags that are not named as the setting that they set."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How a model is fitted. Checked when it is made (ValueError)."""

    task: Literal["multilabel", "multiclass"] = "multilabel"
    """Several labels an event (sigmoid) or exactly one (softmax)."""
    epochs: int = 50
    """Passes over the training clips; with a time budget, an upper limit."""
    max_steps: int | None = None
    """Ends the run after so many steps, wherever that is in an epoch."""
    max_minutes: float | None = None
    """Time budget: the schedule is laid over it, so that the run ends annealed. Not bit-exact."""
    batch_size: int = 32
    """Clips of a forward pass, over all processes."""
    accumulate_steps: int = 1
    """Batches whose gradients make one step: the same step as one batch that many times as large,
    batch norm aside."""
    optimiser: Literal["adamw", "adam", "sgd", "rmsprop"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    """Decoupled from the gradient in AdamW; an L2 penalty in the others."""
    momentum: float = 0.9
    """Of SGD (Nesterov's) and RMSprop."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's and AdamW's averages of the gradient and of its square."""
    fused: bool = True
    """One kernel a step for the optimiser, on CUDA, where PyTorch has one."""
    schedule: Literal[
        "onecycle", "cosine", "linear", "constant", "exponential", "polynomial", "plateau", "phased"
    ] = "onecycle"
    warmup: float = 0.1
    """Share of the run in which the learning rate rises; a phased schedule has none unless it is
    given in steps or epochs."""
    warmup_epochs: float | None = None
    """The same in epochs, in place of a share."""
    warmup_steps: int | None = None
    """The same in steps, in place of a share."""
    power: float = 2.0
    """Exponent of the polynomial schedule."""
    final_factor: float = 0.01
    """Share of the learning rate at which exponential ends and below which plateau does not go."""
    plateau_factor: float = 0.5
    """What the learning rate is multiplied by when the monitored figure has stopped improving."""
    plateau_patience: int = 5
    """Evaluations without improvement that plateau waits."""
    phase_learning_rates: tuple[float, ...] = ()
    """Learning rates of the phased schedule, in place of learning_rate."""
    phase_steps: tuple[int, ...] = ()
    """How many steps each of them holds; the run ends after them all, whatever `epochs` says."""
    gradient_clip: float | None = 1.0
    """Largest gradient norm; none does not clip."""
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
    limit_figure: str | None = None
    """A validation figure that comes before the monitored one: weights that keep it at or below
    `limit` beat any that do not. False alarms an hour, say."""
    limit: float | None = None
    """See `limit_figure`."""
    save_every: int = 500
    """Steps between resumable checkpoints; one is also written at the end of every epoch."""
    log_every: int = 20
    """Steps between looks at the loss (each waits for the device)."""
    amp: bool = True
    """Autocast on CUDA. Never used on a CPU, where it is slower."""
    amp_dtype: Literal["bf16", "fp16"] = "bf16"
    """fp16 scales the loss, for GPUs without bf16."""
    channels_last: bool = True
    """Memory format of convolutions."""
    compile: bool = False
    """Compile the network with torch.compile."""
    cuda_graphs: bool = False
    """Compile it and replay it as CUDA graphs, one a batch shape; CUDA only."""
    sync_batch_norm: bool = True
    """With several GPUs, batch norm over the clips of all of them."""
    deterministic: bool = False
    """Only algorithms whose result is the same every time. A CPU's are, with the same threads."""
    tier: Literal["auto", "device", "memory", "disk"] = "auto"
    """Where the audio is fed from; auto takes the fastest that has room."""
    memory_fraction: float = 0.5
    """The largest share of free memory, on the GPU or beside it, that auto may take."""
    shuffle: Literal["full", "blocks"] = "full"
    """blocks keeps clips that lie near each other together: for disks that are slow here and there.
    """
    threads: int | None = None
    """CPU threads for PyTorch; none leaves its default."""
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "batch_size", "accumulate_steps", "patience", "save_every")
        _at_least(self, 1, "log_every", "plateau_patience", "max_steps", "threads")
        _at_least(self, 0, "weight_decay", "velocity_weight", "openness_weight", "min_delta")
        _at_least(self, 0, "balance", "warmup_steps", "warmup_epochs", "seed")
        for name in ("label_smoothing", "dropout", "warmup", "ema_decay", "momentum"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {getattr(self, name)}")
        if not 0.0 < self.memory_fraction <= 1.0:
            raise ValueError(f"memory_fraction must lie in (0, 1], got {self.memory_fraction}")
        for name in ("learning_rate", "power"):
            if not 0.0 < getattr(self, name) < 10.0:
                raise ValueError(f"{name} must lie in (0, 10), got {getattr(self, name)}")
        for name in ("final_factor", "plateau_factor"):
            if not 0.0 < getattr(self, name) < 1.0:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")
        for name in ("max_minutes", "gradient_clip"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < math.inf:
                raise ValueError(f"{name} must be positive, got {value}")
        if not 1.0 <= self.pos_weight_max < math.inf:
            raise ValueError(f"pos_weight_max must be at least 1, got {self.pos_weight_max}")
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        if self.warmup_steps is not None and self.warmup_epochs is not None:
            raise ValueError("give warmup_steps or warmup_epochs, not both")
        if (self.limit is None) != (self.limit_figure is None):
            raise ValueError("limit and limit_figure go together")
        if self.limit is not None and not math.isfinite(self.limit):
            raise ValueError(f"limit must be finite, got {self.limit}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}")
        self._check_phases()

    def _check_phases(self) -> None:
        rates, steps = self.phase_learning_rates, self.phase_steps
        if self.schedule != "phased":
            if rates or steps:
                raise ValueError('phase_learning_rates and phase_steps need schedule = "phased"')
            return
        if not rates or len(rates) != len(steps):
            raise ValueError(
                "a phased schedule needs phase_learning_rates and phase_steps of the same length, "
                f"got {len(rates)} and {len(steps)}"
            )
        if not all(0.0 < rate < 10.0 for rate in rates):
            raise ValueError(f"phase_learning_rates must lie in (0, 10), got {list(rates)}")
        if min(steps) < 1:
            raise ValueError(f"phase_steps must be at least 1 each, got {list(steps)}")
        if self.max_minutes is not None:
            raise ValueError("a phased schedule counts steps; it cannot follow max_minutes")


def _at_least(config: TrainingConfig, least: int, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is None or least <= value < math.inf:
            continue
        why = "must not be negative" if least == 0 else f"must be at least {least}"
        raise ValueError(f"{name} {why}, got {value}")


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


TABLES: Final[dict[str, Any]] = {
    "features": FeatureConfig,
    "augment": AugmentConfig,
    "training": TrainingConfig,
}


def load_recipe(
    preset: str = "default",
    overlay: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Recipe:
    """Read a preset, lay the user's TOML over it, then `overrides`, then `assignments`.

    Args:
        preset: one of `PRESETS`.
        overlay: TOML with any of the three tables.
        overrides: training settings; None keeps what is there.
        assignments: ``table.key=value`` each, the value as in TOML; a bare word is a string.

    Raises InputError for a file that is missing, not TOML, or has an unknown or ill-typed key.
    """
    path = config_path(f"train/{preset}.toml")
    tables = _read_toml(path)
    source: object = path
    if overlay is not None:
        source = overlay
        for name, table in _read_toml(overlay).items():
            tables.setdefault(name, {}).update(table)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    tables.setdefault("training", {}).update(given)
    flags = {("training", key): FLAGS.get(key, f"--{key.replace('_', '-')}") for key in given}
    for text in assignments:
        name, key, value = _assignment(text)
        tables.setdefault(name, {})[key] = value
        flags[name, key] = "--set"

    def read(name: str, kind: type[T]) -> T:
        mine = {key: flag for (table, key), flag in flags.items() if table == name}
        return _convert(source, name, tables.get(name, {}), kind, mine)

    return Recipe(
        preset=preset,
        features=read("features", FeatureConfig),
        augment=read("augment", AugmentConfig),
        training=read("training", TrainingConfig),
    )


def _assignment(text: str) -> tuple[str, str, Any]:
    """Read ``table.key=value``, whose key must be known."""
    name, equals, value = text.partition("=")
    table, dot, key = name.strip().partition(".")
    if not equals or not dot:
        why = "must read TABLE.KEY=VALUE, such as training.learning_rate=3e-4"
        raise InputError.at("--set", why, got=text)
    _require_known("--set", table, set(TABLES), "table")
    _require_known("--set", key, {item.name for item in fields(TABLES[table])}, "key", f"{table}.")
    try:
        return table, key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return table, key, value.strip()


def _read_toml(path: Path) -> dict[str, dict[str, Any]]:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError.at(path, f"cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError.at(path, f"not TOML ({error})") from error
    for name, table in tables.items():
        _require_known(path, name, set(TABLES), "table")
        if not isinstance(table, dict):
            raise InputError.at(path, "must be a table", field=name, got=table)
    return tables


def _convert(
    source: object, table: str, values: Mapping[str, Any], kind: type[T], flags: Mapping[str, str]
) -> T:
    """Make a table's settings; what is wrong is said of the file, or of the flag that set it."""
    types = {item.name: str(item.type) for item in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        _require_known(source, key, set(types), "key", prefix=f"{table}.")
    given = {
        key: None if value == NONE and types[key].endswith("| None") else value
        for key, value in values.items()
    }
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        why, _, where = str(error).partition(" - at `$.")
        name = f"{table}.{where.rstrip('`')}" if where else table
        named = {where.rstrip("`"), *why.replace(",", " ").split()}
        blamed = next((flag for key, flag in flags.items() if key in named), source)
        raise InputError.at(blamed, why, field=name) from error


def _require_known(source: object, name: str, known: set[str], what: str, prefix: str = "") -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f"; did you mean {prefix}{near[0]}?" if near else f"; known: {', '.join(sorted(known))}"
    raise InputError.at(source, f"unknown {what}{hint}", field=f"{prefix}{name}")
