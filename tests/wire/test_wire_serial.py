"""Wrapping numbers on a line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.wire.header import Unwrapper, serial_difference


@given(st.integers(-(2**40), 2**40), st.integers(-32768, 32767))
def test_difference_on_the_circle(start: int, step: int) -> None:
    assert serial_difference((start + step) & 0xFFFF, start & 0xFFFF, 16) == step


@given(st.integers(0, 65535), st.lists(st.integers(-30000, 30000), max_size=50))
def test_a_walk_is_followed_over_many_turns(start: int, steps: list[int]) -> None:
    unwrap, true = Unwrapper(16), start
    assert unwrap(start) == start
    for step in steps:
        true += step
        assert unwrap.peek(true & 0xFFFF) == true
        assert unwrap(true & 0xFFFF) == true
