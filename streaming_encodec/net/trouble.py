"""What a failed connection means: whether to try again, and what to tell the user."""

from __future__ import annotations

import errno
import socket
import ssl

from websockets.exceptions import ConnectionClosed, InvalidStatus, InvalidURI

from streaming_encodec.errors import CallError
from streaming_encodec.net.closing import FINAL_CODES, CloseCode

_BUSY_STATUSES = frozenset({429, 500, 502, 503, 504})

_WHY = {
    CloseCode.NOT_ALLOWED: "the relay does not let you in: ask for a new token (each is good once), "
    "and check the room's name",
    CloseCode.WRONG_MODEL: "the others in this room use another model: start with the same --model",
    CloseCode.WRONG_VERSION: "the relay speaks another version of the protocol: update the older of the two",
    CloseCode.REPLACED: "this seat was taken over by another connection",
    CloseCode.BAD_MESSAGE: "the relay did not understand this client: update the older of the two",
    CloseCode.TRY_LATER: "the room or the relay is full: try later",
    CloseCode.TIMEOUT: "the relay did not hear from this client in time",
}


def explain(url: str, error: Exception) -> CallError:
    """The error that a user sees, with what to do about it."""
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        code, reason = error.rcvd.code, error.rcvd.reason
        why = _WHY.get(CloseCode(code)) if code in CloseCode.__members__.values() else None
        return CallError(why or f"the relay ended the call: {reason or code}")
    if isinstance(error, ssl.SSLError):
        return CallError(f"{url}: no secure connection ({error.reason or error}); see --ca for a relay's own")
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in _BUSY_STATUSES:
            return CallError(f"the relay at {url} is full or restarting (HTTP {status}): try later")
        return CallError(f"{url} is no relay that takes this client (HTTP {status})")
    if isinstance(error, OSError | TimeoutError):
        return CallError(f"no relay at {url} ({in_words(error)}): is it running? `streaming-encodec serve` starts one")
    # A port or a host's name that cannot be is a ValueError; so is a bad certificate, which is an OSError too.
    if isinstance(error, InvalidURI | ValueError):
        reason = error.msg if isinstance(error, InvalidURI) else str(error)
        return CallError(f"{url} is no WebSocket address ({reason}): write ws://host:port or wss://host")
    return CallError(f"no connection to {url}: {error}")


def in_words(error: Exception) -> str:
    """What a system's error means to a person."""
    # asyncio puts several errors into the text of one, where a name has several addresses.
    if isinstance(error, ConnectionRefusedError) or f"Errno {errno.ECONNREFUSED}]" in str(error):
        return "nothing listens there"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, TimeoutError):
        return "no answer"
    return str(error)


def is_not_allowed(error: Exception) -> bool:
    """Whether the relay wants another token."""
    return isinstance(error, ConnectionClosed) and error.rcvd is not None and error.rcvd.code == CloseCode.NOT_ALLOWED


def is_transient(error: Exception) -> bool:
    """Whether trying again may help."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return False
    if isinstance(error, InvalidStatus):
        return error.response.status_code in _BUSY_STATUSES
    if isinstance(error, ConnectionClosed):
        return error.rcvd is None or error.rcvd.code not in FINAL_CODES
    return True
