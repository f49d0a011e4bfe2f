"""Several speakers through one decoder: what a `StreamPool` is to codes, with the receiver's concealment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from streaming_encodec.errors import CallError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.streaming import StreamPool
from streaming_encodec.streaming.engine import EngineOrName, find_engine
from streaming_encodec.voice.playout import DecodeRequest
from streaming_encodec.wire.bits import IntArray

FloatArray = npt.NDArray[np.float32]

LATENT_DECAY = 0.8
"""What each lost frame leaves of the last latent; the voice model is trained with the same."""


class PooledDecoder:
    """Decoders of speakers by number, one batch for all of them.

    The batch has 1, 2, 4, … slots, as many as needed: most calls have one other speaker, and pay for one.
    When it grows, the streams move over with their states.
    """

    def __init__(self, model: EncodecModel, engine: EngineOrName = "auto", most: int = 64) -> None:
        self._model = model
        self._engine = find_engine(engine, model)
        self._most = most
        self._pool = self._make(1)
        self._slots: dict[int, int] = {}
        self._last: dict[int, tuple[IntArray, int]] = {}  # last codes [K, 1], and frames lost since

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
        self._last.pop(speaker, None)

    def decode(self, requests: Mapping[int, DecodeRequest]) -> dict[int, FloatArray]:
        """One frame of each of these speakers: sound [C, n] by speaker, n usually a frame."""
        pool = self._pool
        for speaker, request in requests.items():
            slot = self._slots[speaker]
            if request.reset:
                pool.reset(slot)
            if request.codes is not None:
                self._last[speaker] = (request.codes, 0)
                pool.push(slot, request.codes)
            else:
                self._push_lost(speaker, slot)
        outputs = pool.tick()
        nothing = np.zeros((self._model.config.audio_channels, 0), np.float32)
        sounds = {}
        for speaker in requests:
            sound = outputs.get(self._slots[speaker], nothing)
            if isinstance(sound, torch.Tensor):
                sound = sound[0].cpu().numpy()
            sounds[speaker] = sound.astype(np.float32, copy=False)
        return sounds

    def warm_up(self, num_codebooks: int) -> None:
        """Decode a frame and forget it, so that the first real one is not the slow one."""
        slot = self._pool.open()
        self._pool.push(slot, np.zeros((num_codebooks, 1), np.int64))
        self._pool.tick()
        self._pool.close(slot)

    def _push_lost(self, speaker: int, slot: int) -> None:
        codes, lost = self._last.get(speaker, (np.zeros((1, 1), np.int64), 1000))
        lost += 1
        self._last[speaker] = (codes, lost)
        with torch.no_grad():
            latent = self._engine.quantizer.decode(torch.from_numpy(codes)[None].to(self._device))
        self._pool.push_latent(slot, latent * LATENT_DECAY**lost, codes.shape[0])

    def _grow(self) -> None:
        slots = 2 * self._pool.slots
        if slots > self._most:
            raise CallError(f"at most {self._most} speakers are decoded at once")
        bigger = self._make(slots)
        for speaker, slot in self._slots.items():
            state = self._pool.snapshot(slot)
            self._slots[speaker] = bigger.open()
            bigger.restore(self._slots[speaker], state)
        self._pool = bigger

    def _make(self, slots: int) -> StreamPool:
        return StreamPool(self._model, slots=slots, kind="decoder", engine=self._engine)

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device
