"""What to do next when an input was refused: one line below the message, where there is advice."""

from __future__ import annotations

import difflib
from pathlib import Path

from training.errors import SHOWN_PROBLEMS, DrumgateError, InputError, Problem, printable

_MANIFESTS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")


def hint(error: DrumgateError) -> str:
    """Return one line that says what to try; empty where the message says it all."""
    if not isinstance(error, InputError) or not error.problems:
        return ""
    first = error.problems[0]
    if first.why == "no such file":
        return _like(first)
    if error.total > SHOWN_PROBLEMS and first.path.endswith(_MANIFESTS):
        return "drumgate validate-manifest lists every malformed line (--help tells how)"
    return ""


def _like(problem: Problem) -> str:
    """Name the file beside a missing one whose name is nearest."""
    wanted = Path(problem.path)
    try:
        if not wanted.parent.is_dir():
            return f"the folder {printable(str(wanted.parent))} does not exist either"
        beside = wanted.parent.iterdir()
        names = [each.name for each in beside if each.is_file() or not wanted.suffix]
    except OSError:
        return ""
    found = difflib.get_close_matches(wanted.name, names, n=1)
    return f"did you mean {printable(str(wanted.with_name(found[0])))}?" if found else ""
