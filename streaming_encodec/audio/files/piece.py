"""One part of an audio file, opened by libsndfile when it is read."""

import soundfile

from streaming_encodec.audio.files.parts import UNKNOWN_SAMPLES, Part, RawFormat, Stream, Window
from streaming_encodec.types import Pcm


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file that soundfile can only read forward.

    After each block soundfile seeks to its present position, which makes libsndfile restart its MP3 decoder: a gap
    at every block. It does not seek in a file that cannot.
    """

    def seekable(self) -> bool:
        return False


class Piece:
    """One part of a file."""

    def __init__(self, data: Window | Stream, part: Part | None, raw: RawFormat | None, samples: int | None) -> None:
        self.part = part
        self.raw = raw
        self.samples = samples
        self._data = data
        self._file: _SequentialFile | None = None

    def open(self) -> _SequentialFile:
        """Open it, if it is not open. Raises libsndfile's errors, or the system's."""
        if self._file is None:
            self._data.seek(0)
            raw = self.raw
            try:
                if raw is None:
                    self._file = _SequentialFile(self._data)
                else:
                    self._file = _SequentialFile(
                        self._data, "r", raw.sample_rate, raw.channels, raw.subtype, raw.endian, "RAW"
                    )
            finally:
                self._check()
            # For a pipe it is only a guess.
            if self.part is not None and self.samples is None and 0 <= self._file.frames < UNKNOWN_SAMPLES:
                self.samples = self._file.frames
        return self._file

    def read(self, most: int) -> Pcm:
        """The next samples [n, C], at most this many."""
        try:
            frames: Pcm = self.open().read(most, dtype="float32", always_2d=True)
        finally:
            self._check()
        return frames

    def seek(self, sample: int) -> None:
        """Go to a sample. Raises libsndfile's errors, or the system's."""
        file = self.open()
        try:
            file.seek(sample)
        finally:
            self._check()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _check(self) -> None:
        """Raise the error that a callback could not raise."""
        error, self._data.error = self._data.error, None
        if error is not None:
            raise error
