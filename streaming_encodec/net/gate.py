"""Sockets to listen on that count connections as the kernel hands them over, before TLS and all else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from streaming_encodec.net.config import address_group
from streaming_encodec.net.limits import UNANSWERED_CONNECTIONS, RelayLimits


class Gate:
    """The caps beyond which a connection is not even answered, over all sockets that it listens on.

    asyncio tells nobody of a connection before its TLS handshake is done, so whoever begins none could hold as many
    as there are descriptors. This counts where asyncio accepts through the socket object: everywhere but on Windows,
    where `Entrance` counts, after the handshake.
    """

    def __init__(self, limits: RelayLimits) -> None:
        self._most = limits.max_connections + UNANSWERED_CONNECTIONS
        self._most_of_address = limits.max_connections_per_address + UNANSWERED_CONNECTIONS
        self._open: Counter[str] = Counter()

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
        """Count a connection; returns what is to be called when it is over, None if there are too many."""
        group = address_group(address)
        if self._open.total() >= self._most or self._open[group] >= self._most_of_address:
            return None
        self._open[group] += 1
        return partial(self._gone, group)

    def _gone(self, group: str) -> None:
        self._open[group] -= 1
        if not self._open[group]:
            del self._open[group]


class _Listening(socket.socket):
    def __init__(self, gate: Gate, family: int) -> None:
        # With its protocol: asyncio switches Nagle's waiting off only for what says that it is TCP.
        super().__init__(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._gate = gate
        if os.name == "posix":
            self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            self.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has a socket of its own

    def accept(self) -> tuple[socket.socket, Any]:
        connection, address = super().accept()
        over = self._gate.admit(address[0])
        if over is None:
            connection.close()
            # As if the other end had given up before it was accepted: asyncio goes on with the next.
            raise ConnectionAbortedError("too many connections")
        return _Accepted(connection, over), address


class _Accepted(socket.socket):
    def __init__(self, connection: socket.socket, over: Callable[[], None]) -> None:
        super().__init__(connection.family, connection.type, connection.proto, connection.detach())
        self._over: Callable[[], None] | None = over

    def close(self) -> None:
        over, self._over = self._over, None
        super().close()
        if over is not None:
            over()
