"""Audio files, read and written by blocks in constant memory."""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
import soundfile
from numpy.typing import NDArray

from streaming_encodec.audio.resample import StreamResampler, mix_channels
from streaming_encodec.audio.writer import AudioWriter, output_format
from streaming_encodec.errors import FileFormatError, StreamError
from streaming_encodec.samples import MAX_AMPLITUDE, clip_amplitude, is_audible

__all__ = ["AudioInfo", "AudioReader", "AudioWriter", "Pcm", "audio_info", "output_format", "rechunk"]

Pcm = NDArray[np.float32]

# Large enough that a call's overhead vanishes, small enough (0.4 s at 44.1 kHz) that an interrupt is felt at
# once.
_READ_SAMPLES = 16_384

# What libsndfile reports for a stream whose length its header does not state.
_UNKNOWN_SAMPLES = 2**62


class _SequentialFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """Read from beginning to end only.

    soundfile seeks to the place where it already is after each block, which makes libsndfile start its MP3
    decoder anew there: a gap at every block. It does not seek in a file that cannot.
    """

    def seekable(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of an audio file says; `samples` is `None` when it does not say."""

    path: Path
    format: str
    encoding: str
    sample_rate: int
    channels: int
    samples: int | None

    @property
    def seconds(self) -> float | None:
        return None if self.samples is None else self.samples / self.sample_rate


class AudioReader:
    """Any file libsndfile reads, as float32 blocks at the rate and with the channels wanted.

    A context manager, and an iterable of blocks [C, n] of varying n. The whole is the same however it is
    read.
    """

    def __init__(
        self, path: str | os.PathLike[str], sample_rate: int | None = None, channels: int | None = None
    ) -> None:
        """
        Args:
            path: the file.
            sample_rate: rate to resample to, `None` for the file's own.
            channels: number of channels to mix to, `None` for the file's own.

        Raises:
            FileFormatError: missing, not audio, damaged or cut off.
        """
        self._path = Path(path)
        self._file = _open(self._path)
        file = self._file
        samples = file.frames if 0 <= file.frames < _UNKNOWN_SAMPLES else None
        self.info = AudioInfo(self._path, file.format, file.subtype, file.samplerate, file.channels, samples)
        self.sample_rate = sample_rate or file.samplerate
        self.channels = channels or file.channels
        if file.channels != self.channels and 1 not in (file.channels, self.channels):
            file.close()
            raise FileFormatError(
                f"{path}: has {file.channels} channels, {self.channels} are wanted; "
                f"mix it to {self.channels} or 1 first"
            )

    @property
    def samples(self) -> int | None:
        """About how many samples the blocks will have together; exact when nothing is resampled."""
        if self.info.samples is None:
            return None
        return round(self.info.samples * self.sample_rate / self.info.sample_rate)

    def __iter__(self) -> Iterator[Pcm]:
        resampler = StreamResampler(self.info.sample_rate, self.sample_rate, self.channels)
        position = 0
        while True:
            block = self._read(position)
            if block.shape[1] == 0:
                break
            position += block.shape[1]
            yield clip_amplitude(resampler.push(mix_channels(block, self.channels)))
        if self.info.samples is not None and position < self.info.samples:
            raise FileFormatError(
                f"{self._path}: cut off: {position} of {self.info.samples} samples are there; copy or record it again"
            )
        yield clip_amplitude(resampler.flush())

    def _read(self, position: int) -> Pcm:
        try:
            frames: Pcm = self._file.read(_READ_SAMPLES, dtype="float32", always_2d=True)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise FileFormatError(f"{self._path}: damaged after sample {position}: {error}") from error
        if not is_audible(frames):
            at = int(np.argmin((np.abs(frames) <= MAX_AMPLITUDE).all(axis=1)))
            worst = float(frames[at][np.argmin(np.abs(frames[at]) <= MAX_AMPLITUDE)])
            cause = (
                f"is {worst:.3g}, beyond {MAX_AMPLITUDE:g} (full scale is 1.0); scale the file down"
                if np.isfinite(worst)
                else "is not a finite number; repair the file (NaN and infinity are not sound)"
            )
            raise FileFormatError(f"{self._path}: sample {position + at} {cause}")
        return frames.T

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def audio_info(path: str | os.PathLike[str]) -> AudioInfo:
    """Read the header of an audio file.

    Raises:
        FileFormatError: missing, not audio, or damaged.
    """
    with AudioReader(path) as reader:
        return reader.info


def rechunk(blocks: Iterator[Pcm], block_samples: int) -> Iterator[Pcm]:
    """Cut a sequence of [C, n] anew into blocks of exactly `block_samples`; the last may be shorter."""
    if block_samples < 1:
        raise StreamError(f"a block must have at least one sample, not {block_samples}")
    held: list[Pcm] = []
    have = 0
    for block in blocks:
        held.append(block)
        have += block.shape[1]
        if have < block_samples:
            continue
        joined = held[0] if len(held) == 1 else np.concatenate(held, axis=1)
        whole = have - have % block_samples
        for start in range(0, whole, block_samples):
            yield joined[:, start : start + block_samples]
        held, have = [joined[:, whole:]], have - whole
    if have:
        yield held[0] if len(held) == 1 else np.concatenate(held, axis=1)


def _open(path: Path) -> _SequentialFile:
    try:
        with path.open("rb") as raw:
            _refuse_cut_off_wav(path, raw)
    except OSError as error:
        raise FileFormatError(f"{path}: cannot be read: {error.strerror}; check the name") from error
    try:
        return _SequentialFile(str(path))
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        raise FileFormatError(
            f"{path}: not an audio file that can be read ({error}); WAV, FLAC, Ogg, MP3 and AIFF can"
        ) from error


def _refuse_cut_off_wav(path: Path, raw: BinaryIO) -> None:
    """Refuse a WAV whose data chunk is larger than the file, which libsndfile quietly shortens."""
    head = raw.read(12)
    if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return
    size = path.stat().st_size
    while len(chunk := raw.read(8)) == 8:
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            # A recorder that could not seek back leaves 0 or a value near the maximum: the length is simply
            # unknown.
            if length < 0x7FFF_0000 and raw.tell() + length > size:
                there = max(0, size - raw.tell())
                raise FileFormatError(
                    f"{path}: cut off: {there} of {length} bytes of sound are there; copy or record it again"
                )
            return
        raw.seek(length + length % 2, os.SEEK_CUR)
