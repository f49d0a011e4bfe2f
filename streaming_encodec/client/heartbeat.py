"""Notices that a connection is dead though nobody said so: after a change of address, or a router that restarted.

A relay answers pings. Where nothing came for a moment, it is asked; where the answer is missing for longer than a round
trip takes, the line may be dead. TCP may stall for as long when packets are lost, so this is a suspicion: a client
opens another connection beside the old one, and goes on with whichever works first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from streaming_encodec.transport.base import Connection

_QUIET_S = 0.5
"""After so long without a sign of life the relay is asked for one."""
_IDLE_S = 1.0
"""The same where the last sign of life was such an answer: nobody speaks, and there is no hurry."""
_LEAST_PATIENCE_S, _MOST_PATIENCE_S = 0.5, 1.5
"""For so long the answer may be missing; in between, three round trips."""
_UNHURRIED_S = 4.0
"""The same while voice has another way. A full line delays the answer, and a new connection would fill it up."""

_LOOK_S = 0.05


def patience_s(round_trip_s: float) -> float:
    """How long to wait for an answer. round_trip_s: of an earlier one, 0 before the first."""
    if not round_trip_s:
        return _MOST_PATIENCE_S
    return min(_MOST_PATIENCE_S, max(_LEAST_PATIENCE_S, 3 * round_trip_s))


async def wait_for_silence(connection: Connection, has_other: Callable[[], bool] = lambda: False) -> float:
    """Return when the relay has left a question unanswered; gives the event loop's time at which it was asked.

    has_other: whether voice has another way that works, so that there is no hurry.
    """
    loop = asyncio.get_running_loop()
    answered_s = asked_s = loop.time()
    connection.probe()  # tells how long a round trip is
    while True:
        quiet_s = _IDLE_S if connection.heard_s <= answered_s else _QUIET_S
        due_s = connection.heard_s + quiet_s
        if loop.time() < due_s:
            await asyncio.sleep(due_s - loop.time())
            continue
        asked_s = loop.time()
        connection.probe()
        waited_s = 0.0
        while waited_s < (_UNHURRIED_S if has_other() else patience_s(connection.round_trip_s)):
            before_s = loop.time()
            await asyncio.sleep(_LOOK_S)
            # A program that was stopped itself has not waited: an answer may lie there unread.
            waited_s += min(loop.time() - before_s, 2 * _LOOK_S)
            if connection.heard_s > asked_s:
                break
        if connection.heard_s <= asked_s:
            return asked_s
        answered_s = loop.time()
