"""Summarising manifests: a snapshot for logs, of whole files or of their beginning."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from training.errors import InputError
from training.gates import Report
from training.manifest import to_json
from training.manifest.diagnose import diagnose_line, diagnose_value
from training.manifest.engine import Engine, open_engine
from training.manifest.fields import Event
from training.manifest.lines import numbered_lines, packing_of
from training.manifest.read import parquet_rows
from training.manifest.scan import scan_events
from training.manifest.unpack import received
from training.manifest.validate import LineCheck, Track
from training.metrics.summary import summarize


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """What to summarise.

    Attributes:
        inputs: the manifests, summarised together; `-` is standard input.
        limit: look only at the first events, so many over all inputs; None reads all.
        skip_invalid: leave invalid lines out and count them; not together with `limit`.
        memory_limit, cache_dir: see `open_engine` and `scan_events`.
    """

    inputs: tuple[Path, ...]
    limit: int | None = None
    skip_invalid: bool = False
    memory_limit: str | None = None
    cache_dir: Path | None = None


def run(options: Options, *, track: Track | None = None) -> Report:
    """Summarise manifests; `metrics` holds the fields of `training.metrics.summary.Summary`.

    With a limit, files are neither read to their end nor hashed: `inputs` is then empty, and a
    warning says how much was looked at.

    Raises:
        InputError: an input is missing or malformed, as far as it was read.
    """
    warnings = []
    cut = False
    with open_engine(options.memory_limit, track) as engine:
        if options.limit is None:
            scan = scan_events(
                engine,
                options.inputs,
                skip_invalid=options.skip_invalid,
                cache_dir=options.cache_dir,
            )
            if scan.skipped:
                warnings.append(f"{scan.skipped:,} invalid lines were left out")
        else:
            beginning, cut = _beginning(engine, options.inputs, options.limit)
            scan = scan_events(engine, [beginning])
            warnings.append(
                f"only the first {scan.rows:,} events were read"
                if cut
                else f"the limit of {options.limit:,} was not reached: these are all events"
            )
        summary = summarize(engine.connection, scan.name)
    return Report(
        tool="summarize-manifest",
        inputs=scan.sources if options.limit is None else (),
        parameters=asdict(options),
        metrics={**asdict(summary), "skipped": scan.skipped, "limited": cut},
        warnings=warnings,
    )


def _beginning(engine: Engine, inputs: Sequence[Path], limit: int) -> tuple[Path, bool]:
    """Copy the first events to a file of their own, and tell whether there are more."""
    target = engine.scratch / "beginning.jsonl"
    count = 0
    with target.open("wb") as file:
        for number, path in enumerate(inputs):
            readable = received(path, engine.scratch, f"input-{number}")
            lines = _parquet_lines if packing_of(readable) == "parquet" else _valid_lines
            for line in lines(readable, path):
                if count == limit:
                    return target, True
                file.write(line + b"\n")
                count += 1
    if not count:
        raise InputError.at(inputs[0], "holds no record")
    return target, False


def _valid_lines(path: Path, shown_as: Path) -> Iterator[bytes]:
    decode = LineCheck("event").decode
    for number, line in numbered_lines(path):
        try:
            decode(line)
        except (ValueError, RecursionError):
            raise InputError([diagnose_line(shown_as, line, Event, number)]) from None
        yield line


def _parquet_lines(path: Path, shown_as: Path) -> Iterator[bytes]:
    for number, value in enumerate(parquet_rows(path), start=1):
        problem = diagnose_value(shown_as, value, Event, number)
        if problem is not None:
            raise InputError([problem])
        yield to_json(value, indent=None).encode()
