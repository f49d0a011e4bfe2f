"""A cable between the ports of a program on JACK's dummy card."""

from __future__ import annotations

from collections.abc import Callable

from streaming_encodec.types import Pcm


class Cable:
    """From one program's speaker to its microphone.

    through: what becomes of each block, [n] to [n] in [-1, 1].
    """

    def __init__(self, name: str, through: Callable[[Pcm], Pcm]) -> None:
        import jack

        self._client = jack.Client(name, no_start_server=True)
        self._from = self._client.inports.register("from")
        self._to = self._client.outports.register("to")
        self._through = through
        self._client.set_process_callback(self._process)
        self._client.activate()

    def _process(self, count: int) -> None:
        self._to.get_array()[:] = self._through(self._from.get_array().copy())

    def ports(self) -> set[str]:
        """Ports of PortAudio programs."""
        return {port.name for port in self._client.get_ports("PortAudio")}

    def connect(self, ports: set[str]) -> None:
        """Take these ports off the dummy hardware, and join them."""
        for port in map(self._client.get_port_by_name, ports):
            for other in self._client.get_all_connections(port):
                self._client.disconnect(*((other, port) if port.is_input else (port, other)))
            self._client.connect(*((self._to, port) if port.is_input else (port, self._from)))

    def close(self) -> None:
        self._client.deactivate()
        self._client.close()
