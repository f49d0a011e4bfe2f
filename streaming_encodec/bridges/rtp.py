"""EnCodec over RTP (RFC 3550), experimental: docs/rtp.md has the mapping. Pure: sockets and SRTP are the caller's."""

from __future__ import annotations

import re
from dataclasses import dataclass

from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.wire.bits import pack_bits, packed_size, unpack_bits
from streaming_encodec.wire.header import MAX_CODEBOOKS, MAX_FRAMES, Unwrapper
from streaming_encodec.wire.packet import Packet, StreamFormat, parse_packet, serialize_packet

_SEQUENCE_BITS, _TIMESTAMP_BITS = 16, 32
_FMTP = re.compile(r"\s*([a-z]+)\s*=\s*([^;]*?)\s*")


@dataclass(frozen=True, slots=True)
class RtpPayload:
    """What an RTP packet of this payload type holds: sequence number (16 bits), timestamp (32 bits, in samples),
    marker and payload."""

    sequence: int
    timestamp: int
    marker: bool
    payload: bytes


class RtpSender:
    """Packets of a `VoiceEncoder` as RTP payloads. first_sequence, first_timestamp: random ones, see RFC 3550."""

    def __init__(self, stream_format: StreamFormat, *, first_sequence: int = 0, first_timestamp: int = 0) -> None:
        self._format = stream_format
        self._sequence, self._offset = first_sequence, first_timestamp
        self._reset = False

    def push(self, packet: bytes) -> RtpPayload | None:
        """The payload of a packet; None for noise: nothing is sent in silence. Redundancy is left out.

        Raises PacketError for bytes that are no packet of this stream.
        """
        parsed = parse_packet(packet)
        self._format.check_packet(parsed)
        self._reset = self._reset or parsed.start
        if parsed.codes is None:
            return None
        codebooks, frames = parsed.codes.shape
        head = bytes([codebooks - 1 | (frames - 1) << 5])
        timestamp = (self._offset + parsed.timestamp * self._format.frame_samples) % (1 << _TIMESTAMP_BITS)
        body = pack_bits(parsed.codes, self._format.bits_per_code)
        sent = RtpPayload(self._sequence, timestamp, self._reset, head + body)
        self._sequence = (self._sequence + 1) % (1 << _SEQUENCE_BITS)
        self._reset = False
        return sent


class RtpReceiver:
    """RTP payloads as packets for a `VoiceDecoder` with a jitter buffer. They may come in any order."""

    def __init__(self, stream_format: StreamFormat) -> None:
        self._format = stream_format
        self._unwrap = Unwrapper(_TIMESTAMP_BITS)
        self._phase: int | None = None

    def push(self, received: RtpPayload) -> bytes:
        """The packet. Raises PacketError for a payload that is none of this stream."""
        payload, bits = received.payload, self._format.bits_per_code
        if not payload:
            raise PacketError("an RTP payload without its first byte")
        codebooks, frames = (payload[0] & 31) + 1, (payload[0] >> 5) + 1
        if frames > MAX_FRAMES or len(payload) != 1 + packed_size(codebooks * frames, bits):
            raise PacketError(f"an RTP payload of {len(payload)} bytes is not {frames} frames of {codebooks} codebooks")
        codes = unpack_bits(payload[1:], codebooks * frames, bits, strict=True).reshape(codebooks, frames)
        samples = self._unwrap(received.timestamp)
        if self._phase is None:
            self._phase = samples % self._format.frame_samples
        if (samples - self._phase) % self._format.frame_samples:
            raise PacketError(f"an RTP timestamp that is not a whole number of frames from the first: {samples}")
        packet = Packet(
            received.sequence % (1 << _SEQUENCE_BITS),
            samples // self._format.frame_samples % (1 << _TIMESTAMP_BITS),
            codes=codes,
            start=received.marker,
            bits_per_code=bits,
        )
        self._format.check_packet(packet)
        return serialize_packet(packet)


@dataclass(frozen=True, slots=True)
class RtpParameters:
    """What an SDP says of a stream: its clock in Hz, the model's fingerprint, codebooks, frames in a packet."""

    rate: int
    model: str
    codebooks: int
    frames_per_packet: int

    def attributes(self, payload_type: int, frame_samples: int) -> list[str]:
        """The attributes of the media description, without line ends."""
        ptime_ms = 1000 * self.frames_per_packet * frame_samples / self.rate
        settings = f"model={self.model}; codebooks={self.codebooks}; ptime={ptime_ms:.2f}"
        return [f"a=rtpmap:{payload_type} encodec/{self.rate}", f"a=fmtp:{payload_type} {settings}"]

    @classmethod
    def read(cls, rtpmap: str, fmtp: str, frame_samples: int) -> RtpParameters:
        """Out of the values of both attributes, after the payload type: `encodec/24000` and `model=…; codebooks=8`.

        Unknown settings are passed over. Raises StreamError for another encoding, and for settings that cannot be.
        """
        name, _, rate = rtpmap.strip().partition("/")
        if name.lower() != "encodec" or not rate.isascii() or not rate.isdigit() or not 8000 <= int(rate) <= 48_000:
            raise StreamError(f"not EnCodec: rtpmap is encodec/24000, not {rtpmap[:40]!r}")
        found = [_FMTP.fullmatch(part) for part in fmtp.split(";") if part.strip()]
        settings = {match[1]: match[2] for match in found if match is not None}
        try:
            codebooks, ptime_ms = int(settings.get("codebooks", "8")), float(settings.get("ptime", "26.67"))
            frames = round(ptime_ms * int(rate) / 1000 / frame_samples)
        except (ValueError, OverflowError) as error:
            raise StreamError(f"fmtp with a number that is none: {fmtp[:80]!r}") from error
        if not re.fullmatch("[0-9a-f]{32}", settings.get("model", "")):
            raise StreamError("fmtp without model=, the fingerprint that `streaming-encodec info` prints")
        if not 1 <= codebooks <= MAX_CODEBOOKS or not 1 <= frames <= MAX_FRAMES:
            raise StreamError(f"fmtp: 1 to {MAX_CODEBOOKS} codebooks, 1 to {MAX_FRAMES} frames a packet")
        return cls(int(rate), settings["model"], codebooks, frames)
