"""What a packet is on the wire."""

from streaming_encodec.wire.wire_size import wire_bytes


def test_each_packet_has_the_headers_of_everything_below_it() -> None:
    assert wire_bytes(0, 0) == 0
    assert wire_bytes(1, 32) == 32 + 20 + 32 + 6
    assert wire_bytes(100, 3200) == 100 * wire_bytes(1, 32)
    assert wire_bytes(10, 320, tls=True) - wire_bytes(10, 320) == 10 * (5 + 1 + 16)
