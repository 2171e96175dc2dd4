"""What the words of the trade on a page mean, from one table: `templates/words.toml`.

Where such a word stands on a page it is marked with its meaning, and the page ends with a list of
those that it used. Tests hold the pages to it: a heading of a table that is neither explained here
nor plain English fails them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Final

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Word:
    """One word: how it is listed, what it means, and the pattern by which it is found in text.

    `tools` are those on whose pages it means this; none named means all.
    """

    name: str
    meaning: str
    pattern: str = ""
    tools: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """The id of its entry in the list."""
        return "word-" + re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


LINK: Final = "<!--words-link-->"
"""Where a page wants the way to its list of words."""
LIST: Final = "<!--words-->"
"""Where a page wants that list."""

# What is passed over as it stands, what is looked at and left as it is, and any other tag.
_PIECES: Final = re.compile(
    r"<(?P<shut>style|script|code|pre|title|desc|abbr)\b[^>]*>.*?</(?P=shut)>"
    r"|<(?P<read>h[1-6]|summary|svg|a)\b[^>]*>.*?</(?P=read)>"
    r"|<[^>]*>",
    re.DOTALL,
)
_INNER: Final = re.compile(r"<(?P<shut>title|desc|code)\b[^>]*>.*?</(?P=shut)>|<[^>]*>", re.DOTALL)


@cache
def words() -> tuple[Word, ...]:
    """Return every word, in the order in which pages list them."""
    file = resources.files("training.render").joinpath("templates/words.toml")
    return tuple(
        Word(name, each["means"], each.get("found", ""), tuple(each.get("tools", ())))
        for name, each in tomllib.loads(file.read_text(encoding="utf-8")).items()
    )


def explained(page: str, tool: str) -> str:
    """Return a page with its words marked and listed where `LINK` and `LIST` stand.

    Looked at is all that stands before the list. Marked are the first of each word in running text,
    and all of them in headings of tables. Text that came from data is escaped already, and is
    treated like any other.

    Args:
        page: HTML that is well formed.
        tool: whose page it is; some words mean something on some pages only.
    """
    start, end = max(page.find("<main"), 0), page.find(LIST)
    if end < 0:
        return page
    head, body, rest = page[:start], page[start:end], page[end:]
    known, pattern = _known(tool)
    met: dict[str, Word] = {}
    made: list[str] = []
    for text, tag in _pieces(body):
        in_heading = bool(made) and made[-1].startswith(('<th scope="col"', "<dt"))
        made.append(_marked(text, known, pattern, met, always=in_heading) if text else "")
        if tag is not None:
            if tag["read"]:
                for found in pattern.finditer(_INNER.sub(" ", tag[0])):
                    met.setdefault("(unmarked) " + _key(found), known[_key(found)])
            made.append(tag[0])
    used = {word.name for word in met.values()}
    shown = [word for word in known.values() if word.name in used]
    whole = head + "".join(made) + rest
    return whole.replace(LINK, _link(shown), 1).replace(LIST, _list(shown), 1)


def _pieces(html: str) -> Iterator[tuple[str, re.Match[str] | None]]:
    """Yield each stretch of text with the tag, or the element, that follows it."""
    at = 0
    for tag in _PIECES.finditer(html):
        yield html[at : tag.start()], tag
        at = tag.end()
    yield html[at:], None


def _marked(
    text: str,
    known: dict[str, Word],
    pattern: re.Pattern[str],
    met: dict[str, Word],
    *,
    always: bool,
) -> str:
    def mark(found: re.Match[str]) -> str:
        key = _key(found)
        if key in met and not always:
            return found[0]
        met[key] = known[key]
        return f'<abbr title="{Markup.escape(known[key].meaning)}">{found[0]}</abbr>'

    inner = text.strip()
    return text.replace(inner, pattern.sub(mark, inner), 1) if inner else text


def _key(found: re.Match[str]) -> str:
    return found.lastgroup or ""


@lru_cache(maxsize=64)
def _known(tool: str) -> tuple[dict[str, Word], re.Pattern[str]]:
    """Return the words of a page by the group of the pattern that finds them, and the pattern."""
    known = {
        f"w{number}": word
        for number, word in enumerate(words())
        if not word.tools or tool in word.tools
    }
    # A longer word goes before those that are part of it.
    order = sorted(known, key=lambda key: -len(known[key].name))
    either = "|".join(
        f"(?P<{key}>{known[key].pattern or re.escape(known[key].name)})" for key in order
    )
    return known, re.compile(rf"(?<![\w./-])(?:{either})(?!\w|\.\w|-\w)", re.IGNORECASE)


def _link(shown: list[Word]) -> str:
    return '<a href="#words">Words explained</a>' if shown else ""


def _list(shown: list[Word]) -> str:
    if not shown:
        return ""
    rows = Markup("\n").join(
        Markup('<div><dt id="{}">{}</dt><dd>{}</dd></div>').format(
            word.anchor, word.name, word.meaning
        )
        for word in shown
    )
    return Markup('<h2 id="words">Words on this page</h2>\n<dl class="words">\n{}\n</dl>').format(
        rows
    )
