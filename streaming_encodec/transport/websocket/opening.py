"""Opens a TCP connection to one of several addresses, over a line that may be dead for a moment.

A system asks again after 1, 2, 4 seconds where an answer is missing. So a line that is back is noticed late. Here a
fresh attempt begins beside the old ones every half second, and the first one that succeeds is taken. An address that
does not answer holds up the next one no longer than a quarter of a second (as in RFC 8305).
"""

from __future__ import annotations

import asyncio
import socket
from itertools import chain, count, zip_longest
from typing import Any

from streaming_encodec.transport.websocket.tcp import tune

_NEXT_ADDRESS_S = 0.25
_AGAIN_S = 0.5
_MOST_OPEN = 4
"""Attempts at a time. The oldest one is given up for a new one: so each has 2 s, more than any round trip."""

Address = tuple[socket.AddressFamily, int, Any]
"""Family, protocol, and what `connect` takes."""


async def find_addresses(host: str, port: int) -> list[Address]:
    """The addresses of a host, families in turn. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    by_family: dict[int, list[Address]] = {}
    for family, _, protocol, _, address in found:
        by_family.setdefault(family, []).append((family, protocol, address))
    return [one for one in chain.from_iterable(zip_longest(*by_family.values())) if one is not None]


async def open_socket(addresses: list[Address]) -> socket.socket:
    """A connected socket, made for voice. Tries for ever while there are addresses that give no answer at all.

    Raises OSError where each of them refused: the first one's error.
    """
    open_: dict[asyncio.Task[socket.socket], int] = {}
    failures: dict[int, OSError] = {}
    try:
        for number in count():
            place = number % len(addresses)
            if place not in failures:
                open_[asyncio.create_task(_attempt(addresses[place]))] = place
            if len(open_) > _MOST_OPEN:
                oldest = next(iter(open_))
                oldest.cancel()
                del open_[oldest]
            wait_s = _NEXT_ADDRESS_S if number + 1 < len(addresses) else _AGAIN_S
            done, _ = await asyncio.wait(open_, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                place = open_.pop(task)
                error = task.exception()
                if error is None:
                    return task.result()
                if not isinstance(error, OSError):
                    raise error
                failures[place] = error
            if len(failures) == len(addresses):
                break
        raise failures[min(failures)]
    finally:
        for task in open_:
            _give_up(task)


def _give_up(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancel() and not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()  # two were connected in the same turn


async def _attempt(address: Address) -> socket.socket:
    family, protocol, target = address
    sock = socket.socket(family, socket.SOCK_STREAM, protocol)
    try:
        sock.setblocking(False)
        tune(sock)
        await asyncio.get_running_loop().sock_connect(sock, target)
    except BaseException:
        sock.close()
        raise
    return sock
