"""Run the tests of `mutations.MUTATIONS` against broken source, a forked process each.

The heavy libraries are imported once and `training` is not; each child is forked, takes one broken
module from memory and everything else from disk, checks that the tests did import it, and leaves
with what pytest found. Nothing on disk is changed. Called as `mutation_runner.py OUT [JOBS
[MODULE]]`; writes what became of each: {index: {"outcome", "seconds", "failed"}}.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
METRICS = ROOT / "training" / "metrics"
LIMIT_S = 30
# What the tests import anyway, imported once here: it must not import `training`.
HEAVY = (
    "numpy", "scipy.stats", "scipy.signal", "scipy.optimize", "scipy.sparse", "scipy.special",
    "scipy.spatial.distance", "sklearn.metrics", "sklearn.isotonic", "sklearn.linear_model",
    "duckdb", "pyarrow", "pyarrow.parquet", "narwhals", "msgspec", "hypothesis",
    "hypothesis.extra.numpy", "pytest", "click.testing", "jinja2", "soundfile", "soxr",
    "jsonlines", "mir_eval.transcription", "jsonschema", "torch", "sklearn.covariance",
    "sklearn.neighbors", "sklearn.calibration", "librosa",
)  # fmt: skip


class BrokenSource(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Gives one module's source from memory; every other module is found as usual."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self.module, self.path, self.source = module, path, source

    def find_spec(
        self, fullname: str, path: Any = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_filename(self, fullname: str) -> str:
        return str(self.path)

    def get_data(self, path: str | bytes) -> bytes:
        return self.source.encode()

    def get_code(self, fullname: str) -> Any:
        # Straight from memory: no compiled file is read or written.
        return compile(self.source, str(self.path), "exec", dont_inherit=True)


class Failures:
    """A pytest plugin that keeps the names of the tests that failed."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and report.when == "call":
            self.failed.append(report.nodeid)


def broken_source(module: str, text: str, broken: str) -> tuple[Path, str]:
    """Return a module's file and its source with `text` replaced.

    Raises ValueError when the text does not stand there exactly once.
    """
    path = METRICS / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    if source.count(text) != 1:
        raise ValueError(f"{path.name}: stands {source.count(text)} times, not once: {text!r}")
    return path, source.replace(text, broken)


def try_one(mutation: Any, scratch: Path) -> dict[str, Any]:
    """Run a mutation's test against its broken module, in this process, which must end after."""
    import hypothesis
    import pytest

    assert not [name for name in sys.modules if name.split(".")[0] in ("training", "tools")]
    hypothesis.settings.register_profile(
        "mutation",
        database=None,
        derandomize=True,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    hypothesis.settings.load_profile("mutation")
    name = f"training.metrics.{mutation.module}"
    finder = BrokenSource(name, *broken_source(mutation.module, mutation.text, mutation.broken))
    sys.meta_path.insert(0, finder)
    importlib.import_module(name)  # a line that does not even import proves nothing
    seen = Failures()
    arguments = [str(ROOT / "tests" / f"{mutation.tests}.py"), "-x", "-q", "--no-header"]
    # The plugins were imported before pytest could rewrite their assertions: no matter here.
    arguments += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    arguments += ["-p", "no:cacheprovider", "--basetemp", str(scratch / "t")]
    arguments += ["-k", mutation.only] if mutation.only else []
    code = int(pytest.main(arguments, plugins=[seen]))
    if getattr(sys.modules[name], "__loader__", None) is not finder:
        return {"outcome": "the tests did not import the broken module", "failed": []}
    killed = code == pytest.ExitCode.TESTS_FAILED and bool(seen.failed)
    outcome = "killed" if killed else f"survived (pytest exit code {code})"
    return {"outcome": outcome, "failed": seen.failed}


def child(mutation: Any, scratch: Path) -> int:
    """Fork; the child runs one mutation, writes `scratch`/found.json and is gone."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.alarm(LIMIT_S)
        log = os.open(scratch / "log", os.O_WRONLY | os.O_CREAT)
        os.dup2(log, 1)
        os.dup2(log, 2)
        started = time.monotonic()
        try:
            found = try_one(mutation, scratch)
        except BaseException as error:
            found = {"outcome": f"does not run: {error!r}", "failed": []}
        found["seconds"] = round(time.monotonic() - started, 2)
        (scratch / "found.json").write_text(json.dumps(found))
        status = 0
    finally:
        os._exit(status)


def main(out: Path, jobs: int, only: str = "") -> None:
    """Run every mutation, `jobs` at a time; `only` those of one module where it is named."""
    os.environ |= {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    sys.dont_write_bytecode = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in HEAVY:
            importlib.import_module(name)
    from mutations import MUTATIONS

    results: dict[int, dict[str, Any]] = {}
    running: dict[int, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        waiting = [n for n, each in enumerate(MUTATIONS) if only in ("", each.module)]
        while waiting or running:
            while waiting and len(running) < jobs:
                index = waiting.pop(0)
                scratch = Path(folder) / str(index)
                scratch.mkdir()
                running[child(MUTATIONS[index], scratch)] = index
            pid, _ = os.wait()
            index = running.pop(pid)
            found = Path(folder) / str(index) / "found.json"
            late = {"outcome": f"no result within {LIMIT_S} s", "failed": [], "seconds": LIMIT_S}
            results[index] = json.loads(found.read_text()) if found.exists() else late
            if results[index]["outcome"] != "killed":
                results[index]["log"] = (found.parent / "log").read_text(errors="replace")[-1500:]
    out.write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int((sys.argv[2:] or ["2"])[0]), (sys.argv[3:] or [""])[0])
