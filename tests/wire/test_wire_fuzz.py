"""A million hostile packets: PacketError or a packet with that very spelling, and nothing else."""

from __future__ import annotations

import os
import random
from contextlib import suppress

import numpy as np
from wire.wire_cases import some_packets

from streaming_encodec.errors import PacketError
from streaming_encodec.wire.control import parse_control
from streaming_encodec.wire.header import cut_packet, read_header
from streaming_encodec.wire.packet import parse_packet, serialize_packet

CASES = 1_000_000 * int(os.environ.get("FUZZ_MILLIONS", "1"))
"""More for a longer run; the parsers know nothing of this."""


def random_bytes(count: int, rng: random.Random) -> list[bytes]:
    """Noise behind a likely first byte, of any likely length."""
    pool = rng.randbytes(1 << 16)
    cases = []
    for _ in range(count):
        at = rng.getrandbits(15)
        cases.append((b"\xe1" + pool[at : at + (rng.getrandbits(16) % 97)]) if at & 3 else pool[at : at + 40])
    return cases


def mutants(count: int, rng: random.Random) -> list[bytes]:
    """Good packets with a bit flipped, a byte set, cut, grown, or two spliced."""
    seeds = [serialize_packet(p) for p in some_packets(60, seed=5)]
    cases = []
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        how = rng.getrandbits(8)
        at = rng.getrandbits(16) % len(data)
        if how & 4:
            data[at % 16 % len(data)] ^= 1 << (how >> 5)  # the head is where the decisions are
        if how & 3 == 0:
            data[at] = rng.getrandbits(8)
        elif how & 3 == 1:
            del data[at:]
        elif how & 3 == 2:
            data += seeds[how % len(seeds)][at:]
        cases.append(bytes(data))
    return cases


def test_a_million_hostile_packets() -> None:
    rng = random.Random(20240)
    accepted = 0
    for batch in range(20):
        make = random_bytes if batch % 4 == 0 else mutants
        for data in make(CASES // 20, rng):
            try:
                head = read_header(data)
            except PacketError:
                continue
            accepted += 1
            if accepted % 8:  # the whole packet is dear; the head has decided already
                continue
            packet = parse_packet(data)
            assert serialize_packet(packet) == data
            assert packet.num_codebooks == head.num_codebooks
            cut = cut_packet(data, 1 + accepted % 4, keep_redundancy=bool(accepted & 1))
            assert parse_packet(cut).num_codebooks == min(packet.num_codebooks, 1 + accepted % 4)
    # A fuzzer whose every case is refused at the first byte has tested nothing.
    assert CASES // 100 < accepted < CASES // 2


def test_what_the_head_refuses_the_packet_refuses() -> None:
    """`parse_packet` must not accept more, or fail otherwise, than `read_header`."""
    rng = random.Random(7)
    for data in mutants(30_000, rng) + random_bytes(10_000, rng):
        try:
            read_header(data)
            good = True
        except PacketError:
            good = False
        try:
            parse_packet(data)
            assert good
        except PacketError:
            assert not good


def test_hostile_control_messages() -> None:
    rng = random.Random(3)
    seed = (
        '{"type":"report","sender":1,"fraction_lost":0.5,"fraction_concealed":0,"burst_frames":1e3,"jitter_ms":1,'
        '"playout_delay_ms":2,"listener":3}'
    )
    pieces = [
        "{",
        "}",
        "[",
        '"',
        ":",
        ",",
        "null",
        "NaN",
        "1e999",
        "-1",
        "true",
        "\\ud800",
        "\0",
        "9" * 5000,
        "é",
    ]
    accepted = 0
    for i in range(60_000):
        text = seed
        for _ in range(1 + i % 3):
            at = rng.randrange(len(text) + 1)
            text = text[:at] + rng.choice(pieces) + text[at + rng.randrange(4) :]
        try:
            parse_control(text if i % 2 else text.encode("utf-8", "surrogatepass"))
            accepted += 1
        except PacketError:
            pass
    assert accepted > 100
    blobs = np.random.default_rng(1).integers(0, 256, size=(20_000, 40), dtype=np.uint8)
    for blob in blobs:
        with suppress(PacketError):
            parse_control(blob.tobytes())
