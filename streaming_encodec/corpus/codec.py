"""One face for models that stream by samples and for those that need whole segments (48 kHz).

Pieces are `EcdcBlock`s: some frames of a stream, or one whole segment with its scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from streaming_encodec.wire.ecdc import EcdcBlock

if TYPE_CHECKING:
    from streaming_encodec.model.find import CodecModel
    from streaming_encodec.stepping.engine import Engine
    from streaming_encodec.streaming.segments import Segment
    from streaming_encodec.types import Pcm

FRAMES_PER_STEP = 75
"""Frames of a file that go through the network at once: one second at 75 Hz. More gain nothing."""


class Encoder(Protocol):
    """Sound to codes."""

    num_codebooks: int
    delay_samples: int
    """From a sample's arrival to the codes of its frame, at most, when computing takes no time."""

    def push(self, pcm: Pcm) -> list[EcdcBlock]:
        """Take samples [C, n]; give the pieces that they complete."""
        ...

    def flush(self) -> list[EcdcBlock]:
        """End the stream: the remaining pieces."""
        ...


class Decoder(Protocol):
    """Codes to sound."""

    delay_samples: int
    """From the codes of a frame to its sound, beyond the frame itself."""

    def push(self, piece: EcdcBlock) -> Pcm:
        """Take the next piece; give the samples [C, n] that are complete."""
        ...

    def flush(self) -> Pcm:
        """End the stream: the remaining samples [C, n]."""
        ...


def make_encoder(
    model: CodecModel, bandwidth: float, start: str, engine: Engine | None, frames_per_step: int = FRAMES_PER_STEP
) -> Encoder:
    """`start`, `frames_per_step` and `engine` matter to a model that streams by samples only; others have no engine.

    Raises:
        StreamError: the model can stream in neither way.
    """
    if engine is None:
        return _SegmentEncoder(model, bandwidth)
    return _SampleEncoder(model, bandwidth, start, engine, frames_per_step)


def make_decoder(
    model: CodecModel, start: str, engine: Engine | None, frames_per_step: int = FRAMES_PER_STEP
) -> Decoder:
    """Arguments and errors are those of `make_encoder`."""
    if engine is None:
        return _SegmentDecoder(model)
    return _SampleDecoder(model, start, engine, frames_per_step)


class _SampleEncoder:
    def __init__(self, model: CodecModel, bandwidth: float, start: str, engine: Engine, frames: int) -> None:
        from streaming_encodec.streaming.encoder import StreamingEncoder

        self._encoder = StreamingEncoder(model, bandwidth, start, frames_per_step=frames, engine=engine)
        if frames == 1:  # live: the first frame shall not be the slow one
            self._encoder.warm_up()
        self._encoder.push(_no_sound(model))  # codes come as the samples went in, numpy, also for an empty file
        self.num_codebooks = self._encoder.num_codebooks
        # A frame's first sample waits for the frame to be full; the rest is lookahead.
        self.delay_samples = model.config.hop_length + self._encoder.delay_samples

    def push(self, pcm: Pcm) -> list[EcdcBlock]:
        codes = self._encoder.push(pcm)
        return [EcdcBlock(codes, None)] if codes.shape[-1] else []

    def flush(self) -> list[EcdcBlock]:
        codes = self._encoder.flush()
        return [EcdcBlock(codes, None)] if codes.shape[-1] else []


class _SampleDecoder:
    def __init__(self, model: CodecModel, start: str, engine: Engine, frames: int) -> None:
        from streaming_encodec.streaming.decoder import StreamingDecoder

        self._decoder = StreamingDecoder(model, start, frames_per_step=frames, engine=engine)
        if frames == 1:
            self._decoder.warm_up(model.config.num_quantizers)
        self._nothing = _no_sound(model)
        self.delay_samples = self._decoder.delay_samples

    def push(self, piece: EcdcBlock) -> Pcm:
        pcm: Pcm = self._decoder.push(piece.codes)
        return pcm

    def flush(self) -> Pcm:
        rest = self._decoder.flush()
        return rest if isinstance(rest, np.ndarray) else self._nothing  # no codes have come at all


class _SegmentEncoder:
    def __init__(self, model: CodecModel, bandwidth: float) -> None:
        from streaming_encodec.streaming.segments import SegmentEncoder

        self._encoder = SegmentEncoder(model, bandwidth)
        self.num_codebooks = model.config.num_codebooks_for(bandwidth)
        self.delay_samples = self._encoder.segment_samples

    def push(self, pcm: Pcm) -> list[EcdcBlock]:
        return _pieces(self._encoder.push(pcm))

    def flush(self) -> list[EcdcBlock]:
        return _pieces(self._encoder.flush())


class _SegmentDecoder:
    delay_samples = 0  # the encoder's is the segment, and the overlap lies within it

    def __init__(self, model: CodecModel) -> None:
        from streaming_encodec.streaming.segments import SegmentDecoder

        self._decoder = SegmentDecoder(model)
        self._nothing = _no_sound(model)

    def push(self, piece: EcdcBlock) -> Pcm:
        from streaming_encodec.streaming.segments import Segment

        scale = None if piece.scale is None else np.array([piece.scale], np.float32)
        pcm: Pcm = self._decoder.push(Segment(piece.codes, scale))
        return pcm

    def flush(self) -> Pcm:
        rest = self._decoder.flush()
        return rest if isinstance(rest, np.ndarray) else self._nothing


def _pieces(segments: list[Segment]) -> list[EcdcBlock]:
    return [EcdcBlock(s.codes, None if s.scale is None else float(s.scale[0])) for s in segments]


def _no_sound(model: CodecModel) -> Pcm:
    return np.zeros((model.config.audio_channels, 0), np.float32)
