"""`ThreadedVoiceClient`: one end of a call, for programs without an event loop."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import numpy.typing as npt

from streaming_encodec.client.network_thread import NetworkThread
from streaming_encodec.client.participant import Participant
from streaming_encodec.types import Pcm

PacketObserver = Callable[[bytes, float], object]
"""Is given a packet, and seconds on the client's clock."""

_CLOSE_S = 5.0


class ThreadedVoiceClient(Participant):
    """A participant in a room, as a plain context manager; good for one call. Settings: see `Participant`.

    ```python
    with ThreadedVoiceClient(url, token, model) as call:
        call.send(pcm)
        pcm = call.read(480, time.monotonic())
    ```

    The connection lives in a thread of its own. `send` encodes and `read` decodes in the thread that calls them, so
    that a sound card's thread waits for no other one. One thread may call both, or each has one.
    """

    _statement = "with"
    _sent_observers: tuple[PacketObserver, ...] = ()
    _packet_observers: tuple[PacketObserver, ...] = ()

    def __enter__(self) -> Self:
        self._check_new()
        network = self._connection.network
        self._network, self._owns_network = network or NetworkThread(), network is None
        self._loop = self._network.loop
        try:
            self._warm_up_encoder()
            self._warm_up_decoders()
            self._network.run(self._link.open())
        except BaseException:
            self._shut()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        try:
            if kind is None:
                self._in_loop(self._link.send_packets, self._voice.finish())
            self._network.run(self._link.close(), timeout_s=_CLOSE_S)
        finally:
            self._shut()

    def _shut(self) -> None:
        self._ended = True
        if self._owns_network:
            self._network.close()

    def send(self, pcm: npt.NDArray[Any]) -> None:
        """Say [n] or [C, n] samples, any n. Never waits for the network.

        The caller sets the pace, see `VoiceClient.send`.

        Raises:
            CallError: the call is over or has not begun, or this participant may only listen.
            StreamError: not an array of samples, or of the wrong shape.
        """
        self._check_may_speak()
        packets = self._voice.push(pcm, self._clock())
        if not packets:
            return
        now_s = self._clock()
        for observer in self._sent_observers:
            for packet in packets:
                observer(packet, now_s)
        self._in_loop(self._link.send_packets, packets)

    def read(self, count: int, now_s: float) -> Pcm:
        """The next `count` samples [C, count] of everybody, mixed; silence where there is no voice.

        now_s: when the first of them will be heard, on this client's clock.

        Raises CallError when the call is over, also for a program that says nothing meanwhile.
        """
        self._check_running()
        self._link.check()
        return self._voices.read(count, now_s)

    def read_whole(self, count: int, now_s: float, *, certain: bool) -> Pcm | None:
        """`read` for a thread that writes ahead of a sound card: see `Mixer.read_whole`."""
        self._check_running()
        self._link.check()
        return self._voices.read_whole(count, now_s, certain=certain)

    def on_sent(self, observer: PacketObserver) -> None:
        """Call `observer` with each packet that `send` sends, in the thread that calls it."""
        self._sent_observers = (*self._sent_observers, observer)

    def on_packet(self, observer: PacketObserver) -> None:
        """Call `observer` with each packet that arrives, in the network's thread.

        Use it to wake a thread that waits to call `read`.
        """
        self._packet_observers = (*self._packet_observers, observer)

    def _on_packet(self, data: bytes) -> None:
        now_s = self._clock()
        self._voices.on_packet(data, now_s)
        for observer in self._packet_observers:
            observer(data, now_s)
