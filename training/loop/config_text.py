"""A recipe as TOML with every default and what it means: what ``--print-config`` shows."""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import fields
from typing import Any, Final

from training.loop.config import NONE, TABLES, Recipe
from training.manifest import to_json

__all__ = ["describe_settings", "recipe_toml"]

WIDTH: Final = 96


def recipe_toml(recipe: Recipe) -> str:
    """Return TOML that, as ``--config``, gives the same recipe; each setting under its meaning."""
    parts = [f"# The recipe of train-classifier with the preset {recipe.preset}, in full."]
    for table, kind in TABLES.items():
        meanings = describe_settings(kind)
        values = getattr(recipe, table)
        parts += ["", f"[{table}]"]
        for item in fields(kind):
            parts += textwrap.wrap(
                meanings.get(item.name, ""), WIDTH, initial_indent="# ", subsequent_indent="# "
            )
            parts.append(f"{item.name} = {_toml(getattr(values, item.name))}")
    return "\n".join(parts) + "\n"


def describe_settings(kind: type) -> dict[str, str]:
    """Return what the text below each field of a dataclass says of it, by field."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(body, ast.ClassDef)
    found: dict[str, str] = {}
    field: str | None = None
    for node in body.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            field = node.target.id
            continue
        text = node.value if isinstance(node, ast.Expr) else None
        if field and isinstance(text, ast.Constant) and isinstance(text.value, str):
            found[field] = " ".join(text.value.split())
        field = None
    return found


def _toml(value: Any) -> str:
    """Return a plain value as TOML, which is JSON for all that a recipe holds; None has a word."""
    return to_json(NONE if value is None else value, indent=None)
