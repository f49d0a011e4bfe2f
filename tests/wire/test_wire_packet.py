"""Law 7: packets come back as they went, and other bytes raise PacketError."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire.wire_cases import packets, random_codes

from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.wire.header import HEADER_BYTES, MAX_PACKET_BYTES, cut_packet, read_header, with_sender
from streaming_encodec.wire.packet import Packet, packet_size, parse_packet, serialize_packet

CODES = np.arange(24).reshape(8, 3)


@given(packets())
def test_what_is_sent_is_what_comes(packet: Packet) -> None:
    data = serialize_packet(packet)
    back = parse_packet(data)
    for name in ("sequence", "timestamp", "noise", "scale", "start", "end", "bits_per_code", "sender"):
        assert getattr(back, name) == getattr(packet, name), name
    for name in ("codes", "redundancy"):
        sent, came = getattr(packet, name), getattr(back, name)
        assert (sent is None) == (came is None)
        assert sent is None or (came.dtype == np.int64 and np.array_equal(sent, came)), name
    assert back == packet
    assert hash(back) == hash(packet)
    assert len(data) <= MAX_PACKET_BYTES


@given(packets())
def test_cut_at_each_offset_and_with_a_byte_more(packet: Packet) -> None:
    data = serialize_packet(packet)
    for end in range(len(data)):
        with pytest.raises(PacketError):
            parse_packet(data[:end])
    for byte in (b"\0", b"\xff"):
        with pytest.raises(PacketError):
            parse_packet(data + byte)


@given(packets(), st.data())
def test_each_packet_has_one_spelling(packet: Packet, data: st.DataObject) -> None:
    """A flipped bit is refused or is another packet: never the same one, never another error."""
    raw = bytearray(serialize_packet(packet))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8
    try:
        other = parse_packet(bytes(raw))
    except PacketError:
        return
    assert serialize_packet(other) == bytes(raw)
    assert other != packet


@given(packets(), st.integers(1, 40), st.booleans())
def test_a_relay_cuts_without_decoding(packet: Packet, keep: int, redundancy: bool) -> None:
    cut = parse_packet(cut_packet(serialize_packet(packet), keep, keep_redundancy=redundancy))
    expected = Packet(
        sequence=packet.sequence,
        timestamp=packet.timestamp,
        codes=None if packet.codes is None else packet.codes[:keep],
        noise=packet.noise,
        redundancy=packet.redundancy if redundancy else None,
        scale=packet.scale,
        start=packet.start,
        end=packet.end,
        bits_per_code=packet.bits_per_code,
        sender=packet.sender,
    )
    assert cut == expected


@given(packets(), st.integers(0, 2**16 - 1))
def test_a_relay_writes_the_sender(packet: Packet, sender: int) -> None:
    data = with_sender(serialize_packet(packet), sender)
    assert parse_packet(data).sender == sender
    assert with_sender(data, packet.sender) == serialize_packet(packet)


@given(packets())
def test_the_head_says_what_the_packet_holds(packet: Packet) -> None:
    head = read_header(serialize_packet(packet))
    assert (head.num_frames, head.num_codebooks) == (packet.num_frames, packet.num_codebooks)
    assert (head.sequence, head.timestamp, head.sender) == (packet.sequence, packet.timestamp, packet.sender)
    assert head.is_noise == (packet.noise is not None)
    red = (0, 0) if packet.redundancy is None else packet.redundancy.shape
    assert (head.redundant_codebooks, head.redundant_frames) == red


@pytest.mark.parametrize("codebooks", [2, 8, 32])
@pytest.mark.parametrize("frames", [1, 3, 6])
def test_size_depends_on_settings_alone(codebooks: int, frames: int) -> None:
    rng = np.random.default_rng(1)
    red = random_codes(rng, 2, 15, 10)
    size = packet_size(frames, codebooks, redundant_codebooks=2, redundant_frames=15)
    for i in range(20):
        packet = Packet(i, 3 * i, codes=random_codes(rng, codebooks, frames, 10), redundancy=red)
        assert len(serialize_packet(packet)) == size
    plain = Packet(0, 0, codes=random_codes(rng, codebooks, frames, 10))
    assert len(serialize_packet(plain)) == packet_size(frames, codebooks)


def test_two_hundred_milliseconds_of_base_layer_cost_what_is_said() -> None:
    with_it = packet_size(3, 8, redundant_codebooks=2, redundant_frames=15)
    assert with_it - packet_size(3, 8) == 1 + 38
    assert packet_size(3, 8) == HEADER_BYTES + 30


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"codes": CODES, "noise": (1, 2, 3, 4, 5, 6)},
        {"codes": CODES, "sequence": 65536},
        {"codes": CODES, "sequence": -1},
        {"codes": CODES, "timestamp": 2**32},
        {"codes": CODES, "sender": 65536},
        {"codes": CODES, "bits_per_code": 4},
        {"codes": CODES, "bits_per_code": 17},
        {"codes": CODES - 1},
        {"codes": CODES * 0.5},
        {"codes": CODES[0]},
        {"codes": np.zeros((33, 1), dtype=np.int64)},
        {"codes": np.zeros((1, 7), dtype=np.int64)},
        {"codes": np.zeros((0, 1), dtype=np.int64)},
        {"codes": CODES, "redundancy": np.zeros((9, 1), dtype=np.int64)},
        {"codes": CODES, "redundancy": np.zeros((1, 33), dtype=np.int64)},
        {"codes": CODES, "scale": 0.0},
        {"codes": CODES, "scale": float("nan")},
        {"codes": CODES, "scale": 1e300},
        {"noise": (1, 2, 3)},
        {"noise": (0, 0, 0, 0, 0, 128)},
        {"noise": (0, 0, 0, 0, 0, 0), "scale": 1.0},
    ],
    ids=str,
)
def test_packets_that_cannot_be(wrong: dict[str, object]) -> None:
    with pytest.raises(StreamError):
        Packet(**({"sequence": 0, "timestamp": 0} | wrong))  # type: ignore[arg-type]
