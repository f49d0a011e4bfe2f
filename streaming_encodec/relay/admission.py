"""Who may connect at all: caps on connections, counted before the handshake (before TLS: see `relay.listen`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from http import HTTPStatus
from typing import Any

from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.metrics import Metrics
from streaming_encodec.relay.pages import answer_plain, is_forwarded, is_own_origin
from streaming_encodec.relay.web_files import BUSY, Readers
from streaming_encodec.transport.addresses import address_group
from streaming_encodec.transport.base import HttpAnswer, HttpFile, Phase, ServerConnection
from streaming_encodec.transport.close_codes import CloseCode, Refused
from streaming_encodec.transport.limits import UNANSWERED_CONNECTIONS


class Admission:
    """The connections of a relay, of all and of each address; a `transport.base.Host`.

    close: closes a connection with a code. refused: notes reason and address of one that was cut off.
    gauges: numbers of rooms and participants now. serve: talks with a client.
    clock: seconds, monotonic. draining: while it is set, no new client is admitted.
    """

    def __init__(
        self,
        config: RelayConfig,
        metrics: Metrics,
        *,
        close: Callable[[ServerConnection, Refused], None],
        refused: Callable[[str, str], None],
        gauges: Callable[[], dict[str, int]],
        serve: Callable[[ServerConnection], Coroutine[Any, Any, None]],
        clock: Callable[[], float],
    ) -> None:
        self._config, self._metrics, self._close, self._refused = config, metrics, close, refused
        self._gauges = gauges
        self.serve = serve  # no method around it, which would run with every message
        self._addresses: Counter[str] = Counter()
        self._readers = Readers(config.limits, clock)
        self.serves_files = config.web is not None
        self.connections: set[ServerConnection] = set()
        self.draining = False

    def opened(self, connection: ServerConnection) -> None:
        """Count a connection; cut it off where there are far too many to answer."""
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

    def ended(self, connection: ServerConnection) -> None:
        """Uncount it."""
        self.connections.discard(connection)
        group = address_group(connection.address)
        self._addresses[group] -= 1
        if not self._addresses[group]:
            del self._addresses[group]

    def flooded(self, connection: ServerConnection) -> None:
        """Close a connection that sends too much; cut it off where no close code can be sent (any more)."""
        if connection.phase is Phase.OPEN and not connection.closing:
            self._close(connection, Refused(CloseCode.TOO_FAST, "more bytes or frames than allowed"))
        elif connection.phase is Phase.OPENING:
            self._cut_off(connection, "too many bytes before the handshake")
        else:
            connection.abort()

    def _cut_off(self, connection: ServerConnection, reason: str) -> None:
        self._refused(reason, connection.address)
        connection.abort()

    def file(self, connection: ServerConnection, path: str) -> HttpFile | None:
        """A file of the web page."""
        found = None if self._config.web is None else self._config.web.find(path)
        if found is None or not self._readers.is_full(address_group(connection.address)):
            return found
        return BUSY

    def reader(self, connection: ServerConnection) -> AbstractContextManager[Callable[[int], bool]]:
        """While it gets a file."""
        return self._readers.reading(address_group(connection.address))

    def answer(self, connection: ServerConnection, path: str) -> HttpAnswer | None:
        """What an HTTP request gets; None lets the handshake go on."""
        config, limits = self._config, self._config.limits
        gauges = {"connections_open": len(self.connections), "draining": int(self.draining), **self._gauges()}
        plain = answer_plain(config, self._metrics, gauges, connection, path)
        if plain is not None:
            return plain
        if not self._admits_origin(connection):
            return HttpAnswer(HTTPStatus.FORBIDDEN, "web pages of this origin may not connect; see serve --origin\n")
        if self.draining:
            return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, "the relay restarts\n")
        if self._addresses[address_group(connection.address)] > limits.max_connections_per_address:
            return HttpAnswer(HTTPStatus.TOO_MANY_REQUESTS, "too many connections of one address\n")
        if len(self.connections) > limits.max_connections:
            return HttpAnswer(HTTPStatus.SERVICE_UNAVAILABLE, "too many connections\n")
        if config.token_key is None and not config.insecure and is_forwarded(connection.headers):
            # It listens to this machine only, and so asks for no tokens; this client is somewhere else.
            return HttpAnswer(HTTPStatus.FORBIDDEN, "behind a proxy this relay needs a token_key, or insecure=True\n")
        return None

    def _admits_origin(self, connection: ServerConnection) -> bool:
        """Whether a web page may connect. Programs send no origin."""
        origins = connection.headers.get_all("Origin")
        if not origins or (len(origins) == 1 and origins[0] in self._config.origins):
            return True
        config = self._config
        guarded = config.token_key is not None or config.tls is not None
        return config.web is not None and is_own_origin(connection.headers, guarded=guarded)
