"""The manifest tools against plain Python loops, DuckDB's own count, and reading the bytes.

    python benchmarks/manifests.py [--events 100000] [--repeats 3] [--folder DIR]
                                   [--tools health,diff,weights,merge] [--loop-events N]

Makes a manifest as production has it (see `manifest_maker.py`), then runs every way in turn, each
in a process of its own, and compares the medians. The page cache is warm for all. Where a loop and
a tool compute the same figures, their results are compared as well, and the run fails when they
differ. The loops (`manifest_loops.py`) check nothing; the tools check every line.

Memory is that of the whole tree of processes, looked up every 20 ms: "RSS" adds the resident sets
up (a page that two processes share counts twice), "own" leaves the pages of files and shared memory
out.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PRODUCTION = 7_391_699
TOOLS = ("health", "diff", "weights", "merge")
PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20
EVERY_S = 0.02


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one run took: seconds, and MiB of its tree of processes and of its largest process."""

    wall_s: float
    cpu_s: float
    rss_mib: float
    own_mib: float
    largest_mib: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """One thing to measure: its command, how many events it reads, what to do after each run."""

    command: list[str]
    events: int
    after: Callable[[], None] = lambda: None


def measure(command: list[str]) -> Cost:
    """Run a command to its end and say what it took, its children included.

    Raises:
        SystemExit: it failed.
    """
    peak = [0.0, 0.0]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT)
        done = threading.Event()
        watch = threading.Thread(target=_watch, args=(process.pid, peak, done))
        watch.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        done.set()
        watch.join()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace")[-3000:]
            raise SystemExit(f"{' '.join(command)}\nexited {process.returncode}:\n{text}")
    largest = usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
    return Cost(
        wall_s=wall,
        cpu_s=usage.ru_utime + usage.ru_stime,
        rss_mib=max(peak[0], largest),
        own_mib=peak[1],
        largest_mib=largest,
    )


def _watch(pid: int, peak: list[float], done: threading.Event) -> None:
    """Keep the highest sums of resident and of own pages (Linux only)."""
    while not done.wait(EVERY_S):
        sums = [0, 0]
        tree = [pid]
        while tree:
            one = tree.pop()
            try:
                fields = Path(f"/proc/{one}/statm").read_bytes().split()
                for task in os.listdir(f"/proc/{one}/task"):
                    children = Path(f"/proc/{one}/task/{task}/children").read_bytes().split()
                    tree += map(int, children)
            except (OSError, ValueError):  # it has ended meanwhile
                continue
            if len(fields) > 2:
                sums[0] += int(fields[1])
                sums[1] += int(fields[1]) - int(fields[2])
        for index, pages in enumerate(sums):
            peak[index] = max(peak[index], pages * PAGE_MIB)


def main() -> None:
    """Make the data, run each way in turn, print the medians, the ratios and their targets."""
    if sys.argv[1:2] == ["--step"]:
        step(sys.argv[2], [Path(text) for text in sys.argv[3:]])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tools", default=",".join(TOOLS), help="which tools, comma-separated")
    parser.add_argument("--folder", type=Path, help="where the made files stay between runs")
    parser.add_argument("--loop-events", type=int, help="loops read only so many events")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    given = parser.parse_args()
    tools = given.tools.split(",")
    if unknown := set(tools) - set(TOOLS):
        parser.error(f"--tools: {', '.join(sorted(unknown))} is none of {', '.join(TOOLS)}")
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        scratch = Path(tempfile.mkdtemp(prefix="run-", dir=_made(folder)))
        try:
            bench(folder, scratch, given, tools)
        finally:
            shutil.rmtree(scratch)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def bench(folder: Path, scratch: Path, given: argparse.Namespace, tools: list[str]) -> None:
    """Make the manifests and measure every way of every tool."""
    read = min(given.loop_events or given.events, given.events)
    started = time.perf_counter()
    full, few = (_manifests(folder, events, tools) for events in (given.events, read))
    size = full[0].stat().st_size
    print(
        f"{given.events:,} events, {size / 1e9:.2f} GB, {size / given.events:.0f} bytes a line; "
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; "
        f"made or found in {time.perf_counter() - started:.0f} s"
    )
    if read < given.events:
        print(
            f"loops read the first {read:,} events; their times, start-up included, are scaled up "
            "in proportion"
        )
    ways = _ways(full, few, scratch, tools, given.events, read)
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(given.repeats):
        for name, way in ways.items():
            costs[name].append(measure(way.command))
            way.after()
    agree = [compare(tool, few, scratch, again=read < given.events) for tool in tools]
    show(ways, costs, given.events)
    judge(ways, costs, given.events, tools)
    print(f"load at the end {os.getloadavg()[0]:.1f}")
    if given.json:
        plain = {name: [asdict(cost) for cost in found] for name, found in costs.items()}
        given.json.write_text(json.dumps({"events": given.events, "loops": read, "costs": plain}))
    if not all(agree):
        raise SystemExit("a loop and its tool disagree: see above")


