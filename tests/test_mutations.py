"""Each metric's key lines are broken, one at a time, and some test must fail each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from mutation_runner import METRICS, broken_source
from mutations import MUTATIONS, Mutation

MODULES = sorted(path.stem for path in METRICS.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("module", MODULES)
def test_every_metric_is_broken_at_least_once(module: str) -> None:
    own = [mutation for mutation in MUTATIONS if mutation.module == module]
    assert own, f"add a mutation of training/metrics/{module}.py to tests/mutations.py"
    for mutation in own:
        path, source = broken_source(mutation.module, mutation.text, mutation.broken)
        compile(source, str(path), "exec")
        assert mutation.text != mutation.broken


def test_a_line_that_is_gone_is_noticed() -> None:
    with pytest.raises(ValueError, match="stands 0 times, not once"):
        broken_source("openset", "no such line", "")


@pytest.mark.slow
def test_every_mutation_is_found(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    jobs = max(2, min(4, os.cpu_count() or 1))
    ran = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "mutation_runner.py"), str(out), str(jobs)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    results = json.loads(out.read_text())
    assert len(results) == len(MUTATIONS)
    survivors = [
        f"{_said(MUTATIONS[int(index)])}: {found['outcome']}\n{found.get('log', '')[-500:]}"
        for index, found in results.items()
        if found["outcome"] != "killed"
    ]
    assert not survivors, "\n\n".join(survivors)


def _said(mutation: Mutation) -> str:
    return f"{mutation.module}: {mutation.text!r} → {mutation.broken!r} ({mutation.tests})"
