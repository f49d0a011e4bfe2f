"""Standard input and output under the name `-`, as bytes."""

import os
import sys
from typing import BinaryIO

STANDARD = "-"


def is_standard(path: str | os.PathLike[str]) -> bool:
    """Whether a name means standard input or output."""
    return os.fspath(path) == STANDARD


def standard_input() -> BinaryIO:
    """Standard input. Raises OSError if there is none, or if it is a terminal."""
    if sys.stdin is None:
        raise OSError(None, "there is no standard input")
    if sys.stdin.isatty():
        raise OSError(None, "standard input is the terminal; send a file into it with | or <")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Standard output. Raises OSError if there is none, or if it is a terminal."""
    if sys.stdout is None:
        raise OSError(None, "there is no standard output")
    if sys.stdout.isatty():
        raise OSError(None, "standard output is the terminal; send it into a program or a file with | or >")
    return sys.stdout.buffer
