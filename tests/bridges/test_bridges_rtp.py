"""The RTP mapping, with aiortc's RTP and SDP classes as the foreign reader."""

from __future__ import annotations

import random
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from streaming_encodec import VoiceDecoder, VoiceEncoder
from streaming_encodec.bench.bridge_calls import speech
from streaming_encodec.bridges.rtp import RtpParameters, RtpPayload, RtpReceiver, RtpSender
from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.wire.packet import Packet, StreamFormat, parse_packet, serialize_packet

FORMAT = StreamFormat("0123456789abcdef" * 2)
DOCUMENT = (Path(__file__).parents[2] / "docs/rtp.md").read_text(encoding="utf-8")


def codes(frames: int, codebooks: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1024, (codebooks, frames))


def test_a_call_through_another_packages_rtp() -> None:
    """Packets of a voice, as bytes on the wire written and read by aiortc, in another order, decode to the same."""
    rtp = pytest.importorskip("aiortc.rtp", reason="aiortc is not installed")
    encoder = VoiceEncoder(8000, model="voice-24khz", frames_per_packet=2, first_timestamp=2**32 - 50)
    sender = RtpSender(encoder.stream_format, first_sequence=65_530, first_timestamp=12_345)
    receiver = RtpReceiver(encoder.stream_format)
    said = speech(2.0)
    sent = [packet for at in range(0, len(said), 160) for packet in encoder.encode(said[at : at + 160])]
    wires = []
    for packet in sent:
        mapped = sender.push(packet)
        assert mapped is not None
        wires.append(
            rtp.RtpPacket(
                payload_type=96,
                marker=int(mapped.marker),
                sequence_number=mapped.sequence,
                timestamp=mapped.timestamp,
                ssrc=7,
                payload=mapped.payload,
            ).serialize()
        )
    assert len(wires[0]) == 12 + 21
    for at in range(0, len(wires) - 1, 2):
        wires[at], wires[at + 1] = wires[at + 1], wires[at]
    back = []
    for wire in wires:
        read = rtp.RtpPacket.parse(wire)
        got = RtpPayload(read.sequence_number, read.timestamp, bool(read.marker), read.payload)
        back.append(parse_packet(receiver.push(got)))
    begin = back[1].timestamp  # of the first that was sent
    back.sort(key=lambda packet: (packet.timestamp - begin) % 2**32)
    for ours, theirs in zip([parse_packet(packet) for packet in sent], back, strict=True):
        assert np.array_equal(ours.codes, theirs.codes)  # type: ignore[arg-type]
        assert (ours.start, ours.num_frames) == (theirs.start, theirs.num_frames)
    assert [(b.timestamp - a.timestamp) % 2**32 for a, b in pairwise(back)] == [2] * (len(back) - 1)
    decoder = VoiceDecoder(8000, model="voice-24khz", output="float32")
    for packet in back:
        decoder.push(serialize_packet(packet))
    assert np.abs(decoder.pull(12_000)).max() > 0.05  # type: ignore[arg-type]


def test_silence_is_not_sent_and_shows_in_the_timestamp_alone() -> None:
    sender = RtpSender(FORMAT)
    first = sender.push(serialize_packet(Packet(0, 0, codes=codes(2), start=True)))
    assert sender.push(serialize_packet(Packet(1, 2, noise=(60,) * 6))) is None
    second = sender.push(serialize_packet(Packet(2, 32, codes=codes(2))))
    assert first is not None
    assert second is not None
    assert (first.sequence, second.sequence) == (0, 1)
    assert (first.timestamp, second.timestamp) == (0, 32 * 320)
    assert (first.marker, second.marker) == (True, False)


def test_the_first_packet_after_an_end_bears_the_marker() -> None:
    sender = RtpSender(FORMAT)
    assert sender.push(serialize_packet(Packet(0, 0, noise=(127,) * 6, start=True, end=True))) is None
    sent = sender.push(serialize_packet(Packet(1, 9, codes=codes(1))))
    assert sent is not None
    assert sent.marker


def test_the_payload_is_that_of_the_document() -> None:
    sent = RtpSender(FORMAT).push(serialize_packet(Packet(0, 0, codes=np.array([[5], [1000]]))))
    assert sent is not None
    assert sent.payload.hex() == "01" + "05a00f"  # the example of protocol.md


@pytest.mark.parametrize(
    ("payload", "timestamp", "says"),
    [
        (b"", 0, "first byte"),
        (b"\x07", 0, "not 1 frames of 8"),
        (b"\xff" + bytes(320), 0, "not 8 frames"),
        (b"\x01\x05\xa0\xff", 0, "bit"),
        (b"\x01\x05\xa0\x0f", 7, "whole number of frames"),
    ],
)
def test_a_payload_that_is_none(payload: bytes, timestamp: int, says: str) -> None:
    receiver = RtpReceiver(FORMAT)
    receiver.push(RtpPayload(0, 0, True, b"\x01\x05\xa0\x0f"))
    with pytest.raises(PacketError, match=says):
        receiver.push(RtpPayload(1, timestamp, False, payload))


def test_any_payload_is_a_packet_or_a_packet_error() -> None:
    rng = random.Random(1)
    receiver = RtpReceiver(FORMAT)
    good = RtpSender(FORMAT).push(serialize_packet(Packet(0, 0, codes=codes(2))))
    assert good is not None
    taken = 0
    for _ in range(3000):
        data = bytearray(good.payload if rng.random() < 0.7 else rng.randbytes(rng.randrange(60)))
        for _ in range(rng.randrange(3)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        payload = RtpPayload(rng.randrange(1 << 16), 320 * rng.randrange(1 << 12), rng.random() < 0.1, bytes(data))
        try:
            parse_packet(receiver.push(payload))
        except PacketError:
            continue
        taken += 1
    assert taken > 500


def test_the_documents_sdp_is_read_by_another_package() -> None:
    sdp = pytest.importorskip("aiortc.sdp", reason="aiortc is not installed")
    media = re.findall(r"^```\n(m=audio.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(media) == 2
    for text, codebooks in zip(media, (8, 4), strict=True):
        session = sdp.SessionDescription.parse("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n" + text)
        codec = next(codec for codec in session.media[0].rtp.codecs if codec.payloadType == 96)
        assert (codec.mimeType, codec.clockRate) == ("audio/encodec", 24_000)
        fmtp = "; ".join(f"{key.strip()}={value}" for key, value in codec.parameters.items())
        read = RtpParameters.read(f"{codec.mimeType.partition('/')[2]}/{codec.clockRate}", fmtp, 320)
        assert (read.codebooks, read.frames_per_packet) == (codebooks, 2)
        assert "\n".join(read.attributes(96, 320)) in text


@pytest.mark.parametrize(
    ("rtpmap", "fmtp", "says"),
    [
        ("opus/48000/2", "", "not EnCodec"),
        ("encodec/x", "", "not EnCodec"),
        ("encodec/24000", "codebooks=8", "model="),
        ("encodec/24000", f"model={FORMAT.model}; codebooks=x", "none"),
        ("encodec/24000", f"model={FORMAT.model}; codebooks=99", "1 to 32"),
        ("encodec/24000", f"model={FORMAT.model}; ptime=1e999", "none"),
        ("encodec/24000", f"model={FORMAT.model}; ptime=900", "1 to 6"),
    ],
)
def test_a_description_that_cannot_be_used(rtpmap: str, fmtp: str, says: str) -> None:
    with pytest.raises(StreamError, match=says):
        RtpParameters.read(rtpmap, fmtp, 320)
