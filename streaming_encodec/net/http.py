"""The relay's two plain HTTP pages, `/healthz` and `/metrics`."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from websockets.http11 import Request, Response

from streaming_encodec.net.config import RelayConfig, is_loopback
from streaming_encodec.net.connection import VoiceConnection
from streaming_encodec.net.metrics import CONTENT_TYPE, Metrics


def answer_plain(
    config: RelayConfig,
    metrics: Metrics,
    gauges: Mapping[str, int],
    connection: VoiceConnection,
    request: Request,
) -> Response | None:
    """The answer to a request that is not for a WebSocket, None for one that is."""
    path = request.path.partition("?")[0]
    if path == "/healthz":
        if gauges["draining"]:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "draining\n")
        return connection.respond(HTTPStatus.OK, "ok\n")
    if path == "/metrics":
        if not (config.public_metrics or is_loopback(connection.address)):
            return connection.respond(HTTPStatus.NOT_FOUND, "not here\n")
        response = connection.respond(HTTPStatus.OK, metrics.text(gauges))
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = CONTENT_TYPE
        return response
    if path != "/":
        return connection.respond(HTTPStatus.NOT_FOUND, "not here\n")
    return None