def _manifests(folder: Path, events: int, tools: list[str]) -> list[Path]:
    """The manifest, the changed one and the disjoint one, where a tool needs them."""
    wanted = ["base", *(["changed"] if "diff" in tools else []), *_other(tools)]
    command = [sys.executable, __file__, "--step", "make", str(folder), str(events), *wanted]
    said = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return [Path(said.get(name, "")) for name in ("base", "changed", "other")]


def _other(tools: list[str]) -> list[str]:
    return ["other"] if "merge" in tools else []


def tool_command(tool: str, made: list[Path], out: Path) -> list[str]:
    """The command line of a tool as a user types it."""
    base, changed, other = map(str, made)
    first = ["--output", str(out), "--on-duplicate", "first"]
    arguments = {
        "health": ["training/dataset_health.py", "--events", base, "--output", str(out)],
        "diff": ["tools/compare_manifests.py", base, changed, "--json-output", str(out)],
        "weights": ["tools/derive_sampling_weights.py", base, "--output", str(out)],
        "merge": ["tools/merge_manifests.py", "--input", base, "--input", other, *first],
    }[tool]
    return [sys.executable, str(ROOT / arguments[0]), *arguments[1:]]


def loop_command(tool: str, made: list[Path], out: Path) -> list[str]:
    """The command line of the loop that computes what a tool computes."""
    base, changed, other = map(str, made)
    inputs = {"diff": [base, changed], "merge": [base, other]}.get(tool, [base])
    return [sys.executable, __file__, "--step", f"loop-{tool}", str(out), *inputs]


def _ways(
    full: list[Path], few: list[Path], scratch: Path, tools: list[str], events: int, read: int
) -> dict[str, Way]:
    ways = {}
    for name in ("read", "count"):
        command = [sys.executable, __file__, "--step", name, str(full[0])]
        ways[_NAMES[name]] = Way(command=command, events=events)
    for tool in tools:
        out, merged = scratch / f"{tool}.json", scratch / f"{tool}.jsonl"
        target = merged if tool == "merge" else out
        ways[f"{tool}: loop"] = Way(
            command=loop_command(tool, few, scratch / f"loop-{tool}.json"),
            events=read,
        )
        ways[f"{tool}: tool"] = Way(
            command=tool_command(tool, full, target),
            events=events,
            after=functools.partial(merged.unlink, missing_ok=True),
        )
    if "health" in tools and _offers(tool_command("health", full, scratch), "--cache-dir"):
        cache = ["--cache-dir", str(scratch / "cache")]
        command = [*tool_command("health", full, scratch / "cached.json"), *cache]
        print(f"the first run, which fills the cache: {measure(command).wall_s:.2f} s")
        ways["health: tool, from its cache"] = Way(command=command, events=events)
    return ways


_NAMES = {"read": "reading the bytes", "count": "DuckDB count(*)"}


def _offers(command: list[str], flag: str) -> bool:
    said = subprocess.run([*command[:2], "--help"], capture_output=True, text=True, check=True)
    return flag in said.stdout


def compare(tool: str, made: list[Path], scratch: Path, *, again: bool) -> bool:
    """Say whether a loop and its tool found the same.

    `again` runs the tool once more, on what the loop read.
    """
    out = scratch / f"{tool}.json"
    if tool == "merge":
        out = Path(f"{scratch / 'merge.jsonl'}.provenance.json")
    if again:
        target = scratch / "merge.jsonl" if tool == "merge" else out
        subprocess.run(tool_command(tool, made, target), check=True, capture_output=True)
    found = json.loads((scratch / f"loop-{tool}.json").read_text())
    told = json.loads(out.read_text())
    if tool in ("health", "diff"):
        told = told["metrics"]
    if tool == "merge":
        told["inputs"] = [file["sha256"] for file in told["inputs"]]
    if differing := differences(found, told):
        print(f"{tool}: the loop and the tool DISAGREE on {', '.join(differing[:10])}")
    else:
        print(f"{tool}: the loop and the tool agree in all that the loop computes")
    return not differing


def differences(found: Any, told: Any, where: str = "$") -> list[str]:
    """Where two results differ; sums of floats may differ in their last digits."""
    if isinstance(found, dict) and isinstance(told, dict):
        return [
            place
            for name, value in found.items()
            for place in differences(value, told.get(name), f"{where}.{name}")
        ]
    if isinstance(found, list) and isinstance(told, list) and len(found) == len(told):
        pairs = enumerate(zip(found, told, strict=True))
        return [p for i, (a, b) in pairs for p in differences(a, b, f"{where}[{i}]")]
    if isinstance(found, float) and isinstance(told, float):
        return [] if math.isclose(found, told, rel_tol=1e-9) else [where]
    return [] if found == told else [where]


