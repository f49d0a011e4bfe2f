"""UDP between a client and a relay as networks treat it: blocked, lossy, or from another address."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from streaming_encodec.relay.relay import Relay


class _End(asyncio.DatagramProtocol):
    def __init__(self, way: UdpWay, client: Any | None) -> None:
        self._way, self._client = way, client

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._way.take(data, address if self._client is None else None, self._client)


class UdpWay:
    """Forwards UDP packets like a router with address translation: each client has a port of its own at the relay's
    side. `blocked`: nothing passes. `loss`: share of packets that are lost."""

    def __init__(self, port: int) -> None:
        self._relay = ("127.0.0.1", port)
        self._front: asyncio.DatagramTransport | None = None
        self._backs: dict[Any, asyncio.DatagramTransport] = {}
        self._chance = random.Random(0)
        self.blocked = False
        self.loss = 0.0
        self.port = 0
        self.passed = {"up": 0, "down": 0}

    async def open(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        self._front, _ = await loop.create_datagram_endpoint(lambda: _End(self, None), local_addr=("127.0.0.1", port))
        self.port = self._front.get_extra_info("sockname")[1]

    def close(self) -> None:
        for transport in (self._front, *self._backs.values()):
            if transport is not None:
                transport.close()

    def change_addresses(self) -> None:
        """From now on all clients have another address: the router has restarted."""
        for transport in self._backs.values():
            transport.close()
        self._backs.clear()

    def take(self, data: bytes, sender: Any | None, client: Any | None) -> None:
        if self.blocked or self._chance.random() < self.loss:
            return
        assert self._front is not None
        if sender is None:
            self.passed["down"] += 1
            self._front.sendto(data, client)
            return
        back = self._backs.get(sender)
        if back is not None:
            self.passed["up"] += 1
            back.sendto(data, self._relay)
        else:
            asyncio.get_running_loop().create_task(self._add(data, sender))  # ends at once

    async def _add(self, data: bytes, sender: Any) -> None:
        loop = asyncio.get_running_loop()
        back, _ = await loop.create_datagram_endpoint(lambda: _End(self, sender), local_addr=("127.0.0.1", 0))
        self._backs.setdefault(sender, back)
        self._backs[sender].sendto(data, self._relay)


@asynccontextmanager
async def udp_way(relay: Relay, port: int = 0) -> AsyncIterator[UdpWay]:
    """A way to this relay from a port, which the relay offers from now on in place of its own."""
    way = UdpWay(relay.port)
    await way.open(port)
    relay._calls.datagrams.begin(relay._session_listeners[0], way.port)
    try:
        yield way
    finally:
        way.close()
