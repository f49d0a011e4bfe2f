"""The specification's own vectors, read from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from streaming_encodec.errors import PacketError
from streaming_encodec.wire.control import parse_control, serialize_control
from streaming_encodec.wire.header import MAX_PACKET_BYTES, cut_packet, read_header
from streaming_encodec.wire.packet import Packet, parse_packet, serialize_packet

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def block(name: str) -> list[str]:
    found = re.search(rf"```jsonl {name}\n(.*?)```", DOCUMENT, re.DOTALL)
    assert found, f"the document has lost its block {name!r}"
    return found.group(1).splitlines()


@pytest.mark.parametrize("line", block("good"))
def test_good_packets(line: str) -> None:
    fields = json.loads(line)
    data = bytes.fromhex(fields.pop("hex"))
    for name in ("codes", "redundancy"):
        if name in fields:
            fields[name] = np.array(fields[name])
    if "noise" in fields:
        fields["noise"] = tuple(fields["noise"])
    packet = Packet(**({"sequence": 0, "timestamp": 0} | fields))
    assert serialize_packet(packet) == data
    assert parse_packet(data) == packet


@pytest.mark.parametrize("line", block("cuts"))
def test_cuts(line: str) -> None:
    case = json.loads(line)
    out = cut_packet(bytes.fromhex(case["hex"]), case["codebooks"], keep_redundancy=case["redundancy"])
    assert out.hex() == case["out"]
    parse_packet(out)


@pytest.mark.parametrize("line", block("bad"))
def test_bad_packets(line: str) -> None:
    data = bytes.fromhex(json.loads(line)["hex"])
    for read in (read_header, parse_packet):
        with pytest.raises(PacketError):
            read(data)


@pytest.mark.parametrize("line", block("control-good"))
def test_good_control_messages(line: str) -> None:
    message = parse_control(line)
    assert parse_control(serialize_control(message)) == message


@pytest.mark.parametrize("line", block("control-bad"))
def test_bad_control_messages(line: str) -> None:
    with pytest.raises(PacketError):
        parse_control(line)


def test_figures_in_the_text() -> None:
    assert f"at most {MAX_PACKET_BYTES} bytes" in DOCUMENT
