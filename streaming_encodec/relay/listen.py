"""Listening sockets that count connections when the kernel hands them over, before TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from streaming_encodec.relay.limits import RelayLimits
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.transport.addresses import address_group
from streaming_encodec.transport.limits import READ_BYTES, RECEIVE_BYTES, UNANSWERED_CONNECTIONS, Bucket
from streaming_encodec.transport.logs import event

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_MANY_ADDRESSES = 1024
_RAW = 2.0  # bytes below TLS for each byte that a participant may send: the overhead of records of small packets
# This process, or the system as a whole, can open no more.
_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


@dataclass(slots=True)
class _Address:
    openings: Bucket
    open: int = 0


class ConnectionCaps:
    """The caps beyond which a connection is not answered, over all listening sockets.

    asyncio reports a connection after its TLS handshake, so a client that never starts one could hold all descriptors.
    This counts where asyncio accepts through the socket object: everywhere but on Windows, where `Admission` counts
    after the handshake. It caps the open connections, in all and of one address, and how often one address opens new
    ones: an address may replace all of its connections once a second.
    """

    def __init__(self, limits: RelayLimits, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._most = limits.max_connections + UNANSWERED_CONNECTIONS
        self._most_of_address = limits.max_connections_per_address + UNANSWERED_CONNECTIONS
        self._openings_per_s = limits.max_connections_per_address
        self._bytes_per_s = _RAW * limits.bytes_per_s
        self._metrics = metrics
        self._clock = clock
        self._addresses: dict[str, _Address] = {}
        self._sweep_at = _MANY_ADDRESSES
        self._refused: dict[str, tuple[int, str]] = {}  # by reason: how many, and the last address
        self.open = 0
        """Connections that are open now."""

    async def listen(self, host: str, port: int) -> list[socket.socket]:
        """A socket bound to each address of `host` ("" is every one), as asyncio does it. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        sockets: list[socket.socket] = []
        try:
            for family, _, _, _, address in dict.fromkeys(found):
                try:
                    sockets.append(_Listening(self, family))
                except OSError:  # a name has IPv6 addresses also where the system has no IPv6
                    continue
                sockets[-1].bind(address)
        except OSError:
            for sock in sockets:
                sock.close()
            raise
        if not sockets:
            raise OSError("no address of that name can be listened on")
        return sockets

    def admit(self, address: str) -> Callable[[], None] | None:
        """Count a connection; returns a function to call when it has ended, None if there are too many."""
        group = address_group(address)
        now_s = self._clock()
        known = self._addresses.get(group)
        if known is None:
            if len(self._addresses) >= self._sweep_at:
                self._sweep(now_s)
            openings = Bucket(self._openings_per_s, 2 * self._most_of_address, now_s)
            known = self._addresses[group] = _Address(openings)
        if self.open >= self._most or known.open >= self._most_of_address or not known.openings.take(1, now_s):
            self.refused("too many connections", address)
            return None
        known.open += 1
        self.open += 1
        return partial(self._gone, known)

    def reading(self) -> Callable[[int], None]:
        """A function to call with the size of each piece that is read from one connection.

        It raises ConnectionResetError, which asyncio takes for the other end's doing, where there is too much.
        """
        bucket = Bucket(self._bytes_per_s, 8 * self._bytes_per_s, self._clock())

        def count(size: int) -> None:
            if not bucket.take(size, self._clock()):
                raise ConnectionResetError("more bytes than allowed")

        return count

    def refused(self, reason: str, address: str) -> None:
        """Note that a connection was cut off unanswered."""
        self._metrics.counts["cut_off"] += 1
        count, _ = self._refused.get(reason, (0, ""))
        self._refused[reason] = (count + 1, address)

    def log_refused(self) -> None:
        """Log what was refused since the last call: logging each one would cost more than refusing it."""
        for reason, (count, address) in self._refused.items():
            event("cut_off", logging.WARNING, cause=reason, reason=reason, connections=count, last_address=address)
        self._refused.clear()

    def _gone(self, address: _Address) -> None:
        address.open -= 1
        self.open -= 1

    def _sweep(self, now_s: float) -> None:
        """Forget the addresses that have nothing open and have not opened much lately."""
        self._addresses = {
            group: known for group, known in self._addresses.items() if known.open or not known.openings.is_full(now_s)
        }
        self._sweep_at = max(_MANY_ADDRESSES, 2 * len(self._addresses))


class _Listening(socket.socket):
    """A listening socket that asks the caps, and lets other work run after each connection."""

    def __init__(self, caps: ConnectionCaps, family: int) -> None:
        # With its protocol: asyncio switches Nagle's waiting off only for what says that it is TCP.
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._caps = caps
        self._turn_is_over = False
        self._spare = _spare_descriptor()
        if os.name == "posix":
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)  # accepted ones inherit it
        if family == socket.AF_INET6:
            self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own

    def accept(self) -> tuple[socket.socket, Any]:
        # asyncio accepts until this says that no connection waits, and asks again in the next turn of its loop.
        if self._turn_is_over:
            self._turn_is_over = False
            raise BlockingIOError("one connection in each turn")
        try:
            connection, address = super().accept()
        except OSError as error:
            if error.errno == errno.EMFILE:
                self._refuse_one()
            # asyncio waits for a second after these, but first it continues to accept.
            self._turn_is_over = error.errno in _NO_ROOM
            raise
        over = self._caps.admit(address[0])
        if over is None:
            connection.close()
            # As if the other end had given up before it was accepted, which ends the turn too.
            raise ConnectionAbortedError("too many connections")
        self._turn_is_over = True
        return _Accepted(connection, self._caps.reading(), over), address

    def close(self) -> None:
        super().close()
        spare, self._spare = self._spare, None
        if spare is not None:
            os.close(spare)

    def _refuse_one(self) -> None:
        """No descriptor is left: use the spare one to close a connection, which would wait unanswered otherwise.

        Raises ConnectionAbortedError when that was done; returns where there is no spare descriptor either.
        """
        if self._spare is None:
            self._spare = _spare_descriptor()
        if self._spare is None:
            return
        os.close(self._spare)
        self._spare = None
        try:
            connection, address = super().accept()
            connection.close()
        finally:
            self._spare = _spare_descriptor()
        self._caps.refused("no descriptors left", address[0])
        raise ConnectionAbortedError("no descriptors left")


def _spare_descriptor() -> int | None:
    with contextlib.suppress(OSError):
        return os.open(os.devnull, os.O_RDONLY)
    return None


class _Accepted(socket.socket):
    """An accepted connection that is read in small pieces, below TLS too, and says when it is closed.

    What it counts is a second bound: `Intake` sees what TLS makes of it, and TLS can make nothing of a lot.
    """

    def __init__(self, connection: socket.socket, count: Callable[[int], None], over: Callable[[], None]) -> None:
        super().__init__(connection.family, connection.type, connection.proto, connection.detach())
        self._count = count
        self._over: Callable[[], None] | None = over

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        data = super().recv(min(bufsize, READ_BYTES), flags)
        self._count(len(data))
        return data

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        size = memoryview(buffer).nbytes
        read = super().recv_into(buffer, min(nbytes or size, size, READ_BYTES), flags)
        self._count(read)
        return read

    def close(self) -> None:
        over, self._over = self._over, None
        super().close()
        if over is not None:
            over()
