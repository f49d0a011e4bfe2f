"""Speakers' decoders by number, with the receiver's concealment: each one alone, or all in one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.call.mixer import SpeakerDecoder
from streaming_encodec.engines.registry import find_engine
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.model.find import AnyModel
from streaming_encodec.stepping.arrays import as_numpy
from streaming_encodec.stepping.engine import Engine, EngineOrName
from streaming_encodec.stepping.half import HalfState
from streaming_encodec.streaming.conceal import decayed
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.pool import StreamPool
from streaming_encodec.types import Floats, IntArray, Pcm
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

    def lost(self, speaker: int) -> tuple[Floats, int]:
        """The latent frame [1, D, 1] in place of a lost one, and the number of codebooks of the last that arrived."""
        codes, lost = self._last.get(speaker, (np.zeros((1, 1), np.int64), 1000))
        lost += 1
        self._last[speaker] = (codes, lost)
        return decayed(self._engine.latent(codes[None]), lost), codes.shape[0]


class AheadDecoder:
    """One speaker's stream, which takes frames that are already here in one step and gives their sound one by one.

    After a pause, most of a step's time goes into loading code and weights into the caches, so two frames in one step
    take little longer than one. Which frame is played next is still decided when it is due: if it is another than the
    one decoded ahead, the stream goes back to where it was (law 4: its state is a value). So sound and state are as if
    every frame had been decoded when it was asked for.
    """

    def __init__(self, stream: StreamingDecoder) -> None:
        self._stream = stream
        self._frame = stream.config.hop_length
        self._ahead: deque[tuple[IntArray, Pcm]] = deque()  # decoded and not yet asked for
        self._given: list[IntArray] = []  # of the same step, asked for since
        self._before: HalfState | None = None  # where that step began

    def decode(self, codes: IntArray, following: tuple[IntArray, ...] = ()) -> Pcm:
        """The sound [C, n] of a frame ``codes`` [K, 1]; ``following`` are likely to be asked for next.

        They are recognised later by identity.
        """
        if self._ahead and self._ahead[0][0] is codes:
            self._given.append(codes)
            return self._ahead.popleft()[1]
        self._return()
        if not following:
            return self._sound(self._stream.push(codes))
        self._before, self._given = self._stream.mark(), [codes]
        whole = self._sound(self._stream.push_together(np.concatenate((codes, *following), axis=1)))
        # Counted from the end: a stream with a start delay gives less for its first frames.
        ends = [max(0, whole.shape[1] - self._frame * left) for left in range(len(following), -1, -1)]
        for later, (begin, end) in zip(following, pairwise(ends), strict=True):
            self._ahead.append((later, whole[:, begin:end]))
        return whole[:, : ends[0]]

    def decode_latent(self, latent: Floats, num_codebooks: int) -> Pcm:
        """The sound of a latent frame [1, D, 1] in place of codes."""
        self._return()
        return self._sound(self._stream.push_latent(latent, num_codebooks)[0])

    def reset(self) -> None:
        """Reset the stream."""
        self._ahead.clear()
        self._stream.reset()

    def _return(self) -> None:
        """Go back to the state after the frames that were asked for."""
        if self._ahead and self._before is not None:
            self._ahead.clear()
            self._stream.rewind(self._before)
            for codes in self._given:
                self._stream.push(codes)
        self._before = None  # an engine may write over a state that nobody holds

    @staticmethod
    def _sound(pcm: NDArray[np.floating]) -> Pcm:
        return pcm.astype(np.float32, copy=False)


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

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, Pcm]:
        """One frame of each of these speakers: sound [C, n] by speaker, n usually a frame."""
        return {speaker: self._decode(speaker, request) for speaker, request in requests.items()}

    def warm_up(self, num_codebooks: int) -> None:
        """Decode a frame and forget it, so that the first real one is not the slow one."""
        stream = StreamingDecoder(self._model, engine=self._engine)
        stream.warm_up(num_codebooks)
        for frames in range(2, self._together_frames + 1):
            stream.push_together(np.zeros((num_codebooks, frames), np.int64))

    def _decode(self, speaker: int, request: DecodeRequest) -> Pcm:
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

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, Pcm]:
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
