"""Records of calls: whole, byte by byte, cut at each offset; damaged ones are refused by name."""

from __future__ import annotations

import math
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voice.voice_cases import FORMAT, packet

from streaming_encodec.errors import FileFormatError, StreamError
from streaming_encodec.voice.record import Arrival, Pull, RecordReader, record_entry, record_head

ENTRIES = [Arrival(0.1, packet(0)), Pull(0.1 + 0.2, 1 / 3), Arrival(1e9, b""), Pull(2.0)]
WHOLE = record_head(FORMAT) + b"".join(record_entry(e) for e in ENTRIES)
BORDERS = {len(record_head(FORMAT)) + sum(len(record_entry(e)) for e in ENTRIES[:n]) for n in range(len(ENTRIES) + 1)}


def read(*pieces: bytes) -> RecordReader:
    reader = RecordReader()
    found = [entry for piece in pieces for entry in reader.feed(piece)]
    reader.close()
    assert found == ENTRIES[: len(found)]
    assert reader.format == FORMAT
    return reader


def test_whole_and_byte_by_byte() -> None:
    read(WHOLE)
    read(*(WHOLE[i : i + 1] for i in range(len(WHOLE))))


@pytest.mark.parametrize("at", range(len(WHOLE)))
def test_cut_at_each_offset(at: int) -> None:
    read(WHOLE[:at], WHOLE[at:])
    if at in BORDERS:
        read(WHOLE[:at])
    else:
        with pytest.raises(FileFormatError, match="cut off"):
            read(WHOLE[:at])


@given(st.binary(max_size=200), st.integers(0, len(WHOLE)))
def test_any_bytes_are_refused_or_read(data: bytes, at: int) -> None:
    for hostile in (data, WHOLE[:at] + data, WHOLE[:at] + data + WHOLE[at:]):
        reader = RecordReader()
        try:
            reader.feed(hostile)
            reader.close()
        except FileFormatError:
            continue


@pytest.mark.parametrize(
    "damaged",
    [
        b"RIFF" + WHOLE[4:],
        WHOLE[:5] + b"\x02" + WHOLE[6:],
        b"SEREC\x01\xff\xff",
        WHOLE.replace(b"24000", b"-4000"),
        WHOLE + b"Q",
        WHOLE + struct.pack("<cdd", b"R", math.nan, 0.0),
        WHOLE + struct.pack("<cdH", b"P", math.inf, 0),
    ],
    ids=["magic", "version", "head length", "format", "kind", "nan", "infinity"],
)
def test_damage_is_named(damaged: bytes) -> None:
    with pytest.raises(FileFormatError):
        RecordReader().feed(damaged)


def test_a_packet_too_long_to_record() -> None:
    with pytest.raises(StreamError):
        record_entry(Arrival(0.0, b"x" * 65_536))
