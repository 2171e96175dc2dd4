"""A summary of a manifest on one screen, or as a table in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from training.errors import clip, printable

MOST_NAMES: Final = 8
MOST_FILES: Final = 4
WIDTH: Final = 96

Row = tuple[str, str]


def summary_rows(report: Mapping[str, Any]) -> list[Row]:
    """Return the lines of a summary as (name, text), from the report's JSON."""
    found = report["metrics"]
    return [
        *_files(report),
        ("events", _events(found)),
        ("ids", _ids(found)),
        ("entities", _entities(found["entities"])),
        ("onsets", _onsets(found)),
        ("covered", _covered(found)),
        ("splits", _splits(found["splits"])),
        ("sources", _names(found["sources"])),
        ("hits", f"{found['hits']:,}: {_names(found['hits_by_label'])}"),
        ("techniques", _names(found["techniques"])),
    ]


def render_summary(report: Mapping[str, Any]) -> str:
    """Return a summary as text: at most 16 lines, most of them within 96 columns."""
    rows = summary_rows(report)
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {printable(text)}" for name, text in rows]
    lines += [f"warning: {printable(text)}" for text in report["warnings"]]
    return "\n".join(lines) + "\n"


def render_summary_markdown(report: Mapping[str, Any]) -> str:
    """Return a summary as a table in Markdown."""
    lines = ["| manifest | |", "|---|---|"]
    lines += [f"| {name} | {_cell(text)} |" for name, text in summary_rows(report)]
    lines += [f"\n> {_cell(text)}" for text in report["warnings"]]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Keep text from being read as Markdown or HTML."""
    safe = printable(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_|[]":
        safe = safe.replace(mark, "\\" + mark)
    return safe


def _files(report: Mapping[str, Any]) -> list[Row]:
    """One line a file, the last ones folded; with a limit only the names."""
    files: Sequence[Mapping[str, Any]] = report["inputs"]
    if not files:
        names = [str(name) for name in report["parameters"]["inputs"]]
        return [("file", f"{_listed(names, len(names))}, not hashed")]
    shown = files if len(files) <= MOST_FILES else files[: MOST_FILES - 1]
    rows = [
        (
            "file",
            f"{file['path']}  {file['records']:,} events, {_size(file['bytes'])}, "
            f"sha256 {file['sha256'][:16]}…",
        )
        for file in shown
    ]
    if len(files) > len(shown):
        left = files[len(shown) :]
        events = sum(file["records"] for file in left)
        size = _size(sum(file["bytes"] for file in left))
        rows.append(("file", f"… and {len(left):,} more files: {events:,} events, {size}"))
    return rows


def _events(found: Mapping[str, Any]) -> str:
    parts = [f"{found['real']:,} real", f"{found['synthetic']:,} synthetic"]
    if found["unstated"]:
        parts.append(f"{found['unstated']:,} do not say")
    total = "the first " if found["limited"] else ""
    empty = f"; {found['empty_events']:,} without a component" if found["empty_events"] else ""
    return f"{total}{found['events']:,}: {', '.join(parts)}{empty}"


def _ids(found: Mapping[str, Any]) -> str:
    repeated = found["repeated_ids"]
    return f"NOT unique: {repeated:,} events repeat one" if repeated else "unique"


def _entities(entities: Mapping[str, int]) -> str:
    named = {name.removesuffix("s").replace("_", " "): count for name, count in entities.items()}
    return ", ".join(_many(count, name) for name, count in named.items())


def _onsets(found: Mapping[str, Any]) -> str:
    if found["first_onset_s"] is None:
        return "none"
    return f"{found['first_onset_s']:.3f} to {found['last_onset_s']:.3f} s"


def _covered(found: Mapping[str, Any]) -> str:
    return (
        f"{found['covered_minutes']:,.1f} min to the last onset of each session,"
        f" {found['covered_minutes_by_take']:,.1f} min by take (session and track)"
    )


def _splits(splits: Mapping[str, Mapping[str, int]]) -> str:
    parts = [
        f"{clip(name)} {counts['events']:,} ({_many(counts['sessions'], 'session')})"
        for name, counts in splits.items()
    ]
    return _listed(parts, len(parts))


def _names(counts: Mapping[str, int]) -> str:
    if not counts:
        return "none"
    return _listed([f"{clip(name)} {count:,}" for name, count in counts.items()], len(counts))


def _listed(parts: Sequence[str], total: int) -> str:
    """Join as many parts as fit on a line, and say how many more there are."""
    shown = [parts[0]] if parts else []
    for part in parts[1:MOST_NAMES]:
        if sum(map(len, shown)) + 2 * len(shown) + len(part) > WIDTH - 24:
            break
        shown.append(part)
    left = total - len(shown)
    return ", ".join([*shown, *([f"and {left:,} more"] if left else [])])


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def _size(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
