"""Who may connect at all: caps on connections, counted before the WebSocket handshake (before TLS: see `Gate`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from http import HTTPStatus

from websockets.http11 import Request, Response
from websockets.protocol import State

from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.relay.pages import answer_plain, is_forwarded
from streaming_encodec.transport.addresses import address_group
from streaming_encodec.transport.close_codes import CloseCode, Refused
from streaming_encodec.transport.limits import UNANSWERED_CONNECTIONS
from streaming_encodec.transport.websocket.server import VoiceConnection


class Entrance:
    """The connections of a relay, of all and of each address; a `Doorkeeper`.

    close: closes a connection with a code. refused: notes reason and address of one that was cut off.
    draining: set it to let nobody in any more.
    """

    def __init__(
        self,
        config: RelayConfig,
        metrics: Metrics,
        close: Callable[[VoiceConnection, Refused], None],
        refused: Callable[[str, str], None],
    ) -> None:
        self._config, self._metrics, self._close, self._refused = config, metrics, close, refused
        self._addresses: Counter[str] = Counter()
        self.connections: set[VoiceConnection] = set()
        self.draining = False

    def arrived(self, connection: VoiceConnection) -> None:
        """Count a TCP connection; cut it off where there are far too many to answer."""
        self._metrics.counts["connections"] += 1
        self.connections.add(connection)
        group = address_group(connection.address)
        self._addresses[group] += 1
        limits = self._config.limits
        if (
            len(self.connections) > limits.max_connections + UNANSWERED_CONNECTIONS
            or self._addresses[group] > limits.max_connections_per_address + UNANSWERED_CONNECTIONS
        ):
            self._cut_off(connection, "too many connections")

    def gone(self, connection: VoiceConnection) -> None:
        """Uncount it."""
        self.connections.discard(connection)
        group = address_group(connection.address)
        self._addresses[group] -= 1
        if not self._addresses[group]:
            del self._addresses[group]

    def flooded(self, connection: VoiceConnection) -> None:
        """Close a connection that sends too much; cut it off where no close code can be sent (any more)."""
        if connection.protocol.state is State.OPEN and not connection.closing:
            self._close(connection, Refused(CloseCode.TOO_FAST, "more bytes or frames than allowed"))
        elif connection.protocol.state is State.CONNECTING:
            self._cut_off(connection, "too many bytes before the handshake")
        else:
            connection.transport.abort()

    def _cut_off(self, connection: VoiceConnection, reason: str) -> None:
        self._refused(reason, connection.address)
        connection.transport.abort()

    def answer(self, connection: VoiceConnection, request: Request, *, rooms: int, seats: int) -> Response | None:
        """What an HTTP request gets; None lets the WebSocket handshake go on."""
        config, limits = self._config, self._config.limits
        gauges = {
            "connections_open": len(self.connections),
            "rooms": rooms,
            "seats": seats,
            "draining": int(self.draining),
        }
        plain = answer_plain(config, self._metrics, gauges, connection, request)
        if plain is not None:
            return plain
        if self.draining:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "the relay restarts\n")
        if self._addresses[address_group(connection.address)] > limits.max_connections_per_address:
            return connection.respond(HTTPStatus.TOO_MANY_REQUESTS, "too many connections of one address\n")
        if len(self.connections) > limits.max_connections:
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        if config.token_key is None and not config.insecure and is_forwarded(request.headers):
            # It listens to this machine only, and so asks for no tokens; this client is somewhere else.
            return connection.respond(
                HTTPStatus.FORBIDDEN, "behind a proxy this relay needs a token_key, or insecure=True\n"
            )
        return None
