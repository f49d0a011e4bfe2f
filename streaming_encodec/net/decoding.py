"""Speakers' decoders by number, with the receiver's concealment: one alone by himself, several in one batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from streaming_encodec.errors import CallError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming import StreamingDecoder, StreamPool
from streaming_encodec.streaming.engine import EngineOrName, find_engine
from streaming_encodec.voice.playout import DecodeRequest
from streaming_encodec.wire.bits import IntArray

FloatArray = npt.NDArray[np.float32]

LATENT_DECAY = 0.8
"""What each lost frame leaves of the last latent; the voice model is trained with the same."""


class PooledDecoder:
    """Decoders of speakers by number, one batch for all of them.

    One speaker alone, as in most calls, has a stream of his own, which does without what a batch needs around
    its step. From the second on there is a batch of 2, 4, … slots, as many as needed. Streams move over with their
    states, and the last who is left has one of his own again.
    """

    def __init__(self, model: EncodecModel, engine: EngineOrName = "auto", most: int = 64) -> None:
        self._model = model
        self._engine = find_engine(engine, model)
        self._most = most
        self._alone = StreamingDecoder(model, engine=self._engine)
        self._pool: StreamPool | None = None
        self._slots: dict[int, int] = {}  # without a pool there is one speaker at most
        self._last: dict[int, tuple[IntArray, int]] = {}  # last codes [K, 1], and frames lost since

    def __contains__(self, speaker: int) -> bool:
        return speaker in self._slots

    def open(self, speaker: int) -> None:
        """Take a new speaker in. Raises CallError if there are too many."""
        if not self._slots and self._pool is None:
            self._alone.reset()
            self._slots[speaker] = 0
            return
        if self._pool is None or len(self._slots) == self._pool.slots:
            self._pool = self._grown()
        self._slots[speaker] = self._pool.open()

    def close(self, speaker: int) -> None:
        """Forget a speaker."""
        slot = self._slots.pop(speaker)
        self._last.pop(speaker, None)
        if self._pool is None:
            return
        self._pool.close(slot)
        if len(self._slots) == 1:
            (left,) = self._slots.values()
            self._alone.load_state(self._pool.snapshot(left))
            self._pool = None

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, FloatArray]:
        """One frame of each of these speakers: sound [C, n] by speaker, n usually a frame."""
        for speaker, request in requests.items():
            if request.codes is not None:
                self._last[speaker] = (request.codes, 0)
        if self._pool is not None:
            return self._decode_together(self._pool, requests)
        return {speaker: self._decode_alone(speaker, request) for speaker, request in requests.items()}

    def warm_up(self, num_codebooks: int, speakers: int = 1) -> None:
        """Decode a frame and forget it, so that the first real one is not the slow one.

        speakers: 2 readies the batch as well, so that a second one may come in the middle of a call.
        """
        self._alone.warm_up(num_codebooks)
        _ = self._engine.fingerprint  # streams are known by it when they move
        if speakers > 1:
            pool = self._make(2)
            pool.push(pool.open(), np.zeros((num_codebooks, 1), np.int64))
            pool.tick()

    def _decode_alone(self, speaker: int, request: DecodeRequest) -> FloatArray:
        if request.reset:
            self._alone.reset()
        sound: FloatArray
        if request.codes is not None:
            sound = self._alone.push(request.codes)
        else:
            latent, num_codebooks = self._fading(speaker)
            sound = self._alone.push_latent(latent, num_codebooks)[0].cpu().numpy()
        return sound.astype(np.float32, copy=False)

    def _decode_together(self, pool: StreamPool, requests: Mapping[int, DecodeRequest]) -> dict[int, FloatArray]:
        for speaker, request in requests.items():
            slot = self._slots[speaker]
            if request.reset:
                pool.reset(slot)
            if request.codes is not None:
                pool.push(slot, request.codes)
            else:
                pool.push_latent(slot, *self._fading(speaker))
        outputs = pool.tick()
        nothing = np.zeros((self._model.config.audio_channels, 0), np.float32)
        sounds = {}
        for speaker in requests:
            sound = outputs.get(self._slots[speaker], nothing)
            if isinstance(sound, Tensor):
                sound = sound[0].cpu().numpy()
            sounds[speaker] = sound.astype(np.float32, copy=False)
        return sounds

    @torch.no_grad()
    def _fading(self, speaker: int) -> tuple[Tensor, int]:
        """The latent frame [1, D, 1] that stands for a lost one, and the number of codebooks of the last that came."""
        codes, lost = self._last.get(speaker, (np.zeros((1, 1), np.int64), 1000))
        lost += 1
        self._last[speaker] = (codes, lost)
        latent = self._engine.quantizer.decode(torch.from_numpy(codes)[None].to(self._device))
        return latent * LATENT_DECAY**lost, codes.shape[0]

    def _grown(self) -> StreamPool:
        """A pool with twice the slots, and everybody in it."""
        slots = 2 * (1 if self._pool is None else self._pool.slots)
        if slots > self._most:
            raise CallError(f"at most {self._most} speakers are decoded at once")
        bigger = self._make(slots)
        for speaker, slot in self._slots.items():
            state = self._alone.state() if self._pool is None else self._pool.snapshot(slot)
            self._slots[speaker] = bigger.open()
            bigger.restore(self._slots[speaker], state)
        return bigger

    def _make(self, slots: int) -> StreamPool:
        return StreamPool(self._model, slots=slots, kind="decoder", engine=self._engine)

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device
