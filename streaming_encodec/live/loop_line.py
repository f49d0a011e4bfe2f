"""A line back to oneself: through a real relay on this machine, and a network as bad as one likes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from streaming_encodec.audio.low_delay import Pcm
from streaming_encodec.audio.resample import mix_channels
from streaming_encodec.call.decoders import make_decoders
from streaming_encodec.call.mixer import Mixer
from streaming_encodec.call.voice_encoder import VoiceEncoder
from streaming_encodec.client.link import Link
from streaming_encodec.live.background import BackgroundLoop
from streaming_encodec.live.line import LIVE_DELAY, LIVE_PLAYOUT, BufferMeter, LineFigures
from streaming_encodec.model.encodec import EncodecModel
from streaming_encodec.relay.config import RelayConfig
from streaming_encodec.relay.relay import Relay
from streaming_encodec.stepping.engine import EngineOrName, find_engine
from streaming_encodec.voice.detour import Detour
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.control import ControlMessage
from streaming_encodec.wire.header import HEADER_BYTES
from streaming_encodec.wire.hello import Hello

_ROOM = "demo"
_REMEMBERED = 256  # packets on their way whose departure is remembered
_SMOOTH = 0.05
_CAPACITY_FRAMES = 40
"""Half a second: what a machine that stood still for longer has missed is left out, not caught up with."""


class LoopLine:
    """Speaks into a relay on the loopback interface and hears itself out of it.

    What arrives goes through ``detour`` before it counts as arrived.

    Args:
        model: streams by samples.
        bandwidth: kbps.
        frames_per_packet: 1 to 6.
        clock: seconds, for arrivals; the same that `read` is given.

    Raises:
        CallError: no relay can be had on this machine.
        StreamError, ConfigError: as `VoiceEncoder`.
    """

    def __init__(
        self,
        model: EncodecModel,
        bandwidth: float | None = 6.0,
        *,
        engine: EngineOrName = "auto",
        frames_per_packet: int = 1,
        detour: Detour | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.detour = detour or Detour()
        shared = find_engine(engine, model)
        self._encoder = VoiceEncoder(
            model.config.sampling_rate,
            model=model,
            bandwidth=bandwidth,
            frames_per_packet=frames_per_packet,
            engine=shared,
        )
        self.format = self._encoder.stream_format
        self._packet_samples = frames_per_packet * self.format.frame_samples
        decoder = make_decoders(model, shared, LIVE_PLAYOUT.together_frames)
        decoder.warm_up(self._encoder.num_codebooks)
        # On one machine a frame or two are enough; the buffer takes more by itself when jitter is switched on.
        # The short window is for a sound card that has slept: all that it hears from then on is later by as much.
        delays = replace(LIVE_DELAY, reliable=False, window_s=0.5, memory_buckets=40)
        settings = replace(LIVE_PLAYOUT, delay=delays, capacity_frames=_CAPACITY_FRAMES)
        self._mixer = Mixer(self.format, decoder, settings)
        self._arrived: deque[tuple[float, bytes]] = deque(maxlen=1024)  # from the network's thread
        self._departed: dict[int, float] = {}
        self._packets = self._bytes = 0
        self._network_s = 0.0
        self._meter = BufferMeter()
        self._call = _nobody
        self._background = BackgroundLoop()
        try:
            self._background.run(self._open())
        except BaseException:
            self._background.close()
            raise

    async def _open(self) -> None:
        self._relay = Relay(RelayConfig(port=0))
        await self._relay.start()
        self._mouth = self._link("publish", lambda data: None)
        self._ear = self._link("subscribe", self._on_packet)
        await self._ear.open()
        await self._mouth.open()

    def _link(self, role: str, on_packet: Callable[[bytes], None]) -> Link:
        hello = Hello(_ROOM, role, self.format)
        return Link(self._relay.url, hello, None, on_packet=on_packet, on_control=_ignore)

    def close(self) -> None:
        """Hang up and stop the relay."""
        self._background.run(self._shut())
        self._background.close()

    async def _shut(self) -> None:
        await self._mouth.close()
        await self._ear.close()
        await self._relay.stop()

    # -- settings -------------------------------------------------------------------------------------------

    @property
    def packet_samples(self) -> int:
        """Samples of a packet's frames."""
        return self._packet_samples

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        return self.format.frame_samples

    @property
    def sample_rate(self) -> int:
        """The model's."""
        return self.format.sample_rate

    @property
    def bandwidth(self) -> float:
        """Payload kbps; set it at any time."""
        return self._encoder.bandwidth

    @bandwidth.setter
    def bandwidth(self, kbps: float) -> None:
        self._encoder.bandwidth = kbps

    # -- sound ----------------------------------------------------------------------------------------------

    def send(self, pcm: Pcm) -> None:
        """Encode [1, n] and let the packets go."""
        self._mouth.check()
        packets = self._encoder.encode(mix_channels(pcm, 1))
        now = self._clock()
        for packet in packets:
            self._packets += 1
            self._bytes += len(packet)
            self._departed[sequence_of(packet)] = now
            if len(self._departed) > _REMEMBERED:
                del self._departed[next(iter(self._departed))]
        if packets:
            self._background.call(self._mouth.send_packets, packets)

    def on_arrival(self, call: Callable[[], None]) -> None:
        """Have this called whenever a packet has come, by the network's thread; one that the detour delays calls before
        it is through."""
        self._call = call

    @property
    def queued_samples(self) -> int:
        """Samples made and not yet read."""
        return self._mixer.queued_samples

    def is_certain(self, count: int, now: float) -> bool:
        """Whether all that `read` takes is here: then it may be asked before ``now``."""
        self._let_in()
        return self._mixer.is_certain(count, now)

    def read(self, count: int, now: float) -> Pcm:
        """Take in what has arrived by now, and give the next samples [1, count]."""
        self._let_in()
        return mix_channels(self._mixer.read(count, now), 1)

    def _let_in(self) -> None:
        while self._arrived:
            at, data = self._arrived.popleft()
            departed = self._departed.pop(sequence_of(data), at)
            self._network_s += (at - departed - self._network_s) * _SMOOTH
            if self.detour.is_clear:
                self._take(data, at)
            else:
                self.detour.enter(data, at)
        if not self.detour.is_clear:
            for at, data in self.detour.leave(self._clock()):
                self._take(data, at)

    def _take(self, data: bytes, at: float) -> None:
        self._mixer.receive(int.from_bytes(data[4:6], "little"), data, at)

    def figures(self) -> LineFigures:
        """How it goes."""
        every = list(self._mixer.statistics.values())
        statistics = every[0] if every else ReceiverStatistics()
        return LineFigures(
            packets_sent=self._packets,
            bytes_sent=self._bytes,
            payload_bits=8 * (self._bytes - HEADER_BYTES * self._packets),
            network_ms=1000 * self._network_s + self.detour.jitter_ms,
            buffer_ms=self._meter.look(every),
            target_ms=max(self._mixer.target_ms.values(), default=0.0),
            concealed_share=statistics.concealed_share,
            packets_lost=statistics.packets_lost,
            skipped_frames=statistics.skipped_frames,
            speakers=len(every),
        )

    def _on_packet(self, data: bytes) -> None:
        self._arrived.append((self._clock(), data))
        self._call()


def sequence_of(packet: bytes) -> int:
    """Its number, without a look at the rest."""
    return int.from_bytes(packet[6:8], "little")


def _nobody() -> None:
    """Until somebody wants to know."""


def _ignore(message: ControlMessage) -> None:
    """The demo knows who is in the room."""
