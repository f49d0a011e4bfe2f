"""The parts of a sound file that are sound, and notes about the rest.

Without an error, libsndfile trusts a header that a killed recorder never completed, guesses the length of an MP3 from
its first frame, shortens what is cut off, and stops after the first of several joined files. So the modules `chunks`,
`ogg_pages` and `mp3_frames` check the structure of a file before it is decoded.
"""

import io
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from streaming_encodec.errors import FileFormatError

UNKNOWN_SAMPLES = 2**62
"""libsndfile reports at least this many for a stream whose header does not state its length."""

_AFAR = 2**40
"""The reported end of an endless window: beyond any file, so that no guess at a length is too short."""


@dataclass(frozen=True, slots=True)
class RawFormat:
    """The layout of the samples, for containers whose stated lengths cannot be trusted. Names of libsndfile."""

    container: str
    subtype: str
    endian: str
    sample_rate: int
    channels: int

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample of all channels."""
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
    """The bytes from `start` to `end`, which are a file of their own.

    Attributes:
        raw: set if the part holds samples only, without a header.
        samples: how many there must be, if libsndfile cannot know.
        endless: libsndfile must not guess the length from the size (MP3).
    """

    start: int
    end: int
    raw: RawFormat | None = None
    samples: int | None = None
    endless: bool = False


@dataclass(slots=True)
class Findings:
    """The parts of a file, and notes for its user, without the file's name."""

    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class _Source(io.RawIOBase):
    """What libsndfile reads. System errors are kept in `error`, since a C callback cannot raise."""

    def __init__(self, file: BinaryIO, claimed_bytes: int) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._file = file
        self._said = claimed_bytes
        self._at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._said)[whence])
        return self._at

    def tell(self) -> int:
        return self._at


class Window(_Source):
    """A part of a file."""

    def __init__(self, file: BinaryIO, part: Part) -> None:
        self._start = part.start
        self._size = part.end - part.start
        super().__init__(file, _AFAR if part.endless else self._size)

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        if self._said == _AFAR and self._at > self._size:
            # libsndfile looks for tags at an end that does not exist: return nothing.
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


class Stream(_Source):
    """The samples that arrive through a pipe, read forward only; at most `size` bytes."""

    def __init__(self, file: BinaryIO, size: int | None) -> None:
        super().__init__(file, UNKNOWN_SAMPLES if size is None else size)
        self._read = 0  # libsndfile moves its position, and comes back before it reads

    def readinto(self, buffer: Any) -> int:
        if self._at != self._read:
            return 0
        wanted = min(len(buffer), self._said - self._read)
        got = 0
        try:
            # Read all bytes: libsndfile takes a short read for the end.
            while got < wanted and (data := self._file.read(wanted - got)):
                buffer[got : got + len(data)] = data
                got += len(data)
        except BaseException as error:
            self.error = error
        self._at += got
        self._read += got
        return got


def read_at(file: BinaryIO, offset: int, size: int) -> bytes:
    """Bytes at an offset; fewer at the end."""
    file.seek(max(0, offset))
    return file.read(max(0, size))


def cut_off(there: int, promised: int, what: str = "bytes of sound") -> FileFormatError:
    """The error for a file that ends before its header says."""
    return FileFormatError(f"cut off: {there} of {promised} {what} are there; copy or record it again")
