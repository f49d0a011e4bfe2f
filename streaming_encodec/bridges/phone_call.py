"""One telephone call: from its connection to a participant of a room, and back, until either side ends it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from streaming_encodec.bridges.config import BridgeLimits
from streaming_encodec.bridges.connection import HungUp, PhoneConnection
from streaming_encodec.bridges.line import PhoneLine
from streaming_encodec.bridges.pace import SendPace
from streaming_encodec.bridges.protocol import Digit, Ended, Event, Hold, Message, PhoneProtocol, Queued, Sound, Started
from streaming_encodec.client.threaded import ThreadedVoiceClient
from streaming_encodec.errors import BridgeError, CallError
from streaming_encodec.transport.limits import MAX_VOICE_AGE_S, Bucket
from streaming_encodec.types import Pcm

Result = TypeVar("Result")

_PROBE_S = 1.0
_MOST_UNSENT_BYTES = 24_576
_STOPPED = "the bridge stops"


@dataclass(slots=True)
class PhoneCallFigures:
    """What happened in a call. reason: why it ended. failed: the telephone, or the room, broke it."""

    call: str = ""
    room: str = ""
    reason: str = ""
    failed: bool = False
    heard_s: float = 0.0
    sent_s: float = 0.0
    dropped_s: float = 0.0
    """Sound of the caller that came faster than it could be encoded, and sound that the telephone did not read."""
    skipped_frames: int = 0
    cleared: int = 0
    """Times that the telephone held too much sound, and was told to forget it."""


class PhoneCall:
    """One call, good for one `run`.

    join: makes a participant in the room of a call of this name, still to be entered. pool: its threads encode and
    decode; nothing else does in this call. None: the event loop does, for less than a millisecond at a time.
    stopping: set when the bridge ends.
    on_digit: called with the call's name and each key that is pressed.
    """

    def __init__(
        self,
        connection: PhoneConnection,
        protocol: PhoneProtocol,
        join: Callable[[str], ThreadedVoiceClient],
        *,
        pool: Executor | None,
        limits: BridgeLimits,
        stopping: asyncio.Event,
        on_start: Callable[[PhoneCallFigures], None],
        on_digit: Callable[[str, str], None],
        clock: Callable[[], float],
    ) -> None:
        self._connection, self._protocol, self._join = connection, protocol, join
        self._pool, self._limits, self._stopping = pool, limits, stopping
        self._on_start, self._on_digit, self._clock = on_start, on_digit, clock
        now_s = clock()
        self._heard_at_s = now_s
        self._messages = Bucket(limits.messages_per_s, 4 * limits.messages_per_s, now_s)
        self._seconds = Bucket(limits.speed, limits.burst_s, now_s)
        self._started: asyncio.Future[Started] = asyncio.get_running_loop().create_future()
        self._waiting: deque[Pcm] = deque()  # said, not yet encoded
        self._waiting_samples = 0
        self._said = asyncio.Event()
        self._rate = 0
        self._pace: SendPace | None = None
        self.figures = PhoneCallFigures()

    async def run(self) -> PhoneCallFigures:
        """The whole call. Raises nothing but faults of this program."""
        figures = self.figures
        reading = asyncio.create_task(self._read())
        stopping = asyncio.create_task(self._stopping.wait())
        joining: asyncio.Task[ThreadedVoiceClient] | None = None
        tasks: set[asyncio.Task[str]] = {reading}
        try:
            started = await self._start(reading, stopping)
            figures.call = started.call
            joining = asyncio.create_task(asyncio.to_thread(self._enter, started.call))
            client = await asyncio.shield(joining)
            figures.room = client.room
            line = PhoneLine(started.rate, client.format)
            self._on_start(figures)
            tasks |= {asyncio.create_task(self._speak(client, line)), asyncio.create_task(self._play(client, line))}
            await asyncio.wait({*tasks, stopping}, return_when=asyncio.FIRST_COMPLETED)
            figures.reason = next((task.result() for task in tasks if task.done()), _STOPPED)
        except HungUp as end:
            figures.reason = str(end)
        except (BridgeError, CallError) as error:
            figures.reason, figures.failed = str(error), True
        finally:
            for task in (*tasks, stopping):
                task.cancel()
            await asyncio.gather(*tasks, stopping, return_exceptions=True)
            await self._hang_up()
            if joining is not None:
                await self._leave(joining)
            if self._pace is not None:
                figures.skipped_frames = self._pace.skipped_frames
        return figures

    # -- begin and end --------------------------------------------------------------------------------------

    async def _start(self, reading: asyncio.Task[str], stopping: asyncio.Task[bool]) -> Started:
        limit_s = self._limits.start_s
        futures: set[asyncio.Future[Any]] = {reading, stopping, self._started}
        await asyncio.wait(futures, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if self._started.done():
            return self._started.result()
        if reading.done():
            raise HungUp(reading.result())
        if stopping.done():
            raise HungUp(_STOPPED)
        raise BridgeError(f"the call did not start within {limit_s:g} s of the connection")

    def _enter(self, call: str) -> ThreadedVoiceClient:
        client = self._join(call)
        client.__enter__()
        return client

    async def _leave(self, joining: asyncio.Task[ThreadedVoiceClient]) -> None:
        try:
            client = await joining
        except Exception:  # reported where it was awaited first
            return
        await asyncio.to_thread(client.__exit__, None, None, None)

    async def _hang_up(self) -> None:
        message: Message | None = None
        if self._started.done():
            message = self._protocol.hang_up()
        self._started.cancel()
        try:
            if message is not None and self._connection.unsent_bytes < _MOST_UNSENT_BYTES:
                await self._connection.send(message)
        except HungUp:
            pass
        await self._connection.close(self.figures.reason if self.figures.failed else "")

    # -- from the telephone ---------------------------------------------------------------------------------

    async def _read(self) -> str:
        """Take messages until the call ends there; gives the reason."""
        while True:
            try:
                data = await self._connection.receive()
            except HungUp as end:
                return str(end)
            now_s = self._heard_at_s = self._clock()
            events = self._protocol.receive(data)
            if not self._messages.take(max(1, len(events)), now_s):
                raise BridgeError(f"more than {self._limits.messages_per_s:g} messages a second")
            for event in events:
                if isinstance(event, Ended):
                    return event.reason
                await self._on_event(event, now_s)

    async def _on_event(self, event: Event, now_s: float) -> None:
        match event:
            case Sound():
                self._hear(event, now_s)
            case Started():
                self._rate = event.rate
                self._pace = SendPace(self._protocol.frame_ms / 1000, self._protocol.lead_ms / 1000)
                self._started.set_result(event)
            case Digit():
                self._on_digit(self._started.result().call, event.digit)
            case Hold():
                assert self._pace is not None
                self._pace.hold(event.on)
            case Queued():
                assert self._pace is not None
                way_s = self._connection.round_trip_s
                if self._pace.queued(event.seconds, now_s, exact=event.exact, round_trip_s=way_s):
                    clear = self._protocol.clear()
                    self.figures.cleared += 1
                    if clear is not None:
                        await self._connection.send(clear)

    def _hear(self, sound: Sound, now_s: float) -> None:
        assert self._pace is not None
        count = len(sound.samples)
        seconds = count / self._rate
        if not self._seconds.take(seconds, now_s):
            raise BridgeError(f"sound comes more than {self._limits.speed:g} times as fast as it is spoken")
        self._pace.heard(seconds, now_s, sound.end_s)
        self.figures.heard_s += seconds
        self._waiting.append(sound.samples)
        self._waiting_samples += count
        while self._waiting_samples > MAX_VOICE_AGE_S * self._rate and len(self._waiting) > 1:
            late = len(self._waiting.popleft())
            self._waiting_samples -= late
            self.figures.dropped_s += late / self._rate
        self._said.set()

    # -- to the room, and from it ---------------------------------------------------------------------------

    async def _speak(self, client: ThreadedVoiceClient, line: PhoneLine) -> str:
        while True:
            await self._said.wait()
            self._said.clear()
            samples = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.float32)
            self._waiting.clear()
            self._waiting_samples = 0
            if len(samples):
                await self._compute(_say, client, line, samples)

    async def _play(self, client: ThreadedVoiceClient, line: PhoneLine) -> str:
        pace, protocol = self._pace, self._protocol
        assert pace is not None
        frame_samples = round(self._rate * protocol.frame_ms / 1000)
        probe_at_s = self._clock() + _PROBE_S
        while True:
            now_s = self._clock()
            await asyncio.sleep(pace.wait_s(now_s))
            now_s = self._clock()
            if now_s - self._heard_at_s > self._limits.silent_s:
                raise BridgeError(f"nothing came from the telephone for {self._limits.silent_s:g} s")
            due = pace.take(now_s)
            next_s = now_s + pace.wait_s(now_s)
            for number in range(due, 0, -1):
                # When it is due here, not when it is played there: what comes into the room by then is not in it.
                due_s = next_s - number * protocol.frame_ms / 1000
                heard = await self._compute(_listen, client, line, frame_samples, due_s)
                if self._connection.unsent_bytes > _MOST_UNSENT_BYTES:
                    self.figures.dropped_s += frame_samples / self._rate
                    continue
                await self._connection.send(protocol.sound(heard))
                self.figures.sent_s += frame_samples / self._rate
            if now_s >= probe_at_s:
                probe_at_s = now_s + _PROBE_S
                probe = protocol.probe()
                if probe is not None and self._connection.unsent_bytes < _MOST_UNSENT_BYTES:
                    await self._connection.send(probe)
                    await self._connection.measure()

    async def _compute(self, work: Callable[..., Result], *arguments: object) -> Result:
        if self._pool is None:
            return work(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)


def _say(client: ThreadedVoiceClient, line: PhoneLine, samples: Pcm) -> None:
    client.send(line.to_room(samples))


def _listen(client: ThreadedVoiceClient, line: PhoneLine, count: int, due_s: float) -> Pcm:
    return line.to_phone(client.read(line.wanted(count), due_s), count)
