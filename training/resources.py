"""Where the files of `configs/` are: beside the packages in a checkout, inside them in a wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_FOLDERS = (_PACKAGE.parent / "configs", _PACKAGE / "_configs")


def config_path(name: str) -> Path:
    """Return the path of `configs/<name>`.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"configs/{name} is missing from this installation of drumgate")
