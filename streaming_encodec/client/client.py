"""`VoiceClient`: one end of a call. Samples in and out; codec, packets, playout and connection in between."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from streaming_encodec.call.decoders import SpeakerDecoders, make_decoders
from streaming_encodec.call.incoming import IncomingVoices
from streaming_encodec.call.outgoing import OutgoingVoice
from streaming_encodec.call.presence import Presence
from streaming_encodec.call.stream_format import stream_format
from streaming_encodec.client.link import Link
from streaming_encodec.client.statistics import CallStatistics
from streaming_encodec.client.token_source import TokenSource, clean_token, role_of, token_claims
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.stepping.engine import EngineOrName, find_engine
from streaming_encodec.voice.detour import Detour
from streaming_encodec.voice.receiver import ReceiverSettings
from streaming_encodec.voice.sender import SenderSettings
from streaming_encodec.wire.control import ControlMessage, Joined, Left, Report
from streaming_encodec.wire.hello import ROLES, Hello, StreamFormat, Welcome, check_room_name

FloatArray = npt.NDArray[np.float32]

DEFAULT_ROOM = "lobby"
_LATE_S = 1.0
_MOST_REPORTS = 1000


class VoiceClient:
    """A seat in a room, as an asynchronous context manager; good for one call.

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
        detour: a bad network for what arrives, to try things with.
        clock: seconds, monotonic; what arrivals are timed by, and what `pull` and `read` are told.
        tls: for a relay with a certificate of its own, see `client_tls`; None trusts what the system trusts.
        give_up_s: after an outage of so long the call is over.

    Raises:
        StreamError: the model cannot stream by samples.
        ConfigError: a setting cannot be: the address, the role, the room's name.
        CallError: no relay, not let in, another model in the room (on entering); lost for good (later). See its reason.
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
        decoder: SpeakerDecoders | None = None,
        detour: Detour | None = None,
        clock: Callable[[], float] = time.monotonic,
        tls: ssl.SSLContext | None = None,
        give_up_s: float | None = 120.0,
    ) -> None:
        if isinstance(token, str):
            token = clean_token(token)
        claims = token_claims(token) if isinstance(token, str) else {}
        role = role or role_of(claims)
        if role not in ROLES:
            raise ConfigError(f"a role is one of {', '.join(ROLES)}, not {role!r}", setting="role")
        self.model = model
        self.format: StreamFormat = stream_format(model)
        self.room = check_room_name(room or claims.get("room") or DEFAULT_ROOM)
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
        self._decoder = decoder or make_decoders(model, shared, (playout or ReceiverSettings()).together_frames)
        self._voices = IncomingVoices(
            self.format, self._decoder, playout, clock=clock, on_reports=self._send_reports, detour=detour
        )
        self.detour = detour
        self._clock = clock
        self._reports: dict[tuple[int, int], Report] = {}
        self._heard = asyncio.Event()
        self._presence = Presence()
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended = False
        self._receiving = False
        self.on_arrival: Callable[[], None] | None = None
        """Called in the event loop whenever a packet has come: for who sleeps until he can `read`."""

    # -- life -----------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._loop is not None:
            raise CallError(
                "a VoiceClient is good for one call, and this one was entered before: make another one",
                CallErrorReason.MISUSE,
            )
        loop = self._loop = asyncio.get_running_loop()
        try:
            await asyncio.gather(
                loop.run_in_executor(self._mouth, self._voice.warm_up),
                loop.run_in_executor(self._ear, self._decoder.warm_up, self._voice.num_codebooks),
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
                await self._run_mouth(self._voice.finish)
        finally:
            await self._link.close()
            self._shut()

    def _shut(self) -> None:
        self._ended = True
        self._mouth.shutdown(wait=False)
        self._ear.shutdown(wait=False)

    def _check_running(self) -> asyncio.AbstractEventLoop:
        """The call's event loop. Raises CallError before the call, and after it."""
        if self._loop is None:
            raise CallError("the call has not begun: use it within `async with`", CallErrorReason.MISUSE)
        if self._ended:
            raise CallError("this call has ended: make another VoiceClient for the next one", CallErrorReason.MISUSE)
        return self._loop

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """The same, for what only works in that loop."""
        loop = self._check_running()
        if asyncio.get_running_loop() is not loop:
            raise CallError(
                "this call belongs to another event loop: use it in the one that entered it", CallErrorReason.MISUSE
            )
        return loop

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

    def check(self) -> None:
        """Raise CallError if the call was ended by the relay or the network."""
        self._link.check()

    @property
    def round_trip_s(self) -> float:
        """To the relay and back, lately; 0 in the first seconds."""
        return self._link.round_trip_s

    @property
    def present(self) -> frozenset[int]:
        """Numbers of the others who may speak."""
        return self._presence.speakers

    @property
    def others_returning(self) -> bool:
        """Whether the relay was begun anew and whoever was there before may still be on the way back."""
        return self._presence.returning(self._clock())

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

        Pace is the caller's: as a microphone gives them. During an outage they are lost. So is what comes faster than
        the relay takes it: 2 s of sound at once, then little more than real time.

        Raises:
            CallError: the call is over or has not begun, or this seat may only listen.
            StreamError: samples that are none.
        """
        self._check_may_speak()
        await self._run_mouth(partial(self._voice.push, pcm, self._clock()))

    def say(self, pcm: npt.NDArray[Any]) -> None:
        """The same without asyncio, for one thread that lives from sample to sample (and instead of `send`).

        Encodes in the caller's thread: fewer threads are to be woken for a frame.
        """
        self._check_may_speak()
        packets = self._voice.push(pcm, self._clock())
        if packets:
            self._in_loop(self._link.send_packets, packets)

    async def finish(self) -> None:
        """End what is being said: the rest of the last frame, and word that no more comes for now."""
        self._link.check()
        await self._run_mouth(self._voice.finish)

    async def _run_mouth(self, work: Callable[[], list[bytes]]) -> None:
        self._link.send_packets(await self._own_loop().run_in_executor(self._mouth, work))

    def _check_may_speak(self) -> None:
        self._link.check()
        self._check_running()
        if self.role == "subscribe":
            raise CallError(
                "this seat may only listen: join with role 'both', and a token that allows it",
                CallErrorReason.LISTEN_ONLY,
            )

    # -- listening ------------------------------------------------------------------------------------------

    async def receive(self, block_samples: int | None = None) -> AsyncIterator[FloatArray]:
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

    async def pull(self, count: int, now_s: float) -> FloatArray:
        """The next `count` samples [C, count] at once, for who keeps time himself, as a sound card does.

        now_s: when the first of them will be heard, on this client's clock.
        """
        return await self._own_loop().run_in_executor(self._ear, self.read, count, now_s)

    def read(self, count: int, now_s: float) -> FloatArray:
        """The same without asyncio, for one thread that does nothing else (and instead of `pull`)."""
        self._check_running()
        return self._voices.read(count, now_s)

    @property
    def queued_samples(self) -> int:
        """Samples of everybody made and not yet read. For the thread that reads."""
        return self._voices.mixer.queued_samples

    def is_certain(self, count: int, now_s: float) -> bool:
        """Whether all that `read` takes is here: then it may be asked before `now_s`. For the thread that reads."""
        return self._voices.is_certain(count, now_s)

    async def wait_for_voice(self) -> None:
        """Wait until the first packet of anybody has come, or the call is over."""
        self._own_loop()
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
        return self._voices.mixer.speakers

    def layers(self, max_codebooks: int) -> None:
        """From now on have the relay cut what is heard to so many codebooks."""
        self._link.set_layers(max_codebooks)

    # -- figures --------------------------------------------------------------------------------------------

    @property
    def packet_samples(self) -> int:
        """Samples of the frames of a packet."""
        return self._voice.settings.frames_per_packet * self.format.frame_samples

    @property
    def statistics(self) -> CallStatistics:
        """What happened so far."""
        return CallStatistics(
            link=self._link.counts,
            speakers=self._voices.mixer.statistics,
            playout_target_ms=self._voices.mixer.target_ms,
            packets_arrived=self._voices.packets_arrived,
            bad_packets=self._voices.mixer.bad_packets,
            reports=dict(self._reports),
        )

    # -- inside ---------------------------------------------------------------------------------------------

    def _on_packet(self, data: bytes) -> None:
        self._heard.set()
        self._voices.arrived(data, self._clock())
        if self.on_arrival is not None:
            self.on_arrival()

    def _on_control(self, message: ControlMessage) -> None:
        match message:
            case Welcome() | Joined() | Left():
                self._presence.update(message, self._clock())
                self._voices.told(message)
            case Report():
                if len(self._reports) < _MOST_REPORTS or (message.sender, message.listener) in self._reports:
                    self._reports[message.sender, message.listener] = message
                self._voice.heard_of(message, self._clock())
            case _:
                pass

    def _send_reports(self, reports: list[Report]) -> None:
        for report in reports:
            self._in_loop(self._link.send_control, report)

    def _in_loop(self, function: Callable[..., object], *arguments: object) -> None:
        loop = self._check_running()
        with contextlib.suppress(RuntimeError):  # closed just now, and the call with it
            loop.call_soon_threadsafe(function, *arguments)


__all__ = ["CallStatistics", "VoiceClient"]
