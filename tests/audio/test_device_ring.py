"""The ring between callback and computing thread."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.audio.devices.ring import SampleRing
from streaming_encodec.errors import StreamError


@given(
    st.integers(1, 40),
    st.integers(1, 2),
    st.lists(st.tuples(st.booleans(), st.integers(0, 50)), max_size=40),
)
def test_what_fits_comes_out_in_order(capacity: int, channels: int, turns: list[tuple[bool, int]]) -> None:
    ring, model, number = SampleRing(capacity, channels), [], 0
    for write, count in turns:
        if write:
            block = np.arange(number, number + count, dtype=np.float32)[:, None].repeat(channels, axis=1)
            fitted = ring.write(block)
            assert fitted == min(count, capacity - len(model))
            model += [number + i for i in range(fitted)]
            number += count
        else:
            out = np.full((count, channels), -1, np.float32)
            got = ring.read_into(out)
            assert got == min(count, len(model))
            assert out[:got, 0].tolist() == model[:got]
            assert (out[got:] == -1).all()
            del model[:got]
        assert len(ring) == len(model)
    assert ring.read_all()[:, -1].tolist() == model


def test_two_threads_lose_nothing() -> None:
    ring, total, heard = SampleRing(97), 40_000, []

    def write() -> None:
        at = 0
        while at < total:
            at += ring.write(np.arange(at, min(total, at + 31), dtype=np.float32)[:, None])

    writer = threading.Thread(target=write)
    writer.start()
    while sum(map(len, heard)) < total:
        heard.append(ring.read_all()[:, 0])
    writer.join()
    assert np.array_equal(np.concatenate(heard), np.arange(total))


def test_nothing_is_allocated_for_the_callback() -> None:
    ring, block = SampleRing(1000), np.zeros((100, 1), np.float32)
    place = ring._bytes.obj
    for _ in range(50):
        ring.write(block)
        ring.read_into(block)
    assert ring._bytes.obj is place
    ring.write(block)
    ring.clear()
    assert len(ring) == 0
    with pytest.raises(StreamError, match="holds something"):
        SampleRing(0)
