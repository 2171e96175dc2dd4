"""Dataset health on Spark, in local mode: the same figures and the same strictness as on DuckDB."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from strategies import event_objects, manifests

from training.checks.health import Options, run
from training.errors import DrumgateError, InputError
from training.manifest import spark as spark_module
from training.manifest.engine import open_engine
from training.manifest.scan import scan_events
from training.manifest.schema import arrow_schema
from training.manifest.spark_task import Task, found_of, run_task
from training.manifest.validate import joined
from training.manifest.views import manifest_views

pytestmark = [
    # The gateway to the JVM leaves the closing of its sockets to the garbage collector.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]
EXAMPLES = Path(__file__).parent.parent / "examples" / "dataset_health"
GOOD: dict[str, Any] = {
    "sample_id": "a",
    "session_id": "s",
    "onset_time": 0.5,
    "components": [{"label": "kick", "velocity": 0.5}],
}


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """One session for all tests; everything below finds it open and leaves it open."""
    pytest.importorskip("pyspark", reason="needs the extra drumgate[spark]")
    if shutil.which("java") is None:
        pytest.skip("needs Java 17 or newer")
    # Most of the time of a small job goes into compiling it.
    quick = "spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1"
    arguments = f"--conf {quick} --conf spark.sql.codegen.wholeStage=false pyspark-shell"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", arguments)
        with spark_module.open_spark("local[2]") as session:
            yield session


def line(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def written(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(text + b"\n" for text in lines))
    return path


def report(engine: str, *paths: Path, **asked: Any) -> str:
    made = run(Options(events=paths, engine=engine, **asked)).to_dict()
    made.pop("provenance")
    return json.dumps(made, allow_nan=False)


def fault_on_duckdb(*paths: Path) -> str:
    with pytest.raises(InputError) as caught, open_engine() as engine:
        scan_events(engine, paths)
    return str(caught.value)


def fault_on_spark(session: Any, *paths: Path) -> str:
    with (
        pytest.raises(InputError) as caught,
        spark_module.spark_manifest(session, paths),
    ):
        pass
    return str(caught.value)


# ---- figures


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
@given(rows=manifests(max_events=80))
@settings(
    max_examples=2,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],  # shrinking takes minutes here
    suppress_health_check=list(HealthCheck),
)
def test_report_is_the_same_for_any_manifest(rows: Any, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.mktemp("any") / "events.jsonl"
    written(path, [json.dumps(row).encode() for row in rows])
    assert report("spark", path) == report("duckdb", path)


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_report_is_the_same_for_the_example_manifests() -> None:
    paths = sorted(EXAMPLES.glob("pass/*/events.jsonl"))
    paths += sorted(EXAMPLES.glob("fail/*/events.jsonl"))
    assert len(paths) > 3
    gates = {"max_duplication_rate": 0.0, "min_class_count": 3, "max_unknown_labels": 0}
    assert report("spark", *paths, **gates) == report("duckdb", *paths, **gates)


@pytest.mark.slow
def test_command_takes_the_engine_and_names_it(spark: Any, drumgate: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [line(), line(sample_id="b", onset_time=1)])
    made = tmp_path / "health.json"
    ran = drumgate("dataset-health", "--engine", "spark", "--events", path, "--output", made)
    assert ran.exit_code == 0, ran.stderr
    found = json.loads(made.read_text())
    assert found["metrics"]["events_total"] == 2
    assert found["provenance"]["engine"] == f"spark {spark.version} on local[2]"


# ---- strictness


BAD = [
    line(onset_time="0.5"),
    line(sample_id=7),
    line(is_synthetic="false"),
    line(components=[{"label": "kick", "velocity": 1.5}]),
    line(onset_time=float("nan")),
    line(x=float("inf")),
    line()[:-1] + b",}",
    line()[:-1] + b', "split": null, "split": "x"}',
    line(sample_id="\ud800").replace(b"\\ud800", b"\xff"),
    b'{"sample_id": "a", "session_id": "s"}',
    b"[" * 5000,
    b'"text"',
]


@pytest.mark.slow
def test_bad_lines_are_named_as_on_one_machine(spark: Any, tmp_path: Path) -> None:
    good = written(tmp_path / "good.jsonl", [line()])
    lines = [line(), b"", line(), *BAD[:1], line(), *BAD[1:], *[line(sample_id="")] * 30]
    bad = written(tmp_path / "bad.jsonl", lines)
    missing = tmp_path / "missing.jsonl"
    found = fault_on_spark(spark, good, bad, missing)
    assert found == fault_on_duckdb(good, bad, missing)
    first = f'{bad}:4: onset_time: must be a number (got "0.5")'
    assert found.splitlines()[0] == first
    assert found.endswith(f"… and {len(BAD) + 30 - 20} more")
    assert fault_on_spark(spark, good, missing) == f"{missing}: no such file"
    packed = tmp_path / "bad.gz"
    packed.write_bytes(gzip.compress(bad.read_bytes()))
    assert fault_on_spark(spark, packed) == found.replace(str(bad), str(packed))


@pytest.mark.slow
def test_damaged_and_empty_inputs_are_refused(spark: Any, tmp_path: Path) -> None:
    packed = gzip.compress(b"\n".join([line(sample_id=str(n)) for n in range(5_000)]))
    damaged = tmp_path / "cut.jsonl.gz"
    damaged.write_bytes(packed[: len(packed) // 2])
    blank = written(tmp_path / "blank.jsonl", [b"", b"  "])
    empty = written(tmp_path / "empty.jsonl", [])
    columns = tmp_path / "columns.parquet"
    pq.write_table(pa.table({"sample_id": ["a"], "session_id": ["s"]}), columns)
    for path in (damaged, blank, empty, columns, tmp_path):
        assert fault_on_spark(spark, path) == fault_on_duckdb(path)


@pytest.mark.slow
@pytest.mark.usefixtures("spark")
def test_skipped_lines_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path / "some.jsonl", [line(), *BAD, line(sample_id="b")])
    found = report("spark", path, skip_invalid=True)
    assert found == report("duckdb", path, skip_invalid=True)
    assert json.loads(found)["metrics"]["skipped_lines"] == len(BAD)


@pytest.mark.slow
def test_input_that_changes_meanwhile_is_refused(spark: Any, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [line()])
    with (
        pytest.raises(InputError, match="has changed while it was read"),
        spark_module.spark_manifest(spark, [path]),
    ):
        written(path, [line(), line(sample_id="b")])


# ---- inputs


@pytest.mark.slow
def test_every_packing_gives_the_same_rows(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {**GOOD, "strike_position": 3},
        {**GOOD, "components": [{"label": "crash", "strike_position": 0.25}, {"label": "bd"}]},
        {**GOOD, "components": [], "annotated_labels": [], "techniques": []},
        {**GOOD, "annotated_labels": ["snare", "kick", "snare"], "device_model": "TD-11"},
        {**GOOD, "techniques": ["flam", "drag", "flam"], "device_vendor": "", "device_model": ""},
        {**GOOD, "sample_id": "é \u2028 \U0001f941 \\", "loudness": {"LUFS_i": -1e-7}},
        {**GOOD, "onset_time": 123456.78901234567, "x": {"deep": [1e300, "1" * 2000]}},
    ]
    text = b"".join(json.dumps(row).encode() + b"\r\n\n" for row in rows)
    plain = written(tmp_path / "plain.jsonl", [text.removesuffix(b"\r\n\n")])
    bom = tmp_path / "bom.jsonl"
    bom.write_bytes(b"\xef\xbb\xbf" + text)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(text))
    zstd = tmp_path / "packed.zst"
    with pa.output_stream(zstd, compression="zstd") as file:
        file.write(text)
    columns = tmp_path / "columns.parquet"
    with open_engine() as engine:
        scan = scan_events(engine, [plain])
        kept = engine.connection.table("events").to_arrow_table()
        pq.write_table(kept.select(arrow_schema().names), columns)
    paths = [plain, bom, packed, zstd, columns]
    frames = ("events", "components", "hits", "takes", "techniques")
    with open_engine() as engine:
        scan = scan_events(engine, paths)
        views = manifest_views(engine, scan)
        expected = {
            name: engine.connection.table(getattr(views, name)).to_arrow_table().to_pylist()
            for name in frames
        }
    stdin = SimpleNamespace(buffer=io.BytesIO(text))
    monkeypatch.setattr(sys, "stdin", stdin)
    with spark_module.spark_manifest(spark, [Path("-"), *paths[1:]]) as manifest:
        found = {name: getattr(manifest, name).toArrow().to_pylist() for name in frames}
        assert manifest.rows == len(rows) * 5
        assert [each.records for each in manifest.sources] == [len(rows)] * 5
        assert [each.sha256 for each in manifest.sources[1:]] == [
            each.sha256 for each in scan.sources[1:]
        ]
    for name in frames:
        assert comparable(found[name]) == comparable(expected[name])


def comparable(rows: list[dict[str, Any]]) -> list[str]:
    """Rows in an order of their own; the two engines number them differently."""
    given = {row["row"] for row in rows if "row" in row}  # takes have none
    numbers = {row: place for place, row in enumerate(sorted(given))}
    dropped = ("parts", "names")  # what the other two frames were made of
    return sorted(
        repr(
            sorted(
                (k, v)
                for k, v in {**row, "row": numbers.get(row.get("row"))}.items()
                if k not in dropped
            )
        )
        for row in rows
    )


# ---- the work of one task, without Spark


@given(
    events=st.lists(event_objects(), min_size=1, max_size=30),
    bad=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([*BAD, b"", b" "])), max_size=8),
    cuts=st.sets(st.integers(0, 4000), max_size=5),
)
@settings(deadline=None, max_examples=60)
def test_ranges_find_what_the_whole_file_holds(
    events: Any, bad: Any, cuts: Any, tmp_path_factory: Any
) -> None:
    lines = [json.dumps(event).encode() for event in events]
    for place, text in bad:
        lines.insert(place, text)
    path = written(tmp_path_factory.mktemp("ranges") / "events.jsonl", lines)
    size = path.stat().st_size
    whole = task_outcome(path, [0, size])
    assert task_outcome(path, [0, *sorted(cut for cut in cuts if 0 < cut < size), size]) == whole
    rows, found = whole
    assert [row["sample_id"] for row in rows] == [event["sample_id"] for event in events]
    assert found.records == len(events)
    is_bad = {number for number, text in enumerate(lines, start=1) if text in BAD}
    assert set(found.bad_lines) == is_bad


def task_outcome(path: Path, places: list[int]) -> tuple[list[dict[str, Any]], Any]:
    rows: list[dict[str, Any]] = []
    found = []
    for number, (start, end) in enumerate(pairwise(places)):
        task = Task(
            source=0, path=str(path), shown="x", packing="plain", unpack=False, start=start, end=end
        )
        for batch in run_task(number, task):
            for row in batch.to_pylist():
                if row["found"] is None:
                    rows.append({k: v for k, v in row.items() if k != "row"})
                else:
                    found.append(found_of(row["found"]))
    return rows, joined(found)


def test_file_that_a_worker_cannot_see_is_an_input_error(tmp_path: Path) -> None:
    path = str(tmp_path / "elsewhere.jsonl")
    task = Task(source=0, path=path, shown="m.jsonl", packing="plain", unpack=False, start=0, end=9)
    (batch,) = run_task(0, task)
    found = found_of(batch.to_pylist()[0]["found"])
    assert str(found) == "m.jsonl: cannot be read by a Spark worker: No such file or directory"


# ---- options


def test_missing_pyspark_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    with (
        pytest.raises(DrumgateError, match=r"needs pyspark \(pip install 'drumgate\[spark\]'\)"),
        spark_module.open_spark(),
    ):
        pass


def test_missing_java_is_said(tmp_path: Path) -> None:
    pytest.importorskip("pyspark", reason="needs the extra drumgate[spark]")
    path = written(tmp_path / "events.jsonl", [line()])
    command = ["-m", "training.dataset_health", "--engine", "spark", "--events", str(path)]
    ran = subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "JAVA_HOME": str(tmp_path)},
        cwd=EXAMPLES.parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 2, ran.stderr
    assert "Spark did not start" in ran.stderr
    assert "Java 17" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.slow
def test_workers_without_drumgate_are_said(
    spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lacking(*_: Any) -> Iterator[Any]:
        raise ModuleNotFoundError("No module named 'training'")
        yield

    monkeypatch.setattr(spark_module, "_task_runner", lambda _: lacking)
    path = written(tmp_path / "events.jsonl", [line()])
    with (
        pytest.raises(DrumgateError, match="the workers' Python lacks 'training'"),
        spark_module.spark_manifest(spark, [path]),
    ):
        pass


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"engine": "sparks"}, "--engine: 'sparks' is none of duckdb, spark"),
        ({"spark_master": "local[2]"}, "--spark-master: needs --engine spark"),
    ],
)
def test_options_that_do_not_go_together(asked: Any, why: str, tmp_path: Path) -> None:
    path = written(tmp_path / "events.jsonl", [line()])
    with pytest.raises(DrumgateError, match=why):
        run(Options(events=path, **asked))


def test_standard_input_needs_a_local_session(tmp_path: Path) -> None:
    cluster: Any = SimpleNamespace(sparkContext=SimpleNamespace(master="spark://host:7077"))
    with (
        pytest.raises(DrumgateError, match="standard input"),
        spark_module.spark_manifest(cluster, ["-"]),
    ):
        pass
