"""What a receiver counts, under the names of W3C webrtc-stats (`RTCInboundRtpStreamStats`), in samples and
seconds.

https://www.w3.org/TR/webrtc-stats/ — snake_case here, the standard's camelCase in `to_webrtc`. What the
standard has no name for (frames saved by redundancy, duplicates) is kept apart and marked.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from streaming_encodec.wire.control import Report


@dataclass(slots=True)
class ReceiverStatistics:
    """Totals since the stream began; all samples are per channel."""

    packets_received: int = 0
    """Whole, good packets, duplicates not counted."""
    packets_lost: int = 0
    """By sequence number, those of an outage included (RFC 3550 A.3); one that comes after all is taken off again."""
    packets_discarded: int = 0
    """Came too late to play any of it, or far out of place."""
    bytes_received: int = 0
    """Payload; the header's 12 bytes are in ``header_bytes_received``."""
    header_bytes_received: int = 0
    last_packet_received_timestamp: float = 0.0
    """Seconds, on the clock that was handed in."""
    jitter: float = 0.0
    """Seconds, smoothed as in RFC 3550."""
    total_samples_received: int = 0
    """Samples played, made-up ones included, the silence before the first frame not."""
    concealed_samples: int = 0
    """Made-up samples: repeated frames, and comfort noise for frames that were lost (DTX noise is not
    counted)."""
    silent_concealed_samples: int = 0
    """Those of them that are comfort noise."""
    concealment_events: int = 0
    inserted_samples_for_deceleration: int = 0
    removed_samples_for_acceleration: int = 0
    jitter_buffer_delay: float = 0.0
    """Sum over emitted samples of the seconds each stayed in the buffer."""
    jitter_buffer_target_delay: float = 0.0
    jitter_buffer_minimum_delay: float = 0.0
    jitter_buffer_emitted_count: int = 0
    fec_packets_received: int = 0
    """Packets that carried redundancy."""

    duplicate_packets: int = 0
    """Not in the standard."""
    redundant_frames_used: int = 0
    """Frames played from redundancy; not in the standard."""
    reduced_frames: int = 0
    """Frames played with fewer codebooks than the stream has had; not in the standard."""
    skipped_frames: int = 0
    """Frames left out because it was too late for them; not in the standard."""
    comfort_noise_samples: int = 0
    """Noise played while the sender was silent (DTX); not in the standard."""
    restarts: int = 0
    """Times the stream began anew; not in the standard."""

    @property
    def concealed_share(self) -> float:
        """Made-up samples among all played, 0..1."""
        return self.concealed_samples / max(1, self.total_samples_received)

    @property
    def mean_delay_ms(self) -> float:
        """Mean stay in the buffer, in milliseconds."""
        return 1000 * self.jitter_buffer_delay / max(1, self.jitter_buffer_emitted_count)

    def to_webrtc(self) -> dict[str, float | int | str]:
        """As an `RTCInboundRtpStreamStats` dictionary; names of our own begin with ``x``."""
        renamed: dict[str, float | int | str] = {"type": "inbound-rtp", "kind": "audio"}
        for field in fields(self):
            head, *rest = field.name.split("_")
            name = head + "".join(part.capitalize() for part in rest)
            if field.name in _OWN:
                name = "x" + name[0].upper() + name[1:]
            renamed[name] = getattr(self, field.name)
        return renamed


_OWN = {
    "duplicate_packets",
    "redundant_frames_used",
    "reduced_frames",
    "skipped_frames",
    "comfort_noise_samples",
    "restarts",
}


class ReportInterval:
    """What happened since the last report to the sender."""

    def __init__(self) -> None:
        self._events = 0
        self._missing = 0
        self._marks = (0, 0, 0, 0)

    def missing(self, begins: bool) -> None:
        """A frame was made up; ``begins``: the one before it was not."""
        self._events += begins
        self._missing += 1

    def close(self, stats: ReceiverStatistics, sender: int, now: float, delay_ms: float) -> Report:
        """The report, and the next interval begins."""
        played, concealed = stats.total_samples_received, stats.concealed_samples
        marks = (stats.packets_received, stats.packets_lost, played, concealed)
        received, lost, played, concealed = (a - b for a, b in zip(marks, self._marks, strict=True))
        burst = self._missing / self._events if self._events else 0.0
        self._marks, self._events, self._missing = marks, 0, 0
        return Report(
            sender=sender,
            fraction_lost=min(1.0, max(0, lost) / max(1, received + lost)),
            fraction_concealed=min(1.0, concealed / max(1, played)),
            burst_frames=burst,
            jitter_ms=1000 * stats.jitter,
            playout_delay_ms=delay_ms,
        )
