"""The specification, its vectors and the code say the same."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import numpy as np
import pytest
from wire.vectors import CONTROL, DATA, DOCUMENT, FINGERPRINT, PACKETS

from streaming_encodec.errors import PacketError
from streaming_encodec.wire.control import parse_control, serialize_control
from streaming_encodec.wire.header import MAX_PACKET_BYTES, cut_packet, read_header
from streaming_encodec.wire.packet import Packet, parse_packet, serialize_packet

LONGEST_SHOWN_HEX = 200
"""Longer packets are described on the page and stand in the file alone."""


def block(name: str) -> list[str]:
    found = re.search(rf"```jsonl {name}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found, f"the page has lost its block {name!r}"
    return found.group(1).splitlines()


@pytest.mark.parametrize("case", PACKETS["good"], ids=lambda case: case["hex"][:24])
def test_good_packets(case: dict[str, Any]) -> None:
    fields = dict(case)
    data = bytes.fromhex(fields.pop("hex"))
    for name in ("codes", "redundancy"):
        if name in fields:
            fields[name] = np.array(fields[name])
    if "noise" in fields:
        fields["noise"] = tuple(fields["noise"])
    packet = Packet(**({"sequence": 0, "timestamp": 0} | fields))
    assert serialize_packet(packet) == data
    assert parse_packet(data) == packet


@pytest.mark.parametrize("case", PACKETS["cuts"], ids=lambda case: case["out"])
def test_cuts(case: dict[str, Any]) -> None:
    out = cut_packet(bytes.fromhex(case["hex"]), case["codebooks"], keep_redundancy=case["redundancy"])
    assert out.hex() == case["out"]
    parse_packet(out)


@pytest.mark.parametrize("case", PACKETS["bad"], ids=lambda case: case["why"])
def test_bad_packets(case: dict[str, Any]) -> None:
    for read in (read_header, parse_packet):
        with pytest.raises(PacketError):
            read(bytes.fromhex(case["hex"]))


@pytest.mark.parametrize("case", CONTROL["good"], ids=lambda case: case["text"][:40])
def test_good_control_messages(case: dict[str, Any]) -> None:
    message = parse_control(case["text"])
    assert {"type": message.TYPE, **message.to_dict()} == case["means"]
    assert parse_control(serialize_control(message)) == message


@pytest.mark.parametrize("case", CONTROL["bad"], ids=lambda case: case["why"])
def test_bad_control_messages(case: dict[str, Any]) -> None:
    with pytest.raises(PacketError):
        parse_control(case["text"])


def test_the_page_shows_what_the_files_hold() -> None:
    for name in ("good", "cuts", "bad"):
        shown = [case for case in PACKETS[name] if len(case["hex"]) <= LONGEST_SHOWN_HEX]
        assert [json.loads(line) for line in block(name)] == shown, name
    assert block("control-good") == [case["text"] for case in CONTROL["good"]]
    assert [json.loads(line) for line in block("control-bad")] == CONTROL["bad"]
    assert [json.loads(line) for line in block("fingerprint")] == FINGERPRINT["weights"]
    assert FINGERPRINT["canonical_config"] in DOCUMENT
    assert FINGERPRINT["sha256"] in DOCUMENT


def test_the_page_describes_the_longest_packet() -> None:
    (longest,) = (case for case in PACKETS["good"] if len(case["hex"]) == 2 * MAX_PACKET_BYTES)
    assert hashlib.sha256(bytes.fromhex(longest["hex"])).hexdigest() in DOCUMENT
    assert longest["hex"][:48] in DOCUMENT
    assert longest["redundancy"] == [[40503 * (32 * r + p) % 65536 for p in range(32)] for r in range(8)]
    assert longest["codes"] == [[40503 * (6 * k + f + 256) % 65536 for f in range(6)] for k in range(32)]


def test_the_page_links_each_file() -> None:
    for file in DATA.iterdir():
        assert f"(../streaming_encodec/wire/data/{file.name})" in DOCUMENT, file.name
