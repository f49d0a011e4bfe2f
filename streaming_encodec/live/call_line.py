"""A line to a room full of people, through `VoiceClient`."""

from __future__ import annotations

from collections.abc import Callable

from streaming_encodec.audio.low_delay import Pcm
from streaming_encodec.audio.resample import mix_channels
from streaming_encodec.client.client import VoiceClient
from streaming_encodec.live.background import BackgroundLoop
from streaming_encodec.live.line import BufferMeter, LineFigures, SpeakerTotals
from streaming_encodec.wire.header import HEADER_BYTES


class CallLine:
    """A call, entered when made. The event loop has a thread of its own; the codec runs in the caller's.

    Of the delay it knows this end: what it gives for the network is a round trip to the relay, which is the way of a
    packet to and from it for a speaker as far away as this end is. The speaker's own microphone and encoder are taken
    to be like the ones here.

    Raises:
        CallError: no relay, not let in, another model in the room.
    """

    def __init__(self, call: VoiceClient) -> None:
        self.call = call
        self._meter, self._totals = BufferMeter(), SpeakerTotals()
        self._background = BackgroundLoop()
        try:
            self._background.run(call.__aenter__())
        except BaseException:
            self._background.close()
            raise

    @property
    def packet_samples(self) -> int:
        """Samples of a packet's frames."""
        return self.call.packet_samples

    @property
    def frame_samples(self) -> int:
        """Samples of a frame."""
        return self.call.format.frame_samples

    @property
    def sample_rate(self) -> int:
        """The model's."""
        return self.call.format.sample_rate

    @property
    def bandwidth(self) -> float:
        """Payload kbps; set it at any time."""
        return self.call.bandwidth

    @bandwidth.setter
    def bandwidth(self, kbps: float) -> None:
        self.call.bandwidth = kbps

    def send(self, pcm: Pcm) -> None:
        """Encode [1, n] and let the packets go. Raises CallError, with the cause, when the call is over."""
        self.call.say(mix_channels(pcm, self.call.format.channels))

    def on_arrival(self, call: Callable[[], None]) -> None:
        """Have this called whenever a packet has come, by the network's thread."""
        self.call.on_arrival = call

    @property
    def queued_samples(self) -> int:
        """Samples of everybody made and not yet read."""
        return self.call.queued_samples

    def is_certain(self, count: int, now: float) -> bool:
        """Whether all that `read` takes is here: then it may be asked before ``now``."""
        return self.call.is_certain(count, now)

    def read(self, count: int, now: float) -> Pcm:
        """The next samples [1, count] of everybody. Raises CallError, with the cause, when the call is over."""
        self.call.check()
        return mix_channels(self.call.read(count, now), 1)

    def figures(self) -> LineFigures:
        """How it goes."""
        statistics = self.call.statistics
        speakers = list(statistics.speakers.values())
        totals = self._totals.look(speakers)
        link = statistics.link
        jitter_ms = 0.0 if self.call.detour is None else self.call.detour.jitter_ms
        return LineFigures(
            packets_sent=link.packets_sent,
            bytes_sent=link.bytes_sent,
            network_ms=1000 * self.call.round_trip_s + jitter_ms,
            payload_bits=8 * (link.bytes_sent - HEADER_BYTES * link.packets_sent),
            buffer_ms=self._meter.look(speakers),
            target_ms=max(statistics.playout_target_ms.values(), default=0.0),
            concealed_share=totals.concealed_share,
            packets_lost=totals.packets_lost,
            skipped_frames=totals.skipped_frames,
            speakers=len(self.call.present),
            connected=self.call.connected,
        )

    def close(self) -> None:
        """Hang up."""
        try:
            self._background.run(self.call.__aexit__(None, None, None), timeout_s=5.0)
        finally:
            self._background.close()
