"""The relay's two plain HTTP answers, `/healthz` and `/metrics`, and the tests for this machine and own pages."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from streaming_encodec.errors import PacketError
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.transport.addresses import is_loopback
from streaming_encodec.transport.base import HttpAnswer, RequestHeaders, ServerConnection
from streaming_encodec.wire.room_path import room_of_path

_FORWARDING = frozenset(
    {
        "forwarded",  # RFC 7239
        "via",  # RFC 9110
        "cdn-loop",  # RFC 8586
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-original-forwarded-for",
        "x-envoy-external-address",
        "x-envoy-internal",
        "x-remote-ip",
        "x-remote-addr",
        "x-proxyuser-ip",
        "x-appengine-user-ip",
        "x-azure-clientip",
        "true-client-ip",
        "client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "cf-connecting-ip",
        "cf-connecting-ipv6",
        "cf-ray",
    }
)
"""Headers that a proxy adds to a request which it passes on. So are all that begin with `X-Forwarded-`."""


def answer_plain(
    config: RelayConfig, metrics: Metrics, gauges: Mapping[str, int], connection: ServerConnection, path: str
) -> HttpAnswer | None:
    """The answer to a request that is not for a call, None for one that is."""
    if path == "/healthz":
        if gauges["draining"]:
            return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
        return HttpAnswer(HTTPStatus.OK, "ok\n")
    if path == "/metrics" and (config.public_metrics or is_from_this_machine(connection.address, connection.headers)):
        body, content_type = metrics.exposition(gauges)
        return HttpAnswer(HTTPStatus.OK, body.decode(), content_type)
    try:
        room_of_path(path)
    except PacketError:
        return HttpAnswer(HTTPStatus.NOT_FOUND, "not here\n")
    return None


def is_from_this_machine(address: str, headers: RequestHeaders) -> bool:
    """Whether a request was made by a program of this machine, as far as can be seen.

    A proxy on this machine connects from a loopback address too. So a header that proxies add gives it away, and so
    does a `Host` that is not this machine's (which also keeps out web pages whose name was made to mean 127.0.0.1).
    A proxy that adds no header and rewrites `Host` can't be distinguished.
    """
    return is_loopback(address) and not is_forwarded(headers) and _names_loopback(headers)


def is_forwarded(headers: RequestHeaders) -> bool:
    """Whether a proxy says that it passes this request on."""
    return any(name.lower() in _FORWARDING or name.lower().startswith("x-forwarded-") for name in headers)


def _names_loopback(headers: RequestHeaders) -> bool:
    hosts = headers.get_all("Host")
    if not hosts:
        return True  # HTTP/1.0
    try:
        return len(hosts) == 1 and is_loopback(urlsplit(f"//{hosts[0]}").hostname or "")
    except ValueError:
        return False


def is_own_origin(headers: RequestHeaders, *, guarded: bool) -> bool:
    """Whether a web page came from the address at which it asks for a connection, so from this relay.

    A stranger's page can come from such an address too, if its name was made to mean this machine after it was loaded
    (DNS rebinding). That can't be done where the browser has checked a certificate. And it is of no use where tokens
    are required. Otherwise, the address must be a number or a name of this machine or network, which nobody else owns.

    guarded: the relay has TLS of its own, or requires tokens.
    """
    origins, hosts = headers.get_all("Origin"), headers.get_all("Host")
    if len(origins) != 1 or len(hosts) != 1:
        return False
    try:
        origin, host = urlsplit(origins[0]), urlsplit(f"//{hosts[0]}")
        default = {"http": 80, "https": 443}[origin.scheme]
        same = origin.hostname == host.hostname and (origin.port or default) == (host.port or default)
    except (KeyError, ValueError):
        return False
    name = origin.hostname or ""
    return same and bool(name) and (guarded or origin.scheme == "https" or _is_local_name(name))


def _is_local_name(name: str) -> bool:
    if is_loopback(name) or "." not in name or name.endswith((".local", ".localhost")):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
