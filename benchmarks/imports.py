"""How long the libraries take to import, and how long a command takes to start; medians of five."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

MODULES = (
    *("click", "msgspec", "jsonlines", "numpy", "narwhals", "pyarrow", "duckdb", "jinja2"),
    *("scipy.signal", "soundfile", "soxr", "sklearn.metrics", "librosa.filters", "torch"),
)
TOOLS = ("dataset-health", "openset-eval", "align-qc", "train-classifier")
ROUNDS = 5


def seconds(code: list[str]) -> float:
    """Wall time of one fresh interpreter."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *code], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Print a table; the rows are interleaved so that noise falls on all alike."""
    jobs = {"(python itself)": ["-c", "pass"]}
    jobs |= {f"import {name}": ["-c", f"import {name}"] for name in MODULES}
    jobs |= {f"drumgate {tool} --help": ["-m", "training.cli", tool, "--help"] for tool in TOOLS}
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(ROUNDS):
        for name, code in jobs.items():
            times[name].append(seconds(code))
    for name, taken in times.items():
        print(f"{name:<32} {statistics.median(taken) * 1000:7.0f} ms")


if __name__ == "__main__":
    main()
