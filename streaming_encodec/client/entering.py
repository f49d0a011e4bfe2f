"""One attempt to enter a room: the hello, the welcome, what its failure means, and when to try again."""

from __future__ import annotations

import asyncio

from streaming_encodec.errors import CallError, CallErrorReason, PacketError
from streaming_encodec.transport.base import ClientConnection, ConnectionEnded
from streaming_encodec.transport.failures import ended_error, system_error
from streaming_encodec.wire.control import parse_control, serialize_control
from streaming_encodec.wire.hello import Hello, Welcome

HELLO_S = 5.0
"""A token, or a welcome, takes no longer."""
_FIRST_DELAY_S = 0.05
_LONGEST_DELAY_S = 1.2
"""Back within two seconds after the relay is, with the time a handshake takes."""
FINAL_REASONS = frozenset(
    {
        CallErrorReason.NOT_A_RELAY,
        CallErrorReason.UNTRUSTED,
        CallErrorReason.NOT_ALLOWED,
        CallErrorReason.WRONG_MODEL,
        CallErrorReason.WRONG_ROOM,
        CallErrorReason.PROTOCOL,
        CallErrorReason.REPLACED,
    }
)
"""After these another attempt fails as well."""
THIS_RELAY = frozenset({CallErrorReason.NOT_A_RELAY, CallErrorReason.UNTRUSTED})
"""Of these, what another relay may do better."""


def reconnect_delay_s(attempt: int, chance: float) -> float:
    """How long to wait before an attempt (0, 1, …); `chance` in 0..1 spreads a crowd over time."""
    longest = min(_LONGEST_DELAY_S, _FIRST_DELAY_S * 2.0 ** min(attempt, 10))
    return longest * (0.5 + 0.5 * chance)


async def say_hello(connection: ClientConnection, url: str, hello: Hello) -> Welcome:
    """Ask a relay to be let in. Raises CallError where it does not; the connection is over then."""
    try:
        async with asyncio.timeout(HELLO_S):
            connection.send_control(serialize_control(hello))
            welcome = parse_control(await connection.receive())
        if not isinstance(welcome, Welcome):
            raise PacketError("the relay's first message is a welcome")
    except PacketError as error:
        await connection.close()
        raise CallError(f"{url} is no relay of this kind: {error}", CallErrorReason.NOT_A_RELAY) from error
    except ConnectionEnded as ended:
        raise ended_error(url, ended) from ended
    except TimeoutError as error:
        connection.abort()
        raise system_error(url, error) from error
    except BaseException:
        connection.abort()
        raise
    return welcome
