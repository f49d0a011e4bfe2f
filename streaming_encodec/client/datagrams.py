"""The datagram session beside a client's connection: opened as soon as the relay offers it, and again when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from streaming_encodec.errors import CallError
from streaming_encodec.transport.base import PacketSession
from streaming_encodec.transport.logs import event
from streaming_encodec.wire.hello import DatagramOffer

if TYPE_CHECKING:
    from streaming_encodec.transport.webtransport.client import ClientDatagramSession

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
"""Between two attempts, where the network lets no datagrams through: each costs it some kilobytes."""
_WORKED_S = 5.0
"""A session that lasted so long is no failed attempt."""
_FRESH_S = 15.0
"""An offer that is older is not used: its key may be too old when the relay sees it (30 s)."""
_ANSWER_S = 5.0
"""For a fresh offer; if none comes, the next welcome brings one."""


class DatagramWay:
    """Keeps a session open as far as the network allows. All of it belongs to one event loop.

    ask: asks the relay for an offer, where there is a connection. on_packet: is called with each packet.
    chance: 0 to 1, spreads the attempts of many clients.
    """

    def __init__(
        self, ask: Callable[[], None], on_packet: Callable[[bytes], None], chance: Callable[[], float]
    ) -> None:
        self._ask, self._on_packet, self._chance = ask, on_packet, chance
        self._offer: DatagramOffer | None = None
        self._offered_s = 0.0
        self._host: str | None = None
        self._came = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.session: PacketSession | None = None
        """The one that is open."""

    def offered(self, offer: DatagramOffer | None, host: str | None, *, fresh: bool = False) -> None:
        """The relay at this address offers a session, or does not. fresh: the seat is another one than before."""
        self._offer, self._host = offer, host
        self._offered_s = asyncio.get_running_loop().time()
        if fresh and self.session is not None:
            self.session.close()
        if offer is None or host is None:
            return
        self._came.set()
        if self._task is None:
            self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """End the session for good."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        # aioquic takes some tenths of a second to load, and voice goes on meanwhile.
        client = await asyncio.to_thread(importlib.import_module, "streaming_encodec.transport.webtransport.client")
        attempt = 0
        while True:
            offer, host = await self._next_offer()
            begin_s = loop.time()
            try:
                session: ClientDatagramSession = await client.open_session(host, offer, self._on_packet)
            except CallError:
                event("no datagrams")
            else:
                await self._use(session)
            attempt = 0 if loop.time() - begin_s > client.OPEN_S + _WORKED_S else attempt + 1
            longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0**attempt)
            with contextlib.suppress(TimeoutError):  # a welcome means another network, perhaps
                await asyncio.wait_for(self._came.wait(), longest * (0.5 + 0.5 * self._chance()))

    async def _use(self, session: ClientDatagramSession) -> None:
        self.session = session
        event("datagrams")
        try:
            await session.keep()
        finally:
            self.session = None
            session.close()
            event("datagrams over")

    async def _next_offer(self) -> tuple[DatagramOffer, str]:
        """An offer that was not used yet, and is not old. Its key is good once."""
        loop = asyncio.get_running_loop()
        while True:
            self._came.clear()
            offer, self._offer = self._offer, None
            if offer is not None and self._host is not None and loop.time() - self._offered_s < _FRESH_S:
                return offer, self._host
            self._ask()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), _ANSWER_S)
