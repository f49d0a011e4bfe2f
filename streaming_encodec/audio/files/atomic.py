"""Output files that appear complete and on disk, and keep the permissions of what they replace."""

import contextlib
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from safetensors import SafetensorError

from streaming_encodec.errors import FileFormatError

# Linux takes 255 bytes a name, and so do the other systems or more.
_MAX_NAME_BYTES = 255


class AtomicPath:
    """A temporary name beside the wanted one, renamed to it in one step when the content is complete and on the disk.

    The wanted name never shows an incomplete file, and the old file stays until the new one is complete. As a context
    manager it commits at the end of the block and discards on an exception; errors of the system and of safetensors
    within the block, such as a full disk, become a `FileFormatError` that names the file and the cause.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Raises:
            FileFormatError: what `check_writable` raises, or the folder takes no new file.
        """
        self.wanted = Path(path)
        check_writable(self.wanted)
        # A link is followed, so that the rename replaces what it points to and not the link.
        self.path = Path(os.path.realpath(self.wanted))
        self.temporary = self.path.with_name(part_name(self.path.name))
        # A secret file must not be readable under its temporary name.
        mode = 0o600 if self.path.exists() else 0o666
        try:
            # Opened here, not later, so that a folder without write permission is noticed before any work is
            # done.
            os.close(os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        except OSError as error:
            raise not_written(self.wanted, error) from error
        self._open = True

    def commit(self) -> None:
        """Flush the content to disk, then rename the file. The content must be written and closed.

        Raises:
            FileFormatError: the disk refuses; nothing is left behind, and an old file is unchanged.
        """
        if not self._open:
            return
        try:
            to_disk(self.temporary)
            _keep_permissions(self.path, self.temporary)
            os.replace(self.temporary, self.path)
        except OSError as error:
            self.discard()
            raise not_written(self.wanted, error) from error
        self._open = False
        _folder_to_disk(self.path.parent)

    def discard(self) -> None:
        """Remove the temporary file; does nothing after `commit`."""
        if self._open:
            with contextlib.suppress(FileNotFoundError):
                self.temporary.unlink()
            self._open = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.commit()
            return
        self.discard()
        if isinstance(error, (OSError, SafetensorError)):
            raise not_written(self.wanted, error) from error


class AtomicFiles:
    """Several files of one folder, written into a hidden folder in it and moved to their names when all are complete.

    `with AtomicFiles(folder) as part:` creates the folder if it is missing and gives the hidden one to write
    into. At the end of the block its files are flushed to disk and then moved, `last` after the others, which
    needs no more space. On an exception nothing is left behind.
    """

    def __init__(self, folder: str | os.PathLike[str], last: str | None = None) -> None:
        self.folder = Path(folder)
        self._last = last
        self._made: list[Path] = []

    def __enter__(self) -> Path:
        """Raises FileFormatError if the folder cannot be created or written."""
        folder = self.folder
        try:
            self._made = _make_folders(folder)
            self._part = folder / part_name(folder.name or "files")
            self._part.mkdir(0o700)
        except OSError as error:
            self._remove_made()
            raise not_written(folder, error) from error
        return self._part

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._commit()
            elif isinstance(error, (OSError, SafetensorError)):
                raise not_written(self.folder, error) from error
        except OSError as failure:
            raise not_written(self.folder, failure) from failure
        finally:
            shutil.rmtree(self._part, ignore_errors=True)
            self._remove_made()

    def _commit(self) -> None:
        files = sorted(self._part.iterdir(), key=lambda file: (file.name == self._last, file.name))
        for file in files:
            place = self.folder / file.name
            if place.exists() and not place.is_file():
                raise FileFormatError(f"{place}: cannot be written, it is not a plain file; choose another folder")
            to_disk(file)
            _keep_permissions(place, file)
        for file in files:
            os.replace(file, self.folder / file.name)
        _folder_to_disk(self.folder)

    def _remove_made(self) -> None:
        """Remove the folders created here that are empty."""
        for folder in reversed(self._made):
            with contextlib.suppress(OSError):
                folder.rmdir()


def write_by(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file, then rename it.

    Raises:
        FileFormatError: it cannot be written; an old file is unchanged.
    """
    with AtomicPath(path) as file:
        write(file.temporary)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole text file, UTF-8. Raises as `write_by`."""
    write_by(path, lambda temporary: temporary.write_bytes(text.encode("utf-8")))


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise now what writing a file of this name would raise later, as far as it can be known.

    Raises:
        FileFormatError: the folder is missing or not writable; the name is too long, or belongs to something that
            is not a plain file, or to a write-protected file.
    """
    wanted = Path(path)
    place = Path(os.path.realpath(wanted))
    try:
        is_there = place.exists()
        if is_there and not place.is_file():
            raise FileFormatError(f"{wanted}: cannot be written, it is not a plain file; choose another name")
    except OSError as error:  # a name too long, a folder that may not be entered
        raise not_written(wanted, error) from error
    if len(os.fsencode(place.name)) > _MAX_NAME_BYTES:
        raise FileFormatError(f"{wanted}: cannot be written: the name is longer than {_MAX_NAME_BYTES} bytes")
    if not place.parent.is_dir():
        raise FileFormatError(f"{wanted}: the folder {wanted.parent} does not exist; make it first")
    if not may(place.parent, os.W_OK | os.X_OK):
        raise FileFormatError(f"{wanted}: cannot be written: no permission to write into {wanted.parent}")
    if is_there and not may(place, os.W_OK):
        raise FileFormatError(f"{wanted}: is write-protected; choose another name, or allow writing")


def may(path: Path, what: int) -> bool:
    """`os.access` for the effective user."""
    return os.access(path, what, effective_ids=os.access in os.supports_effective_ids)


def not_written(path: Path, error: Exception) -> FileFormatError:
    """The error for a file that could not be written, with the cause."""
    cause = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
    cause = cause.removeprefix("Error while serializing: I/O error: ")  # safetensors: the system's words follow
    return FileFormatError(f"{path}: cannot be written: {cause}")


def part_name(name: str) -> str:
    """A hidden temporary name for `name`, no longer than the system allows."""
    ending = f".{secrets.token_hex(4)}.part"
    stem = os.fsencode(f".{name}")[: _MAX_NAME_BYTES - len(ending)]
    # Systems whose names are Unicode refuse a character that is cut in two.
    return stem.decode("utf-8", "ignore") + ending


def to_disk(path: Path) -> None:
    """Wait until the content of a file is on disk. Raises OSError if it cannot be flushed."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    # The rename itself is durable only when the folder is flushed too. Not every system can do that; if it fails,
    # the file is complete all the same.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _keep_permissions(old: Path, new: Path) -> None:
    """Give `new` the owner, mode and access list of `old`, if that exists. No user gains access."""
    try:
        had = os.stat(old)
    except FileNotFoundError:
        return
    mode = stat.S_IMODE(had.st_mode)
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(new, had.st_uid, -1)
        try:
            os.chown(new, -1, had.st_gid)
        except OSError:
            others = mode & 0o7
            mode &= ~0o70 | others << 3  # it is another group now
    os.chmod(new, mode)
    if hasattr(os, "getxattr"):
        with contextlib.suppress(OSError):
            os.setxattr(new, "system.posix_acl_access", os.getxattr(old, "system.posix_acl_access"))


def _make_folders(folder: Path) -> list[Path]:
    """Create a folder and its parents; return those that were missing, the outermost first."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing[::-1]
