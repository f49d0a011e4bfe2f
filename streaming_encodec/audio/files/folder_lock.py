"""One writer a folder: a lock that the system gives back when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from streaming_encodec.errors import FolderError

LOCK_NAME = ".streaming-encodec.lock"

_FAR = 1 << 30
"""On Windows nobody can read a locked region; this offset is never read."""


class FolderLock:
    """Within its `with` block no other process has the lock of the folder, which is made if need be.

    The lock is the system's, on a small file in the folder, so that nothing is left of it after a crash or SIGKILL.

    Raises:
        FolderError: another process has it, or the folder cannot be made or written.
    """

    def __init__(self, folder: Path, name: str = LOCK_NAME) -> None:
        """``name``: of the lock's file, where several runs may share a folder that write different files."""
        self.folder = folder
        self._path = folder / name

    def __enter__(self) -> Self:
        self._made = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            while not self._acquire():
                pass
        except BlockingIOError:
            raise FolderError(
                f"{self.folder} is in use by another run{self._owner()}: wait for its end, or choose another folder"
            ) from None
        except OSError as error:
            self._remove_if_empty()
            raise FolderError(f"{self.folder} cannot be written: {error.strerror or error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if os.name == "posix":
            self._path.unlink(missing_ok=True)  # under the lock: a waiting process makes a new one
            os.close(self._file)
        else:
            os.close(self._file)
            with contextlib.suppress(OSError):
                self._path.unlink()
        if kind is not None:
            self._remove_if_empty()

    def _acquire(self) -> bool:
        """False if the file was deleted before it was locked. BlockingIOError: another process has the lock."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(file)
            if not self._is(file):
                os.close(file)
                return False
            with contextlib.suppress(OSError):  # a full disk: the number is for others to read, the lock holds without
                os.ftruncate(file, 0)
                os.write(file, f"{os.getpid()}\n".encode())
        except BaseException:
            os.close(file)
            raise
        self._file = file
        return True

    def _is(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self._path.stat())
        except FileNotFoundError:
            return False

    def _owner(self) -> str:
        try:
            process = self._path.read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            return ""
        return f" (process {process})" if process.isdecimal() and len(process) < 12 else ""

    def _remove_if_empty(self) -> None:
        if self._made:
            with contextlib.suppress(OSError):
                self.folder.rmdir()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
        os.lseek(file, 0, os.SEEK_SET)

else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
