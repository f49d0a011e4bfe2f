"""What a call has seen, for meters and logs."""

from __future__ import annotations

from dataclasses import dataclass

from streaming_encodec.client.link import LinkCounts
from streaming_encodec.voice.statistics import ReceiverStatistics
from streaming_encodec.wire.control import Report


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """What a call has seen so far: the connection, and each speaker under the names of W3C webrtc-stats."""

    link: LinkCounts
    speakers: dict[int, ReceiverStatistics]
    playout_target_ms: dict[int, float]
    packets_arrived: int
    bad_packets: int
    reports: dict[tuple[int, int], Report]
    """What listeners last said of this client's voice, by (its number, theirs)."""
