"""What packets are on the wire: with the headers of everything below them."""

from __future__ import annotations

IPV4_BYTES = 20
TCP_BYTES = 32
"""With the timestamps option, which all common systems send; 20 without."""
WEBSOCKET_BYTES = 6
"""A client's frame header for up to 125 bytes, its mask included."""
OVERHEAD_BYTES = IPV4_BYTES + TCP_BYTES + WEBSOCKET_BYTES
"""Of a packet that a client sends over a WebSocket without TLS."""
TLS_BYTES = 22
"""A TLS 1.3 record's header, content type and tag."""
UDP_BYTES = 8
QUIC_BYTES = 28
"""A short header with the relay's identifier of 6 bytes, a packet number of 2, the tag, a frame's type and length, and
the session's number. One more from packets of 63 bytes on."""
DATAGRAM_OVERHEAD_BYTES = IPV4_BYTES + UDP_BYTES + QUIC_BYTES
"""Of a packet that a client sends as a datagram."""


def wire_bytes(packets: int, packet_bytes: int, *, tls: bool = False, datagrams: int = 0) -> int:
    """Bytes at IPv4 level of so many packets of `packet_bytes` in all, sent one by one over a client's WebSocket.

    datagrams: of them, those that went as datagrams.

    What comes back is not in it: an acknowledgement is 52 bytes, for each packet or each second one. Nor is what is
    sent again.
    """
    over_tcp = OVERHEAD_BYTES + (TLS_BYTES if tls else 0)
    return packet_bytes + (packets - datagrams) * over_tcp + datagrams * DATAGRAM_OVERHEAD_BYTES
