"""What a caller gets when there is no connection: what is wrong, for programs and for people, and what to do."""

from __future__ import annotations

import copy
import errno
import socket
import ssl

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import InvalidStatus, InvalidURI
from websockets.http11 import Response

from streaming_encodec.cli.shared.error_text import error_text
from streaming_encodec.errors import CallError, CallErrorReason, ConfigError
from streaming_encodec.transport.base import ConnectionEnded
from streaming_encodec.transport.close_codes import CloseCode
from streaming_encodec.transport.failures import REASON_OF_CODE, ended_error
from streaming_encodec.transport.websocket.client import explain

URL = "ws://relay:1"
REFUSED = f"[Errno {errno.ECONNREFUSED}] Connect call failed"


def call_error(error: Exception) -> CallError:
    told = explain(URL, error)
    assert isinstance(told, CallError)
    return told


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    return error


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('127.0.0.1', 1)"), "nothing listens there"),
        (OSError(f"Multiple exceptions: {REFUSED} ('::1', 1, 0, 0), {REFUSED} ('127.0.0.1', 1)"), "nothing listens"),
        (socket.gaierror(-2, "Name or service not known"), "no such host"),
        (TimeoutError(), "no answer"),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), "Network is unreachable"),
    ],
)
def test_no_relay_is_told_in_words_with_its_cure(error: OSError, says: str) -> None:
    told = call_error(error)
    message = error_text(told)
    assert told.reason is CallErrorReason.UNREACHABLE
    assert message.startswith(f"no relay at {URL} (")
    assert says in message
    assert "`streaming-encodec serve` starts one" in message


@pytest.mark.parametrize(
    ("code", "reason", "cure"),
    [
        (CloseCode.NOT_ALLOWED, CallErrorReason.NOT_ALLOWED, "ask for a new token"),
        (CloseCode.WRONG_MODEL, CallErrorReason.WRONG_MODEL, "--model chooses it"),
        (CloseCode.WRONG_ROOM, CallErrorReason.WRONG_ROOM, "leave /r/ROOM out"),
        (CloseCode.WRONG_VERSION, CallErrorReason.PROTOCOL, "update the older"),
        (CloseCode.TRY_LATER, CallErrorReason.FULL, "try later"),
        (CloseCode.REPLACED, CallErrorReason.REPLACED, "taken over"),
        (CloseCode.TOO_FAST, CallErrorReason.LIMIT, "why"),
        (CloseCode.STALLED, CallErrorReason.NOT_KEEPING_UP, "why"),
        (CloseCode.RESTARTING, CallErrorReason.RELAY_ENDED, "why"),
        (CloseCode.INTERNAL_ERROR, CallErrorReason.RELAY_FAILED, "why"),
        (4999, CallErrorReason.RELAY_ENDED, "why"),
    ],
)
def test_what_the_relay_says_has_a_reason_and_a_cure(code: int, reason: CallErrorReason, cure: str) -> None:
    told = ended_error(URL, ConnectionEnded(code, "why"))
    assert (told.reason, told.close_code) == (reason, code)
    assert cure in error_text(told)


@pytest.mark.parametrize("code", CloseCode)
def test_each_close_code_of_a_relay_has_a_reason(code: CloseCode) -> None:
    assert code in REASON_OF_CODE


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (403, CallErrorReason.NOT_ALLOWED),
        (404, CallErrorReason.NOT_A_RELAY),
        (429, CallErrorReason.FULL),
        (503, CallErrorReason.FULL),
    ],
)
def test_a_status_in_place_of_a_call_has_a_reason(status: int, reason: CallErrorReason) -> None:
    told = call_error(InvalidStatus(Response(status, "", Headers())))
    assert told.reason is reason
    assert f"HTTP {status}" in str(told)


def test_no_message_of_the_library_names_an_option() -> None:
    """Callers of the library have no command line; the commands add their options."""
    told = [explain(URL, TimeoutError()), explain(URL, untrusted())]
    told += [ended_error(URL, ConnectionEnded(code)) for code in CloseCode]
    assert not [error for error in told if "--" in str(error)]


def test_an_error_is_copied_whole() -> None:
    error = copy.copy(CallError("why", CallErrorReason.FULL, 1013))
    assert (str(error), error.reason, error.close_code) == ("why", CallErrorReason.FULL, 1013)


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (InvalidURI("http://x", "scheme isn't ws or wss"), "scheme isn't ws or wss"),
        (ValueError("Port out of range 0-65535"), "Port out of range"),
        (UnicodeError("label empty or too long"), "label empty"),
    ],
)
def test_an_address_that_is_none(error: Exception, why: str) -> None:
    told = explain("http://x", error)
    assert isinstance(told, ConfigError)
    message = str(told)
    assert message.startswith(f"http://x is no WebSocket address ({why}")
    assert "write ws://host:port" in message


def test_a_certificate_that_nobody_knows_is_not_a_wrong_address() -> None:
    """Python counts it among the values that cannot be."""
    error = untrusted()
    assert isinstance(error, ValueError)
    told = call_error(error)
    assert told.reason is CallErrorReason.UNTRUSTED
    assert "--ca FILE" in error_text(told)
