"""What a receiver counts, in samples and seconds, under the names of W3C webrtc-stats in snake_case.

https://www.w3.org/TR/webrtc-stats/, `RTCInboundRtpStreamStats`. What the standard has no name for (frames saved by
redundancy, duplicates) stands at the end and is marked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from streaming_encodec.wire.control import Report
from streaming_encodec.wire.header import HEADER_BYTES
from streaming_encodec.wire.packet import Packet


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
    """Made-up samples: repeated frames, and comfort noise or silence for lost frames. The noise of DTX is not counted.
    Where word comes that the sender had paused or left, what was made up after its last frame is taken off again."""
    silent_concealed_samples: int = 0
    """Those of them that are comfort noise or silence."""
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
    holes: int = 0
    """Runs of packets that were missing when a later one came; not in the standard."""
    missing_frames: int = 0
    """Frames of these runs; not in the standard."""
    redundant_frames_used: int = 0
    """Frames played from redundancy; not in the standard."""
    reduced_frames: int = 0
    """Frames played with fewer codebooks than the stream has had; not in the standard."""
    skipped_frames: int = 0
    """Frames left out because it was too late for them; not in the standard."""
    comfort_noise_samples: int = 0
    """Noise played while the sender was silent (DTX); not in the standard."""
    restarts: int = 0
    """Times the sender restarted the stream; not in the standard."""
    last_played_frame: int = 0
    """On the sender's line of timestamps, made-up frames left out; not in the standard."""
    last_played_timestamp: float = 0.0
    """When it is heard: seconds, on the clock that was handed in; not in the standard."""

    @property
    def concealed_share(self) -> float:
        """Made-up samples among all played, 0..1."""
        return self.concealed_samples / max(1, self.total_samples_received)

    @property
    def mean_delay_ms(self) -> float:
        """Mean stay in the buffer, in milliseconds."""
        return 1000 * self.jitter_buffer_delay / max(1, self.jitter_buffer_emitted_count)

    def count_packet(self, packet: Packet, size_bytes: int, now_s: float) -> None:
        """A good packet that arrived at ``now_s``, no duplicate."""
        self.packets_received += 1
        self.bytes_received += size_bytes - HEADER_BYTES
        self.header_bytes_received += HEADER_BYTES
        self.last_packet_received_timestamp = now_s
        self.fec_packets_received += packet.redundancy is not None

    def count_concealed(self, samples: int, *, begins: bool, silent: bool) -> None:
        """A frame that was made up. begins: the one before it was not. silent: as comfort noise."""
        self.concealment_events += begins
        self.concealed_samples += samples
        self.total_samples_received += samples
        self.silent_concealed_samples += samples * silent

    def take_back_concealed(self, samples: int, silent_samples: int, *, all_of_it: bool) -> None:
        """So many made-up samples, the silent ones among them, stood for no voice. all_of_it: they were an event."""
        self.concealment_events -= all_of_it
        self.concealed_samples -= samples
        self.total_samples_received -= samples
        self.silent_concealed_samples -= silent_samples

    def count_stretch(self, samples: int) -> None:
        """Samples that a change of pace added (positive) or left out (negative)."""
        self.inserted_samples_for_deceleration += max(0, samples)
        self.removed_samples_for_acceleration += max(0, -samples)


_NEWS_PACKETS = 2
"""A lone packet that is missing may only be late."""


class ReportInterval:
    """What happened since the last report to the sender."""

    def __init__(self) -> None:
        self._marks = (0, 0, 0, 0, 0, 0)
        self._had_losses = False

    def has_new_losses(self, stats: ReceiverStatistics) -> bool:
        """Whether several packets are missing, where none was in the interval before."""
        return not self._had_losses and stats.packets_lost - self._marks[1] >= _NEWS_PACKETS

    def close(self, stats: ReceiverStatistics, sender: int, delay_ms: float, queue_ms: float) -> Report:
        """The report; the next interval begins."""
        marks = (
            stats.packets_received,
            stats.packets_lost,
            stats.total_samples_received,
            stats.concealed_samples,
            stats.holes,
            stats.missing_frames,
        )
        received, lost, played, concealed, holes, missing = (a - b for a, b in zip(marks, self._marks, strict=True))
        self._marks, self._had_losses = marks, lost > 0
        concealed = max(0, concealed)  # some may have been taken back
        return Report(
            sender=sender,
            fraction_lost=_short(min(1.0, max(0, lost) / max(1, received + lost))),
            fraction_concealed=_short(min(1.0, concealed / max(1, played))),
            burst_frames=_short(missing / holes if holes else 0.0),
            jitter_ms=_short(1000 * stats.jitter),
            playout_delay_ms=_short(delay_ms),
            queue_ms=_short(queue_ms),
        )


def _short(value: float) -> float:
    """Three decimals. On a line of 16 kbit/s each 20 digits more would hold a report up by 10 ms."""
    return math.floor(1000 * value + 0.5) / 1000
