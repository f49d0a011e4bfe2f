"""The figures of a call: what was sent, what was lost, how long sound stays in the jitter buffer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from streaming_encodec.client.threaded import ThreadedVoiceClient
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.header import HEADER_BYTES
from streaming_encodec.wire.wire_size import wire_bytes

_SUMMED = (
    "total_samples_received",
    "concealed_samples",
    "packets_received",
    "packets_lost",
    "skipped_frames",
    "jitter_buffer_delay",
    "jitter_buffer_emitted_count",
)


@dataclass(frozen=True, slots=True)
class CallFigures:
    """Totals since the call began, and the present."""

    packets_sent: int = 0
    bytes_sent: int = 0
    """Packets as they are, header included."""
    payload_bits: int = 0
    """Codes alone."""
    network_ms: float = 0.0
    """A packet's way from one end to the other, lately."""
    buffer_ms: float = 0.0
    """How long frames lately stayed in the jitter buffer."""
    target_ms: float = 0.0
    concealed_share: float = 0.0
    packets_lost: int = 0
    skipped_frames: int = 0
    """Left out undecoded because they lay too far back: on a machine too slow, or after a long stall."""
    speakers: int = 0
    connected: bool = True

    @property
    def wire_bits(self) -> int:
        """With WebSocket, TCP and IP headers."""
        return 8 * wire_bytes(self.packets_sent, self.bytes_sent)


class CallMeter:
    """Takes the figures of a call a few times a second.

    speaker, listener: whose sent packets and whose received ones count; in a conversation both are one client.
    network_ms: the way of a packet from one end to the other.
    """

    def __init__(
        self, speaker: ThreadedVoiceClient, listener: ThreadedVoiceClient, network_ms: Callable[[], float]
    ) -> None:
        self._speaker, self._listener, self._network_ms = speaker, listener, network_ms
        self._buffer, self._totals = BufferMeter(), SpeakerTotals()

    def look(self) -> CallFigures:
        """The figures now."""
        link, received = self._speaker.statistics.link, self._listener.statistics
        speakers = list(received.speakers.values())
        totals = self._totals.look(speakers)
        return CallFigures(
            packets_sent=link.packets_sent,
            bytes_sent=link.bytes_sent,
            payload_bits=8 * (link.bytes_sent - HEADER_BYTES * link.packets_sent),
            network_ms=self._network_ms(),
            buffer_ms=self._buffer.look(speakers),
            target_ms=max(received.playout_target_ms.values(), default=0.0),
            concealed_share=totals.concealed_share,
            packets_lost=totals.packets_lost,
            skipped_frames=totals.skipped_frames,
            speakers=len(self._listener.present),
            connected=self._speaker.connected and self._listener.connected,
        )


class BufferMeter:
    """Mean stay in the jitter buffer over the last looks, from totals that only grow."""

    def __init__(self, looks: int = 10) -> None:
        self._past: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=looks)

    def look(self, statistics: Iterable[ReceiverStatistics]) -> float:
        """Milliseconds, 0 while nothing was played."""
        every = list(statistics)
        delay_s = sum(s.jitter_buffer_delay for s in every)
        emitted = sum(s.jitter_buffer_emitted_count for s in every)
        if emitted < self._past[-1][1]:
            self._past.clear()  # a speaker has left, and its totals with it
            self._past.append((delay_s, emitted))
        before_s, before = self._past[0]
        if emitted > self._past[-1][1]:
            self._past.append((delay_s, emitted))
        return 1000 * (delay_s - before_s) / (emitted - before) if emitted > before else 0.0


class SpeakerTotals:
    """What the statistics of all speakers come to, including those of speakers who have left."""

    def __init__(self) -> None:
        self._present: dict[int, ReceiverStatistics] = {}
        self._left = ReceiverStatistics()
        self.speakers = 0
        """How many there were so far."""

    def look(self, statistics: Iterable[ReceiverStatistics]) -> ReceiverStatistics:
        """The totals of samples played and concealed, of packets, of skipped frames and of the buffer's delay."""
        # By object, not by number: a restarted relay gives the same numbers to others.
        present = {id(each): each for each in statistics}
        self.speakers += len(present.keys() - self._present.keys())
        for key in self._present.keys() - present.keys():
            _add(self._left, self._present[key])
        self._present = present
        totals = replace(self._left)
        for each in present.values():
            _add(totals, each)
        return totals


def _add(totals: ReceiverStatistics, more: ReceiverStatistics) -> None:
    for name in _SUMMED:
        setattr(totals, name, getattr(totals, name) + getattr(more, name))
