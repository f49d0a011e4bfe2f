"""Checks of an output file before any work is done."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from streaming_encodec.audio.files.atomic import check_writable, may, not_written
from streaming_encodec.audio.files.standard import is_standard, standard_output
from streaming_encodec.errors import FileFormatError

Name = str | os.PathLike[str]


def check_target(path: Name, endings: Sequence[str], inputs: Iterable[Name | None] = ()) -> None:
    """Check that a command may write `path`, and that this does not overwrite an input.

    Args:
        path: the file to write; `-`, standard output, may be any kind.
        endings: allowed endings of its name, such as ``.ecdc``.
        inputs: files and folders that the command reads; None is ignored.

    Raises:
        FileFormatError: another ending, an input (by any path, link or spelling), or a place where no file can be
            written.
    """
    if is_standard(path):
        check_standard()
        return
    target = Path(path)
    ending = target.suffix.lower()
    if ending not in endings and not target.is_dir():
        have = f"a file that ends in {ending}" if ending else "a name without ending"
        raise FileFormatError(f"{path}: {have} is not what is written here; use {' or '.join(endings)}")
    refuse_input(target, inputs)
    check_writable(target)


def check_standard() -> None:
    """Raise FileFormatError if standard output does not accept bytes."""
    try:
        standard_output()
    except OSError as error:
        raise not_written(Path("-"), error) from error


def check_folder(path: Name, inputs: Iterable[Name | None] = ()) -> None:
    """Check that a command may write files into a folder, which it creates if it is missing.

    Raises:
        FileFormatError: it is an input, not a folder, or not writable.
    """
    folder = Path(path)
    refuse_input(folder, inputs)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise FileFormatError(f"{path}: cannot be written: {there} is no folder; choose another name")
    if not may(there, os.W_OK | os.X_OK):
        raise FileFormatError(f"{path}: cannot be written: no permission to write into {there}")


def refuse_input(path: Name, inputs: Iterable[Name | None]) -> None:
    """Raise FileFormatError if `path` is one of the inputs, by any path, link or spelling."""
    for source in inputs:
        if source is not None and is_same(path, source):
            raise FileFormatError(f"{path}: is the input {source}, which would be lost; choose another name")


def is_same(one: Name, other: Name) -> bool:
    """Whether two names mean the same existing file or folder."""
    # Comparing the files resolves links of both kinds, and names that differ only in case.
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
