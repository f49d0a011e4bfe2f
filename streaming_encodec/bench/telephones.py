"""Telephone systems for measuring a bridge: each speaks as its protocol's documents say, at its own clock's pace."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from streaming_encodec.bridges.audiosocket import RATES, frame
from streaming_encodec.bridges.protocol import Encoding, Message
from streaming_encodec.types import Pcm

FRAME_MS = 20
_PIECE_S = 5.0
_SPAN_S = 2.0


class Ear:
    """What came to one end of a call, and when.

    rate: of its sound, Hz. clock: its own, in seconds; sound is played by it.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock = rate, clock
        self.arrivals_s: list[float] = []
        """When each piece of sound came, by its clock."""
        self.cleared_s: list[float] = []
        """When it was told to forget what waits to be played."""
        self._heard: list[Pcm] = []

    @property
    def heard(self) -> Pcm:
        """All sound that came, [n]."""
        return np.concatenate(self._heard) if self._heard else np.zeros(0, np.float32)

    def came(self, samples: Pcm) -> None:
        """A piece of sound, [n], came just now."""
        self.arrivals_s.append(self._clock())
        self._heard.append(samples)

    def forget(self) -> None:
        """What waits is not played."""
        self.cleared_s.append(self._clock())

    def delay_ms(self, said: Pcm, begin_s: float, from_s: float, seconds: float) -> float:
        """From speaking to playing, without a buffer here beyond what was sent ahead, of what was said in this time.

        said: all of it, [n] at this rate, from `begin_s` on this clock on.

        By the place where what was heard is most like what was said.
        """
        at, count = round(from_s * self.rate), round(seconds * self.rate)
        plays_s = self._plays_s()
        first = int(np.searchsorted(plays_s, begin_s + from_s))
        began = np.cumsum([0, *(len(piece) for piece in self._heard)])
        heard = self.heard[began[first] : began[first] + count + self.rate]
        lag = best_lag(said[at : at + count], heard, self.rate)
        return 1000 * (float(plays_s[first]) - begin_s - from_s + lag / self.rate)

    def delays_ms(self, said: Pcm, begin_s: float, from_s: float, to_s: float) -> list[float]:
        """`delay_ms` of each piece of two seconds."""
        return [self.delay_ms(said, begin_s, at_s, _SPAN_S) for at_s in np.arange(from_s, to_s - _SPAN_S, _SPAN_S)]

    def stock_ms(self, from_s: float, to_s: float) -> tuple[float, float]:
        """The least and the most sound that waited to be played when more came, in this time since the first."""
        at_s = np.array(self.arrivals_s)
        waits_s = (self._plays_s() - at_s)[(at_s >= at_s[0] + from_s) & (at_s < at_s[0] + to_s)]
        return 1000 * float(waits_s.min()), 1000 * float(waits_s.max())

    def median_stock_ms(self) -> float:
        """How much waited to be played when more came, as a rule."""
        return 1000 * float(np.median(self._plays_s() - np.array(self.arrivals_s)))

    def missing_s(self, from_s: float, to_s: float) -> float:
        """How long nothing was there to be played, in this time since the first sound."""
        plays_s = self._plays_s()
        ends_s = plays_s + np.array([len(piece) for piece in self._heard]) / self.rate
        gaps_s = np.maximum(0.0, plays_s[1:] - ends_s[:-1])
        since_s = plays_s[1:] - plays_s[0]
        return float(gaps_s[(since_s >= from_s) & (since_s < to_s)].sum())

    def stoi(self, said: Pcm, begin_s: float, from_s: float, seconds: float) -> float:
        """How well what came is understood, against what was said from then on, by pieces of five seconds: their
        median. said, begin_s: see `delay_ms`.

        Raises:
            MissingExtraError: pystoi is missing.
        """
        from streaming_encodec.evaluation.extras import need

        measure, rate = need("pystoi", "STOI").stoi, self.rate
        plays_s, whole = self._plays_s(), self.heard
        began = np.cumsum([0, *(len(piece) for piece in self._heard)])
        found = []
        for at_s in np.arange(from_s, from_s + seconds - _PIECE_S + 0.001, _PIECE_S):
            piece = said[round(at_s * rate) :][: round(_PIECE_S * rate)]
            first = int(began[np.searchsorted(plays_s, begin_s + at_s)])
            heard = whole[first : first + len(piece) + rate]
            lag = max(0, best_lag(piece, heard, rate))
            heard = heard[lag : lag + len(piece)]
            found.append(float(measure(piece[: len(heard)], heard, rate)))
        return float(np.median(found))

    def _plays_s(self) -> NDArray[np.float64]:
        """When each piece of sound is played: at once, or when what came before it is over."""
        plays_s, end_s = np.zeros(len(self._heard)), -math.inf
        cleared_s = list(reversed(self.cleared_s))
        for number, (at_s, piece) in enumerate(zip(self.arrivals_s, self._heard, strict=True)):
            while cleared_s and cleared_s[-1] <= at_s:
                end_s = min(end_s, cleared_s.pop())
            plays_s[number] = max(at_s, end_s)
            end_s = plays_s[number] + len(piece) / self.rate
        return plays_s


