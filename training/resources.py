"""Where the files of `configs/` are: beside the packages in a checkout, inside them in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# Its own first: beside an installed package another distribution may have put a folder `configs`.
_FOLDERS = (_PACKAGE / "_configs", _PACKAGE.parent / "configs")


def config_path(name: str) -> Path:
    """Return the path of `configs/<name>`.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"configs/{name} is missing from this installation of drumgate")
