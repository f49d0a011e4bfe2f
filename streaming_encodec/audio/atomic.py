"""Output files that appear whole or not at all."""

import contextlib
import os
import secrets
from pathlib import Path
from types import TracebackType

from streaming_encodec.errors import FileFormatError


class AtomicPath:
    """A temporary name beside the wanted one, renamed to it in one step when the content is complete.

    Nobody ever sees half a file under the wanted name, and a file that was there stays until the new one is
    done; so reading and writing the same path is safe too. Used as a context manager it commits at the end of
    the block and discards on an exception.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Raises:
            FileFormatError: the folder is missing or may not be written, or the name is taken by something
                that is not a plain file.
        """
        wanted = Path(path)
        # A link is followed, so that the rename replaces what it points to and not the link.
        self.path = Path(os.path.realpath(wanted))
        if self.path.exists() and not self.path.is_file():
            raise FileFormatError(f"{wanted}: cannot be written, it is not a plain file; choose another name")
        if not self.path.parent.is_dir():
            raise FileFormatError(f"{wanted}: the folder {wanted.parent} does not exist; make it first")
        self.temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.part")
        try:
            # Opened here, not later, so that a folder without write permission is noticed before any work is
            # done.
            os.close(os.open(self.temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except OSError as error:
            raise FileFormatError(f"{wanted}: cannot be written: {error.strerror}") from error
        self._open = True

    def commit(self) -> None:
        """Give the file its name. Its content must be written and closed."""
        if self._open:
            os.replace(self.temporary, self.path)
            self._open = False

    def discard(self) -> None:
        """Remove the temporary file; does nothing after `commit`."""
        if self._open:
            with contextlib.suppress(FileNotFoundError):
                self.temporary.unlink()
            self._open = False

    def __enter__(self) -> "AtomicPath":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.discard()
