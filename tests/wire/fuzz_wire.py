"""Coverage-guided fuzzing of packets and control messages, for longer runs than the tests'.

    pip install atheris
    python tests/wire/fuzz_wire.py corpus/ -max_total_time=3600

Any exception but PacketError, and any packet that does not come back as it was, is a find.
"""

from __future__ import annotations

import sys
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["streaming_encodec"]):
    from streaming_encodec.errors import PacketError
    from streaming_encodec.wire.control import parse_control, serialize_control
    from streaming_encodec.wire.header import cut_packet
    from streaming_encodec.wire.packet import parse_packet, serialize_packet


def try_bytes(data: bytes) -> None:
    """One input: the first byte chooses what it is taken for."""
    kind, body = data[:1], data[1:]
    with suppress(PacketError):
        if kind and kind[0] & 1:
            message = parse_control(body)
            if parse_control(serialize_control(message)) != message:
                raise RuntimeError("a control message changed on its way")
            return
        packet = parse_packet(body)
        if serialize_packet(packet) != body:
            raise RuntimeError("a packet has two spellings")
        parse_packet(cut_packet(body, 1 + (kind[0] >> 3 if kind else 0), keep_redundancy=False))


if __name__ == "__main__":
    atheris.Setup(sys.argv, try_bytes)
    atheris.Fuzz()
