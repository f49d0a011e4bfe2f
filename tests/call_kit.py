"""A tiny model, and ears that note what they hear."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import numpy as np
import torch

from streaming_encodec.client.client import VoiceClient as _VoiceClient
from streaming_encodec.client.settings import CodecSettings
from streaming_encodec.client.threaded import ThreadedVoiceClient as _ThreadedVoiceClient
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.types import Floats, IntArray
from streaming_encodec.voice.delay import DelaySettings
from streaming_encodec.voice.receiver import ReceiverSettings

RATE = 24_000
HOP = 320

PATIENT = ReceiverSettings(DelaySettings(minimum_frames=30, initial_frames=30, maximum_frames=60))
"""0.4 s of buffer: a machine that runs tests pauses now and then, and that is not the network's doing."""


class VoiceClient(_VoiceClient):
    """One whose codes are the same on every machine, and do not follow the machine's mood."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"codec": codec()} | options)


class ThreadedVoiceClient(_ThreadedVoiceClient):
    """The same."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **{"codec": codec()} | options)


def codec(bandwidth: float | None = 6.0, **settings: Any) -> CodecSettings:
    """Settings of the codec with these changes."""
    return CodecSettings(bandwidth, **{"engine": "fused", "adapt": False} | settings)


def tiny_model(seed: int = 0, *, use_causal_conv: bool = True) -> EncodecModel:
    """An EnCodec of the 24 kHz kind that costs next to nothing."""
    config = EncodecConfig(
        target_bandwidths=(1.5, 3.0, 6.0),
        num_filters=4,
        hidden_size=8,
        codebook_dim=8,
        codebook_size=64,
        num_lstm_layers=1,
        use_causal_conv=use_causal_conv,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EncodecModel(config).eval()


def sound(seconds: float, seed: int = 0) -> Floats:
    """Noise under a slow envelope."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    return (0.3 * rng.standard_normal(n) * np.sin(np.arange(n) / 4000)).astype(np.float32)


async def say(call: VoiceClient, pcm: Floats, block: int = 480) -> None:
    """Speak at the pace of a microphone."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    for at in range(0, len(pcm), block):
        await asyncio.sleep(max(0.0, begin_s + at / RATE - loop.time()))
        await call.send(pcm[at : at + block])


class Ear:
    """Listens to a call until told to stop, and notes the codes that were decoded for each speaker."""

    def __init__(self, call: VoiceClient) -> None:
        self.call = call
        self.blocks: list[Floats] = []
        self.codes: dict[int, list[IntArray | None]] = {}
        decoder = call._voices.mixer._decoder
        decode = decoder.decode

        def noting(requests: Any) -> Any:
            for speaker, request in requests.items():
                self.codes.setdefault(speaker, []).append(request.codes)
            return decode(requests)

        decoder.decode = noting  # type: ignore[method-assign]
        self._task: asyncio.Task[None] | None = None

    async def _listen(self) -> None:
        async with aclosing(self.call.receive()) as blocks:
            async for block in blocks:
                self.blocks.append(block)

    async def __aenter__(self) -> Ear:
        self._task = asyncio.create_task(self._listen())
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def pcm(self) -> Floats:
        return np.concatenate(self.blocks, axis=1)

    def heard(self, speaker: int) -> IntArray:
        """Codes [K, frames] of one speaker in the order in which they were played."""
        codes = [c for c in self.codes.get(speaker, []) if c is not None]
        return np.concatenate(codes, axis=1)

    def frames(self, speaker: int) -> int:
        """How many frames of one speaker were played so far."""
        return sum(c.shape[1] for c in self.codes.get(speaker, []) if c is not None)