class Telephone(Ear, ABC):
    """A call that says `said` [n] at `encoding.rate`, then hangs up.

    clock: its own, in seconds; sound is said and played by it.
    """

    def __init__(self, said: Pcm, encoding: Encoding, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(encoding.rate, clock)
        self.said, self.encoding = said, encoding
        self.begin_s = 0.0
        """When the first frame began to be spoken, by its clock."""
        self.control: list[str] = []
        """What it was told besides sound."""
        self.enough = False
        """Set it to have the caller hang up before all is said."""

    async def call(self, address: str) -> None:
        """The whole call."""
        await self._dial(address)
        hearing = asyncio.create_task(self._hear())
        try:
            await self._begin()
            count = self.encoding.rate * FRAME_MS // 1000
            begin_s = self.begin_s = self._clock()
            for number in range(len(self.said) // count):
                # A frame can be sent when its last sample is spoken.
                await asyncio.sleep(max(0.0, begin_s + (number + 1) * FRAME_MS / 1000 - self._clock()))
                if hearing.done() or self.enough:
                    break
                await self._say(self.said[number * count : (number + 1) * count])
            await self._end()
        except (ConnectionClosed, ConnectionError):
            pass
        finally:
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
            await self._close()

    @abstractmethod
    async def _dial(self, address: str) -> None: ...
    @abstractmethod
    async def _begin(self) -> None: ...
    @abstractmethod
    async def _say(self, samples: Pcm) -> None: ...
    @abstractmethod
    async def _hear(self) -> None: ...
    @abstractmethod
    async def _end(self) -> None: ...
    @abstractmethod
    async def _close(self) -> None: ...


class AudioSocketTelephone(Telephone):
    """Asterisk's `AudioSocket()`, or its channel driver at another rate."""

    async def _dial(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._reader, self._writer = await asyncio.open_connection(host, int(port))
        self._kind = next(kind for kind, rate in RATES.items() if rate == self.encoding.rate)

    async def _begin(self) -> None:
        self._writer.write(frame(0x01, uuid.uuid4().bytes))

    async def _say(self, samples: Pcm) -> None:
        self._writer.write(frame(self._kind, self.encoding.encode(samples)))
        await self._writer.drain()

    async def _hear(self) -> None:
        while True:
            try:
                head = await self._reader.readexactly(3)
                data = await self._reader.readexactly(int.from_bytes(head[1:], "big"))
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            if head[0] == 0x00:
                self.control.append("end")
                return
            assert head[0] == self._kind, "Asterisk takes sound of the type that it sends"
            self.came(self.encoding.decode(data))

    async def _end(self) -> None:
        self._writer.write(frame(0x00))

    async def _close(self) -> None:
        self._writer.close()


class _WebSocketTelephone(Telephone):
    subprotocols: tuple[str, ...] = ()

    async def _dial(self, address: str) -> None:
        self._socket: ClientConnection = await connect(
            address,
            compression=None,
            proxy=None,
            max_queue=None,
            close_timeout=2,
            subprotocols=[Subprotocol(name) for name in self.subprotocols] or None,
        )

    async def _hear(self) -> None:
        while True:
            try:
                self._take(await self._socket.recv())
            except ConnectionClosed:
                return

    @abstractmethod
    def _take(self, data: Message) -> None: ...

    async def _close(self) -> None:
        await self._socket.close()


class TwilioTelephone(_WebSocketTelephone):
    """A bidirectional media stream of Twilio's, whose marks come back when all before them was played."""

    stream = "MZ" + "0" * 32

    def __init__(self, said: Pcm, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(said, Encoding("ulaw", 8000), clock)
        self._plays_until_s = 0.0
        self._sent = 0
        self._answers: set[asyncio.Task[None]] = set()

    async def _begin(self) -> None:
        await self._socket.send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        start: dict[str, Any] = {"streamSid": self.stream, "callSid": "CA" + uuid.uuid4().hex, "tracks": ["inbound"]}
        start |= {"customParameters": {"room": "tea"}, "mediaFormat": form}
        await self._socket.send(json.dumps({"event": "start", "streamSid": self.stream, "start": start}))

    async def _say(self, samples: Pcm) -> None:
        payload = base64.b64encode(self.encoding.encode(samples)).decode()
        media = {"track": "inbound", "chunk": str(self._sent + 1), "timestamp": str(self._sent * FRAME_MS)}
        self._sent += 1
        media["payload"] = payload
        await self._socket.send(json.dumps({"event": "media", "streamSid": self.stream, "media": media}))

    def _take(self, data: Message) -> None:
        message = json.loads(data)
        assert message["streamSid"] == self.stream
        if message["event"] == "media":
            samples = self.encoding.decode(base64.b64decode(message["media"]["payload"]))
            self._plays_until_s = max(self._plays_until_s, self._clock()) + len(samples) / 8000
            self.came(samples)
            return
        self.control.append(message["event"])
        if message["event"] == "clear":
            self.forget()
            self._plays_until_s = self._clock()
        elif message["event"] == "mark":
            answer = asyncio.create_task(self._played(message, self._plays_until_s))
            self._answers.add(answer)
            answer.add_done_callback(self._answers.discard)

    async def _played(self, message: object, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self._clock()))
        try:
            await self._socket.send(json.dumps(message))
        except ConnectionClosed:
            return

    async def _end(self) -> None:
        await self._socket.send(json.dumps({"event": "stop", "streamSid": self.stream, "stop": {}}))


class AsteriskTelephone(_WebSocketTelephone):
    """Asterisk's chan_websocket with the application as server: it plays a frame each 20 ms out of its queue."""

    def __init__(
        self,
        said: Pcm,
        encoding: Encoding,
        clock: Callable[[], float] = time.monotonic,
        *,
        name: str = "ulaw",
        in_json: bool = False,
    ) -> None:
        super().__init__(said, encoding, clock)
        self._name, self._json = name, in_json
        self._frame_bytes = encoding.rate * FRAME_MS // 1000 * encoding.sample_bytes
        self._queued = 0
        self._played_s = 0.0
        self.queue_lengths: list[int] = []
        """By each `GET_STATUS`."""
        self.empty = 0
        """Times that a frame was due and none was there, after the first."""

    subprotocols = ("media",)

    async def _begin(self) -> None:
        start = {"connection_id": "media_connection1", "channel": "WebSocket/media_connection1/0x1"}
        start |= {"channel_id": f"1761245643.{uuid.uuid4().hex[:6]}", "format": self._name}
        numbers = {"optimal_frame_size": self._frame_bytes, "ptime": FRAME_MS}
        if self._json:
            await self._socket.send(json.dumps({"event": "MEDIA_START", **start, **numbers, "channel_variables": {}}))
        else:
            fields = " ".join(f"{key}:{value}" for key, value in (start | numbers).items())
            await self._socket.send(f"MEDIA_START {fields}")

    async def _say(self, samples: Pcm) -> None:
        await self._socket.send(self.encoding.encode(samples))

    def _play(self) -> None:
        """What its timer has taken out of the queue until now."""
        now_s = self._clock()
        if not self._played_s:
            self._played_s = now_s
        while now_s - self._played_s >= FRAME_MS / 1000:
            self._played_s += FRAME_MS / 1000
            if self._queued:
                self._queued -= 1
            else:
                self.empty += 1

    def _take(self, data: Message) -> None:
        if isinstance(data, bytes):
            assert len(data) % self._frame_bytes == 0, "what fills no frame is dropped there"
            self._play()
            self._queued += len(data) // self._frame_bytes
            self.came(self.encoding.decode(data))
            return
        command = json.loads(data)["command"] if self._json else data
        self.control.append(command)
        if command == "GET_STATUS":
            self._play()
            self.queue_lengths.append(self._queued)
            if self._json:
                answer = json.dumps({"event": "STATUS", "channel_id": "1", "queue_length": self._queued})
            else:
                answer = f"STATUS channel_id:1 queue_length:{self._queued} xon_level:800 xoff_level:900"
            self._answering = asyncio.create_task(self._socket.send(answer))
        elif command == "FLUSH_MEDIA":
            self.forget()
            self._queued = 0

    async def _end(self) -> None:
        """Asterisk closes the connection."""


def make_telephone(kind: str, said: Pcm, clock: Callable[[], float] = time.monotonic) -> Telephone:
    """A telephone of this kind of bridge, at 8 kHz."""
    if kind == "audiosocket":
        return AudioSocketTelephone(said, Encoding("slin", 8000), clock)
    if kind == "asterisk-ws":
        return AsteriskTelephone(said, Encoding("ulaw", 8000), clock)
    return TwilioTelephone(said, clock)


def best_lag(said: Pcm, heard: Pcm, rate: int) -> int:
    """By how many samples `heard` is later than `said`, by the correlation of the sound itself; 1 s at most."""
    size = 1 << (len(said) + len(heard)).bit_length()
    spectrum = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size))
    likeness = np.fft.irfft(spectrum, size)
    span = np.concatenate([likeness[-rate:], likeness[:rate]])
    return int(np.argmax(span)) - rate
