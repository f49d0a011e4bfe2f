"""Sound files written by blocks, complete on disk or not at all."""

import os
import struct
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

import numpy as np
import soundfile

from streaming_encodec.audio.files.atomic import AtomicPath, not_written
from streaming_encodec.audio.files.standard import is_standard, standard_output
from streaming_encodec.errors import FileFormatError, StreamError
from streaming_encodec.types import Pcm

# A WAV data chunk counts bytes in 32 bits; leave room for the header.
_MAX_WAV_BYTES = 2**32 - 4096

_FORMAT_OF = {
    ".wav": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".mp3": "MP3",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".au": "AU",
    ".caf": "CAF",
    ".w64": "W64",
    ".rf64": "RF64",
}


class AudioWriter:
    """An audio file written by blocks; the name's ending chooses the format.

    The file gets its name only when it is complete and on disk (`close`, or the end of the `with` block); an
    exception within the block leaves nothing behind. Integer formats clip at full scale. The bytes do not depend on
    how the samples were cut.
    """

    def __init__(
        self, path: str | os.PathLike[str], sample_rate: int, channels: int = 1, samples: int | None = None
    ) -> None:
        """
        Args:
            path: the file to write; an old one is replaced.
            sample_rate: in Hz.
            channels: 1 or more.
            samples: the most that will be written, if known: a WAV too long for its 32-bit header becomes RF64.

        Raises:
            FileFormatError: the ending is unknown, or the file cannot be written.
        """
        self._kind = output_format(path)
        if self._kind == "WAV" and samples is not None and samples * channels * 2 > _MAX_WAV_BYTES:
            self._kind = "RF64"
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.channels = channels
        self.samples = 0
        self._target = AtomicPath(path)
        try:
            self._sink = _Sink(self._target.temporary)
            self._file = soundfile.SoundFile(
                self._sink, "w", samplerate=sample_rate, channels=channels, format=self._kind
            )
        except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError, OSError) as error:
            self._target.discard()
            raise FileFormatError(f"{path}: cannot be written as {self._kind}: {_cause(error)}") from error

    def write(self, pcm: Pcm) -> None:
        """Append [C, n] float32 in -1 … 1.

        Raises:
            StreamError: another number of channels.
            FileFormatError: the disk refuses, for example when full; or a WAV whose length was not known before
                has reached 4 GiB: it is completed with what it holds.
        """
        if pcm.ndim != 2 or pcm.shape[0] != self.channels:
            raise StreamError(f"expected samples [{self.channels}, n], got {list(pcm.shape)}")
        if self._kind == "WAV" and (self.samples + pcm.shape[1]) * self.channels * 2 > _MAX_WAV_BYTES:
            self.close()
            raise FileFormatError(
                f"{self.path}: is full: a WAV holds 4 GiB, and these are in it; more goes into .w64, .rf64 or .flac"
            )
        try:
            self._file.write(np.ascontiguousarray(pcm.T, dtype=np.float32))
        except (soundfile.SoundFileError, RuntimeError, AssertionError) as error:  # soundfile asserts its success
            raise self._failed(error) from error
        if self._sink.error is not None:
            raise self._failed(self._sink.error) from self._sink.error
        self.samples += pcm.shape[1]

    def close(self) -> None:
        """Complete the file, check that it is whole, and rename it. A second call does nothing.

        Raises:
            FileFormatError: the disk refuses, or the format cannot hold an empty file; nothing is left behind, and an
                old file is unchanged.
        """
        if self._file.closed:
            return
        try:
            # libsndfile does not report errors here; the sink keeps them, and the file is read again.
            failure = self._end()
            if failure is not None:
                raise self._failed(failure) from failure
            self._verify()
        except BaseException:
            self._target.discard()
            raise
        self._target.commit()

    def discard(self) -> None:
        """Delete the temporary file; does nothing after `close`."""
        if not self._file.closed:
            self._end()
        self._target.discard()

    def _end(self) -> BaseException | None:
        """Close everything; return the first error."""
        failure: BaseException | None = None
        try:
            self._file.close()
        except (soundfile.SoundFileError, RuntimeError) as error:
            failure = error
        self._sink.close()
        return self._sink.error or failure

    def _verify(self) -> None:
        if not self._target.temporary.stat().st_size:
            raise FileFormatError(f"{self.path}: there is no sound, and {self._kind} has no empty files; use .wav")
        try:
            with self._target.temporary.open("rb") as raw, soundfile.SoundFile(raw) as file:
                there = file.frames
        except (soundfile.SoundFileError, RuntimeError, OSError) as error:
            raise self._failed(error) from error
        if there != self.samples:
            raise FileFormatError(f"{self.path}: cannot be written: {there} of {self.samples} samples got to the disk")

    def _failed(self, error: BaseException) -> FileFormatError:
        if isinstance(self._sink.error, OSError):
            return not_written(self.path, self._sink.error)
        if self._sink.error is not None and not isinstance(self._sink.error, Exception):
            raise self._sink.error  # Ctrl-C, which arrived in libsndfile's call
        return FileFormatError(f"{self.path}: cannot be written: {_cause(error)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


SOUND_ENDINGS = tuple(_FORMAT_OF)
"""Endings of the sound files that can be written."""


def output_format(path: str | os.PathLike[str]) -> str:
    """libsndfile's name for the format of the ending of `path`.

    Raises:
        FileFormatError: an ending that cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in _FORMAT_OF:
        raise FileFormatError(
            f"{path}: cannot tell the audio format from {ending or 'a name without ending'!r}; "
            f"use one of {' '.join(_FORMAT_OF)}"
        )
    return _FORMAT_OF[ending]


class PipeWriter:
    """A WAV on standard output, written as the samples arrive; its header says "until the end" in place of the length.

    As `AudioWriter` writes it to a file: 16 bits a sample, clipped at full scale.
    """

    def __init__(self, sample_rate: int, channels: int = 1) -> None:
        """Raises FileFormatError if there is no standard output."""
        self.sample_rate = sample_rate
        self.channels = channels
        self.samples = 0
        try:
            self._sink = _Pipe(standard_output())
        except OSError as error:
            raise not_written(Path("-"), error) from error
        block = 2 * channels
        self._sink.write(
            b"RIFF\xff\xff\xff\xffWAVEfmt "
            + struct.pack("<IHHIIHH", 16, 1, channels, sample_rate, sample_rate * block, block, 16)
            + b"data\xff\xff\xff\xff"
        )
        self._file = soundfile.SoundFile(self._sink, "w", sample_rate, channels, "PCM_16", "LITTLE", "RAW")

    def write(self, pcm: Pcm) -> None:
        """Append [C, n] float32 in -1 … 1.

        Raises:
            StreamError: another number of channels.
            BrokenPipeError: the reader has ended.
            FileFormatError: any other error.
        """
        if pcm.ndim != 2 or pcm.shape[0] != self.channels:
            raise StreamError(f"expected samples [{self.channels}, n], got {list(pcm.shape)}")
        try:
            self._file.write(np.ascontiguousarray(pcm.T, dtype=np.float32))
        except (soundfile.SoundFileError, RuntimeError, AssertionError) as error:
            self._sink.check()
            raise FileFormatError(f"-: cannot be written: {_cause(error)}") from error
        self._sink.flush()  # at once: the reader may be playing it
        self.samples += pcm.shape[1]

    def close(self) -> None:
        """Write what is left; raises as `write`."""
        self._file.close()
        self._sink.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


class SoundWriter(Protocol):
    """The interface of `AudioWriter` and `PipeWriter`."""

    samples: int

    def write(self, pcm: Pcm) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_writer(
    path: str | os.PathLike[str], sample_rate: int, channels: int = 1, samples: int | None = None
) -> SoundWriter:
    """A writer for a file, or for standard output if the name is `-`. Arguments and errors as in `AudioWriter`."""
    if is_standard(path):
        return PipeWriter(sample_rate, channels)
    return AudioWriter(path, sample_rate, channels, samples)


class _Pipe:
    """Standard output as libsndfile writes to it. Errors are kept, since a C callback cannot raise."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: BaseException | None = None
        self._at = 0

    def write(self, data: Any) -> int:
        if self._error is not None:
            return 0
        try:
            self._file.write(data)
        except BaseException as error:
            self._error = error
            return 0
        self._at += len(data)
        return len(data)

    def flush(self) -> None:
        self._file.flush()
        self.check()

    def check(self) -> None:
        """Raise the kept error."""
        error, self._error = self._error, None
        if error is None:
            return
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise not_written(Path("-"), error) from error
        raise error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        return b""


class _Sink:
    """The file that libsndfile writes through. It keeps the first error, which libsndfile hides when it closes the
    file, and reports without its cause before.
    """

    def __init__(self, path: Path) -> None:
        self.error: BaseException | None = None
        self._file = path.open("wb+")

    def write(self, data: Any) -> int:
        # A C callback cannot raise, so every error is kept.
        if self.error is not None:
            return 0
        try:
            return self._file.write(data)
        except BaseException as error:
            self.error = error
            return 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if self.error is not None:
            return -1
        try:
            return self._file.seek(offset, whence)  # writes what is buffered
        except BaseException as error:
            self.error = error
            return -1

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def close(self) -> None:
        """Flush everything to the system; an error is kept in `error`."""
        try:
            self._file.close()
        except OSError as error:
            self.error = self.error or error


def _cause(error: BaseException) -> str:
    """libsndfile's message without the name of the object."""
    return str(getattr(error, "error_string", error))
