"""Audio files, read and written by blocks in constant memory."""

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import soundfile

from streaming_encodec.audio.files.parts import Window
from streaming_encodec.audio.files.piece import Piece
from streaming_encodec.audio.files.source import ByteSource, find_parts, live_sound, unreadable
from streaming_encodec.audio.resample import MAX_RATIO, StreamResampler, mix_channels
from streaming_encodec.errors import FileFormatError, StreamError
from streaming_encodec.samples import MAX_AMPLITUDE, MAX_SAMPLE_RATE, clip_amplitude, is_audible
from streaming_encodec.types import Pcm

# Large enough to make a call's overhead negligible, small enough (0.4 s at 44.1 kHz) to react to an interrupt.
_READ_SAMPLES = 16_384

_LIVE_BLOCKS = 50
"""Blocks a second from a pipe: 20 ms each."""

# Most values of a block, of all channels, before and after resampling.
_BLOCK_NUMBERS = 1 << 18

_EXACT = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC")
"""Formats in which libsndfile finds any sample exactly. A lossy one's decoder would need what went before."""

_SHORT_SAMPLES = 4 * _READ_SAMPLES
"""Less than this is decoded rather than sought."""

# An MP3 decoder may give nothing for the first frames after a cut: they depend on earlier ones.
_LOST_SAMPLES = 3 * 1152


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """The header of an audio file; `samples` is `None` if it does not state a length."""

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
    """Any file that libsndfile reads, as float32 blocks at a given rate and number of channels.

    A context manager, and an iterable of blocks [C, n] of varying n. All of the sound is read, or an error says why
    not: also of joined files, of recordings whose header was never completed, of MP3s that do not state their length.
    `-` is standard input; a WAV or AU from a pipe is read as it arrives, anything else from a pipe is stored in a
    temporary file first.

    Attributes:
        notes: what the user should know about the file, such as bytes that are not sound.
        samples_read: samples read so far, at the file's own rate.
        is_live: it is read as it arrives, and reading may block.
    """

    def __init__(
        self, path: str | os.PathLike[str] | ByteSource, sample_rate: int | None = None, channels: int | None = None
    ) -> None:
        """
        Args:
            path: the file, or an open one, which is closed with the reader.
            sample_rate: rate to resample to, in Hz; `None` for the file's own.
            channels: number of channels to mix to, `None` for the file's own.

        Raises:
            FileFormatError: missing, not audio, damaged or cut off.
        """
        self.notes: list[str] = []
        self.samples_read = 0
        self.is_live = False
        self._own: Generator[Pcm, None, None] | None = None
        self._held: Pcm | None = None
        self._at = 0
        self._source = path if isinstance(path, ByteSource) else ByteSource(path)
        self._path = Path(self._source.path)
        self._pieces: list[Piece] = []
        try:
            self._find()
            self._describe()
            self.convert(sample_rate, channels)
        except FileFormatError as error:
            self.close()
            said = str(error)
            if said.startswith(f"{self._path}: "):
                raise
            raise FileFormatError(f"{self._path}: {said}") from error.__cause__
        except OSError as error:
            self.close()
            raise unreadable(self._path, error) from error
        except BaseException:
            self.close()
            raise

    def convert(self, sample_rate: int | None, channels: int | None) -> None:
        """Set rate and channels of the blocks; `None` for the file's own. Call it before the first block.

        Raises:
            FileFormatError: no evident conversion of these channels, or the rates are too far apart.
        """
        self.sample_rate = sample_rate or self.info.sample_rate
        self.channels = channels or self.info.channels
        if self.info.channels != self.channels and 1 not in (self.info.channels, self.channels):
            raise FileFormatError(
                f"{self._path}: has {self.info.channels} channels, {self.channels} are wanted; "
                f"mix it to {self.channels} or 1 first"
            )
        low, high = sorted((self.info.sample_rate, self.sample_rate))
        if low < 1 or self.info.sample_rate > MAX_SAMPLE_RATE or high > MAX_RATIO * low:
            raise FileFormatError(
                f"{self._path}: claims a sample rate of {self.info.sample_rate} Hz, which cannot be made "
                f"{self.sample_rate} Hz; if its header is wrong, repair it"
            )

    @property
    def samples(self) -> int | None:
        """The approximate number of samples of all blocks; exact without resampling."""
        if self.info.samples is None:
            return None
        return round(self.info.samples * self.sample_rate / self.info.sample_rate)

    def __iter__(self) -> Iterator[Pcm]:
        return self.clip(0, None)

    def clip(self, start: int, samples: int | None) -> Iterator[Pcm]:
        """A part of the sound as blocks [C, n], as if it were a file of its own: its resampling begins with it.

        Several parts are read with one reader if each begins where the one before it ended, or later.

        Args:
            start: its first sample, at the file's own rate.
            samples: how many, at the file's own rate; None is up to the end. At the end of the sound there are fewer.

        Raises:
            StreamError: it begins before the position that the reader has reached.
            FileFormatError: the file is damaged, or cut off within the part or before it.
        """
        resampler = StreamResampler(self.info.sample_rate, self.sample_rate, self.channels)
        growth = max(1.0, self.sample_rate / self.info.sample_rate)
        most = int(_BLOCK_NUMBERS / (growth * max(self.info.channels, self.channels)))
        # Live input is passed on at once.
        most = max(1, min(self.info.sample_rate // _LIVE_BLOCKS if self.is_live else _READ_SAMPLES, most))
        blocks = self._from(start, most)
        if samples is not None:
            blocks = self._first(blocks, samples)
        if start or samples is not None:
            blocks = rechunk(blocks, most)  # as the blocks of a file
        for block in blocks:
            yield clip_amplitude(resampler.push(mix_channels(block, self.channels)))
        yield clip_amplitude(resampler.flush())

    @property
    def position(self) -> int:
        """The first sample, at the file's own rate, that the next part may begin with."""
        return self._at

    def blocks(self, samples: int) -> Iterator[Pcm]:
        """The sound in blocks [C, samples]; the last may be shorter."""
        return rechunk(iter(self), samples)

    def _from(self, start: int, most: int) -> Iterator[Pcm]:
        """The samples [C, n] from this one on, at the file's own rate; `_at` says where the next block begins."""
        if start < self._at:
            raise StreamError(f"sample {start} is behind the reader, which is at {self._at}: open the file again")
        if self._own is None or self._may_seek(start):
            if self._own is not None:
                self._own.close()
            self._held, self._at = None, self._seek(start)
            self._own = self._all_blocks(most)
        while (block := next(self._own, None) if self._held is None else self._held) is not None:
            self._held = None
            skipped = min(max(0, start - self._at), block.shape[1])
            self._at += skipped
            if skipped < block.shape[1]:
                self._at += block.shape[1] - skipped
                yield block[:, skipped:]

    def _first(self, blocks: Iterator[Pcm], samples: int) -> Iterator[Pcm]:
        """So many samples of the blocks; the rest of the last one is kept for the next part."""
        while samples > 0 and (block := next(blocks, None)) is not None:
            if block.shape[1] > samples:
                self._held = block[:, samples:]
                self._at -= self._held.shape[1]
                block = block[:, :samples]
            samples -= block.shape[1]
            yield block

    def _may_seek(self, start: int) -> bool:
        known = len(self._pieces) == 1 and not self.is_live and self._pieces[0].samples is not None
        return known and self.info.format in _EXACT and start - self._at >= _SHORT_SAMPLES

    def _seek(self, start: int) -> int:
        """Move the only piece, where that can be; give the sample that it is at then."""
        if not self._may_seek(start):
            return self._at
        piece = self._pieces[0]
        try:
            to = min(start, piece.samples or 0)
            piece.seek(to)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise FileFormatError(f"{self._path}: damaged before sample {start}: {_words(error)}") from error
        except OSError as error:
            raise unreadable(self._path, error) from error
        self.samples_read = to
        return to

    def _all_blocks(self, most: int) -> Generator[Pcm, None, None]:
        for piece in self._pieces:
            yield from self._blocks(piece, most)

    def _blocks(self, piece: Piece, most: int) -> Iterator[Pcm]:
        try:
            piece.open()
            read = self.samples_read if len(self._pieces) == 1 else 0
            while True:
                block = self._read(piece, most)
                if block.shape[1] == 0:
                    break
                read += block.shape[1]
                self.samples_read += block.shape[1]
                yield block
            missing = 0 if piece.samples is None else piece.samples - read
            if missing > (_LOST_SAMPLES if piece.part is not None and piece.part.endless else 0):
                raise FileFormatError(
                    f"{self._path}: cut off or damaged: {read} of {piece.samples} samples are there; copy or record it "
                    "again"
                )
        finally:
            piece.close()

    def _read(self, piece: Piece, most: int) -> Pcm:
        position = self.samples_read
        try:
            frames = piece.read(most)
        except (soundfile.SoundFileError, RuntimeError) as error:
            raise FileFormatError(f"{self._path}: damaged after sample {position}: {_words(error)}") from error
        except OSError as error:
            raise unreadable(self._path, error) from error
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

    def _find(self) -> None:
        """Find the parts of the file, one for each joined file."""
        taken = b""
        if not self._source.seekable:
            live = live_sound(self._source)
            if not isinstance(live, bytes):
                raw, stream, samples = live
                self.is_live = True
                self._pieces = [Piece(stream, None, raw, samples)]
                return
            taken = live
        file = self._source.whole(taken)
        found = find_parts(file)
        self.notes += found.notes
        if len(found.parts) > 1:
            self.notes.append(f"{len(found.parts)} files were joined in it, and are read one after the other")
        self._pieces = [Piece(Window(file, part), part, part.raw, part.samples) for part in found.parts]

    def _describe(self) -> None:
        infos = []
        for piece in self._pieces:
            try:
                infos.append(piece.open())
            except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
                raise FileFormatError(
                    f"not an audio file that can be read ({_words(error)}); WAV, FLAC, Ogg, MP3 and AIFF can"
                ) from error
            if len(self._pieces) > 1:
                piece.close()
        for number, other in enumerate(infos):
            if (other.samplerate, other.channels) != (infos[0].samplerate, infos[0].channels):
                raise FileFormatError(
                    f"{len(infos)} files were joined in it, and number {number + 1} has {other.samplerate} Hz and "
                    f"{other.channels} channels, not {infos[0].samplerate} and {infos[0].channels}; take them apart"
                )
        lengths = [piece.samples for piece in self._pieces]
        samples = None if None in lengths else sum(length or 0 for length in lengths)
        raw = self._pieces[0].raw
        name, encoding = (infos[0].format, infos[0].subtype) if raw is None else (raw.container, raw.subtype)
        self.info = AudioInfo(self._path, name, encoding, infos[0].samplerate, infos[0].channels, samples)

    def close(self) -> None:
        for piece in self._pieces:
            piece.close()
        self._source.close()

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
    """Recut a sequence of [C, n] into blocks of exactly `block_samples`; the last may be shorter."""
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


def _words(error: BaseException) -> str:
    """libsndfile's message without the name of the object."""
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
