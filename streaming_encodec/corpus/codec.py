"""Encoder and decoder of a model as one thing, whether it streams by samples or by segments."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.cli.shared.loading import LoadedModel
from streaming_encodec.engines import make_engine
from streaming_encodec.streaming import (
    Segment,
    SegmentDecoder,
    SegmentEncoder,
    StreamingDecoder,
    StreamingEncoder,
)

Pcm = NDArray[np.float32]


class Codec(Protocol):
    """Sound in, the sound that a listener gets out."""

    start: str
    engine: str
    num_codebooks: int
    delay_samples: int
    """From a sample's arrival to its sound, at most, when computing takes no time."""

    def push(self, pcm: Pcm) -> tuple[Pcm, int]:
        """Take [C, n]; give what can be heard now [C, m] and the number of frames completed."""
        ...

    def flush(self) -> tuple[Pcm, int]:
        """End: the rest, as `push` gives it."""
        ...


class SampleCodec:
    """A model that streams by samples."""

    def __init__(self, loaded: LoadedModel, bandwidth: float, start: str, engine_name: str) -> None:
        engine = make_engine(engine_name, loaded.model)
        self.engine = engine.name
        self._encoder = StreamingEncoder(loaded.model, bandwidth, start=start, engine=engine)
        self._decoder = StreamingDecoder(loaded.model, start=start, engine=engine)
        self._encoder.warm_up()
        self._decoder.warm_up(self._encoder.num_codebooks)
        # Arrays come back as they went in, numpy here, also when a flush comes before any sound.
        self._nothing = no_sound(loaded)
        self._decoder.push(self._encoder.push(self._nothing))
        self.start = start
        self.num_codebooks = self._encoder.num_codebooks
        # A frame's first sample waits for the frame to be full; the rest is lookahead and trimming.
        self.delay_samples = loaded.config.hop_length + self._encoder.delay_samples + self._decoder.delay_samples

    def push(self, pcm: Pcm) -> tuple[Pcm, int]:
        codes = self._encoder.push(pcm)
        if codes.shape[-1] == 0:  # most blocks of a few samples complete no frame
            return self._nothing, 0
        return self._decoder.push(codes), codes.shape[-1]

    def flush(self) -> tuple[Pcm, int]:
        codes = self._encoder.flush()
        return np.concatenate([self._decoder.push(codes), self._decoder.flush()], axis=-1), codes.shape[-1]


class SegmentCodec:
    """A model that needs whole segments, such as the 48 kHz one."""

    def __init__(self, loaded: LoadedModel, bandwidth: float) -> None:
        self._encoder = SegmentEncoder(loaded.model, bandwidth)
        self._decoder = SegmentDecoder(loaded.model)
        self.start = "segments"
        self.engine = "offline"
        self.num_codebooks = loaded.config.num_codebooks_for(bandwidth)
        self.delay_samples = self._encoder.segment_samples
        self._nothing = no_sound(loaded)

    def push(self, pcm: Pcm) -> tuple[Pcm, int]:
        return self._decode(self._encoder.push(pcm))

    def flush(self) -> tuple[Pcm, int]:
        pcm, frames = self._decode(self._encoder.flush())
        return np.concatenate([pcm, self._rest()], axis=-1), frames

    def _rest(self) -> Pcm:
        rest: Pcm = self._decoder.flush()
        return rest if rest.ndim == 2 else self._nothing  # no segment has come at all

    def _decode(self, segments: list[Segment]) -> tuple[Pcm, int]:
        pcm = [self._nothing, *(self._decoder.push(segment) for segment in segments)]
        return np.concatenate(pcm, axis=-1), sum(segment.codes.shape[-1] for segment in segments)


def no_sound(loaded: LoadedModel) -> Pcm:
    """An empty block for the model."""
    return np.zeros((loaded.config.audio_channels, 0), np.float32)


def make_codec(loaded: LoadedModel, bandwidth: float, start: str, engine: str) -> Codec:
    """The codec of a model. `start` and `engine` matter to one that streams by samples.

    Raises:
        StreamError: the model can stream neither way, or there is no such engine.
        MissingExtraError: the engine needs a package that is not installed.
    """
    if loaded.config.streams_by_sample:
        return SampleCodec(loaded, bandwidth, start, engine)
    return SegmentCodec(loaded, bandwidth)
