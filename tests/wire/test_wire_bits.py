"""Bit packing against the obvious bit-by-bit definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.errors import PacketError, StreamError
from streaming_encodec.wire.bits import cut_bits, pack_bits, packed_size, unpack_bits


def by_hand(values: list[int], bits: int) -> bytes:
    """The definition: one large number, lowest value and lowest bit first, little-endian."""
    number = sum(value << (i * bits) for i, value in enumerate(values))
    return number.to_bytes((len(values) * bits + 7) // 8, "little")


@st.composite
def lists_of_codes(draw: st.DrawFn) -> tuple[list[int], int]:
    bits = draw(st.integers(1, 16))
    return draw(st.lists(st.integers(0, 2**bits - 1), max_size=70)), bits


@given(lists_of_codes())
def test_packing_is_the_definition_and_comes_back(case: tuple[list[int], int]) -> None:
    values, bits = case
    packed = pack_bits(np.array(values, dtype=np.int64), bits)
    assert packed == by_hand(values, bits)
    assert len(packed) == packed_size(len(values), bits)
    assert unpack_bits(packed, len(values), bits, strict=True).tolist() == values


@given(lists_of_codes(), st.data())
def test_a_cut_is_the_packing_of_a_prefix(case: tuple[list[int], int], data: st.DataObject) -> None:
    values, bits = case
    count = data.draw(st.integers(0, len(values)))
    assert cut_bits(by_hand(values, bits), count, bits) == by_hand(values[:count], bits)


def test_known_bytes_ten_bits() -> None:
    assert pack_bits(np.array([1, 2, 1023]), 10).hex() == "0108f03f"


def test_strict_reading_refuses_other_spellings() -> None:
    good = pack_bits(np.array([1, 2, 3]), 10)
    assert unpack_bits(good + b"\0", 3, 10).tolist() == [1, 2, 3]
    for bad in (good + b"\0", good[:-1], good[:-1] + bytes((good[-1] | 0x40,))):
        with pytest.raises(PacketError):
            unpack_bits(bad, 3, 10, strict=True)
    with pytest.raises(PacketError):
        cut_bits(good[:-1], 3, 10)


@pytest.mark.parametrize("values", [[-1], [1024], [0.5]])
def test_values_that_do_not_fit(values: list[float]) -> None:
    with pytest.raises(StreamError):
        pack_bits(np.array(values), 10)  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [0, 17, -3])
def test_widths_that_do_not_exist(bits: int) -> None:
    with pytest.raises(StreamError):
        pack_bits(np.array([0]), bits)
    with pytest.raises(StreamError):
        unpack_bits(b"\0\0\0", 1, bits)
