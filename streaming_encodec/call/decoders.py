"""Speakers' decoders by number, with the receiver's concealment: each one alone, or all in one batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from streaming_encodec.call.decode_ahead import AheadDecoder
from streaming_encodec.call.mixer import FloatArray, SpeakerDecoder
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.model.find import AnyModel
from streaming_encodec.stepping.arrays import as_numpy
from streaming_encodec.stepping.engine import Engine, EngineOrName
from streaming_encodec.streaming.conceal import decayed
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.pool import StreamPool
from streaming_encodec.types import IntArray
from streaming_encodec.voice.playout import DecodeRequest
from streaming_encodec.wire.hello import MAX_SPEAKERS


class SpeakerDecoders(SpeakerDecoder, Protocol):
    """What a `Mixer` asks of decoders, and a start without a slow frame."""

    def warm_up(self, num_codebooks: int) -> None:
        """Decode a frame and forget it, so that the first real one is not the slow one."""
        ...


def make_decoders(model: AnyModel, engine: EngineOrName = "auto", together_frames: int = 1) -> SpeakerDecoders:
    """What suits the engine: one that computes in numpy does single streams with less around the step than a batch has.

    together_frames: that of the receivers' settings, to be warmed up for.
    With `onnx-int8` two speakers in a batch took 3 to 4 ms a frame, and by themselves 0.8 (voice model) or 1.5 ms each.
    """
    engine = find_engine(engine, model)
    if engine.is_numpy:
        return SeparateDecoders(model, engine, together_frames=together_frames)
    return PooledDecoder(model, engine)


class _Fading:
    """What stands for the frames that a speaker lost."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._last: dict[int, tuple[IntArray, int]] = {}  # last codes [K, 1], and frames lost since

    def on_frame(self, speaker: int, codes: IntArray) -> None:
        """A frame [K, 1] that arrived."""
        self._last[speaker] = (codes, 0)

    def forget(self, speaker: int) -> None:
        """The speaker has left."""
        self._last.pop(speaker, None)

    def lost(self, speaker: int) -> tuple[FloatArray, int]:
        """The latent frame [1, D, 1] in place of a lost one, and the number of codebooks of the last that arrived."""
        codes, lost = self._last.get(speaker, (np.zeros((1, 1), np.int64), 1000))
        lost += 1
        self._last[speaker] = (codes, lost)
        return decayed(self._engine.latent(codes[None]), lost), codes.shape[0]


class SeparateDecoders:
    """Each speaker has a stream of their own."""

    def __init__(
        self,
        model: AnyModel,
        engine: EngineOrName = "auto",
        most: int = MAX_SPEAKERS,
        together_frames: int = 1,
    ) -> None:
        self._model, self._engine, self._most = model, find_engine(engine, model), most
        self._together_frames = together_frames
        self._streams: dict[int, AheadDecoder] = {}
        self._fading = _Fading(self._engine)

    def __contains__(self, speaker: int) -> bool:
        return speaker in self._streams

    def open(self, speaker: int) -> None:
        """Take a new speaker in. Raises CallError if there are too many."""
        if len(self._streams) >= self._most:
            raise CallError(f"at most {self._most} speakers are decoded at once", CallErrorReason.LIMIT)
        self._streams[speaker] = AheadDecoder(StreamingDecoder(self._model, engine=self._engine))

    def close(self, speaker: int) -> None:
        """Forget a speaker."""
        del self._streams[speaker]
        self._fading.forget(speaker)

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, FloatArray]:
        """One frame of each of these speakers: sound [C, n] by speaker, n usually a frame."""
        return {speaker: self._decode(speaker, request) for speaker, request in requests.items()}

    def warm_up(self, num_codebooks: int) -> None:
        """Decode a frame and forget it, so that the first real one is not the slow one."""
        stream = StreamingDecoder(self._model, engine=self._engine)
        stream.warm_up(num_codebooks)
        for frames in range(2, self._together_frames + 1):
            stream.push_together(np.zeros((num_codebooks, frames), np.int64))

    def _decode(self, speaker: int, request: DecodeRequest) -> FloatArray:
        stream = self._streams[speaker]
        if request.reset:
            stream.reset()
        if request.codes is None:
            return stream.decode_latent(*self._fading.lost(speaker))
        self._fading.on_frame(speaker, request.codes)
        return stream.decode(request.codes, request.following)


class PooledDecoder:
    """One batch for all speakers.

    The batch has 1, 2, 4, … slots, as many as needed: most calls have one other speaker, and pay for one.
    When it grows, the streams move over with their states.
    """

    def __init__(self, model: AnyModel, engine: EngineOrName = "auto", most: int = MAX_SPEAKERS) -> None:
        self._model, self._engine, self._most = model, find_engine(engine, model), most
        self._pool = self._make(1)
        self._slots: dict[int, int] = {}
        self._fading = _Fading(self._engine)

    def __contains__(self, speaker: int) -> bool:
        return speaker in self._slots

    def open(self, speaker: int) -> None:
        """Take a new speaker in. Raises CallError if there are too many."""
        if len(self._slots) == self._pool.slots:
            self._grow()
        self._slots[speaker] = self._pool.open()

    def close(self, speaker: int) -> None:
        """Forget a speaker."""
        self._pool.close(self._slots.pop(speaker))
        self._fading.forget(speaker)

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, FloatArray]:
        """One frame of each of these speakers: sound [C, n] by speaker, n usually a frame."""
        for speaker, request in requests.items():
            slot = self._slots[speaker]
            if request.reset:
                self._pool.reset(slot)
            if request.codes is not None:
                self._fading.on_frame(speaker, request.codes)
                self._pool.push(slot, request.codes)
            else:
                self._pool.push_latent(slot, *self._fading.lost(speaker))
        outputs = self._pool.tick()
        nothing = np.zeros((self._engine.config.audio_channels, 0), np.float32)
        sounds = {}
        for speaker in requests:
            sound = outputs.get(self._slots[speaker], nothing)
            sound = as_numpy(sound)
            sound = sound[0] if sound.ndim == 3 else sound
            sounds[speaker] = sound.astype(np.float32, copy=False)
        return sounds

    def warm_up(self, num_codebooks: int) -> None:
        """Decode a frame and forget it, so that the first real one is not the slow one."""
        slot = self._pool.open()
        self._pool.push(slot, np.zeros((num_codebooks, 1), np.int64))
        self._pool.tick()
        self._pool.close(slot)
        _ = self._engine.fingerprint  # streams are known by it when they move

    def _grow(self) -> None:
        slots = 2 * self._pool.slots
        if slots > self._most:
            raise CallError(f"at most {self._most} speakers are decoded at once", CallErrorReason.LIMIT)
        bigger = self._make(slots)
        for speaker, slot in self._slots.items():
            state = self._pool.snapshot(slot)
            self._slots[speaker] = bigger.open()
            bigger.restore(self._slots[speaker], state)
        self._pool = bigger

    def _make(self, slots: int) -> StreamPool:
        return StreamPool(self._model, slots=slots, kind="decoder", engine=self._engine)