def median(costs: list[Cost], field: str) -> float:
    """The median of one column."""
    return statistics.median(getattr(cost, field) for cost in costs)


def show(ways: dict[str, Way], costs: dict[str, list[Cost]], events: int) -> None:
    """Print what every way took."""
    head = f"{'wall s':>9}{'from':>8}{'to':>8}{'CPU s':>9}{'RSS MiB':>9}{'own':>7}{'us/event':>10}"
    print(f"\n{'':30}{head}")
    for name, way in ways.items():
        scale = events / way.events
        walls = [cost.wall_s * scale for cost in costs[name]]
        wall, cpu = statistics.median(walls), median(costs[name], "cpu_s") * scale
        rss, own = (max(getattr(c, f) for c in costs[name]) for f in ("rss_mib", "own_mib"))
        print(
            f"{name:30}{wall:>9.2f}{min(walls):>8.2f}{max(walls):>8.2f}{cpu:>9.2f}"
            f"{rss:>9.0f}{own:>7.0f}{wall / events * 1e6:>10.2f}"
            + (f"  ({way.events:,} events)" if scale > 1 else "")
        )


def judge(
    ways: dict[str, Way], costs: dict[str, list[Cost]], events: int, tools: list[str]
) -> None:
    """Print the ratios and whether each reaches its target, which is one for production size.

    Ratios are of wall time. Those of CPU time stand beside them: they hold on a busy machine too,
    and say nothing of how well the cores were used.
    """
    peak = {name: max(cost.rss_mib for cost in found) for name, found in costs.items()}
    print(f"\n{'':44}{'measured':>10}{'by CPU':>8}  target, set for {PRODUCTION:,} events")

    def show_ratio(upper: str, lower: str, least: float = 0, most: float = math.inf) -> None:
        if upper not in ways or lower not in ways:
            return
        scale = events / ways[upper].events
        ratio, by_cpu = (
            scale * median(costs[upper], field) / median(costs[lower], field)
            for field in ("wall_s", "cpu_s")
        )
        target = f">= {least:g}x" if least else f"<= {most:g}x"
        reached = _REACHED[least <= ratio <= most]
        print(f"{f'{upper} / {lower}':44}{ratio:>10.2f}{by_cpu:>8.2f}  {target:8} {reached}")

    show_ratio("health: loop", "health: tool", least=12)
    show_ratio("health: tool", _NAMES["count"], most=2.5)
    show_ratio("health: tool, from its cache", _NAMES["count"], most=0.5)
    for tool, least in (("diff", 15), ("weights", 12), ("merge", 3)):
        show_ratio(f"{tool}: loop", f"{tool}: tool", least=least)
    for tool, most in (("health", 1536), ("merge", 300)):
        if tool in tools:
            mib = peak[f"{tool}: tool"]
            target, reached = f"<= {most}", _REACHED[mib <= most]
            print(f"{f'{tool}: peak RSS, MiB':44}{mib:>10.0f}{'':8}  {target:8} {reached}")


_REACHED = {True: "reached", False: "NOT reached"}


def step(name: str, arguments: list[Path]) -> None:
    """Do one thing in this process, whose cost is then that of the thing."""
    if name == "make":
        _make(arguments[0], int(str(arguments[1])), [str(item) for item in arguments[2:]])
    elif name == "read":
        buffer = bytearray(1 << 20)
        with arguments[0].open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    elif name == "count":
        import duckdb

        query = "SELECT count(*) FROM read_json(?, format='newline_delimited')"
        print(duckdb.execute(query, [str(arguments[0])]).fetchall())
    else:
        import manifest_loops

        out, *inputs = arguments
        if name == "loop-merge":
            merged = out.with_suffix(".jsonl")
            found = manifest_loops.merge(inputs, merged)
            merged.unlink()
        else:
            found = getattr(manifest_loops, name.removeprefix("loop-"))(*inputs)
        out.write_text(json.dumps(found))


def _make(folder: Path, events: int, wanted: list[str]) -> None:
    import manifest_maker

    base = manifest_maker.Recipe(events=events)
    recipes = {
        "base": base,
        "changed": manifest_maker.replace(base, changed=True),
        "other": base.other,
    }
    made = {name: str(manifest_maker.make(folder, recipes[name])) for name in wanted}
    print(json.dumps(made))


if __name__ == "__main__":
    main()
