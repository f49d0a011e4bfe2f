"""Optional packages: imported when needed, and when missing the error says how to get them."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from streaming_encodec.errors import FileFormatError, MissingExtraError

EXTRA = "pip install 'streaming-encodec[eval]'"


def need(module: str, purpose: str, install: str = EXTRA) -> Any:
    """Import ``module``. Raises :class:`MissingExtraError` that says what it is for and how to install it.

    ``install`` differs where the extra can't carry a package, because it would pull others that break.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{purpose} needs {module!r} ({error}): {install}") from error


def package_folder(package: str, purpose: str, install: str = EXTRA) -> Path:
    """Where a package's data files lie, without running its code. Raises :class:`MissingExtraError`."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"{purpose} needs {package!r}: {install}")
    return Path(spec.origin).parent


def packaged_file(package: str, file: str, purpose: str, install: str = EXTRA) -> Path:
    """A data file of a package. Raises MissingExtraError, or FileFormatError where the package lacks the file."""
    path = package_folder(package, purpose, install) / file
    if not path.is_file():
        raise FileFormatError(f"{path} is missing; install {package} again: {install}")
    return path
