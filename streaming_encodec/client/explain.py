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

from streaming_encodec.errors import CallError
from streaming_encodec.transport.close_codes import FINAL_CODES, CloseCode
from streaming_encodec.transport.proxies import Proxy

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


_NO_TLS_REASONS = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})
"""What OpenSSL makes of an answer that is no TLS, by its versions."""
_OTHER_HOST = frozenset({62, 64})
"""X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_OTHER_TIME = frozenset({9, 10})
"""X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED."""


def explain(url: str, error: Exception, proxy: Proxy | None = None) -> CallError:
    """The error that a user sees, with what to do about it. proxy: the one that the connection went through."""
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        code, reason = error.rcvd.code, error.rcvd.reason
        why = _WHY.get(CloseCode(code)) if code in CloseCode.__members__.values() else None
        return CallError(why or f"the relay ended the call: {reason or code}")
    if isinstance(error, ssl.SSLError):
        return CallError(f"{url}: no secure connection: {_tls_in_words(error)}{_by_way_of(proxy)}")
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        if status in _BUSY_STATUSES:
            return CallError(f"the relay at {url} is full or restarting (HTTP {status}): try later")
        return CallError(f"{url} is no relay that takes this client (HTTP {status}){_by_way_of(proxy)}")
    if proxy is not None and isinstance(error, OSError | TimeoutError | ProxyError):
        return CallError(
            f"no way to {url} through {proxy}: {_proxy_in_words(error)}. "
            "Set that variable to a proxy that works, or name the relay's host in no_proxy"
        )
    if isinstance(error, OSError | TimeoutError):
        return CallError(f"no relay at {url} ({in_words(error)}): is it running? `streaming-encodec serve` starts one")
    # A port or a host's name that cannot be is a ValueError; so is a bad certificate, which is an OSError too.
    if isinstance(error, InvalidURI | ValueError):
        reason = error.msg if isinstance(error, InvalidURI) else str(error)
        return CallError(f"{url} is no WebSocket address ({reason}): write ws://host:port or wss://host")
    if isinstance(error, InvalidMessage):
        return CallError(f"{url} is no relay: what answers there is no HTTP{_by_way_of(proxy)}")
    return CallError(f"no connection to {url}: {error}")


def _by_way_of(proxy: Proxy | None) -> str:
    return "" if proxy is None else f"; the connection goes through {proxy}"


def _tls_in_words(error: ssl.SSLError) -> str:
    """What a failed TLS handshake means to a person, with the cure."""
    if not isinstance(error, ssl.SSLCertVerificationError):
        return f"TLS fails ({error.reason or error})"
    code = getattr(error, "verify_code", 0)
    why = getattr(error, "verify_message", "") or error.reason
    if code in _OTHER_HOST:
        return f"its certificate is for another host ({why}): use the name that it is for"
    if code in _OTHER_TIME:
        return f"its certificate is not valid now ({why}): it needs a new one, or a clock is wrong"
    return (
        f"its certificate is not trusted by this system ({why}). "
        "If the relay has one of its own, give that with --ca FILE (in Python: tls=client_tls(FILE))"
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
