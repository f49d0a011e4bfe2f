"""Control messages: come back as they went; strangers' JSON raises PacketError."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.wire.control import (
    AskDatagrams,
    Bye,
    ControlMessage,
    Joined,
    Layers,
    Left,
    Report,
    parse_control,
    serialize_control,
)
from streaming_encodec.wire.header import read_header
from streaming_encodec.wire.hello import DatagramOffer, Hello, Welcome
from streaming_encodec.wire.packet import Packet, StreamFormat, serialize_packet

FORMAT = StreamFormat("0123456789abcdef" * 2)
MESSAGES: list[ControlMessage] = [
    Hello("kitchen", "both", FORMAT, token="a.b.c", max_codebooks=8, resume="r1"),
    Hello("küche", "subscribe", FORMAT),
    Welcome(7, resume="ticket", resumed=True, heartbeat_s=2.5, speakers=(1, 2)),
    Welcome(0),
    Joined(3),
    Left(65535),
    Layers(4),
    Report(1, 0.25, 0.125, 2.0, 12.5, 40.0, listener=9),
    Welcome(7, datagrams=DatagramOffer(8765, "aB3-_", "0f" * 32)),
    AskDatagrams(),
    DatagramOffer(65535, "k" * 64, "0123456789abcdef" * 4),
    Bye("restarting", retry_s=0.5),
    Bye("bye"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.TYPE)
def test_messages_come_back(message: ControlMessage) -> None:
    text = serialize_control(message)
    assert parse_control(text) == message
    assert parse_control(text.encode()) == message


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.TYPE)
def test_cut_at_each_offset(message: ControlMessage) -> None:
    text = serialize_control(message)
    for end in range(len(text)):
        with pytest.raises(PacketError):
            parse_control(text[:end])


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda c: st.lists(c) | st.dictionaries(st.text(), c),
    )
)
def test_any_json_is_refused_or_read(value: object) -> None:
    for text in (json.dumps(value), json.dumps({"type": "hello", "room": value, "format": value})):
        with pytest.raises(PacketError):
            parse_control(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "[" * 2000,
        '{"a":' * 400,
        '{"type":"joined","sender":' + "9" * 1900 + "}",
        '{"type":"joined","sender":1,"sender":2}',
        '{"type":"joined","sender":1.5}',
        '{"type":"joined","sender":1e999}',
        '{"type":"joined","sender":-1e999}',
        '{"type":"joined","sender":65535.5}',
        '{"type":"joined","sender":"1"}',
        '{"type":"joined","sender":null}',
        '{"type":"joined","sender":true}',
        '{"type":"joined","sender":0}',
        '{"type":"joined"}',
        '{"type":"nothing"}',
        '{"type":"bye","reason":"a\\u0007b"}',
        '{"type":"bye","reason":"a\\u202eb"}',
        '{"type":"bye","reason":1}',
        '{"type":"bye","reason":"\ud800"}',
        '{"type":"bye","reason":"x","retry_s":NaN}',
        '{"type":"bye","reason":"x","retry_s":1e999}',
        '{"type":"bye","reason":"' + "é" * 1500 + '"}',
        b"\xff\xfe",
        b"\x00" * 3000,
    ],
    ids=lambda t: repr(t)[:40],
)
def test_hostile_text(text: str | bytes) -> None:
    with pytest.raises(PacketError):
        parse_control(text)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("role", "king"),
        ("protocol", 2),
        ("protocol", True),
        ("protocol", None),
        ("room", ""),
        ("room", "x" * 65),
        ("token", "x" * 1401),
        ("format", None),
        ("format", {"model": "xyz"}),
        ("format", FORMAT.to_dict() | {"model": "G" * 32}),
        ("format", FORMAT.to_dict() | {"codebook_size": 1}),
        ("max_codebooks", 33),
    ],
)
def test_a_hello_that_is_wrong(field: str, value: object) -> None:
    good = json.loads(serialize_control(MESSAGES[0]))
    with pytest.raises(PacketError, match="field" if field != "format" else None):
        parse_control(json.dumps(good | {field: value}))


@pytest.mark.parametrize("spelling", ["3", "3.0", "3e0", "30e-1", "0.3E+1"])
def test_a_whole_number_has_many_spellings(spelling: str) -> None:
    read = parse_control(f'{{"type":"joined","sender":{spelling}}}')
    assert read == Joined(3)
    assert serialize_control(read) == '{"type":"joined","sender":3}'


def test_what_cannot_be_sent() -> None:
    with pytest.raises(StreamError):
        serialize_control(Bye("x", retry_s=float("nan")))
    with pytest.raises(StreamError):
        serialize_control(Hello("x" * 3000, "both", FORMAT))
    with pytest.raises(StreamError):
        StreamFormat("short")
    with pytest.raises(StreamError):
        replace(FORMAT, channels=3)


def test_a_format_refuses_packets_of_another_model() -> None:
    small = replace(FORMAT, max_codebooks=4, codebook_size=1000)
    good = Packet(0, 0, codes=np.full((4, 1), 999), redundancy=np.zeros((2, 3), dtype=np.int64))
    small.check_packet(good)
    small.check_header(read_header(serialize_packet(good)))
    for bad in (
        Packet(0, 0, codes=np.zeros((5, 1), dtype=np.int64)),
        Packet(0, 0, codes=np.zeros((1, 1), dtype=np.int64), bits_per_code=9),
        Packet(0, 0, codes=np.zeros((1, 1), dtype=np.int64), redundancy=np.zeros((5, 1), dtype=np.int64)),
    ):
        with pytest.raises(PacketError):
            small.check_packet(bad)
        with pytest.raises(PacketError):
            small.check_header(read_header(serialize_packet(bad)))
    with pytest.raises(PacketError):
        small.check_packet(Packet(0, 0, codes=np.full((4, 1), 1000)))
    assert FORMAT.frame_seconds == pytest.approx(1 / 75)
    assert FORMAT.bits_per_code == 10
