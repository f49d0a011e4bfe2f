"""What a failed connection means: whether to try again, and what to tell the user."""

from __future__ import annotations

import errno
import socket
import ssl

from websockets.exceptions import (
    ConnectionClosed,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
)

from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.transport.close_codes import FINAL_CODES, CloseCode
from streaming_encodec.transport.proxies import Proxy

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
    CloseCode.STALLED: CallErrorReason.NOT_KEEPING_UP,
    CloseCode.WRONG_VERSION: CallErrorReason.PROTOCOL,
    CloseCode.TOO_FAST: CallErrorReason.LIMIT,
}
_WHY: dict[int, str] = {
    CloseCode.NOT_ALLOWED: "the relay does not let you in: ask for a new token (each is good once), "
    "and check the room's name",
    CloseCode.WRONG_MODEL: "the others in this room use another model: start with the same one",
    CloseCode.WRONG_VERSION: "the relay speaks another version of the protocol: update the older of the two",
    CloseCode.REPLACED: "this place in the room was taken over by another connection",
    CloseCode.BAD_MESSAGE: "the relay did not understand this client: update the older of the two",
    CloseCode.TRY_LATER: "the room or the relay is full: try later",
    CloseCode.TIMEOUT: "the relay did not hear from this client in time",
}

_NO_TLS_REASONS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})
"""What OpenSSL makes of an answer that is no TLS, by its versions."""
_OTHER_HOST = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_OTHER_TIME = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def explain(url: str, error: Exception, proxy: Proxy | None = None) -> CallError | ConfigError:
    """The error that a caller gets, with what to do about it. proxy: the one that the connection went through.

    A ConfigError where the address is none.
    """
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        code, reason = error.rcvd.code, error.rcvd.reason
        why = _WHY.get(code, f"the relay ended the call: {reason or code}")
        return CallError(why, REASON_OF_CODE.get(code, CallErrorReason.RELAY_ENDED), code)
    if isinstance(error, ssl.SSLError):
        kind, why = _tls_in_words(error)
        return CallError(f"{url}: no secure connection: {why}{_by_way_of(proxy)}", kind)
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in _BUSY_STATUSES:
            return CallError(
                f"the relay at {url} is full or restarting (HTTP {status}): try later", CallErrorReason.FULL
            )
        return CallError(
            f"{url} is no relay that takes this client (HTTP {status}){_by_way_of(proxy)}",
            CallErrorReason.NOT_ALLOWED if status in _NOT_ALLOWED_STATUSES else CallErrorReason.NOT_A_RELAY,
        )
    if proxy is not None and isinstance(error, OSError | TimeoutError | ProxyError):
        return CallError(
            f"no way to {url} through {proxy}: {_proxy_in_words(error)}. "
            "Set that variable to a proxy that works, or name the relay's host in no_proxy",
            CallErrorReason.PROXY,
        )
    if isinstance(error, OSError | TimeoutError):
        return CallError(f"no relay at {url} ({in_words(error)}): is it running?", CallErrorReason.UNREACHABLE)
    # A port or a host's name that cannot be is a ValueError; so is a bad certificate, which is an OSError too.
    if isinstance(error, InvalidURI | ValueError):
        reason = error.msg if isinstance(error, InvalidURI) else str(error)
        return ConfigError(
            f"{url} is no WebSocket address ({reason}): write ws://host:port or wss://host", setting="url"
        )
    if isinstance(error, InvalidMessage):
        return CallError(
            f"{url} is no relay: what answers there is no HTTP{_by_way_of(proxy)}", CallErrorReason.NOT_A_RELAY
        )
    return CallError(f"no connection to {url}: {error}", CallErrorReason.UNREACHABLE)


def _by_way_of(proxy: Proxy | None) -> str:
    return "" if proxy is None else f"; the connection goes through {proxy}"


def _tls_in_words(error: ssl.SSLError) -> tuple[CallErrorReason, str]:
    """What a failed TLS handshake means to a program and to a person, with the cure."""
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


def _proxy_in_words(error: Exception) -> str:
    """What a proxy's failure means to a person."""
    if isinstance(error, InvalidProxyStatus):
        status = error.response.status_code
        if status == 407:
            return "it wants a name and a password (HTTP 407), written SCHEME://NAME:PASSWORD@HOST:PORT"
        return f"it does not let this through (HTTP {status})"
    if isinstance(error, InvalidProxyMessage):
        return "what answers there is no HTTP proxy"
    if isinstance(error, ProxyError) and error.__cause__ is not None:
        return str(error.__cause__)
    return in_words(error)


def is_no_tls(error: Exception) -> bool:
    """Whether the other end of a TLS handshake may speak none."""
    if isinstance(error, ssl.SSLError):
        return not isinstance(error, ssl.SSLCertVerificationError) and (error.reason or "") in _NO_TLS_REASONS | {""}
    return isinstance(error, ConnectionResetError | ConnectionAbortedError)


def in_words(error: Exception) -> str:
    """What a system's error means to a person."""
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
