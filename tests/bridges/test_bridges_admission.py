"""Who may call: nobody from elsewhere by accident."""

from __future__ import annotations

import re
from typing import Any

import pytest

from streaming_encodec.bridges.admission import Admission, parse_networks, twilio_signature
from streaming_encodec.bridges.config import KINDS, BridgeConfig, BridgeLimits
from streaming_encodec.errors import ConfigError

SECRET = "s3cr3t-of-sixteen"
URL = "wss://bridge.example/calls"


def test_twilios_signature_is_that_of_its_documents() -> None:
    """Its documents' example, of a request without parameters: HMAC-SHA1 with the token, in base64."""
    import base64
    import hashlib
    import hmac

    expected = base64.b64encode(hmac.new(b"12345", URL.encode(), hashlib.sha1).digest()).decode()
    assert twilio_signature("12345", URL) == expected
    assert len(base64.b64decode(expected)) == 20


@pytest.mark.parametrize(
    ("host", "target", "signed", "public", "allowed"),
    [
        ("bridge.example", "/calls", URL, None, True),
        ("bridge.example", "/calls", "wss://bridge.example:443/calls", None, True),
        ("bridge.example:8443", "/calls", "wss://bridge.example:8443/calls", None, True),
        ("bridge.example", "/calls?x=1", URL + "?x=1", None, True),
        ("bridge.example", "/calls", "wss://other.example/calls", None, False),
        ("bridge.example", "/other", URL, None, False),
        ("127.0.0.1:9092", "/inside", URL, URL, True),
        ("bridge.example", "/calls", "wss://bridge.example/calls", "wss://elsewhere.example/calls", False),
    ],
)
def test_a_request_bears_the_signature_of_its_address(
    host: str, target: str, signed: str, public: str | None, allowed: bool
) -> None:
    admission = Admission(auth_token="12345", public_url=public)
    assert admission.allows_request(host, target, twilio_signature("12345", signed)) == allowed
    assert not admission.allows_request(host, target, twilio_signature("54321", signed))
    assert not admission.allows_request(host, target, None)
    assert not admission.allows_request(host, target, "ü")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/" + SECRET, True),
        ("/" + SECRET + "?a", True),
        ("/", False),
        ("/" + SECRET[:-1], False),
        ("/x/" + SECRET, False),
        ("/ü", False),
    ],
)
def test_a_secret_in_the_path(path: str, allowed: bool) -> None:
    assert Admission(secret=SECRET).allows_request("h", path, None) == allowed


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("10.1.2.3", True),
        ("::ffff:10.1.2.3", True),
        ("11.0.0.1", False),
        ("192.0.2.7", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
        ("local", False),
        ("", False),
    ],
)
def test_a_list_of_addresses(address: str, allowed: bool) -> None:
    networks = parse_networks(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"])
    assert Admission(networks=networks).allows_address(address) == allowed


def test_secrets_do_not_appear_in_the_settings_text() -> None:
    text = repr(BridgeConfig("twilio", "r", "ws://r", admission=Admission(SECRET, "12345")))
    assert SECRET not in text
    assert "12345" not in text


TLS: Any = object()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "anybody could call"),
        ({"tls": TLS}, "anybody could call"),
        ({"admission": Admission(SECRET)}, "needs tls"),
        ({"admission": Admission(auth_token="1")}, "needs tls"),
        ({"kind": "telnyx", "admission": Admission(auth_token="1"), "tls": TLS}, "only Twilio signs"),
        ({"kind": "audiosocket"}, "anybody could call"),
        ({"kind": "audiosocket", "tls": TLS}, "name the addresses"),
        ({"kind": "audiosocket", "admission": Admission(SECRET)}, "name the addresses"),
    ],
)
def test_a_bridge_for_the_world_without_a_check_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        BridgeConfig(**{"kind": "twilio", "room": "r", "url": "ws://r", "host": "0.0.0.0"} | settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"host": "127.0.0.1"},
        {"host": "::1"},
        {"insecure": True},
        {"admission": Admission(SECRET), "tls": TLS},
        {"admission": Admission(networks=parse_networks(["10.0.0.0/8"]))},
        {"kind": "audiosocket", "admission": Admission(networks=parse_networks(["10.0.0.0/8"]))},
    ],
)
def test_a_bridge_with_one_is_not(settings: dict[str, Any]) -> None:
    BridgeConfig(**{"kind": "twilio", "room": "r", "url": "ws://r", "host": "0.0.0.0"} | settings)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Admission("short"), "16 letters"),
        (lambda: Admission(SECRET + "/.."), "letters, digits"),
        (lambda: Admission(auth_token=""), "empty"),
        (lambda: Admission(public_url="https://x"), "wss://"),
        (lambda: parse_networks(["10.0.0.0/33"]), "no address"),
        (lambda: BridgeConfig("skype", "r", "ws://r"), ", ".join(KINDS)),
        (lambda: BridgeConfig("twilio", "", "ws://r"), "visible characters"),
        (lambda: BridgeConfig("twilio", "r" * 40 + "{call}", "ws://r"), "visible characters"),
        (lambda: BridgeLimits(silent_s=0), "silent_s"),
    ],
)
def test_a_setting_that_cannot_be_is_named(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        make()


@pytest.mark.parametrize(
    ("call", "room"), [("CA12", "tea-CA12"), ("v2:a/../b", "tea-v2-a----b"), ("x" * 200, "tea-" + "x" * 48)]
)
def test_each_call_can_have_a_room(call: str, room: str) -> None:
    assert BridgeConfig("twilio", "tea-{call}", "ws://r").room_of(call) == room
