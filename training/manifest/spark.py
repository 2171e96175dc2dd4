"""Manifests on Apache Spark: past one machine, with the strictness of one machine.

Files are cut into ranges at line ends, and every range is a task: whoever runs it opens the file,
validates its lines with the code of `training.manifest.validate`, and gives back typed columns
made of the very bytes that were validated, with what is wrong among them. The driver puts the
findings together, so that messages name the same lines as on one machine, and nothing is computed
before every line is known to be good. Manifests must therefore be on storage that all nodes see
under the same path.

pyspark comes with the extra `drumgate[spark]` and is imported only when a session is opened.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training.errors import DrumgateError, InputError
from training.manifest.engine import memory_bytes
from training.manifest.lines import packing_of, starts_with_bom
from training.manifest.read import InputFile, describe_file
from training.manifest.scan import STDIN
from training.manifest.spark_task import PARTS, Task, ddl, found_of, run_task, task_schema
from training.manifest.validate import BLOCK_BYTES, Checked, joined
from training.manifest.views import CARRIED_BY_COMPONENTS, CARRIED_BY_TECHNIQUES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MOST_TASK_BYTES: Final = 8 * BLOCK_BYTES
TASKS_PER_CORE: Final = 4

_INSTALL: Final = "pip install 'drumgate[spark]'"


@dataclass(frozen=True, kw_only=True, slots=True)
class SparkManifest:
    """One or several manifests, validated, as Spark frames.

    Attributes:
        events, components, hits, takes, techniques: the frames, with the columns of
            `training.manifest.views.ManifestViews`; but `row` merely tells events apart, and is
            not their position.
        rows: the number of events.
        skipped: invalid lines left out, 0 unless that was asked for.
        sources: the inputs, with their hashes.
    """

    events: DataFrame
    components: DataFrame
    hits: DataFrame
    takes: DataFrame
    techniques: DataFrame
    rows: int
    skipped: int
    sources: tuple[InputFile, ...]


@contextmanager
def open_spark(
    master: str | None = None, memory_limit: str | None = None
) -> Iterator[SparkSession]:
    """Open a Spark session, and close it unless it was there before.

    Args:
        master: such as "local[2]" or "spark://host:7077"; by default what spark-submit was given,
            or else all cores of this machine. A session that is already open is used as it is.
        memory_limit: heap of a local session, such as "2GiB"; a cluster's is spark-submit's matter.

    Raises:
        DrumgateError: pyspark or Java is missing, or Spark did not start.
    """
    try:
        with _no_word_on_pandas():
            from py4j.protocol import Py4JError
            from pyspark.errors import PySparkException
            from pyspark.sql import SparkSession
    except ImportError:
        raise DrumgateError(f"--engine spark: needs pyspark ({_INSTALL})") from None
    if importlib.util.find_spec("pandas") is None:
        raise DrumgateError(f"--engine spark: pyspark needs pandas ({_INSTALL})")
    running = SparkSession.getActiveSession()
    if running is not None:
        yield running
        return
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if master is None and not submitted:
        master = "local[*]"
    try:
        with _no_word_on_pandas():
            session = _builder(SparkSession, master, memory_limit, submitted).getOrCreate()
    except (PySparkException, Py4JError, OSError, RuntimeError) as error:
        raise DrumgateError(
            f"--engine spark: Spark did not start: {_reason(error)} (it needs Java 17 or newer)"
        ) from None
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def _no_word_on_pandas() -> Iterator[None]:
    """Silence what pyspark says of pandas 3, which it asks for; nothing here goes through it."""
    with warnings.catch_warnings():
        about = "PySpark does not yet fully support pandas"
        warnings.filterwarnings("ignore", message=about, category=FutureWarning)
        yield


def _builder(kind: Any, master: str | None, memory_limit: str | None, submitted: bool) -> Any:
    builder = kind.builder.appName("drumgate")
    settings = {
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.showConsoleProgress": "false",
    }
    if master is not None:
        builder = builder.master(master)
    if _is_local(master):
        # Workers are started by name: without this, by whatever "python3" is first in PATH.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        settings |= {
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.driver.host": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.log.level": "ERROR",
            # The 200 partitions of the default are made for a cluster.
            "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 1)),
        }
        if memory_limit is not None and not submitted:
            settings["spark.driver.memory"] = f"{memory_bytes(memory_limit) // 2**20}m"
    for name, value in settings.items():
        builder = builder.config(name, value)
    return builder


def _is_local(master: str | None) -> bool:
    return master is not None and master.startswith("local")


def _reason(error: BaseException) -> str:
    """Return the line of an error that says most; one from Java begins with where it arose."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    java = [line.removeprefix(": ") for line in lines if line.startswith(": ")]
    return (java or lines or [type(error).__name__])[0]


