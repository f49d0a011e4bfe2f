"""Clients with little cost, for measuring a relay: a proper handshake, then bare frames."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import Self

import numpy as np
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.wire.control import Bye, parse_control, serialize_control
from streaming_encodec.wire.hello import Hello, Welcome
from streaming_encodec.wire.packet import Packet, StreamFormat, serialize_packet

# When each packet was written, by room and sequence number: filled by speakers, read by listeners.
_SENT_S: dict[tuple[str, int], float] = {}


class _Bare(asyncio.Protocol):
    """After the handshake: `arrived` gets the opcode and payload of each frame of the relay."""

    def __init__(self, port: int, hello: Hello) -> None:
        uri = parse_uri(f"ws://127.0.0.1:{port}/")
        self._handshake: ClientProtocol | None = ClientProtocol(uri, subprotocols=[Subprotocol(SUBPROTOCOL)])
        self._hello = hello
        self._unread = b""
        self.welcomed: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # of a TCP socket
        assert self._handshake is not None  # until it is done
        self.transport = transport
        self._handshake.send_request(self._handshake.connect())
        self._flush()

    def data_received(self, data: bytes) -> None:
        if self._handshake is not None:
            self._handshake.receive_data(data)
            if any(isinstance(event, Response) for event in self._handshake.events_received()):
                self._handshake.send_text(serialize_control(self._hello).encode())
                self._flush()
                self._handshake = None
            return
        data = self._unread + data
        at = 0
        while len(data) - at >= 2:
            size, head = data[at + 1], 2
            if size == 126:
                if len(data) - at < 4:
                    break
                (size,), head = struct.unpack_from("!H", data, at + 2), 4
            if len(data) - at < head + size:
                break
            self.arrived(data[at] & 15, data[at + head : at + head + size])
            at += head + size
        self._unread = data[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.welcomed.done():
            self.welcomed.set_exception(
                CallError("the relay closed the connection at once", CallErrorReason.RELAY_ENDED)
            )

    def arrived(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.PING:
            self.transport.write(Frame(Opcode.PONG, payload).serialize(mask=True))
        elif opcode == Opcode.TEXT and not self.welcomed.done():
            self.welcomed.set_result(payload)

    def write(self, opcode: Opcode, payload: bytes) -> None:
        """One frame."""
        self.transport.write(Frame(opcode, payload).serialize(mask=True))

    def close(self) -> None:
        """Cut the connection."""
        self.transport.abort()

    def _flush(self) -> None:
        assert self._handshake is not None  # called only before it is done
        for data in self._handshake.data_to_send():
            if data:
                self.transport.write(data)

    @classmethod
    async def _join(cls, port: int, hello: Hello) -> Self:
        loop = asyncio.get_running_loop()
        _, self = await loop.create_connection(lambda: cls(port, hello), "127.0.0.1", port)
        await self.welcomed
        return self


class BareListener(_Bare):
    """Notes how long each packet took."""

    def __init__(self, port: int, hello: Hello) -> None:
        super().__init__(port, hello)
        self.latencies: list[float] = []

    def arrived(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.BINARY:
            self.heard(payload)
            return
        super().arrived(opcode, payload)

    def heard(self, packet: bytes) -> None:
        """A packet came."""
        now_s = time.perf_counter()
        sender, sequence = struct.unpack_from("<HH", packet, 4)
        sent_s = _SENT_S.get((f"{self._hello.room}/{sender}", sequence))
        if sent_s is not None:
            self.latencies.append(now_s - sent_s)

    @classmethod
    async def join(cls, port: int, room: str, stream_format: StreamFormat, *, stalled: bool = False) -> Self:
        """Take a seat; a stalled listener reads nothing from then on."""
        self = await cls._join(port, Hello(room, "subscribe", stream_format))
        if stalled:
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            self.transport.pause_reading()
        return self


class BareSpeaker(_Bare):
    """Sends packets and notes when."""

    def __init__(self, port: int, hello: Hello) -> None:
        super().__init__(port, hello)
        self._number = 0

    def arrived(self, opcode: int, payload: bytes) -> None:
        if opcode == Opcode.TEXT and not self.welcomed.done():
            welcome = parse_control(payload)
            assert isinstance(welcome, Welcome)  # what a relay says first
            self._number = welcome.sender
        super().arrived(opcode, payload)

    def send(self, packet: bytes) -> None:
        """Write a packet now."""
        (sequence,) = struct.unpack_from("<H", packet, 6)
        _SENT_S[f"{self._hello.room}/{self._number}", sequence] = time.perf_counter()
        self.write(Opcode.BINARY, packet)

    @classmethod
    async def join(cls, port: int, room: str, stream_format: StreamFormat) -> Self:
        """Take a seat."""
        return await cls._join(port, Hello(room, "publish", stream_format))


async def churn_once(port: int, room: str, stream_format: StreamFormat, *, clean: bool) -> None:
    """Join, send three frames, and leave: with `bye`, or by cutting the connection."""
    client = await BareSpeaker._join(port, Hello(room, "publish" if clean else "subscribe", stream_format))
    if clean:
        for sequence in range(3):
            client.write(Opcode.BINARY, serialize_packet(Packet(sequence, sequence, codes=np.zeros((2, 1), np.int64))))
        client.write(Opcode.TEXT, serialize_control(Bye("done")).encode())
        await asyncio.sleep(0.01)
    client.close()
