"""The frames that dataset health is measured on, made by the engine that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

import msgspec
import narwhals as nw

from training.errors import DrumgateError
from training.gates import nearest
from training.manifest import InputFile, views
from training.manifest.cache import Cache, key_of
from training.manifest.engine import open_engine
from training.manifest.scan import scan_events
from training.manifest.validate import Track
from training.manifest.views import COLUMNS, manifest_views
from training.metrics import health
from training.metrics.health import HealthFigures, HealthFrames

ENGINES: Final = ("duckdb", "spark")


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """Which engine answers, and how.

    Attributes:
        engine: one of `ENGINES`.
        spark_master: where Spark runs; see `training.manifest.spark.open_spark`.
        memory_limit: see `open_engine` and `open_spark`.
        cache_dir: see `scan_events`; Spark has no cache and passes it over.
    """

    engine: str = "duckdb"
    spark_master: str | None = None
    memory_limit: str | None = None
    cache_dir: Path | None = None

    def check(self) -> None:
        """Refuse what does not go together.

        Raises:
            DrumgateError: an unknown engine, or an option of the other engine.
        """
        if self.engine not in ENGINES:
            raise DrumgateError(
                f"--engine: {self.engine!r} is none of {', '.join(ENGINES)}"
                f"{nearest(self.engine, ENGINES)}"
            )
        if self.engine != "spark" and self.spark_master is not None:
            raise DrumgateError("--spark-master: needs --engine spark")


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A validated manifest, ready to be measured.

    Attributes:
        frames: makes the frames, on the engine that was asked for.
        sources: the inputs, with their hashes.
        skipped: invalid lines left out.
        engine: the engine and its version, for the provenance.
    """

    frames: Callable[[], HealthFrames]
    sources: tuple[InputFile, ...]
    skipped: int
    engine: str


@contextmanager
def opened(
    inputs: Sequence[Path],
    options: EngineOptions,
    *,
    skip_invalid: bool = False,
    track: Track | None = None,
) -> Iterator[Opened]:
    """Validate manifests with one of the engines; what was opened can be used in the `with` block.

    `track` shows the progress of the reading, on DuckDB.

    Raises:
        InputError: an input is missing, damaged or has invalid lines that are not to be skipped.
        DrumgateError: the engine cannot be had.
    """
    options.check()
    make = _on_spark if options.engine == "spark" else _on_duckdb
    with make(inputs, options, skip_invalid, track) as made:
        yield made


@contextmanager
def _on_duckdb(
    inputs: Sequence[Path], options: EngineOptions, skip_invalid: bool, track: Track | None
) -> Iterator[Opened]:
    import duckdb

    with open_engine(options.memory_limit, track) as engine:
        scan = scan_events(
            engine,
            inputs,
            columns=COLUMNS,
            skip_invalid=skip_invalid,
            cache_dir=options.cache_dir,
        )

        def frames() -> HealthFrames:
            made = manifest_views(engine, scan)
            return _frames(lambda name: engine.connection.table(getattr(made, name)))

        yield Opened(
            frames=frames,
            sources=scan.sources,
            skipped=scan.skipped,
            engine=f"duckdb {duckdb.__version__}",
        )


@contextmanager
def _on_spark(
    inputs: Sequence[Path], options: EngineOptions, skip_invalid: bool, track: Track | None
) -> Iterator[Opened]:
    from training.manifest.spark import open_spark, spark_manifest

    with (
        open_spark(options.spark_master, options.memory_limit) as spark,
        spark_manifest(spark, inputs, skip_invalid=skip_invalid) as manifest,
    ):
        yield Opened(
            frames=lambda: _frames(lambda name: getattr(manifest, name)),
            sources=manifest.sources,
            skipped=manifest.skipped,
            engine=f"spark {spark.version} on {spark.sparkContext.master}",
        )


def _frames(native: Callable[[str], Any]) -> HealthFrames:
    """Make the frames of those of an engine, which `native` gives by name."""
    return HealthFrames(
        **{frame.name: nw.from_native(native(frame.name)) for frame in fields(HealthFrames)}
    )


def measured_once(
    opened: Opened, options: EngineOptions, made_from: object, measure: Callable[[], HealthFigures]
) -> HealthFigures:
    """Measure, or recall from the cache what was measured before of the same content.

    `made_from` is all that the figures depend on besides the content and the code.
    """
    if options.cache_dir is None or opened.skipped:
        return measure()
    cache = Cache(options.cache_dir)
    hashes = [source.sha256 for source in opened.sources]
    figures_code = Path(health.__file__).parent.glob("health*.py")
    rows_code = Path(views.__file__).parent.glob("*.py")
    key = key_of(hashes, made_from, code=[*figures_code, *rows_code])
    held = cache.recall(key)
    if held is not None:
        with suppress(msgspec.DecodeError):
            return msgspec.json.decode(held, type=HealthFigures)
    figures = measure()
    cache.record(key, msgspec.json.encode(figures))
    return figures
