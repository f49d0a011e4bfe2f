"""Sources of bytes: a file, or a pipe, a FIFO or standard input, which give each byte once."""

import io
import os
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO, cast

from streaming_encodec.audio.files.chunks import au_format, find_au, find_chunks, kind_of, wav_format
from streaming_encodec.audio.files.mp3_frames import before_tags, find_mp3, skip_tags
from streaming_encodec.audio.files.ogg_pages import find_flac, find_ogg
from streaming_encodec.audio.files.parts import Findings, Part, RawFormat, Stream, read_at
from streaming_encodec.audio.files.standard import is_standard, standard_input
from streaming_encodec.errors import FileFormatError

_PIPE_BYTES = 1 << 16
_MAX_HEADER_BYTES = 1 << 20
_UNKNOWN_BYTES = 0x7FFF_0000


class ByteSource:
    """A file that is read once, from its start; `-` is standard input. A context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """
        Raises:
            FileFormatError: it is missing or not readable.
        """
        self.path = path
        self._is_standard = is_standard(path)
        try:
            self.file: BinaryIO = standard_input() if self._is_standard else Path(path).open("rb")  # noqa: SIM115
            # Another program may have read the beginning of standard input: continue from there.
            self.seekable = self.file.seekable() and self.file.tell() == 0
            if not self.seekable and isinstance(self.file, io.BufferedReader):
                # Without the lock of a buffer: a thread that waits in it would delay the end of the program.
                self.file = cast(BinaryIO, _Pipe(self.file))
        except OSError as error:
            raise unreadable(path, error) from error

    @classmethod
    def within(cls, path: str | os.PathLike[str], start: int, size: int, name: str) -> "ByteSource":
        """A part of a file, such as a member of a tar, as a source of its own.

        Args:
            path: the file; start, size: the bytes that belong to the part.
            name: what errors call the part.

        Raises:
            FileFormatError: the file is missing or not readable.
        """
        source = cls(path)
        source.path = name
        if not source.seekable:
            source.close()
            raise FileFormatError(f"{path}: is no plain file, so that its parts cannot be found; copy it to one")
        source.file = cast(BinaryIO, _Within(source.file, start, size))
        return source

    def begins_with(self, magic: bytes) -> bool:
        """Whether these are its first bytes; they are read again.

        Raises:
            FileFormatError: it cannot be read.
        """
        try:
            if isinstance(self.file, _Pipe):
                return self.file.peek(len(magic)) == magic
            file = self.whole()
            head = file.read(len(magic))
            file.seek(0)
        except OSError as error:
            raise unreadable(self.path, error) from error
        return head == magic

    def whole(self, taken: bytes = b"") -> BinaryIO:
        """All of it as a seekable file: a pipe is stored in a temporary file first.

        Args:
            taken: bytes that were read from it already.

        Raises:
            FileFormatError: it cannot be read, or there is no room to store it.
        """
        if self.seekable:
            return self.file
        try:
            kept: BinaryIO = tempfile.TemporaryFile()  # noqa: SIM115  # it lives as long as this object
            kept.write(taken)
            shutil.copyfileobj(self.file, kept)
            kept.seek(0)
        except OSError as error:
            raise FileFormatError(
                f"{self.path}: cannot be kept in {tempfile.gettempdir()} to be read: {error.strerror}; write it to a "
                "file first"
            ) from error
        self.close()
        self.file, self.seekable, self._is_standard = kept, True, False
        return kept

    def close(self) -> None:
        if not self._is_standard:
            self.file.close()

    def __enter__(self) -> "ByteSource":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Within(io.RawIOBase):
    """Some bytes of a file, which is closed along."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._at)
        self._file.seek(self._start + self._at)
        data = self._file.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data

    def close(self) -> None:
        super().close()
        self._file.close()


class _Pipe(io.RawIOBase):
    """A pipe: `read` returns all the bytes asked for, or fewer at the end."""

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__()
        self._buffered = file  # nothing was read through it; closing it closes the pipe
        self._raw = file.raw
        self._held = b""

    def peek(self, size: int) -> bytes:
        """The next bytes, without consuming them; fewer at the end."""
        self._held = self.read(size)
        return self._held

    def read(self, size: int = -1) -> bytes:
        pieces, have = [self._held], len(self._held)
        while size < 0 or have < size:
            piece = self._raw.read(_PIPE_BYTES if size < 0 else size - have)
            if not piece:
                break
            pieces.append(piece)
            have += len(piece)
        data = b"".join(pieces)
        if size < 0:
            size = len(data)
        self._held = data[size:]
        return data[:size]

    def close(self) -> None:
        super().close()
        if self._buffered is not getattr(sys.stdin, "buffer", None):
            self._buffered.close()


def unreadable(path: str | os.PathLike[str], error: OSError) -> FileFormatError:
    """The error for a file that cannot be read, with the cause."""
    return FileFormatError(f"{path}: cannot be read: {error.strerror or error}; check the name")


def find_parts(file: BinaryIO) -> Findings:
    """Find the parts of a sound file that are sound.

    Raises:
        FileFormatError: it is cut off, damaged, or joined from parts that cannot be read together.
    """
    end = file.seek(0, os.SEEK_END)
    head = read_at(file, 0, 40)
    kind = kind_of(head)
    if kind is not None:
        return find_chunks(file, kind, end)
    if head[:4] in (b".snd", b"dns."):
        return find_au(file, end)
    start = skip_tags(file, 0, end)  # taggers for MP3 put them before other files too
    magic = read_at(file, start, 4)
    if magic == b"OggS" and not start:
        return find_ogg(file, end)
    if magic == b"fLaC" and not start:
        return find_flac(file, before_tags(file, end))
    return find_mp3(file, end) or Findings([Part(start, before_tags(file, end) if start else end)])


def live_sound(source: ByteSource) -> tuple[RawFormat, Stream, int | None] | bytes:
    """Sound that can be decoded as it arrives: a WAV or AU of plain samples from a pipe.

    Returns:
        The samples' layout, the samples, and how many the header states; or, for anything else, the bytes that were
        read.
    """
    taken = b""

    def read(size: int) -> bytes:
        nonlocal taken
        data = source.file.read(size)
        taken += data
        return data

    head = read(12)
    if head[:4] in (b".snd", b"dns.") and (layout := au_format(head + read(12))) is not None:
        offset, size, raw = layout
        if raw is not None and 24 <= offset <= _MAX_HEADER_BYTES and len(read(offset - 24)) == offset - 24:
            return _live(source, raw, size)
        return taken
    if head[:4] not in (b"RIFF", b"RIFX") or head[8:] != b"WAVE":
        return taken
    order = ">" if head[:4] == b"RIFX" else "<"
    raw = None
    while len(taken) < _MAX_HEADER_BYTES and len(chunk := read(8)) == 8:
        name, size = chunk[:4], struct.unpack(order + "I", chunk[4:])[0]
        if name == b"data":
            return taken if raw is None else _live(source, raw, None if size == 0 or size >= _UNKNOWN_BYTES else size)
        content = read(min(size + size % 2, _MAX_HEADER_BYTES))
        if name == b"fmt " and len(content) >= 16:
            try:
                raw = wav_format(content, order)
            except struct.error:
                return taken
    return taken


def _live(source: ByteSource, raw: RawFormat, size: int | None) -> tuple[RawFormat, Stream, int | None]:
    samples = None if size is None else size // raw.sample_bytes
    return raw, Stream(source.file, None if samples is None else samples * raw.sample_bytes), samples
