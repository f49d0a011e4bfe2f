"""A telephone's connection: messages of a WebSocket, or pieces of a TCP stream."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from streaming_encodec.bridges.protocol import Message
from streaming_encodec.errors import BridgeError

_CLOSE_S = 2.0
_READ_BYTES = 4096


class HungUp(Exception):
    """The connection has ended."""


class PhoneConnection(Protocol):
    """What a call needs of a connection."""

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for the telephone to read."""

    @property
    def round_trip_s(self) -> float | None:
        """What a message took there and back, by the last answer to `measure`; None where that is not known."""

    async def measure(self) -> None:
        """Begin to measure the round trip."""

    async def receive(self) -> Message:
        """The next message, or piece. Raises HungUp at the end, BridgeError for what is no WebSocket's."""

    async def send(self, data: Message) -> None:
        """Send, or raise HungUp."""

    async def close(self, reason: str) -> None:
        """End the connection; one that does not answer is cut off."""


class WebSocketPhone:
    """A WebSocket."""

    def __init__(self, socket: ServerConnection) -> None:
        self._socket = socket

    @property
    def unsent_bytes(self) -> int:
        """See `PhoneConnection`."""
        return self._socket.transport.get_write_buffer_size()

    @property
    def round_trip_s(self) -> float | None:
        """See `PhoneConnection`."""
        return self._socket.latency or None  # 0 before the first answer

    async def measure(self) -> None:
        """See `PhoneConnection`. A ping; websockets notes when it is answered."""
        with contextlib.suppress(ConnectionClosed):
            await self._socket.ping()

    async def receive(self) -> Message:
        """See `PhoneConnection`."""
        try:
            return await self._socket.recv()
        except ConnectionClosed as closed:
            said = closed.sent
            if said is not None and not closed.rcvd_then_sent and said.code in (1002, 1007, 1009):
                raise BridgeError(f"its WebSocket is broken: {said.reason or said.code}") from closed
            raise HungUp("the connection ended") from closed

    async def send(self, data: Message) -> None:
        """See `PhoneConnection`."""
        try:
            await self._socket.send(data)
        except ConnectionClosed as closed:
            raise HungUp("the connection ended") from closed

    async def close(self, reason: str) -> None:
        """See `PhoneConnection`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close(1000, reason.encode()[:120].decode(errors="ignore"))
        self._socket.transport.abort()


class TcpPhone:
    """A TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @property
    def unsent_bytes(self) -> int:
        """See `PhoneConnection`."""
        return self._writer.transport.get_write_buffer_size()

    @property
    def round_trip_s(self) -> float | None:
        """TCP tells nobody."""
        return None

    async def measure(self) -> None:
        """Nothing to ask."""

    async def receive(self) -> bytes:
        """See `PhoneConnection`."""
        try:
            data = await self._reader.read(_READ_BYTES)
        except OSError as error:
            raise HungUp("the connection was lost") from error
        if not data:
            raise HungUp("the connection ended")
        return data

    async def send(self, data: Message) -> None:
        """See `PhoneConnection`."""
        assert isinstance(data, bytes)
        if self._writer.transport.is_closing():
            raise HungUp("the connection ended")
        self._writer.write(data)

    async def close(self, reason: str) -> None:
        """See `PhoneConnection`."""
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                self._writer.close()
                await self._writer.wait_closed()
        self._writer.transport.abort()