@contextmanager
def spark_manifest(
    spark: SparkSession, inputs: Sequence[Path | str], *, skip_invalid: bool = False
) -> Iterator[SparkManifest]:
    """Validate manifests on the nodes of a Spark session and give them as frames.

    The frames can be used inside the `with` block; what they keep in the cluster goes at its end.

    Args:
        spark: an open session.
        inputs: the files (.jsonl, .gz, .zst or .parquet, told by content), or "-" for standard
            input where the session is local.
        skip_invalid: leave invalid lines out and count them, instead of raising.

    Raises:
        InputError: an input is missing, empty, damaged, changes while it is read or, unless they
            are skipped, has invalid lines: the first are named, all are counted.
    """
    with tempfile.TemporaryDirectory(prefix="drumgate-") as scratch:
        read, refused = [], None
        for number, path in enumerate(inputs):
            try:
                read.append(_input(spark, Path(path), number, Path(scratch)))
            except InputError as error:
                # What is wrong with the files before it comes first, as on one machine.
                refused = error
                break
        if refused and not read:
            raise refused
        typed = _typed(spark, [task for each in read for task in each.tasks]).persist()
        kept = [typed]
        with ThreadPoolExecutor(1) as threads:
            try:
                hashes = [threads.submit(describe_file, each.path) for each in read]
                found = _checked(typed, len(read))
                sources = tuple(
                    _judged(each, of_input, skip_invalid, hashed.result().sha256)
                    for each, of_input, hashed in zip(read, found, hashes, strict=True)
                )
                if refused:
                    raise refused
                events = _events(typed)
                codes, takes = (_kept(frame, kept) for frame in (_codes(events), _takes(events)))
                yield SparkManifest(
                    events=events,
                    components=_components(events, codes),
                    hits=_kept(_hits(events, codes, takes), kept),
                    takes=takes,
                    techniques=_techniques(events),
                    rows=sum(source.records or 0 for source in sources),
                    skipped=sum(len(each.bad_lines) for each in found if isinstance(each, Checked)),
                    sources=sources,
                )
                for each in read:  # a node that was lost makes others read its part again
                    _unchanged(each)
            finally:
                threads.shutdown(cancel_futures=True)
                for frame in kept:
                    frame.unpersist()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Input:
    """A file to read: as it was named, where it is, and the tasks that read it."""

    shown: str
    path: Path
    stat: os.stat_result
    tasks: tuple[Task, ...]


