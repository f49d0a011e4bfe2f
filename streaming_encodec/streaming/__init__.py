"""Streaming: the offline model's output from small blocks. Façades hold state; the laws are in ``stepping/half.py``."""

from streaming_encodec.stepping.silence import silence_codes
from streaming_encodec.stepping.tree import StreamState
from streaming_encodec.streaming.decoder import StreamingDecoder
from streaming_encodec.streaming.encoder import StreamingEncoder
from streaming_encodec.streaming.pool import StreamPool
from streaming_encodec.streaming.segments import Segment, SegmentDecoder, SegmentEncoder

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
