"""`VoiceClient`: one end of a call. Samples in and out; codec, packets, playout and connection in between."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from streaming_encodec.errors import CallError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.net.decoding import PooledDecoder
from streaming_encodec.net.formats import stream_format
from streaming_encodec.net.link import Link, TokenSource
from streaming_encodec.net.mixer import Mixer
from streaming_encodec.net.speaking import OutgoingVoice
from streaming_encodec.net.statistics import CallStatistics
from streaming_encodec.net.tokens import role_of, token_claims
from streaming_encodec.streaming.engine import EngineOrName, find_engine
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.control import ControlMessage, Joined, Left, Report
from streaming_encodec.wire.hello import ROLES, Hello, StreamFormat, Welcome

FloatArray = npt.NDArray[np.float32]

DEFAULT_ROOM = "lobby"
_REPORT_S = 1.0
_BLOCK_FRAMES = 1
_WAITING_EVENTS = 4096
"""Packets that wait for `receive` to be called: some seconds of a full room."""
_LATE_S = 1.0
_RETURN_S = 15.0
"""How long the others may take to find a relay that was begun anew, well above the longest pause between attempts."""
_MOST_REPORTS = 1000


class VoiceClient:
    """A seat in a room, as an asynchronous context manager.

    ```python
    async with VoiceClient(url, token, model) as call:
        await call.send(pcm)
        async for pcm in call.receive():
            ...
    ```

    Args:
        url: `ws://host:port` or `wss://…` of a relay.
        token: what the relay's keeper gave you, or a function that fetches one; None where none is asked for.
        model: must be the same at all ends.
        room: None takes the token's, or "lobby".
        role: "publish", "subscribe" or "both"; None takes what the token allows.
        bandwidth: of what is sent, in kbps. engine: see `engines`.
        sending: frames and redundancy in each packet, see `SenderSettings`; the bandwidth sets its codebooks.
        dtx: send little while nobody speaks here.
        adapt: let listeners' reports choose codebooks and redundancy.
        max_codebooks: have the relay cut what is heard to so many.
        playout: habits of the jitter buffers. decoder: in place of its own.
        clock: seconds, monotonic; what arrivals are timed by, and what `pull` and `read` are told.
        tls: for a relay whose certificate the system does not know, see `client_tls`.
        give_up_s: after an outage of so long the call is over.

    Raises:
        StreamError: the model cannot stream by samples.
        CallError: no relay, not let in, another model in the room (on entering); lost for good (later).
    """

    def __init__(
        self,
        url: str,
        token: TokenSource | None,
        model: EncodecModel,
        *,
        room: str | None = None,
        role: str | None = None,
        bandwidth: float | None = 6.0,
        engine: EngineOrName = "auto",
        sending: SenderSettings | None = None,
        dtx: bool = False,
        adapt: bool = True,
        max_codebooks: int | None = None,
        playout: ReceiverSettings | None = None,
        decoder: PooledDecoder | None = None,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
        give_up_s: float | None = 120.0,
    ) -> None:
        claims = token_claims(token) if isinstance(token, str) else {}
        role = role or role_of(claims)
        if role not in ROLES:
            raise CallError(f"a role is one of {', '.join(ROLES)}, not {role!r}")
        self.model = model
        self.format: StreamFormat = stream_format(model)
        self.room = room or claims.get("room") or DEFAULT_ROOM
        self.role = role
        shared = find_engine(engine, model)
        self._voice = OutgoingVoice(
            model,
            self.format,
            bandwidth,
            shared,
            sending or SenderSettings(frames_per_packet=1),
            dtx=dtx,
            adapt=adapt,
            first_sequence=secrets.randbelow(1 << 16),
            first_timestamp=secrets.randbelow(1 << 32),
        )
        decoder = decoder or PooledDecoder(model, shared)
        self._mixer = Mixer(self.format, decoder, playout)
        self._clock = clock
        self._events: deque[Callable[[], None]] = deque(maxlen=_WAITING_EVENTS)
        self._reports: dict[tuple[int, int], Report] = {}
        self._heard = asyncio.Event()
        self._present: set[int] = set()
        self._missing_since_s: float | None = None
        self._arrived = 0
        self._link = Link(
            url,
            Hello(self.room, role, self.format, max_codebooks=max_codebooks),
            token,
            on_packet=self._on_packet,
            on_control=self._on_control,
            tls=tls,
            give_up_s=give_up_s,
        )
        # One thread a direction: the event loop never waits for the codec, and order is kept.
        self._mouth = ThreadPoolExecutor(1, "streaming-encodec-encode")
        self._ear = ThreadPoolExecutor(1, "streaming-encodec-decode")
        self._decoder = decoder
        self._reporter: asyncio.Task[None] | None = None
        self._receiving = False

    # -- life -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        await asyncio.gather(
            loop.run_in_executor(self._mouth, self._voice.warm_up),
            loop.run_in_executor(self._ear, self._decoder.warm_up, self._voice.num_codebooks),
        )
        try:
            await self._link.open()
        except BaseException:
            self._shut()
            raise
        if self.role != "publish":
            self._reporter = asyncio.create_task(self._report())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                await self.finish()
        finally:
            if self._reporter is not None:
                self._reporter.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._reporter
            await self._link.close()
            self._shut()

    def _shut(self) -> None:
        self._mouth.shutdown(wait=False)
        self._ear.shutdown(wait=False)

    @property
    def sender(self) -> int:
        """This client's number in the room; 0 for one that may not speak."""
        return 0 if self._link.welcome is None else self._link.welcome.sender

    @property
    def connected(self) -> bool:
        """False during an outage, which ends by itself."""
        return self._link.connected

    @property
    def over(self) -> bool:
        """Whether the call has ended for good."""
        return self._link.over

    @property
    def round_trip_s(self) -> float:
        """To the relay and back, lately; 0 in the first seconds."""
        return self._link.round_trip_s

    @property
    def present(self) -> frozenset[int]:
        """Numbers of the others who may speak."""
        return frozenset(self._present)

    @property
    def others_returning(self) -> bool:
        """Whether the relay was begun anew and whoever was there before may still be on the way back."""
        since = self._missing_since_s
        return since is not None and self._clock() - since < _RETURN_S

    # -- speaking -------------------------------------------------------------------------------------------

    @property
    def bandwidth(self) -> float:
        """Of what is sent, in kbps; set it at any time, it takes effect at the next frame."""
        return self._voice.bandwidth

    @bandwidth.setter
    def bandwidth(self, kbps: float) -> None:
        self._voice.bandwidth = kbps

    async def send(self, pcm: npt.NDArray[Any]) -> None:
        """Say [n] or [C, n] samples, any n. Comes back when they are encoded and on their way.

        Pace is the caller's: as a microphone gives them. During an outage they are lost.

        Raises:
            CallError: the call is over, or this seat may only listen.
            StreamError: samples that are none.
        """
        self._link.check()
        if self.role == "subscribe":
            raise CallError("this seat may only listen: join with role 'both', and a token that allows it")
        await self._run_mouth(partial(self._voice.push, pcm))

    async def finish(self) -> None:
        """End what is being said: the rest of the last frame, and word that no more comes for now."""
        await self._run_mouth(self._voice.finish)

    async def _run_mouth(self, work: Callable[[], list[bytes]]) -> None:
        for packet in await asyncio.get_running_loop().run_in_executor(self._mouth, work):
            self._link.send_packet(packet)

    # -- listening ------------------------------------------------------------------------------------------

    async def receive(self, block_samples: int | None = None) -> AsyncIterator[FloatArray]:
        """Blocks [C, block_samples] of what everybody says, mixed, at the pace of the clock; silence too.

        Ends when the call is ended here; raises CallError when it was ended by the relay or the network.
        A caller that falls behind by more than a second misses what was said meanwhile.
        """
        if self._receiving:
            raise CallError("this call is being received already: there is one stream of sound")
        count = block_samples or _BLOCK_FRAMES * self.format.frame_samples
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

    async def pull(self, count: int, now_s: float) -> FloatArray:
        """The next `count` samples [C, count] at once, for who keeps time himself, as a sound card does.

        now_s: when the first of them will be heard, on this client's clock.
        """
        return await asyncio.get_running_loop().run_in_executor(self._ear, self.read, count, now_s)

    def read(self, count: int, now_s: float) -> FloatArray:
        """The same without asyncio, for one thread that does nothing else (and instead of `pull`)."""
        while self._events:
            self._events.popleft()()
        sound = self._mixer.read(count, now_s)
        return sound

    async def wait_for_voice(self) -> None:
        """Wait until the first packet of anybody has come, or the call is over."""
        over = asyncio.create_task(self._link.wait_over())
        heard = asyncio.create_task(self._heard.wait())
        try:
            await asyncio.wait({over, heard}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
            heard.cancel()
        self._link.check()

    @property
    def speakers(self) -> tuple[int, ...]:
        """Who is being heard, until the last of it was played."""
        return self._mixer.speakers

    def layers(self, max_codebooks: int) -> None:
        """From now on have the relay cut what is heard to so many codebooks."""
        self._link.set_layers(max_codebooks)

    # -- figures --------------------------------------------------------------------------------------------

    @property
    def statistics(self) -> CallStatistics:
        """What happened so far."""
        return CallStatistics(
            link=self._link.counts,
            speakers=self._mixer.statistics,
            playout_target_ms=self._mixer.target_ms,
            packets_arrived=self._arrived,
            bad_packets=self._mixer.bad_packets,
            reports=dict(self._reports),
        )

    # -- inside ---------------------------------------------------------------------------------------------

    def _on_packet(self, data: bytes) -> None:
        now_s = self._clock()
        self._heard.set()
        self._arrived += 1
        if len(data) >= 6:  # a shorter one is no packet, and has no sender to count it for
            sender = int.from_bytes(data[4:6], "little")
            self._events.append(lambda: self._mixer.receive(sender, data, now_s))

    def _on_control(self, message: ControlMessage) -> None:
        match message:
            case Welcome():
                before, self._present = self._present, set(message.speakers)
                if not message.resumed:
                    self._missing_since_s = self._clock() if before and not self._present else None
                    # Another relay, or the same one begun anew: its numbers mean other people.
                    self._events.append(self._forget_all)
            case Joined(sender):
                self._present.add(sender)
                self._missing_since_s = None
            case Left(sender):
                self._present.discard(sender)
                self._events.append(lambda: self._mixer.leave(sender))
            case Report():
                self._take_report(message)
            case _:
                pass

    def _take_report(self, report: Report) -> None:
        if len(self._reports) < _MOST_REPORTS or (report.sender, report.listener) in self._reports:
            self._reports[report.sender, report.listener] = report
        self._mouth.submit(self._voice.report, report, self._clock())

    def _forget_all(self) -> None:
        for sender in self._mixer.speakers:
            self._mixer.forget(sender)

    async def _report(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_REPORT_S)
            reports = await loop.run_in_executor(self._ear, self._mixer.reports, self._clock())
            for report in reports:
                self._link.send_control(report)


__all__ = ["CallStatistics", "VoiceClient"]
