"""Take the picture of the readme again: `python examples/make_picture.py`.

It shows the beginning of the page of a readiness run, in headless Chromium (drumgate[browser] and
Debian's chromium), and holds a hash of what the page says there, by which a test knows that the
picture is of the present page.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import shutil
import struct
import sys
import zlib
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
PAGE: Final = HERE / "run_readiness_checks" / "index.html"
PICTURE: Final = HERE.parent / "docs" / "images" / "readiness.png"
WIDTH: Final = 1080
HEIGHT: Final = 1180
_KEY: Final = b"page"
_SHOWN: Final = 'id="block-3"'  # the third of the blockers is below the picture


def shown(page: str) -> str:
    """Return a hash of what a page says where the picture shows it, and of how it is drawn."""
    beginning = page.partition(_SHOWN)[0]
    said = re.sub(r"<(script|head|svg)\b.*?</\1>|<[^>]*>", " ", beginning, flags=re.DOTALL)
    return hashlib.sha256(" ".join(html.unescape(said).split()).encode()).hexdigest()


def taken_of(picture: bytes) -> str:
    """Return the hash that a picture holds; '' where it holds none."""
    at = 8
    while at < len(picture):
        (length,) = struct.unpack(">I", picture[at : at + 4])
        body = picture[at + 8 : at + 8 + length]
        if picture[at + 4 : at + 8] == b"tEXt" and body.startswith(_KEY + b"\0"):
            return body.partition(b"\0")[2].decode()
        at += 12 + length
    return ""


def with_hash(picture: bytes, said: str) -> bytes:
    """Return a PNG with a hash in it, behind its head."""
    body = b"tEXt" + _KEY + b"\0" + said.encode()
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    head = 8 + 12 + 13
    return picture[:head] + chunk + picture[head:]


def main() -> None:
    """Take the picture."""
    from playwright.sync_api import sync_playwright

    browser = os.environ.get("DRUMGATE_CHROMIUM") or shutil.which("chromium")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = found.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(PAGE.as_uri())
        picture = page.screenshot()
        found.close()
    PICTURE.write_bytes(with_hash(picture, shown(PAGE.read_text(encoding="utf-8"))))
    sys.stdout.write(f"{PICTURE.relative_to(HERE.parent)}: {len(picture) / 1000:.0f} kB\n")


if __name__ == "__main__":
    main()
