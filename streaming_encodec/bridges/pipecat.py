"""A serializer for Pipecat's WebSocket transports: voice as codes, 6 kbps in place of 256. Extra `[pipecat]`.

A message of sound is binary: byte 0 is 1 where a stream begins, then the model's fingerprint (16 bytes); or 0. Then
whole packets, each after its length in two bytes. Codes have the model's rate, so each end converts to and from the
rate of its own pipeline, and the two may differ. An interruption is the text `{"type":"clear"}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from streaming_encodec.call.stream_format import find_voice_model, stream_format
from streaming_encodec.call.voice_decoder import VoiceDecoder
from streaming_encodec.call.voice_encoder import VoiceEncoder
from streaming_encodec.errors import MissingExtraError, PacketError
from streaming_encodec.wire.packet import parse_packet

try:
    from pipecat.frames.frames import Frame, InputAudioRawFrame, InterruptionFrame, OutputAudioRawFrame
    from pipecat.serializers.base_serializer import FrameSerializer
except ImportError as error:
    raise MissingExtraError('this needs Pipecat, an extra: pip install "streaming-encodec[pipecat]"') from error

if TYPE_CHECKING:
    from streaming_encodec.model.find import AnyModel

logger = logging.getLogger("streaming_encodec.bridges.pipecat")

_CLEAR = json.dumps({"type": "clear"}, separators=(",", ":"))
_MOST_MESSAGE_BYTES = 65_536
_MOST_SECONDS = 2.0
"""Of sound in one message. Pipecat's transports send 40 ms at a time."""


class EncodecSerializer(FrameSerializer):  # type: ignore[misc]  # Pipecat's types are not looked at
    """Audio frames to messages and back; interruptions; no other frames. Make one for each connection.

    Args:
        model: the same at both ends.
        bandwidth: of what is sent, in kbps.
        in_rate: Hz, of the frames that `deserialize` gives; None is the pipeline's `audio_in_sample_rate`. Frames to
            send may have any rate.
    """

    def __init__(self, model: AnyModel | None = None, *, bandwidth: float = 6.0, in_rate: int | None = None) -> None:
        super().__init__()
        self._model = find_voice_model(model)
        self._fingerprint = bytes.fromhex(stream_format(self._model).model)
        self._bandwidth = bandwidth
        self._in_rate, self._asked_rate = in_rate or 16_000, in_rate
        self._encoder: VoiceEncoder | None = None
        self._decoder: VoiceDecoder | None = None  # None until a stream of this model has begun
        self._frames = self._given = 0
        self._begins = True  # the next message is the first of a stream
        self._warned = False

    async def setup(self, setup: Any) -> None:
        """Take the pipeline's rate."""
        self._in_rate = self._asked_rate or int(setup.audio_in_sample_rate or self._in_rate)

    # -- out ------------------------------------------------------------------------------------------------

    async def serialize(self, frame: Frame) -> str | bytes | None:
        """What the bot says, as a message; None where no frame of the codec is complete yet."""
        if isinstance(frame, InterruptionFrame):
            self._encoder = None  # what is left in it is not said any more
            return _CLEAR
        if not isinstance(frame, OutputAudioRawFrame) or not frame.audio:
            return None
        return await asyncio.to_thread(self._encode, frame.audio, frame.sample_rate, frame.num_channels)

    def _encode(self, audio: bytes, rate: int, channels: int) -> bytes | None:
        if self._encoder is None or self._encoder.sample_rate != rate:
            self._encoder = VoiceEncoder(rate, model=self._model, bandwidth=self._bandwidth)
            self._begins = True
        samples = np.frombuffer(audio, "<i2").astype(np.float32) / np.float32(32_768)
        packets = self._encoder.encode(samples.reshape(-1, channels).mean(axis=1, dtype=np.float32))
        if not packets:
            return None
        head = b"\x01" + self._fingerprint if self._begins else b"\x00"
        self._begins = False
        return head + b"".join(len(packet).to_bytes(2, "little") + packet for packet in packets)

    # -- in -------------------------------------------------------------------------------------------------

    async def deserialize(self, data: str | bytes) -> Frame | None:
        """A message that arrived, as a frame for the pipeline; None for one of another kind, or a broken one."""
        if isinstance(data, str):
            if data != _CLEAR:
                return None
            self._decoder = None  # what waits is not heard any more
            return InterruptionFrame()
        try:
            packets = self._read(data)
        except PacketError as error:
            if not self._warned:
                logger.warning("a message is dropped: %s", error)
            self._warned = True
            return None
        if not packets or self._decoder is None:
            return None
        audio = await asyncio.to_thread(self._decode, self._decoder, packets)
        return InputAudioRawFrame(audio=audio, sample_rate=self._in_rate, num_channels=1) if audio else None

    def _read(self, data: bytes) -> list[bytes]:
        """The packets of a message; a new stream gets a new decoder. Raises PacketError."""
        if not 1 <= len(data) <= _MOST_MESSAGE_BYTES or data[0] > 1:
            raise PacketError(f"{len(data)} bytes that are no message of this serializer")
        begins, at = data[0] == 1, 17 if data[0] == 1 else 1
        if begins and data[1:17] != self._fingerprint:
            self._decoder = None
            raise PacketError("the other end uses another model: both need the same")
        packets, frames = [], 0
        while at < len(data):
            size = int.from_bytes(data[at : at + 2], "little")
            packets.append(data[at + 2 : at + 2 + size])
            frames += parse_packet(packets[-1]).num_frames
            at += 2 + size
        stream = stream_format(self._model) if self._decoder is None else self._decoder.stream_format
        if frames * stream.frame_seconds > _MOST_SECONDS:
            raise PacketError(f"a message with more than {_MOST_SECONDS:g} s of sound")
        if begins:
            # Pulled by whole frames, so the output need not start late.
            self._decoder = VoiceDecoder(self._in_rate, 3000 * stream.frame_seconds, model=self._model, output="bytes")
            self._frames = self._given = 0
        return packets

    def _decode(self, decoder: VoiceDecoder, packets: list[bytes]) -> bytes:
        stream = decoder.stream_format
        for packet in packets:
            try:
                decoder.push(packet)
            except PacketError:
                continue
            self._frames += parse_packet(packet).num_frames
        due = self._frames * stream.frame_samples * self._in_rate // stream.sample_rate
        count, self._given = due - self._given, due
        audio = decoder.pull(count)
        assert isinstance(audio, bytes)
        return audio
