"""Packets in JavaScript: the golden ones, and any bytes at all, as Python reads them."""

from __future__ import annotations

import json
import random

import pytest
from web.node_kit import run
from wire.vectors import DATA

from streaming_encodec.errors import PacketError
from streaming_encodec.wire.packet import StreamFormat, parse_packet, serialize_packet

pytestmark = pytest.mark.node

VECTORS = json.loads(DATA.joinpath("packets.json").read_text(encoding="utf-8"))
SMALL = StreamFormat("0" * 32, max_codebooks=4, codebook_size=1000)


def read(packets: list[bytes]) -> list[str]:
    """For each: how JavaScript writes it again, or the name of the error; and whether it fits `SMALL`."""
    return run("packets.mjs", content="\n".join(data.hex() for data in packets).encode()).decode().splitlines()


def here(data: bytes) -> str:
    """The same from Python."""
    try:
        packet = parse_packet(data)
    except PacketError:
        return "PacketError"
    try:
        SMALL.check_packet(packet)
    except PacketError:
        return f"{serialize_packet(packet).hex()} other format"
    return serialize_packet(packet).hex()


def test_golden_packets() -> None:
    good = [bytes.fromhex(one["hex"]) for one in VECTORS["good"]]
    assert [line.split()[0] for line in read(good)] == [data.hex() for data in good]
    assert set(read([bytes.fromhex(one["hex"]) for one in VECTORS["bad"]])) == {"PacketError"}


def test_hostile_bytes_are_a_packet_or_a_packet_error_as_in_python() -> None:
    rng = random.Random(7)
    seeds = [bytes.fromhex(one["hex"]) for one in VECTORS["good"] + VECTORS["bad"]]
    cases = [seed[:cut] for seed in seeds for cut in range(len(seed) + 1)]
    for _ in range(6000):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            match rng.randrange(4):
                case 0 if data:
                    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
                case 1:
                    data += rng.randbytes(rng.randint(1, 40))
                case 2 if data:
                    del data[rng.randrange(len(data)) :]
                case _:
                    data[:4] = bytes((0xE1, rng.randrange(32), rng.randrange(256), rng.randrange(16)))
        cases.append(bytes(data))
    cases += [rng.randbytes(rng.randint(0, 1000)) for _ in range(500)]
    found = [here(data) for data in cases]
    assert read(cases) == found
    assert 100 < sum(line != "PacketError" for line in found) < len(found)  # both kinds are there
    assert any(line.endswith("other format") for line in found)
