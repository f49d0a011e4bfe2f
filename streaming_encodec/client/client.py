"""`VoiceClient`: one end of a call, for asyncio. Samples in and out; codec, packets, playout and connection inside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from streaming_encodec.client.participant import Participant
from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.types import Pcm

_LATE_S = 1.0


class VoiceClient(Participant):
    """A participant in a room, as an asynchronous context manager; good for one call. Settings: see `Participant`.

    ```python
    async with VoiceClient(url, token, model) as call:
        await call.send(pcm)
        async for pcm in call.receive():
            ...
    ```
    """

    _receiving = False

    async def __aenter__(self) -> Self:
        self._check_new()
        loop = self._loop = asyncio.get_running_loop()
        self._heard = asyncio.Event()
        # One thread a direction: the event loop never waits for the codec, and order is kept.
        self._encode_pool = ThreadPoolExecutor(1, "streaming-encodec-encode")
        self._decode_pool = ThreadPoolExecutor(1, "streaming-encodec-decode")
        try:
            await asyncio.gather(
                loop.run_in_executor(self._encode_pool, self._warm_up_encoder),
                loop.run_in_executor(self._decode_pool, self._warm_up_decoders),
            )
            await self._link.open()
        except BaseException:
            self._shut()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        try:
            if kind is None:
                await self._encode(self._voice.finish)
        finally:
            await self._link.close()
            self._shut()

    def _shut(self) -> None:
        self._ended = True
        self._encode_pool.shutdown(wait=False)
        self._decode_pool.shutdown(wait=False)

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """The call's event loop, if that is the running one. Raises CallError elsewhere, and outside the call."""
        loop = self._check_running()
        if asyncio.get_running_loop() is not loop:
            raise CallError(
                "this call belongs to another event loop: use it in the one that entered it", CallErrorReason.MISUSE
            )
        return loop

    def _on_packet(self, data: bytes) -> None:
        self._heard.set()
        super()._on_packet(data)

    # -- speaking -------------------------------------------------------------------------------------------

    async def send(self, pcm: npt.NDArray[Any]) -> None:
        """Say [n] or [C, n] samples, any n. Returns when they are encoded and on their way.

        The caller sets the pace: that of a microphone. Samples sent during an outage are lost. So are those that come
        faster than the relay takes them: 2 s of sound at once, then little more than real time.

        Raises:
            CallError: the call is over or has not begun, or this participant may only listen.
            StreamError: not an array of samples, or of the wrong shape.
        """
        self._check_may_speak()
        await self._encode(partial(self._voice.push, pcm, self._clock()))

    async def finish(self) -> None:
        """End what is being said: send the rest of the last frame, and that no more follows for now."""
        self._link.check()
        await self._encode(self._voice.finish)

    async def _encode(self, work: Callable[[], list[bytes]]) -> None:
        self._link.send_packets(await self._own_loop().run_in_executor(self._encode_pool, work))

    # -- listening ------------------------------------------------------------------------------------------

    async def receive(self, block_samples: int | None = None) -> AsyncIterator[Pcm]:
        """Blocks [C, block_samples] of what everybody says, mixed, at the pace of the clock; silence too.

        Ends when the call is ended here; raises CallError when it was ended by the relay or the network.
        A caller that falls behind by more than a second misses what was said meanwhile.
        """
        if self._receiving:
            raise CallError("this call is being received already: there is one stream of sound", CallErrorReason.MISUSE)
        if not self._ended:
            self._own_loop()
        count = block_samples or self.format.frame_samples
        self._receiving = True
        try:
            due_s = self._clock()
            while not self._link.over:
                yield await self.pull(count, due_s)
                due_s += count / self.format.sample_rate
                late_s = self._clock() - due_s
                if late_s > _LATE_S:
                    due_s = self._clock()
                elif late_s < 0:
                    await asyncio.sleep(-late_s)
        finally:
            self._receiving = False
        self._link.check()

    async def pull(self, count: int, now_s: float) -> Pcm:
        """The next `count` samples [C, count] at once, for a program that keeps the time itself.

        now_s: when the first of them will be heard, on this client's clock.
        """
        return await self._own_loop().run_in_executor(self._decode_pool, self._voices.read, count, now_s)

    async def wait_for_voice(self) -> None:
        """Wait until the first packet of anybody has arrived, or the call is over."""
        self._own_loop()
        over = asyncio.create_task(self._link.wait_over())
        heard = asyncio.create_task(self._heard.wait())
        try:
            await asyncio.wait({over, heard}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            heard.cancel()
        self._link.check()
