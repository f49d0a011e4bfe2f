"""What is said of a file to write before any work is done."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from streaming_encodec.audio.files.atomic import check_writable, may, not_written
from streaming_encodec.audio.files.standard import is_standard, standard_output
from streaming_encodec.errors import FileFormatError

Name = str | os.PathLike[str]


def check_target(path: Name, endings: Sequence[str], inputs: Iterable[Name | None] = ()) -> None:
    """Make sure that a command may write `path`, and that it destroys nothing that the command reads.

    Args:
        path: the file to write; `-`, standard output, is any kind.
        endings: what its name may end in, such as ``.ecdc``.
        inputs: files and folders that the command reads, by any name; None is passed over.

    Raises:
        FileFormatError: an ending of another kind, the name of an input (by whatever path, link or case of
            letters), or a place where no file can be written.
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
    """Raise FileFormatError where standard output cannot take bytes."""
    try:
        standard_output()
    except OSError as error:
        raise not_written(Path("-"), error) from error


def check_folder(path: Name, inputs: Iterable[Name | None] = ()) -> None:
    """Make sure that a command may write files into a folder, which it makes where it is missing.

    Raises:
        FileFormatError: it is one of the inputs, something else than a folder, or takes no files.
    """
    folder = Path(path)
    refuse_input(folder, inputs)
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise FileFormatError(f"{path}: cannot be written: {there} is no folder; choose another name")
    if not may(there, os.W_OK | os.X_OK):
        raise FileFormatError(f"{path}: cannot be written: no permission to write into {there}")


def refuse_input(path: Name, inputs: Iterable[Name | None]) -> None:
    """Raise FileFormatError where `path` is one of the inputs, by whatever path, link or case of letters."""
    for source in inputs:
        if source is not None and is_same(path, source):
            raise FileFormatError(f"{path}: is the input {source}, which would be lost; choose another name")


def is_same(one: Name, other: Name) -> bool:
    """Whether two names stand for one file or folder that exists."""
    # By the file itself: that sees through links of both kinds, and through names that differ in case only.
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return False
