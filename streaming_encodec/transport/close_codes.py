"""Why a connection ends: close codes, and the exception that carries one through the protocol logic.

Codes below 4000 are RFC 6455's and the IANA registry's; 4000 and above are this protocol's own, modelled on
the HTTP status whose last digits they share. `docs/protocol.md` lists them with what a client does about
each.
"""

from __future__ import annotations

from enum import IntEnum


class CloseCode(IntEnum):
    """Close codes that the relay sends."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    """Sent by the WebSocket layer: compressed, masked wrongly, bad fragments."""
    INVALID_TEXT = 1007
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    """A fault of the relay's own; also a ping that was not answered."""
    RESTARTING = 1012
    TRY_LATER = 1013
    """A room, the rooms or the speakers are full."""
    REPLACED = 4001
    """The participant returned over another connection."""
    BAD_MESSAGE = 4400
    NOT_ALLOWED = 4403
    """One answer for a bad token, a role that is not allowed and a room that does not exist."""
    TIMEOUT = 4408
    """No hello in time, or a speaker that went idle."""
    WRONG_MODEL = 4409
    STALLED = 4410
    """The listener does not read what it is sent."""
    WRONG_ROOM = 4421
    """The room of the hello is not that of the URL: the connection may have reached the relay of another room."""
    WRONG_VERSION = 4426
    TOO_FAST = 4429


FINAL_CODES = frozenset(
    {
        CloseCode.NORMAL,
        CloseCode.REPLACED,
        CloseCode.NOT_ALLOWED,
        CloseCode.WRONG_MODEL,
        CloseCode.WRONG_ROOM,
        CloseCode.WRONG_VERSION,
        CloseCode.BAD_MESSAGE,
        CloseCode.PROTOCOL_ERROR,
        CloseCode.INVALID_TEXT,
        CloseCode.TOO_BIG,
    }
)
"""After these a client that tries again fails again."""


class Refused(Exception):
    """Protocol logic refuses a peer: close its connection with this code and reason."""

    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(f"{int(code)} {reason}")
        self.code = code
        self.reason = reason


def not_allowed() -> Refused:
    """The same answer to every client that is not admitted, so that rooms cannot be found by trying."""
    return Refused(CloseCode.NOT_ALLOWED, "no such room, or not allowed in it")
