"""EnCodec made live: any EnCodec checkpoint streamed exactly, and carried over a real network.

Names are loaded on first use (PEP 562), so that a receiver which only needs `streaming_encodec.wire` or
`streaming_encodec.voice` never pays for importing torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from streaming_encodec._version import __version__
from streaming_encodec.errors import (
    BandwidthError,
    BridgeError,
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
from streaming_encodec.extras import needs_torch

if TYPE_CHECKING:
    from streaming_encodec.audio.devices.card import SoundCard
    from streaming_encodec.audio.files.bundled import bundled_clip
    from streaming_encodec.audio.files.sound import AudioReader
    from streaming_encodec.audio.files.writer import AudioWriter
    from streaming_encodec.bridges.bridge import Bridge
    from streaming_encodec.bridges.config import BridgeConfig
    from streaming_encodec.call.voice_decoder import VoiceDecoder
    from streaming_encodec.call.voice_encoder import VoiceEncoder
    from streaming_encodec.client.client import VoiceClient
    from streaming_encodec.client.settings import CodecSettings, ConnectionSettings
    from streaming_encodec.client.threaded import ThreadedVoiceClient
    from streaming_encodec.corpus.transcode import decode_file, encode_file, stream_file
    from streaming_encodec.model.config import EncodecConfig
    from streaming_encodec.model.encodec import EncodecModel
    from streaming_encodec.model.folder import ModelFolder
    from streaming_encodec.relay.config import RelayConfig
    from streaming_encodec.relay.relay import Relay
    from streaming_encodec.stepping.state import StreamState
    from streaming_encodec.streaming.decoder import StreamingDecoder
    from streaming_encodec.streaming.encoder import StreamingEncoder
    from streaming_encodec.streaming.pool import StreamPool
    from streaming_encodec.streaming.segments import SegmentDecoder, SegmentEncoder
    from streaming_encodec.streaming.tokens import tokens_to_speech
    from streaming_encodec.voice.receiver import ReceiverSettings
    from streaming_encodec.voice.sender import SenderSettings
    from streaming_encodec.wire.packet import Packet, parse_packet

_MODULE_OF = {
    "AudioReader": "streaming_encodec.audio.files.sound",
    "AudioWriter": "streaming_encodec.audio.files.writer",
    "Bridge": "streaming_encodec.bridges.bridge",
    "BridgeConfig": "streaming_encodec.bridges.config",
    "CodecSettings": "streaming_encodec.client.settings",
    "ConnectionSettings": "streaming_encodec.client.settings",
    "EncodecConfig": "streaming_encodec.model.config",
    "EncodecModel": "streaming_encodec.model.encodec",
    "ModelFolder": "streaming_encodec.model.folder",
    "Packet": "streaming_encodec.wire.packet",
    "ReceiverSettings": "streaming_encodec.voice.receiver",
    "Relay": "streaming_encodec.relay.relay",
    "RelayConfig": "streaming_encodec.relay.config",
    "SegmentDecoder": "streaming_encodec.streaming.segments",
    "SegmentEncoder": "streaming_encodec.streaming.segments",
    "SenderSettings": "streaming_encodec.voice.sender",
    "SoundCard": "streaming_encodec.audio.devices.card",
    "StreamPool": "streaming_encodec.streaming.pool",
    "StreamState": "streaming_encodec.stepping.state",
    "StreamingDecoder": "streaming_encodec.streaming.decoder",
    "StreamingEncoder": "streaming_encodec.streaming.encoder",
    "ThreadedVoiceClient": "streaming_encodec.client.threaded",
    "VoiceClient": "streaming_encodec.client.client",
    "VoiceDecoder": "streaming_encodec.call.voice_decoder",
    "VoiceEncoder": "streaming_encodec.call.voice_encoder",
    "bundled_clip": "streaming_encodec.audio.files.bundled",
    "decode_file": "streaming_encodec.corpus.transcode",
    "encode_file": "streaming_encodec.corpus.transcode",
    "parse_packet": "streaming_encodec.wire.packet",
    "stream_file": "streaming_encodec.corpus.transcode",
    "tokens_to_speech": "streaming_encodec.streaming.tokens",
}

__all__ = [
    "AudioReader",
    "AudioWriter",
    "BandwidthError",
    "Bridge",
    "BridgeConfig",
    "BridgeError",
    "CallError",
    "CallErrorReason",
    "CheckpointError",
    "CodecSettings",
    "ConfigError",
    "ConnectionSettings",
    "DeviceError",
    "EncodecConfig",
    "EncodecModel",
    "FileFormatError",
    "MissingExtraError",
    "ModelFolder",
    "Packet",
    "PacketError",
    "ReceiverSettings",
    "Relay",
    "RelayConfig",
    "SegmentDecoder",
    "SegmentEncoder",
    "SenderSettings",
    "SoundCard",
    "StreamError",
    "StreamPool",
    "StreamState",
    "StreamingDecoder",
    "StreamingEncodecError",
    "StreamingEncoder",
    "ThreadedVoiceClient",
    "VoiceClient",
    "VoiceDecoder",
    "VoiceEncoder",
    "__version__",
    "bundled_clip",
    "decode_file",
    "encode_file",
    "parse_packet",
    "stream_file",
    "tokens_to_speech",
]


def __getattr__(name: str) -> object:
    try:
        module = _MODULE_OF[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    with needs_torch(name):
        value: object = getattr(import_module(module), name)
    globals()[name] = value  # the next access finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
