"""A call with oneself: two clients and a relay in this process, and a network as bad as one likes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Self

from streaming_encodec.client.network_thread import NetworkThread
from streaming_encodec.client.settings import CodecSettings, ConnectionSettings
from streaming_encodec.client.threaded import ThreadedVoiceClient
from streaming_encodec.live.figures import CallMeter
from streaming_encodec.live.loop import LIVE_PLAYOUT
from streaming_encodec.model.find import CodecModel
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.voice.network import NetworkImpairment

_ROOM = "demo"
_REMEMBERED = 256  # packets on their way whose departure is remembered
_SMOOTH = 0.05
# On one machine a frame or two are enough; the buffer takes more by itself when jitter is switched on.
# The short window is for a sound card that has slept: all that it hears from then on is later by as much.
# 40 frames, half a second: what a machine that stood still for longer has missed is left out, not caught up with.
_PLAYOUT = replace(
    LIVE_PLAYOUT,
    delay=replace(LIVE_PLAYOUT.delay, quantile=0.95, window_s=0.5, memory_buckets=40),
    capacity_frames=40,
)


class OwnCall:
    """A context manager: within it `speaker` and `listener` are in one room of a relay on the loopback interface.

    Args:
        model: streams by samples.
        codec: as for both clients.
        impairment: what the listener receives passes through it.
        clock: seconds.
    """

    def __init__(
        self,
        model: CodecModel,
        codec: CodecSettings | None = None,
        impairment: NetworkImpairment | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.impairment = impairment or NetworkImpairment()
        self._model, self._codec, self._clock = model, codec, clock
        self._departed: dict[int, float] = {}
        self._arrived: deque[tuple[int, float]] = deque(maxlen=_REMEMBERED)  # from the network's thread
        self._network_s = 0.0

    def __enter__(self) -> Self:
        """Raises CallError where this machine can have no relay; StreamError and ConfigError as the clients do."""
        with ExitStack() as stack:
            network = NetworkThread()
            stack.callback(network.close)
            relay = Relay(RelayConfig(port=0, datagrams=False))
            network.run(relay.start())
            stack.callback(lambda: network.run(relay.stop()))

            def enter(role: str) -> ThreadedVoiceClient:
                client = ThreadedVoiceClient(
                    relay.url,
                    None,
                    self._model,
                    room=_ROOM,
                    role=role,
                    codec=self._codec,
                    playout=_PLAYOUT,
                    connection=ConnectionSettings(network=network, impairment=self.impairment, transport="websocket"),
                    clock=self._clock,
                )
                return stack.enter_context(client)

            self.listener, self.speaker = enter("subscribe"), enter("publish")
            self.listener.on_packet(lambda packet, now_s: self._arrived.append((_sequence_of(packet), now_s)))
            self.speaker.on_sent(self._on_sent)
            self.figures = CallMeter(self.speaker, self.listener, self._network_ms).look
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _on_sent(self, packet: bytes, now_s: float) -> None:
        self._departed[_sequence_of(packet)] = now_s
        if len(self._departed) > _REMEMBERED:
            del self._departed[next(iter(self._departed))]

    def _network_ms(self) -> float:
        while self._arrived:
            sequence, now_s = self._arrived.popleft()
            if (departed_s := self._departed.pop(sequence, None)) is not None:
                self._network_s += (now_s - departed_s - self._network_s) * _SMOOTH
        return 1000 * self._network_s + self.impairment.jitter_ms


def _sequence_of(packet: bytes) -> int:
    return int.from_bytes(packet[6:8], "little")
