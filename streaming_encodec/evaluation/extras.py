"""Optional packages: imported when needed; if one is missing, the error says how to install it."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from streaming_encodec.errors import FileFormatError, MissingExtraError

EXTRA = "pip install 'streaming-encodec[eval]'"


def need(module: str, purpose: str, install: str = EXTRA) -> Any:
    """Import ``module``. Raises :class:`MissingExtraError`, which says what it is for and how to install it.

    ``install`` differs for packages that can't be in the extra, because their dependencies conflict.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{purpose} needs {module!r} ({error}): {install}") from error


def package_folder(package: str, purpose: str, install: str = EXTRA) -> Path:
    """The folder of a package's data files, without running its code. Raises :class:`MissingExtraError`."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"{purpose} needs {package!r}: {install}")
    return Path(spec.origin).parent


def packaged_file(package: str, file: str, purpose: str, install: str = EXTRA) -> Path:
    """A data file of a package. Raises MissingExtraError, or FileFormatError if the package lacks the file."""
    path = package_folder(package, purpose, install) / file
    if not path.is_file():
        raise FileFormatError(f"{path} is missing; install {package} again: {install}")
    return path
