"""`.ecdc` as bytes: every cut, every damage, every layout."""

import contextlib
import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streaming_encodec.errors import FileFormatError, StreamError, StreamingEncodecError
from streaming_encodec.wire.ecdc import EcdcBlock, EcdcHeader, EcdcLayout, EcdcPacker, EcdcParser

MONO = EcdcLayout(hop_length=320, codebook_size=1024, max_codebooks=32)
STEREO = EcdcLayout(
    hop_length=320,
    codebook_size=1024,
    max_codebooks=16,
    segment_samples=48_000,
    stride_samples=47_520,
    normalize=True,
)


def make_file(
    layout: EcdcLayout, samples: int, books: int, seed: int = 0
) -> tuple[bytes, list[tuple[np.ndarray, float | None]]]:
    """A file of random codes, and what it holds, segment by segment."""
    rng = np.random.default_rng(seed)
    packer = EcdcPacker(books, layout)
    out = EcdcHeader("test", samples, books).to_bytes()
    segments = []
    for length in layout.segments(samples):
        codes = rng.integers(0, layout.codebook_size, (books, layout.frames_of(length)))
        scale = float(np.float32(rng.uniform(0.01, 1))) if layout.normalize else None
        out += packer.begin(scale) + packer.push(codes) + packer.end()
        segments.append((codes, scale))
    return out, segments


def parse(data: bytes, layout: EcdcLayout, piece: int | None = None) -> tuple[EcdcHeader, list[EcdcBlock]]:
    """Parse in pieces of `piece` bytes, or whole."""
    parser = EcdcParser(lambda header: layout)
    piece = piece or max(1, len(data))
    blocks = []
    for at in range(0, len(data), piece):
        blocks += parser.feed(data[at : at + piece])
    parser.finish()
    assert parser.header is not None
    return parser.header, blocks


def test_header_is_spelled_as_the_original_spells_it() -> None:
    header = EcdcHeader("encodec_24khz", 24_000, 8).to_bytes()
    text = b'{"m": "encodec_24khz", "al": 24000, "nc": 8, "lm": false}'
    assert header == b"ECDC\x00" + len(text).to_bytes(4, "big") + text


def test_golden_bytes() -> None:
    # Two frames of two codebooks by hand: 1, 2, 3, 1023 in 10 bits each, lowest bit first.
    packer = EcdcPacker(2, MONO)
    body = packer.begin() + packer.push(np.array([[1, 3], [2, 1023]])) + packer.end()
    number = 1 | 2 << 10 | 3 << 20 | 1023 << 30
    assert body == number.to_bytes(5, "little")


def test_segments_of_the_48_khz_model() -> None:
    # One second exactly is two segments: the stride is shorter than the segment.
    assert list(STEREO.segments(48_000)) == [48_000, 480]
    assert list(STEREO.segments(47_520)) == [47_520]
    assert list(STEREO.segments(47_521)) == [47_521, 1]
    assert list(STEREO.segments(0)) == []
    assert list(MONO.segments(1)) == [1]
    assert list(MONO.segments(0)) == []


def test_frames_are_counted_in_whole_numbers() -> None:
    # In floating point 6720 / 24000 * 75 is a little above 21, and its ceiling 22.
    assert MONO.frames_of(6720) == 21
    assert [MONO.frames_of(n) for n in (0, 1, 320, 321)] == [0, 1, 1, 2]


@given(
    samples=st.integers(0, 5000),
    books=st.sampled_from([1, 2, 3, 4, 8, 32]),
    size=st.sampled_from([2, 512, 1024]),
    piece=st.integers(1, 400),
)
def test_what_was_packed_is_parsed(samples: int, books: int, size: int, piece: int) -> None:
    layout = EcdcLayout(hop_length=20, codebook_size=size, max_codebooks=32)
    data, segments = make_file(layout, samples, books)
    header, blocks = parse(data, layout, piece)
    assert header == EcdcHeader("test", samples, books)
    want = segments[0][0] if segments else np.zeros((books, 0), np.int64)
    got = np.concatenate([np.zeros((books, 0), np.int64), *(block.codes for block in blocks)], axis=1)
    np.testing.assert_array_equal(got, want)
    assert all(block.scale is None for block in blocks)


@given(
    samples=st.integers(1, 3000),
    segment=st.integers(40, 900),
    overlap=st.integers(0, 39),
    books=st.sampled_from([1, 2, 16]),
    piece=st.integers(1, 400),
    normalize=st.booleans(),
)
def test_segments_come_back_one_by_one(
    samples: int, segment: int, overlap: int, books: int, piece: int, normalize: bool
) -> None:
    layout = EcdcLayout(20, 1024, 16, segment, segment - overlap, normalize)
    data, segments = make_file(layout, samples, books)
    _, blocks = parse(data, layout, piece)
    assert len(blocks) == len(segments)
    for block, (codes, scale) in zip(blocks, segments, strict=True):
        np.testing.assert_array_equal(block.codes, codes)
        assert block.scale == scale