def _input(spark: SparkSession, path: Path, number: int, scratch: Path) -> _Input:
    shown = str(path)
    if path == STDIN:
        if not _is_local(spark.sparkContext.master):
            raise DrumgateError("standard input can be read by a local session only")
        path = scratch / "stdin"
        with path.open("wb") as file:
            while block := sys.stdin.buffer.read(2**20):
                file.write(block)
    packing = packing_of(path, shown_as=shown)
    path = path.absolute()
    stat = path.stat()
    whole = packing != "plain" or starts_with_bom(path)
    step = MOST_TASK_BYTES
    if not whole:
        cores = TASKS_PER_CORE * spark.sparkContext.defaultParallelism
        step = min(max(stat.st_size // cores, BLOCK_BYTES), MOST_TASK_BYTES)
    starts = [0] if whole else range(0, stat.st_size, step)
    tasks = tuple(
        Task(
            source=number,
            path=str(path),
            shown=shown,
            packing=packing,
            unpack=whole,
            start=start,
            end=stat.st_size if whole else min(start + step, stat.st_size),
        )
        for start in starts
    )
    return _Input(shown=shown, path=path, stat=stat, tasks=tasks)


def _typed(spark: SparkSession, tasks: list[Task]) -> DataFrame:
    """Make the frame of everything that the tasks read and found; it is computed when asked."""
    # A range with one row a partition: Spark then runs each row as a task of its own.
    numbers = spark.range(0, len(tasks), 1, len(tasks))
    with _no_word_on_pandas():
        return numbers.mapInArrow(_task_runner(tasks), ddl(task_schema()))


def _task_runner(tasks: list[Task]) -> Callable[[Iterator[Any]], Iterator[Any]]:
    def run(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from run_task(number, tasks[number])

    return run


def _checked(typed: DataFrame, inputs: int) -> list[Checked | InputError]:
    """Run the tasks and return what they found in each input."""
    from pyspark.errors import PythonException

    blocks: list[list[tuple[int, Any]]] = [[] for _ in range(inputs)]
    try:
        rows = typed.filter("found IS NOT NULL").select("source", "row", "found").collect()
    except PythonException as error:
        if missing := re.search(r"No module named '(\w+)", str(error)):
            raise DrumgateError(
                f"--engine spark: the workers' Python lacks {missing[1]!r} (see docs/scale.md)"
            ) from None
        raise
    for row in rows:
        blocks[row.source].append((row.row, found_of(row.found)))
    result: list[Checked | InputError] = []
    for of_input in blocks:
        found = [each for _, each in sorted(of_input, key=lambda block: block[0])]
        unreadable = next((each for each in found if isinstance(each, InputError)), None)
        result.append(unreadable or joined(found))
    return result


def _judged(
    each: _Input, found: Checked | InputError, skip_invalid: bool, sha256: str
) -> InputFile:
    """Return the source that a good input is.

    Raises:
        InputError: it is not good.
    """
    if isinstance(found, InputError):
        raise found
    if found.bad_lines and not skip_invalid:
        raise InputError(found.problems, len(found.bad_lines))
    if not found.records:
        raise InputError.at(
            each.shown, "holds no record" if not found.bad_lines else "holds no valid record"
        )
    _unchanged(each)
    return InputFile(each.shown, sha256, each.stat.st_size, found.records)


def _unchanged(each: _Input) -> None:
    after = each.path.stat()
    if (each.stat.st_size, each.stat.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise InputError.at(each.shown, "has changed while it was read")


def _events(typed: DataFrame) -> DataFrame:
    return typed.filter("found IS NULL").selectExpr(*_EVENTS)


def _kept(frame: DataFrame, kept: list[DataFrame]) -> DataFrame:
    """Let Spark keep a frame once it has been computed; it goes with the others in `kept`."""
    kept.append(frame.persist())
    return frame


def _codes(events: DataFrame) -> DataFrame:
    labels = events.selectExpr("explode(parts.label) AS label").distinct()
    # Few rows: one node numbers them, in the same order as on one machine.
    return labels.selectExpr(
        "label", "CAST(row_number() OVER (ORDER BY label) - 1 AS INT) AS label_code"
    )


def _components(events: DataFrame, codes: DataFrame) -> DataFrame:
    hits = events.selectExpr("`row`", "explode(parts) AS part", *CARRIED_BY_COMPONENTS)
    parts = [f"part.{name} AS {name}" for name in PARTS]
    return hits.selectExpr("`row`", *parts, *CARRIED_BY_COMPONENTS).join(
        codes.hint("broadcast"), "label"
    )


def _takes(events: DataFrame) -> DataFrame:
    named = events.selectExpr("session_id", "coalesce(track_id, '') AS track").distinct()
    return named.selectExpr(
        "*", "CAST(row_number() OVER (ORDER BY session_id, track) - 1 AS INT) AS take"
    )


def _hits(events: DataFrame, codes: DataFrame, takes: DataFrame) -> DataFrame:
    named = events.selectExpr("*", "coalesce(track_id, '') AS track")
    hits = named.join(takes, ["session_id", "track"]).selectExpr(
        "`row`", "take", "onset_s", "hits", "explode(parts) AS part"
    )
    return (
        hits.selectExpr("*", "part.label AS label")
        .join(codes.hint("broadcast"), "label")
        .selectExpr(
            *("`row`", "take", "onset_s", "label_code", "part.velocity AS velocity"),
            *("part.openness AS openness", "hits"),
        )
    )


def _techniques(events: DataFrame) -> DataFrame:
    return events.selectExpr(
        "`row`", "explode(array_distinct(names)) AS technique", *CARRIED_BY_TECHNIQUES
    )


# The same columns as those of training.manifest.views, in the words of Spark.
_EVENTS: Final = (
    *("`row`", "sample_id", "session_id", "onset_time AS onset_s"),
    *("track_id", "drummer_id", "kit_id", "room_id", "source_set", "is_synthetic", "audio_path"),
    *("tempo_bpm", "meter", "bleed_level", "mix_context", "negative_example"),
    *("loudness.LUFS_i AS lufs_i", "loudness.peak_dbfs AS peak_dbfs"),
    "nullif(concat_ws(' ', nullif(device_vendor, ''), nullif(device_model, '')), '') AS device",
    "split",
    "array_join(array_sort(array_distinct(annotated_labels)), char(31)) AS annotated_set",
    "size(components) AS hits",
    "components AS parts",
    "techniques AS names",
)
