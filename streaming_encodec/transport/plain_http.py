"""Files over HTTP/1.1 on the port of the WebSocket: whole at any speed, in small pieces, a turn of the loop for each.

websockets answers plain requests too, but within the time for its handshake: a big file would be cut off. So a
connection begins here, and goes to the WebSocket layer with its first request that is not for a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from streaming_encodec.transport.base import Host, HttpFile, ServerConnection
from streaming_encodec.transport.limits import ServerLimits

_HEAD_BYTES = 8192
"""Longest request for a file. Longer ones are the WebSocket layer's business, as are all that are unusual."""
_PIECE_BYTES = 16_384
_UNSENT_BYTES = 65_536
"""What waits in the transport, and (TCP_NOTSENT_LOWAT) in the kernel, so that progress is seen on slow networks."""
_STALL_S = 30.0
"""A reader that takes less than `_UNSENT_BYTES` in so long is cut off."""
_IDLE_S = 15.0
"""A connection that asks for nothing more is closed: a browser has asked for all files of a page by then."""
_PACE_S = 0.02

_TCP_NOTSENT_LOWAT = {"linux": 25, "darwin": 0x201}.get(sys.platform)
_REQUEST = re.compile(rb"(GET|HEAD) (/[!-~]*) HTTP/1\.1\Z")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*?)[ \t]*\Z")
_NO_WEIGHT = re.compile(rb"[ \t]*q=0(\.0*)?[ \t]*\Z", re.IGNORECASE)
_NOT_PLAIN = (b"upgrade", b"content-length", b"transfer-encoding", b"expect")


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A request that asks for something and wants no WebSocket."""

    method: str
    path: str
    """Without the query."""
    etags: tuple[str, ...]
    """What the client has (If-None-Match)."""
    keeps: bool
    """Whether another request may follow on the same connection."""
    takes_gzip: bool = False
    """Whether the answer may be compressed (Accept-Encoding)."""


def read_request(head: bytes) -> PlainRequest | None:
    """Read a request's head, up to its empty line; None for one that is for the WebSocket layer to judge."""
    first, *lines = head.split(b"\r\n")
    asked = _REQUEST.match(first)
    if asked is None:
        return None
    fields: dict[bytes, bytes] = {}
    for line in lines:
        field = _FIELD.match(line)
        if field is None:
            return None
        name = field[1].lower()
        if name in _NOT_PLAIN or (name in fields and name in (b"host", b"connection", b"if-none-match")):
            return None
        fields[name] = field[2]
    if b"host" not in fields:
        return None
    options = {option.strip().lower() for option in fields.get(b"connection", b"").split(b",")}
    etags = fields.get(b"if-none-match", b"").decode("latin-1").split(",")
    return PlainRequest(
        method=asked[1].decode(),
        path=asked[2].partition(b"?")[0].decode(),
        etags=tuple(etag.strip().removeprefix("W/") for etag in etags),
        keeps=b"close" not in options,
        takes_gzip=_takes_gzip(fields.get(b"accept-encoding", b"")),
    )


def _takes_gzip(accepted: bytes) -> bool:
    for coding in accepted.split(b","):
        name, _, weight = coding.partition(b";")
        if name.strip().lower() == b"gzip":
            return _NO_WEIGHT.match(weight) is None
    return False


def response_head(request: PlainRequest, file: HttpFile) -> tuple[bytes, bytes | memoryview]:
    """The head of the answer, and its body: none of it for HEAD, and where the client has the file already."""
    if request.takes_gzip and file.gzipped is not None:
        file = file.gzipped
    known = file.status is HTTPStatus.OK and (file.etag in request.etags or "*" in request.etags)
    status = HTTPStatus.NOT_MODIFIED if known else file.status
    fields = [*file.headers]
    if file.etag:
        fields.append(("ETag", file.etag))
    if not known:
        fields.append(("Content-Length", str(len(file.body))))
    if not request.keeps:
        fields.append(("Connection", "close"))
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1"), b"" if known or request.method == "HEAD" else file.body


class PlainHttp:
    """The requests for files on one connection, one after the other.

    turn: called once, with what was received of a request that is not for a file; nothing may be called afterwards.
    answered: called after each answer.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        host: Host,
        connection: ServerConnection,
        limits: ServerLimits,
        *,
        turn: Callable[[bytes], None],
        answered: Callable[[], None],
    ) -> None:
        self._transport, self._host, self._connection = transport, host, connection
        self._turn, self._answered = turn, answered
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        self._sending: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._timer = self._loop.call_later(limits.hello_s, transport.abort)
        self.over = False
        """Whether the connection is the WebSocket layer's, or has ended."""

    def received(self, data: bytes) -> None:
        """Take in what the client sends."""
        self._received += data
        if self._sending is not None:
            if len(self._received) > _HEAD_BYTES:
                self._transport.pause_reading()  # requests that follow before the answer was sent
            return
        self._read_on()

    def pause_writing(self) -> None:
        """The transport is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The transport has room again."""
        self._writable.set()

    def lost(self) -> None:
        """The connection has ended."""
        self.over = True
        self._timer.cancel()
        if self._sending is not None:
            self._sending.cancel()

    def _read_on(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0 and len(self._received) <= _HEAD_BYTES:
            return
        request = read_request(bytes(self._received[: max(0, end)])) if end <= _HEAD_BYTES else None
        file = None if request is None else self._host.file(self._connection, request.path)
        self._timer.cancel()
        if request is None or file is None:
            self.over = True
            self._turn(bytes(self._received))
            return
        del self._received[: end + 4]
        self._sending = self._loop.create_task(self._answer(request, file))

    async def _answer(self, request: PlainRequest, file: HttpFile) -> None:
        self._transport.set_write_buffer_limits(_UNSENT_BYTES, _UNSENT_BYTES // 4)
        _limit_unsent(self._transport)
        head, body = response_head(request, file)
        with self._host.reader(self._connection) as pace:
            view = memoryview(body)
            for at in range(0, max(1, len(body)), _PIECE_BYTES):
                piece = view[at : at + _PIECE_BYTES]
                while not pace(len(piece)):
                    await asyncio.sleep(_PACE_S)
                if not await self._has_room():
                    return
                self._transport.write(head + bytes(piece))
                head = b""
                await asyncio.sleep(0)  # voice goes on between two pieces
            self._transport.set_write_buffer_limits(0)
            if not await self._has_room():
                return
        self._sending = None
        if not request.keeps:
            self._timer = self._loop.call_later(_STALL_S, self._transport.abort)
            self._transport.close()
            return
        self._answered()
        self._timer = self._loop.call_later(_IDLE_S, self._transport.close)
        self._transport.resume_reading()
        self._read_on()

    async def _has_room(self) -> bool:
        """Wait until the client has taken what is too much; cut it off where it takes nothing."""
        try:
            async with asyncio.timeout(_STALL_S):
                await self._writable.wait()
        except TimeoutError:
            self._transport.abort()
        return not self._transport.is_closing()


def _limit_unsent(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and _TCP_NOTSENT_LOWAT is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