@given(cuts=st.lists(st.integers(0, 60), max_size=8), books=st.sampled_from([1, 2, 3, 5, 8]))
def test_packing_does_not_depend_on_the_cuts(cuts: list[int], books: int) -> None:
    codes = np.random.default_rng(1).integers(0, 1024, (books, 60))
    whole = EcdcPacker(books, MONO)
    want = whole.begin() + whole.push(codes) + whole.end()
    packer = EcdcPacker(books, MONO)
    got = packer.begin()
    for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), 60], strict=True):
        got += packer.push(codes[:, start:stop])
    assert got + packer.end() == want


@pytest.mark.parametrize(("layout", "samples"), [(MONO, 3333), (STEREO, 48_500)])
def test_cut_off_at_every_byte(layout: EcdcLayout, samples: int) -> None:
    data, _ = make_file(layout, samples, 2)
    step = 1 if len(data) < 500 else 7
    for end in range(0, len(data), step):
        with pytest.raises(FileFormatError, match=r"ends|cut off"):
            parse(data[:end], layout)


@pytest.mark.parametrize("layout", [MONO, STEREO])
def test_too_many_bytes(layout: EcdcLayout) -> None:
    data, _ = make_file(layout, 1000, 2)
    with pytest.raises(FileFormatError, match="too many"):
        parse(data + b"\x00", layout)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(FileFormatError):
        parse(data, MONO)


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), stereo=st.booleans())
def test_flipped_bits_raise_one_error_or_none(at: int, bit: int, stereo: bool) -> None:
    layout = STEREO if stereo else MONO
    data, _ = make_file(layout, 900, 4)
    damaged = bytearray(data)
    damaged[at % len(data)] ^= 1 << bit
    with contextlib.suppress(FileFormatError):
        parse(bytes(damaged), layout)


def header_with(**changes: object) -> bytes:
    meta: dict[str, object] = {"m": "x", "al": 320, "nc": 1, "lm": False}
    text = json.dumps(meta | changes).encode()
    return struct.pack("!4sBI", b"ECDC", 0, len(text)) + text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"RIFF....", "does not begin"),
        (b"ECDC\x01\x00\x00\x00\x02{}", "version 1"),
        (b"ECDC\x00\xff\xff\xff\xff", "claims to be"),
        (b"ECDC\x00\x00\x00\x00\x02[]", "not an object"),
        (b"ECDC\x00\x00\x00\x00\x02{x", "damaged .ecdc header"),
        (b"ECDC\x00\x00\x00\x00\x02\xff\xff", "damaged .ecdc header"),
        (b"ECDC\x00" + (20_000).to_bytes(4, "big") + b"[" * 20_000, "damaged .ecdc header"),
        (header_with(al=-1), "'al'"),
        (header_with(al=1.5), "'al'"),
        (header_with(al=True), "'al'"),
        (header_with(nc=0), "'nc'"),
        (header_with(nc="8"), "'nc'"),
        (header_with(m=None), "'m'"),
        (header_with(lm=True), "language model"),
        (header_with(lm=None), "language model"),
        (header_with(nc=33), "33 codebooks"),
        (header_with(nc=1e308), "codebooks"),
        (header_with(al=1e300), "cut off"),
        (header_with(al=10**18), "cut off"),  # and no memory is taken for it
    ],
)
def test_bad_headers(data: bytes, says: str) -> None:
    with pytest.raises(FileFormatError, match=says):
        parse(data, MONO)


def test_whole_numbers_may_have_a_point() -> None:
    """As a writer has them for which all numbers are floating point."""
    data, _ = make_file(MONO, 320, 1)
    head = len(EcdcHeader("test", 320, 1).to_bytes())
    assert parse(header_with(al=320.0, nc=1.0) + data[head:], MONO)[0] == EcdcHeader("x", 320, 1)


def test_codes_above_the_codebook_are_damage() -> None:
    packer = EcdcPacker(1, MONO)
    body = packer.begin() + packer.push(np.array([[1023]])) + packer.end()
    layout = EcdcLayout(hop_length=320, codebook_size=1000, max_codebooks=1)
    with pytest.raises(FileFormatError, match="above 999"):
        parse(EcdcHeader("x", 320, 1).to_bytes() + body, layout)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), 0.0, -1.0])
def test_impossible_scales_are_damage(scale: float) -> None:
    data, _ = make_file(STEREO, 320, 1)
    start = len(EcdcHeader("test", 320, 1).to_bytes())
    damaged = data[:start] + struct.pack("!f", scale) + data[start + 4 :]
    with pytest.raises(FileFormatError, match="scale"):
        parse(damaged, STEREO)


def test_misuse_of_the_packer() -> None:
    with pytest.raises(StreamError, match="1 to 32"):
        EcdcPacker(33, MONO)
    packer = EcdcPacker(2, MONO)
    with pytest.raises(StreamError, match="begin"):
        packer.push(np.zeros((2, 1), np.int64))
    with pytest.raises(StreamError, match="begin"):
        packer.end()
    with pytest.raises(StreamError, match="scale"):
        packer.begin(1.0)
    packer.begin()
    with pytest.raises(StreamError, match="open already"):
        packer.begin()
    for wrong in (
        np.zeros((3, 1), np.int64),
        np.zeros(2, np.int64),
        np.full((2, 1), 1024),
        np.full((2, 1), -1),
    ):
        with pytest.raises(StreamingEncodecError):
            packer.push(wrong)
