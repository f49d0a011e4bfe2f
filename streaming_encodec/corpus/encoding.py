"""Recordings to codes: reading the part of a file that a recording is, and encoding it alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.audio.files.sound import AudioReader
from streaming_encodec.audio.files.source import ByteSource
from streaming_encodec.corpus.codec import make_encoder
from streaming_encodec.errors import FileFormatError

if TYPE_CHECKING:
    from streaming_encodec.corpus.recordings import Recording
    from streaming_encodec.model.config import EncodecConfig
    from streaming_encodec.model.find import CodecModel
    from streaming_encodec.stepping.engine import Engine
    from streaming_encodec.types import Pcm
    from streaming_encodec.wire.ecdc import EcdcBlock

_ROUNDING_S = 0.01
"""Lists give times to hundredths: an end so little beyond the sound's is that of the sound."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The codes of one recording.

    Attributes:
        codes: [K, F], uint16 (uint32 where a codebook has more than 65,536 entries); segments one after the other.
        scales: float32, one a segment; None where the model does not normalize.
        samples: of the sound, at the model's rate.
    """

    codes: NDArray[Any]
    scales: NDArray[np.float32] | None
    samples: int


class Sounds:
    """The sound of recordings at a model's rate. Parts of one file that follow each other are read in one go."""

    def __init__(self, config: EncodecConfig) -> None:
        self._rate, self._channels = config.sampling_rate, config.audio_channels
        self._reader: AudioReader | None = None
        self._name = ""

    def blocks(self, recording: Recording) -> Iterator[Pcm]:
        """Blocks [C, n] of one recording.

        Raises:
            FileFormatError: its file is missing, damaged or no sound, or ends before the recording does.
        """
        if recording.problem:
            raise FileFormatError(recording.problem)
        reader = self._open(recording)
        rate = reader.info.sample_rate
        begin = round(recording.start_s * rate)
        if begin < reader.position:
            self.close()
            reader = self._open(recording)
        if recording.duration_s is None:
            yield from reader.clip(begin, None)
            end = begin
        else:
            end = round((recording.start_s + recording.duration_s) * rate)
            yield from reader.clip(begin, end - begin)
        if reader.position + _ROUNDING_S * rate < end:
            length_s = reader.position / rate
            self.close()
            raise FileFormatError(
                f"{recording.name}: ends at {length_s:.3f} s, but the recording should "
                + (f"begin at {recording.start_s:g} s" if reader.position < begin else f"end at {end / rate:g} s")
                + "; correct its times"
            )

    def close(self) -> None:
        """Close the open file, if there is one."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self, recording: Recording) -> AudioReader:
        if self._reader is None or self._name != recording.name:
            self.close()
            member = recording.member
            self._reader = AudioReader(
                ByteSource.within(recording.audio, member.start, member.size, recording.name)
                if member
                else ByteSource(recording.audio)
            )
            self._name = recording.name
        try:
            self._reader.convert(self._rate, self._channels)
        except FileFormatError:
            self.close()
            raise
        return self._reader


class RecordingEncoder:
    """Encodes one recording after the other, on one thread."""

    def __init__(self, model: CodecModel, bandwidth: float, engine: Engine | None) -> None:
        self._model, self._bandwidth, self._engine = model, bandwidth, engine
        self._sounds = Sounds(model.config)

    def encode(self, recording: Recording) -> Encoding:
        """The codes of a recording: those of its samples alone, however its file is read.

        Raises:
            FileFormatError: as `Sounds.blocks`.
        """
        encoder = make_encoder(self._model, self._bandwidth, "exact", self._engine)
        pieces: list[EcdcBlock] = []
        samples = 0
        try:
            for block in self._sounds.blocks(recording):
                pieces += _small(encoder.push(block), self._model.config)
                samples += block.shape[1]
            pieces += _small(encoder.flush(), self._model.config)
        except BaseException:
            self._sounds.close()  # its position is lost
            raise
        return join_pieces(pieces, encoder.num_codebooks, samples, self._model.config)

    def close(self) -> None:
        """Close the open file, if there is one."""
        self._sounds.close()


def join_pieces(pieces: list[EcdcBlock], num_codebooks: int, samples: int, config: EncodecConfig) -> Encoding:
    """The pieces of one sound as an `Encoding`."""
    nothing = np.zeros((num_codebooks, 0), _element(config))
    codes = np.concatenate([nothing, *(piece.codes.astype(_element(config)) for piece in pieces)], axis=1)
    scales = np.array([piece.scale for piece in pieces], np.float32) if config.normalize else None
    return Encoding(codes, scales, samples)


def _small(pieces: list[EcdcBlock], config: EncodecConfig) -> list[EcdcBlock]:
    """The pieces with codes of their final type, a quarter of the memory."""
    from streaming_encodec.wire.ecdc import EcdcBlock

    return [EcdcBlock(piece.codes.astype(_element(config)), piece.scale) for piece in pieces]


def _element(config: EncodecConfig) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if config.codebook_size <= 1 << 16 else np.uint32
