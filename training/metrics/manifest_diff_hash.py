"""Fingerprints of events in SQL: where they are equal, so are the events that they are of.

DuckDB's own `hash` is fast, and mixes numbers and short texts well. Of longer texts that differ in
two places eight bytes apart, such as `prod-000000-00019` and `prod-007000-00049`, it may make one
number. Longer texts therefore go through MD5 as well, joined, and all 128 bits of that are mixed
in. A fingerprint has 64 bits: a change is missed with a probability of about 1 in 10^19.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

from training.manifest.schema import arrow_schema

_SEPARATOR: Final = "chr(31)"
_SHORT_BYTES: Final = 12  # up to here the engine's hash does not meet itself
# The hash of a null equals that of an empty list and of a struct of nulls.
_STATED: Final = ("loudness", "context_ms", "annotated_labels")
_WORDS: Final = ("label", "openness_curve_id", "strike_position", "instrument_variant")


def fingerprint(names: Sequence[str]) -> str:
    """Return SQL for the fingerprint of some fields of an event."""
    stated = [f"{name} IS NULL" for name in _STATED if name in names]
    texts = []
    for name in names:
        kind = arrow_schema().field(name).type
        if name == "components":
            texts.append(_joined(words_of(name, _WORDS)))
        elif pa.types.is_string(kind):
            texts.append(f"CASE WHEN strlen({name}) > {_SHORT_BYTES} THEN {name} END")
        elif pa.types.is_list(kind):
            texts.append(_joined(_long(name)))
    return _hash([*names, *stated], texts)


def list_fingerprint(values: str, words: str | None = None) -> str:
    """Return SQL for the fingerprint of a list.

    Args:
        values: the list, in SQL.
        words: what `words_of` gives for it; by default it is a list of text itself.
    """
    return _hash([values], [_joined(words or _long(values))])


def text_fingerprint(value: str) -> str:
    """Return SQL for the fingerprint of one text, which may be null."""
    return _hash([value, f"{value} IS NULL"], [value])


def words_of(parts: str, names: Iterable[str]) -> str:
    """Return SQL for what some text fields of components hold, of those in which it is long."""
    listed = ", ".join(f'part."{name}"' for name in names)
    long = f"list_filter({parts}, lambda part: strlen(concat({listed})) > {_SHORT_BYTES})"
    return f"list_transform({long}, lambda part: concat_ws({_SEPARATOR}, {listed}))"


def probable_key(text: str) -> str:
    """Return SQL for a hash of text that is faster, and may be equal for a few different texts."""
    return f"hash({text}, substr({text}, 5))"


def _long(texts: str) -> str:
    return f"list_filter({texts}, lambda text: strlen(text) > {_SHORT_BYTES})"


def _joined(texts: str) -> str:
    return f"array_to_string({texts}, {_SEPARATOR})"


def _hash(values: Sequence[str], texts: Sequence[str]) -> str:
    if texts:
        text = (
            f"nullif(concat_ws({_SEPARATOR}, {', '.join(texts)}), '')"  # of a null it costs nothing
        )
        values = [*values, f"md5_number({text})"]
    return f"hash({', '.join(values)})"
