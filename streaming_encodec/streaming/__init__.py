"""Streaming: the offline model's output from small blocks. Façades hold state; the laws are in ``half.py``."""

from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.streaming.pool import StreamPool
from streaming_encodec.streaming.segments import Segment, SegmentDecoder, SegmentEncoder
from streaming_encodec.streaming.silence import silence_codes
from streaming_encodec.streaming.state import StreamState

__all__ = [
    "Segment",
    "SegmentDecoder",
    "SegmentEncoder",
    "StreamPool",
    "StreamState",
    "StreamingDecoder",
    "StreamingEncoder",
    "silence_codes",
]
