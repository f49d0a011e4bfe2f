"""EnCodec made live: any EnCodec checkpoint streamed exactly, and carried over a real network.

Names are loaded on first use (PEP 562), so that a receiver which only needs `streaming_encodec.wire` or
`streaming_encodec.voice` never pays for importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from streaming_encodec._version import __version__
from streaming_encodec.errors import (
    BandwidthError,
    CallError,
    CallErrorReason,
    CheckpointError,
    ConfigError,
    DeviceError,
    FileFormatError,
    MissingExtraError,
    PacketError,
    StreamError,
    StreamingEncodecError,
)

if TYPE_CHECKING:
    from streaming_encodec.call.voice_decoder import VoiceDecoder
    from streaming_encodec.call.voice_encoder import VoiceEncoder
    from streaming_encodec.client.client import VoiceClient
    from streaming_encodec.corpus.transcode import decode_file, encode_file, stream_file
    from streaming_encodec.model.config import EncodecConfig
    from streaming_encodec.model.encodec import EncodecModel
    from streaming_encodec.streaming import (
        SegmentDecoder,
        SegmentEncoder,
        StreamingDecoder,
        StreamingEncoder,
        StreamPool,
        StreamState,
    )

_MODULE_OF = {
    "EncodecConfig": "streaming_encodec.model.config",
    "EncodecModel": "streaming_encodec.model.encodec",
    "SegmentDecoder": "streaming_encodec.streaming",
    "SegmentEncoder": "streaming_encodec.streaming",
    "StreamPool": "streaming_encodec.streaming",
    "StreamState": "streaming_encodec.streaming",
    "StreamingDecoder": "streaming_encodec.streaming",
    "StreamingEncoder": "streaming_encodec.streaming",
    "VoiceClient": "streaming_encodec.client.client",
    "VoiceDecoder": "streaming_encodec.call.voice_decoder",
    "VoiceEncoder": "streaming_encodec.call.voice_encoder",
    "decode_file": "streaming_encodec.corpus.transcode",
    "encode_file": "streaming_encodec.corpus.transcode",
    "stream_file": "streaming_encodec.corpus.transcode",
}

__all__ = [
    "BandwidthError",
    "CallError",
    "CallErrorReason",
    "CheckpointError",
    "ConfigError",
    "DeviceError",
    "EncodecConfig",
    "EncodecModel",
    "FileFormatError",
    "MissingExtraError",
    "PacketError",
    "SegmentDecoder",
    "SegmentEncoder",
    "StreamError",
    "StreamPool",
    "StreamState",
    "StreamingDecoder",
    "StreamingEncodecError",
    "StreamingEncoder",
    "VoiceClient",
    "VoiceDecoder",
    "VoiceEncoder",
    "__version__",
    "decode_file",
    "encode_file",
    "stream_file",
]


def __getattr__(name: str) -> object:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(import_module(module), name)
    globals()[name] = value  # the next access finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
