"""Packages that are not in the base install: one message says how to get them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from streaming_encodec.errors import MissingExtraError

TORCH_PACKAGES = ("torch", "onnx", "onnxruntime")


@contextmanager
def needs_extra(what: str, package: str, extra: str) -> Iterator[None]:
    """Imports of an extra's package go in this block. Raises ``MissingExtraError`` where it is not installed.

    ``what``: that needs it, the subject of a sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(f'{what} needs {package}: pip install "streaming-encodec[{extra}]"') from error


@contextmanager
def needs_torch(what: str) -> Iterator[None]:
    """Imports of the extra ``torch`` go in this block. Raises ``MissingExtraError`` where one is not installed.

    ``what``: that needs it, the subject of a sentence.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in TORCH_PACKAGES:
            raise
        raise missing_torch(what, error.name) from error


def missing_torch(what: str, package: str = "torch") -> MissingExtraError:
    """The error that says which extra ``what`` needs, and how it is installed."""
    command = 'pip install "streaming-encodec[torch]"'
    if sys.platform == "linux":
        command += " --extra-index-url https://download.pytorch.org/whl/cpu (the build for the CPU; without, 3 GB)"
    return MissingExtraError(f"{what} needs {package}, which the base install leaves out: {command}")
