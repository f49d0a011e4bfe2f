"""What a look through a sound file finds: the pieces of it that are sound, and what is to be said of the rest.

libsndfile believes a header that a killed recorder never completed, guesses the length of an MP3 from its first
frame, shortens what is cut off, and stops at the first of two files that were joined, all without a word. So the
modules `chunks`, `ogg_pages` and `mp3_frames` go through the structure of a file before it is decoded.
"""

import io
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from streaming_encodec.errors import FileFormatError

UNKNOWN_SAMPLES = 2**62
"""At least so many are what libsndfile reports for a stream whose length its header does not state."""

_AFAR = 2**40
"""Where an endless window is said to end: further than any file, so that no guess at a length falls short."""


@dataclass(frozen=True, slots=True)
class RawFormat:
    """How the samples of a container lie, for those whose own lengths cannot be trusted. Words of libsndfile."""

    container: str
    subtype: str
    endian: str
    sample_rate: int
    channels: int

    @property
    def sample_bytes(self) -> int:
        """Of one sample of all channels."""
        return _BYTES_OF[self.subtype] * self.channels


_BYTES_OF = {
    **dict.fromkeys(("PCM_S8", "PCM_U8", "ULAW", "ALAW"), 1),
    "PCM_16": 2,
    "PCM_24": 3,
    **dict.fromkeys(("PCM_32", "FLOAT"), 4),
    "DOUBLE": 8,
}


@dataclass(frozen=True, slots=True)
class Part:
    """The bytes from `start` to `end` that are a file of their own.

    Attributes:
        raw: given where only the samples are in it, without a header.
        samples: how many there must be, where libsndfile cannot know.
        endless: libsndfile shall not guess the length from the size (MP3).
    """

    start: int
    end: int
    raw: RawFormat | None = None
    samples: int | None = None
    endless: bool = False


@dataclass(slots=True)
class Findings:
    """The parts of a file, and what its reader should be told; a message has no name of the file in it."""

    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Window(io.RawIOBase):
    """A part of a file as libsndfile reads it; errors of the system are kept in `error`, as none may leave C."""

    def __init__(self, file: BinaryIO, part: Part) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._file = file
        self._start = part.start
        self._size = part.end - part.start
        self._said = _AFAR if part.endless else self._size
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._said)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        if self._said == _AFAR and self._at > self._size:
            # A look for tags at the end that is not there: nothing, and no end either.
            buffer[:wanted] = bytes(wanted)
            self._at += wanted
            return wanted
        try:
            self._file.seek(self._start + self._at)
            data = self._file.read(max(0, min(wanted, self._size - self._at)))
        except BaseException as error:
            self.error = error
            return 0
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


class Stream(io.RawIOBase):
    """The samples that still come from a pipe, read forward only; at most `size` bytes of them."""

    def __init__(self, file: BinaryIO, size: int | None) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._file = file
        self._said = UNKNOWN_SAMPLES if size is None else size
        self._at = 0  # where libsndfile believes to be; it comes back before it reads
        self._read = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._said)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        if self._at != self._read:
            return 0
        wanted = min(len(buffer), self._said - self._read)
        got = 0
        try:
            # All that is wanted: a short read would be the end for libsndfile.
            while got < wanted and (data := self._file.read(wanted - got)):
                buffer[got : got + len(data)] = data
                got += len(data)
        except BaseException as error:
            self.error = error
        self._at += got
        self._read += got
        return got


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """So many bytes at a place; fewer at the end."""
    file.seek(max(0, offset))
    return file.read(max(0, size))


def cut_off(there: int, promised: int, what: str = "bytes of sound") -> FileFormatError:
    """The error of a file that ends before its header says."""
    return FileFormatError(f"cut off: {there} of {promised} {what} are there; copy or record it again")
