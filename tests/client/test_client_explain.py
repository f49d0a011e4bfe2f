"""What a user reads when there is no connection: what is wrong, and what to do."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidURI
from websockets.frames import Close

from streaming_encodec.client.explain import explain
from streaming_encodec.transport.close_codes import CloseCode

URL = "ws://relay:1"
REFUSED = f"[Errno {errno.ECONNREFUSED}] Connect call failed"


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
    message = str(explain(URL, error))
    assert message.startswith(f"no relay at {URL} (")
    assert says in message
    assert "`streaming-encodec serve` starts one" in message


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (CloseCode.NOT_ALLOWED, "ask for a new token"),
        (CloseCode.WRONG_MODEL, "start with the same --model"),
        (CloseCode.WRONG_VERSION, "update the older"),
        (CloseCode.TRY_LATER, "try later"),
    ],
)
def test_what_the_relay_says_has_a_cure(code: CloseCode, cure: str) -> None:
    assert cure in str(explain(URL, ConnectionClosedError(Close(code, "why"), None)))


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (InvalidURI("http://x", "scheme isn't ws or wss"), "scheme isn't ws or wss"),
        (ValueError("Port out of range 0-65535"), "Port out of range"),
        (UnicodeError("label empty or too long"), "label empty"),
    ],
)
def test_an_address_that_is_none(error: Exception, why: str) -> None:
    message = str(explain("http://x", error))
    assert message.startswith(f"http://x is no WebSocket address ({why}")
    assert "write ws://host:port" in message


def test_a_certificate_that_nobody_knows_is_not_a_wrong_address() -> None:
    """Python counts it among the values that cannot be."""
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    assert isinstance(error, ValueError)
    assert "--ca FILE" in str(explain("wss://x", error))
