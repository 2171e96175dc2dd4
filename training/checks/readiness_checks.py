"""The checks that a readiness run can make: what each reads, what it takes, and its gates."""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_type_hints

from training.gates import Report, load_thresholds
from training.gates.model import Threshold

Kind = Literal["input", "gate", "option"]

# What is no matter of a readiness run: where the thresholds come from is decided once for all
# checks, and nothing is written or read beside what is judged.
_CLOSED: Final = frozenset(
    {
        *("gates", "gate_values", "jobs", "mics", "cache_dir"),
        *("bless", "blessed_by", "first_baseline", "allow_failing"),
    }
)


@dataclass(frozen=True, slots=True)
class Range:
    """What a number must lie in; the ends belong to it, save those that are open."""

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def holds(self, value: float) -> bool:
        """Whether a number lies in it."""
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"at least {self.low:g}"
        if self.high == math.inf:
            return low
        return f"{low} and {'below' if self.open_high else 'at most'} {self.high:g}"


# As the commands of the checks have them; a name means the same in all of them.
_SHARE: Final = Range(0, 1)
_RANGES: Final = {
    "max_shift_ms": Range(1, 1000),
    "max_events_per_second": Range(1),
    "threshold": _SHARE,
    "top_k": Range(1),
    "min_classes": Range(1),
    "iterations": Range(1),
    "confidence": Range(0, 1, open_low=True, open_high=True),
    "seed": Range(0),
    "temperature": Range(0, open_low=True),
    "neighbours": Range(1),
    "calibration_tpr": Range(0, 1, open_low=True),
    "min_examples": Range(1),
    "min_events": Range(1),
    "min_clusters": Range(2),
    "min_support": Range(3),
    "max_drop_pct": Range(0, 100),
    **dict.fromkeys(
        (
            *("max_duplication_rate", "max_synthetic_fraction", "min_annotated_share"),
            *("max_clipping_rate", "max_outlier_rate", "min_macro_recall", "max_recall_lost"),
            *("min_auroc", "max_fpr_at_95tpr", "min_calibrated_tpr", "max_calibrated_fpr"),
            *("min_macro_f1", "max_macro_f1_drop", "max_openness_mae_rise"),
            *("max_ece", "max_brier", "max_class_ece", "min_macro_precision"),
        ),
        _SHARE,
    ),
}
_COUNT: Final = Range(0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Field:
    """One thing that a check can be given.

    Attributes:
        name: as in the check's `Options`.
        kind: a file or folder to read, the value of a gate, or anything else.
        many: for an input, whether it may be several.
        type: what its value must be, in Python's terms.
        default: what it is when it is not given.
    """

    name: str
    kind: Kind
    many: bool
    type: Any
    default: Any

    @property
    def range(self) -> Range | None:
        """What its value must lie in, where it is a number; no gate takes less than 0."""
        return _RANGES.get(self.name, _COUNT if self.kind == "gate" else None)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Attributes:
        name: as in `--checks` and in a configuration.
        tool: the command that does the same by itself.
        module: where its `Options` and `run` are.
        table: the table of its gates in a gates file.
        about: the question that it answers.
        needs: what must be given; of each group, one.
        not_judged: gates of that table that belong to other uses of its tool.
        only_asked: whether only the gates are judged that somebody asks for.
        after: the check whose report it reads when no `candidate` is given.
        flags: its flags whose names differ from those of the options.
    """

    name: str
    tool: str
    module: str
    table: str
    about: str
    needs: tuple[tuple[str, ...], ...] = (("ground_truth",), ("predictions",))
    not_judged: frozenset[str] = frozenset()
    only_asked: bool = False
    after: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)

    def flag(self, name: str) -> str:
        """Return the flag of the readiness command that gives one of the options."""
        return f"--{self.name}-{self.flags.get(name, name)}".replace("_", "-")

    @cached_property
    def thresholds(self) -> dict[str, Threshold]:
        """The shipped thresholds of its gates, by name."""
        found = load_thresholds(self.table)
        return {name: each for name, each in found.items() if name not in self.not_judged}

    def range_of(self, gate: str) -> Range:
        """What the value of one of its gates must lie in."""
        return _RANGES.get(gate, _COUNT)

    @cached_property
    def fields(self) -> dict[str, Field]:
        """What it can be given, by name."""
        kind = importlib.import_module(self.module).Options
        hints = get_type_hints(kind)
        return {
            each.name: self._field(each.name, hints[each.name], each.default)
            for each in fields(kind)
            if each.name not in _CLOSED
        }

    def run(self, given: Mapping[str, Any]) -> Report:
        """Run it. Raises what the check itself raises."""
        module = importlib.import_module(self.module)
        report: Report = module.run(module.Options(**given))
        return report

    def _field(self, name: str, hint: Any, default: Any) -> Field:
        parts = _parts(hint)
        if Path in parts:
            return Field(name=name, kind="input", many=tuple in parts, type=hint, default=default)
        number = name in self.thresholds and bool({int, float} & parts)
        kind: Kind = "gate" if number else "option"
        return Field(name=name, kind=kind, many=False, type=hint, default=default)


def _parts(hint: Any) -> set[Any]:
    """Return a type and all that it is made of."""
    origin = getattr(hint, "__origin__", None)
    return {hint, origin}.union(*(_parts(each) for each in get_args(hint)))


_ALL: Final = (
    Check(
        name="alignment",
        tool="align-qc",
        module="training.checks.alignment",
        table="alignment",
        about="Do the microphones of a session hear each hit when they should?",
        needs=(("manifests", "session_dirs"),),
        flags={"manifests": "manifest"},
    ),
    Check(
        name="health",
        tool="dataset-health",
        module="training.checks.health",
        table="health",
        about="Is there enough in the dataset, and is it clean enough, to train on?",
        needs=(("events",),),
        only_asked=True,
        flags={
            "require_techniques": "require_technique",
            "require_techniques_files": "require_techniques_file",
            "require_labels": "require_label",
            "require_labels_files": "require_labels_file",
        },
    ),
    Check(
        name="boundary",
        tool="boundary-eval",
        module="training.checks.boundary",
        table="boundary",
        about="Does the model still find hits beside the edge of a window?",
    ),
    Check(
        name="openset",
        tool="openset-eval",
        module="training.checks.openset",
        table="openset",
        about="Does the model tell unknown sounds from the classes that it knows?",
    ),
    Check(
        name="bootstrap",
        tool="bootstrap-eval",
        module="training.checks.bootstrap",
        table="bootstrap",
        about="How good is the model on each class, and how sure is that figure?",
    ),
    Check(
        name="calibration",
        tool="calibrate --split test",
        module="training.checks.readiness_calibration",
        table="calibration_test",
        about="Do the model's scores mean what they say, on clips that nothing was fitted on?",
    ),
    Check(
        name="manifest",
        tool="validate-manifest",
        module="training.checks.readiness_manifest",
        table="manifest",
        about="Do the events contradict each other, or their audio?",
        needs=(("events",),),
    ),
    Check(
        name="store",
        tool="build-training-dataset --verify-only",
        module="training.checks.readiness_store",
        table="dataset",
        about="Is the clip store what was written, from these events, with nothing in two splits?",
        needs=(("store",), ("events",)),
        not_judged=frozenset(
            {
                "max_shared_sessions",
                "max_untrained_labels",
                "max_unjudged_labels",
                "max_duration_mismatches",
            }
        ),
    ),
    Check(
        name="health_compare",
        tool="compare-health-reports",
        module="training.checks.health_compare",
        table="health_compare",
        about="Has the dataset lost anything since the last good one?",
        needs=(("baseline",), ("candidate",)),
        not_judged=frozenset({"max_failing_gates_blessed"}),
        after="health",
    ),
)
CHECKS: Final = {check.name: check for check in _ALL}
USUAL: Final = ("alignment", "health", "boundary", "openset", "bootstrap")
"""What is run where nobody says what to run."""
