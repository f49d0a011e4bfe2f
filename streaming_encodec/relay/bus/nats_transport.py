"""nats-py's connection to a server's port, for voice and secrets."""

from __future__ import annotations

import contextlib
import socket
import ssl
from urllib.parse import ParseResult

import nats.errors
from nats.aio.transport import TcpTransport

from streaming_encodec.transport.limits import UNSENT_LIMIT_BYTES


class NatsTransport(TcpTransport):
    """nats-py's transport with three differences: the kernel keeps little, closing never waits, and nothing secret
    goes out without TLS where TLS is wanted. (nats-py uses TLS only if the server, or who pretends to be it, asks.)
    """

    def __init__(self, must_be_secure: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._must_be_secure = must_be_secure
        self._secure = False

    def __bool__(self) -> bool:
        return True  # else nats-py replaces it by its own before it is connected

    @property
    def unsent_bytes(self) -> int:
        """What the system has not taken yet."""
        return 0 if self._io_writer is None else self._io_writer.transport.get_write_buffer_size()

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        await super().connect(uri, buffer_size, connect_timeout)
        assert self._io_writer is not None  # just made
        sock = self._io_writer.get_extra_info("socket")
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT_LIMIT_BYTES)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        self._secure = True

    def write(self, payload: bytes) -> None:
        if self._must_be_secure and not self._secure:
            raise nats.errors.SecureConnWantedError
        if self._io_writer is not None and not self._io_writer.transport.is_closing():
            self._io_writer.write(payload)

    def close(self) -> None:
        if self._io_writer is not None:
            self._io_writer.transport.abort()
