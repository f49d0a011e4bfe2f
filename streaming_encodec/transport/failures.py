"""What a failed connection means: the reason for a program, and words for a person."""

from __future__ import annotations

import errno
import socket
import ssl

from streaming_encodec.errors import CallError, CallErrorReason
from streaming_encodec.transport.base import ConnectionEnded
from streaming_encodec.transport.close_codes import CloseCode

_BUSY_STATUSES = frozenset({429, 500, 502, 503, 504})
_NOT_ALLOWED_STATUSES = frozenset({401, 403})

REASON_OF_CODE: dict[int, CallErrorReason] = {
    CloseCode.NORMAL: CallErrorReason.RELAY_ENDED,
    CloseCode.PROTOCOL_ERROR: CallErrorReason.PROTOCOL,
    CloseCode.INVALID_TEXT: CallErrorReason.PROTOCOL,
    CloseCode.TOO_BIG: CallErrorReason.PROTOCOL,
    CloseCode.INTERNAL_ERROR: CallErrorReason.RELAY_FAILED,
    CloseCode.RESTARTING: CallErrorReason.RELAY_ENDED,
    CloseCode.TRY_LATER: CallErrorReason.FULL,
    CloseCode.REPLACED: CallErrorReason.REPLACED,
    CloseCode.BAD_MESSAGE: CallErrorReason.PROTOCOL,
    CloseCode.NOT_ALLOWED: CallErrorReason.NOT_ALLOWED,
    CloseCode.TIMEOUT: CallErrorReason.NOT_KEEPING_UP,
    CloseCode.WRONG_MODEL: CallErrorReason.WRONG_MODEL,
    CloseCode.WRONG_ROOM: CallErrorReason.WRONG_ROOM,
    CloseCode.STALLED: CallErrorReason.NOT_KEEPING_UP,
    CloseCode.WRONG_VERSION: CallErrorReason.PROTOCOL,
    CloseCode.TOO_FAST: CallErrorReason.LIMIT,
}
_WHY: dict[int, str] = {
    CloseCode.NOT_ALLOWED: "the relay does not let you in: ask for a new token (each is good once), "
    "and check the room's name",
    CloseCode.WRONG_MODEL: "the others in this room use another model: start with the same one",
    CloseCode.WRONG_ROOM: "the relay's URL names another room: ask for that one, or leave /r/ROOM out of the URL",
    CloseCode.WRONG_VERSION: "the relay speaks another version of the protocol: update the older of the two",
    CloseCode.REPLACED: "this place in the room was taken over by another connection",
    CloseCode.BAD_MESSAGE: "the relay did not understand this client: update the older of the two",
    CloseCode.TRY_LATER: "the room or the relay is full: try later",
    CloseCode.TIMEOUT: "the relay did not hear from this client in time",
}
_OTHER_HOST = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_OTHER_TIME = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def ended_error(url: str, ended: ConnectionEnded) -> CallError:
    """The error for a connection that the relay closed, or that broke."""
    code = ended.received
    if code is None:
        return CallError(f"no connection to {url}: it broke", CallErrorReason.UNREACHABLE)
    why = _WHY.get(code, f"the relay ended the call: {ended.reason or code}")
    return CallError(why, REASON_OF_CODE.get(code, CallErrorReason.RELAY_ENDED), code)


def status_error(url: str, status: int, through: str = "") -> CallError:
    """The error for an HTTP status in place of a connection. through: the proxy, for the message."""
    if status in _BUSY_STATUSES:
        return CallError(f"the relay at {url} is full or restarting (HTTP {status}): try later", CallErrorReason.FULL)
    return CallError(
        f"{url} is no relay that takes this client (HTTP {status}){through}",
        CallErrorReason.NOT_ALLOWED if status in _NOT_ALLOWED_STATUSES else CallErrorReason.NOT_A_RELAY,
    )


def system_error(url: str, error: OSError | TimeoutError, through: str = "") -> CallError:
    """The error for a connection that the operating system or TLS did not make."""
    if isinstance(error, ssl.SSLError):
        reason, why = _tls_failure(error)
        return CallError(f"{url}: no secure connection: {why}{through}", reason)
    return CallError(f"no relay at {url} ({in_words(error)}): is it running?", CallErrorReason.UNREACHABLE)


def _tls_failure(error: ssl.SSLError) -> tuple[CallErrorReason, str]:
    if not isinstance(error, ssl.SSLCertVerificationError):
        return CallErrorReason.TLS, f"TLS fails ({error.reason or error})"
    code = getattr(error, "verify_code", 0)
    why = getattr(error, "verify_message", "") or error.reason
    if code in _OTHER_HOST:
        return CallErrorReason.TLS, f"its certificate is for another host ({why}): use the name that it is for"
    if code in _OTHER_TIME:
        why = f"its certificate is not valid now ({why}): it needs a new one, or a clock is wrong"
        return CallErrorReason.TLS, why
    return CallErrorReason.UNTRUSTED, (
        f"its certificate is not trusted by this system ({why}): "
        "if the relay has one of its own, trust that with tls=client_tls(FILE)"
    )


def in_words(error: Exception) -> str:
    """What an operating system's error means to a person."""
    # asyncio puts several errors into the text of one, where a name has several addresses.
    if isinstance(error, ConnectionRefusedError) or f"Errno {errno.ECONNREFUSED}]" in str(error):
        return "nothing listens there"
    if isinstance(error, socket.gaierror):
        return "no such host"
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return "it hangs up at once"
    return str(error) or type(error).__name__
