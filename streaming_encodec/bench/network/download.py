"""A competing flow: somebody at the listener's line downloads from the relay's network, as fast as TCP gets it."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self

from streaming_encodec.bench.network.topology import LISTENER, RELAY, RELAY_FOR, Topology, inside

_PORT = 9000
_PIECE_BYTES = 65_536


class Download:
    """Runs from being entered to being left. bytes: how much came."""

    def __init__(self, topology: Topology) -> None:
        with inside(topology.name(RELAY)):
            self._server = socket.create_server((RELAY_FOR[LISTENER], _PORT))
        with inside(topology.name(LISTENER)):
            self._client = socket.socket()
        self.bytes = 0
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._serve, self._fetch)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            connection, _ = self._server.accept()
            with connection:
                while True:
                    connection.sendall(bytes(_PIECE_BYTES))

    def _fetch(self) -> None:
        with contextlib.suppress(OSError):
            self._client.connect((RELAY_FOR[LISTENER], _PORT))
            while piece := self._client.recv(_PIECE_BYTES):
                self.bytes += len(piece)
