"""A WebSocket client of bare bytes: it sends what it is given, and need not answer, read, or end anything."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from relay_kit import FORMAT
from websockets.frames import Frame, Opcode

from streaming_encodec.relay.relay import Relay
from streaming_encodec.transport.addresses import SUBPROTOCOL
from streaming_encodec.wire.control import serialize_control
from streaming_encodec.wire.hello import Hello

UPGRADE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
).encode()
PING = b"\x89\x80\0\0\0\0"
PONG = b"\x8a\x80\0\0\0\0"
FIRST_FRAGMENT = b"\x01\x80\0\0\0\0"
FRAGMENT = b"\x00\x80\0\0\0\0"


def text(message: str) -> bytes:
    """A text message in one frame."""
    return Frame(Opcode.TEXT, message.encode()).serialize(mask=True)


def binary(packet: bytes) -> bytes:
    """A voice packet in one frame."""
    return Frame(Opcode.BINARY, packet).serialize(mask=True)


def hello(role: str = "subscribe", room: str = "r") -> bytes:
    """A hello in one frame."""
    return text(serialize_control(Hello(room, role, FORMAT)))


class RawClient:
    """The two ends of a stream, and the frames in what was read."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def upgrade(self) -> None:
        """Make it a WebSocket."""
        self.write(UPGRADE)
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 101"), head

    async def frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame of the relay."""
        first, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self.reader.readexactly(2))
        return first & 15, await self.reader.readexactly(size)

    async def take_seat(self, role: str = "subscribe", room: str = "r") -> None:
        """Say hello and read the welcome."""
        self.write(hello(role, room))
        opcode, _ = await asyncio.wait_for(self.frame(), 10)
        assert opcode == Opcode.TEXT

    async def until_closed(self) -> tuple[int | None, int]:
        """Read on; returns the code of the close frame, None without one, and the number of pongs before."""
        pongs = 0
        with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            while True:
                opcode, payload = await asyncio.wait_for(self.frame(), 30)
                pongs += opcode == Opcode.PONG
                if opcode == Opcode.CLOSE:
                    return int.from_bytes(payload[:2], "big"), pongs
        return None, pongs

    async def until_end(self) -> bytes:
        """All that comes until the relay ends the connection."""
        data = b""
        with suppress(ConnectionError, ssl.SSLError):
            while piece := await asyncio.wait_for(self.reader.read(65_536), 30):
                data += piece
        return data


@asynccontextmanager
async def raw(relay: Relay, context: ssl.SSLContext | None = None) -> AsyncIterator[RawClient]:
    """A connection that has said nothing."""
    reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, ssl=context)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
