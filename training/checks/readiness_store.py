"""A clip store as a gate: is it what was written, and was it built from these events?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from training.checks import build_dataset
from training.gates import GatesSource, Report
from training.manifest import describe_file


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """Which store is verified, and against what.

    With `audio_root` the recordings are hashed as well.
    """

    store: Path
    events: Path
    audio_root: Path | None = None
    gates: GatesSource | None = None


def run(options: Options) -> Report:
    """Verify a store: hashes, tables against manifests, isolation of the splits.

    Raises:
        InputError: it is no store, or an input cannot be read.
    """
    report = build_dataset.run(
        build_dataset.Options(
            events=options.events,
            out=options.store,
            audio_root=options.audio_root,
            verify_only=True,
            gates=options.gates,
        )
    )
    # The store's own list of hashes says which store it was.
    return replace(report, inputs=[*report.inputs, describe_file(options.store / "metadata.json")])
