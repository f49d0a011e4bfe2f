"""What a telephone stack hands to `VoiceEncoder` and `VoiceDecoder`: taken where it has one meaning, else refused."""

from __future__ import annotations

import array
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import streaming_encodec as se
from streaming_encodec.audio.low_delay import LowDelayResampler
from streaming_encodec.audio.resample import StreamResampler
from streaming_encodec.engines import make_engine

MODEL = se.EncodecModel.from_pretrained("voice-24khz")
ENGINE = make_engine("fused", MODEL)
COUNT = 960
FLOATS = (0.3 * np.sin(np.arange(COUNT) / 20)).astype(np.float32)
WHOLE = np.rint(FLOATS * 32767).astype(np.int16)


def encoder(rate: Any = 24_000, **settings: Any) -> se.VoiceEncoder:
    numbers: dict[str, Any] = {"first_sequence": 0, "first_timestamp": 0}
    return se.VoiceEncoder(rate, model=MODEL, engine=ENGINE, **(numbers | settings))


def frozen(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    x = x.copy()
    x.flags.writeable = False
    return x


# Each holds WHOLE.
INT16: dict[str, Callable[[], Any]] = {
    "bytes": lambda: WHOLE.astype("<i2").tobytes(),
    "bytearray": lambda: bytearray(WHOLE.astype("<i2").tobytes()),
    "memoryview of bytes": lambda: memoryview(WHOLE.astype("<i2").tobytes()),
    "memoryview of every other pair": lambda: memoryview(np.repeat(WHOLE, 2))[::2],
    "memoryview of int16": lambda: memoryview(WHOLE),
    "big-endian": lambda: WHOLE.astype(">i2"),
    "memoryview of big-endian": lambda: memoryview(WHOLE.astype(">i2")),
    "array": lambda: array.array("h", WHOLE.tolist()),
    "array of bytes": lambda: array.array("B", WHOLE.astype("<i2").tobytes()),
    "ctypes": lambda: (ctypes.c_int16 * COUNT)(*WHOLE.tolist()),
    "ctypes chars": lambda: (ctypes.c_char * (2 * COUNT)).from_buffer_copy(WHOLE.astype("<i2").tobytes()),
    "torch": lambda: torch.from_numpy(WHOLE.copy()),
    "torch [1, n]": lambda: torch.from_numpy(WHOLE.copy())[None],
    "strided": lambda: np.repeat(WHOLE, 3)[::3],
    "reversed": lambda: WHOLE[::-1].copy()[::-1],
    "read-only": lambda: frozen(WHOLE),
    "Fortran": lambda: np.asfortranarray(WHOLE[None]),
    "a field": lambda: np.rec.fromarrays([WHOLE, np.zeros(COUNT, np.int8)], names="a,b")["a"],
    "unmasked": lambda: np.ma.MaskedArray(WHOLE),
}

# Each holds FLOATS.
FLOATING: dict[str, Callable[[], Any]] = {
    "memoryview": lambda: memoryview(FLOATS),
    "array": lambda: array.array("f", FLOATS.tolist()),
    "array of doubles": lambda: array.array("d", FLOATS.tolist()),
    "ctypes": lambda: (ctypes.c_float * COUNT)(*FLOATS.tolist()),
    "float64": lambda: FLOATS.astype(np.float64),
    "longdouble": lambda: FLOATS.astype(np.longdouble),
    "big-endian": lambda: FLOATS.astype(">f4"),
    "big-endian float64": lambda: FLOATS.astype(">f8"),
    "strided": lambda: np.repeat(FLOATS, 2)[::2],
    "read-only": lambda: frozen(FLOATS),
    "a column": lambda: np.asfortranarray(np.stack([FLOATS, FLOATS], axis=1))[:, 0],
    "torch": lambda: torch.from_numpy(FLOATS.copy()),
    "torch with gradient": lambda: torch.from_numpy(FLOATS.copy()).requires_grad_(),
    "torch float64": lambda: torch.from_numpy(FLOATS.copy()).double(),
    "torch strided": lambda: torch.from_numpy(np.repeat(FLOATS, 2))[::2],
}

REFUSED: dict[str, Any] = {
    "odd bytes": bytes(3),
    "int8": np.zeros(4, np.int8),
    "uint8": np.zeros(4, np.uint8),
    "uint16": np.zeros(4, np.uint16),
    "int32": np.zeros(4, np.int32),
    "bool": np.zeros(4, bool),
    "complex": np.zeros(4, np.complex64),
    "objects": np.array([None, 0.5]),
    "text": np.array(["a"]),
    "times": np.zeros(3, "m8[s]"),
    "records": np.zeros(3, [("left", "i2"), ("right", "i2")]),
    "stereo": np.zeros((2, 5), np.int16),
    "interleaved": np.zeros((5, 2), np.float32),
    "zero-dimensional": np.array(0.5),
    "a number": 0.5,
    "numpy number": np.float32(0.5),
    "list": [0.0, 0.5],
    "str": "sound",
    "none": None,
    "signed bytes": array.array("b", [0, 1]),
    "unsigned array": array.array("H", [0, 1]),
    "long array": array.array("q", [0, 1]),
    "unicode array": array.array("u", "ab"),
    "structures": (ctypes.c_void_p * 2)(),
    "masked": np.ma.MaskedArray([0.5, 0.5], mask=[0, 1]),
    "torch int32": torch.zeros(4, dtype=torch.int32),
    "torch bool": torch.zeros(4, dtype=torch.bool),
    "torch complex": torch.zeros(4, dtype=torch.complex64),
    "torch sparse": torch.zeros(4).to_sparse(),
    "torch meta": torch.zeros(4, device="meta"),
    "torch stereo": torch.zeros(2, 4),
    "nan": np.array([np.nan], np.float32),
    "infinity": memoryview(np.array([np.inf], np.float32)),
    "enormous": np.array([1e38], np.float32),
    "beyond float32": np.array([1e300]),
    "bfloat16, enormous": torch.full((4,), 1e38, dtype=torch.bfloat16),
}


@pytest.mark.parametrize("form", INT16)
def test_int16_of_every_form(form: str) -> None:
    assert encoder().encode(INT16[form]()) == encoder().encode(WHOLE)


@pytest.mark.parametrize("form", FLOATING)
def test_floats_of_every_form(form: str) -> None:
    assert encoder().encode(FLOATING[form]()) == encoder().encode(FLOATS)


def test_half_precision() -> None:
    half, brain = FLOATS.astype(np.float16), torch.from_numpy(FLOATS.copy()).bfloat16()
    assert encoder().encode(half) == encoder().encode(half.astype(np.float32))
    assert encoder().encode(torch.from_numpy(half)) == encoder().encode(half)
    assert encoder().encode(brain) == encoder().encode(brain.float().numpy())


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_changes_nothing(case: str, rate: int) -> None:
    """The change of rate included, whose memory once kept what the codec had refused."""
    disturbed, calm = encoder(rate), encoder(rate)
    assert disturbed.encode(FLOATS[:333]) == calm.encode(FLOATS[:333])
    with pytest.raises(se.StreamError, match=r"."):
        disturbed.encode(REFUSED[case])
    assert disturbed.encode(FLOATS[333:]) == calm.encode(FLOATS[333:])


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100, 48_000])
def test_a_resampler_rings_beyond_the_loudest_samples_and_is_cut(rate: int) -> None:
    loud = encoder(rate)
    square = np.where(np.arange(rate) % 37 < 18, 100.0, -100.0).astype(np.float32)
    assert loud.encode(square)
    assert loud.encode(FLOATS) is not None


GOOD_RATES = [44_100.0, np.float32(44_100), np.float64(44_100), np.int32(44_100), np.uint16(44_100)]
BAD_RATES = [0, -8000, 44_100.5, 0.0, np.nan, np.inf, 1e300, True, "44100", None, 10**9, 10**30, 767_999, 191_999, 7]


@pytest.mark.parametrize("rate", GOOD_RATES, ids=repr)
def test_a_rate_in_another_type_is_the_same_rate(rate: Any) -> None:
    """PortAudio, and so sounddevice, says 44100.0."""
    voice, wanted = encoder(rate), encoder(44_100)
    assert voice.encode(FLOATS) == wanted.encode(FLOATS)
    assert (voice.sample_rate, voice.frame_samples) == (44_100, 882)
    decoder = se.VoiceDecoder(rate, model=MODEL, engine=ENGINE)
    assert decoder.frame_samples == 882
    assert StreamResampler(rate, 24_000).source_rate == 44_100
    assert type(LowDelayResampler(24_000, rate).target_rate) is int


@pytest.mark.parametrize("rate", BAD_RATES, ids=repr)
def test_a_rate_that_is_none_is_refused(rate: Any) -> None:
    for make in (encoder, lambda rate: se.VoiceDecoder(rate, model=MODEL, engine=ENGINE)):
        with pytest.raises(se.StreamError, match=r"Hz"):
            make(rate)


@pytest.mark.parametrize("frame_ms", [0, -1, np.nan, np.inf, 1e300, "20", None, True])
def test_frame_lengths_that_are_none_are_refused(frame_ms: Any) -> None:
    with pytest.raises(se.StreamError, match="frame_ms"):
        se.VoiceEncoder(24_000, frame_ms, model=MODEL, engine=ENGINE)
    with pytest.raises(se.StreamError, match="frame_ms"):
        se.VoiceDecoder(24_000, frame_ms, model=MODEL, engine=ENGINE)


def test_whole_numbers_of_numpy() -> None:
    voice = encoder(frames_per_packet=np.int64(2), redundant_frames=np.int8(1), redundant_codebooks=np.uint8(2))
    wanted = encoder(frames_per_packet=2, redundant_frames=1, redundant_codebooks=2)
    packets = voice.encode(WHOLE)
    assert packets == wanted.encode(WHOLE)
    decoder = se.VoiceDecoder(24_000, model=MODEL, engine=ENGINE)
    for packet in packets:
        decoder.push(memoryview(packet))
    assert decoder.pull(np.int64(480)).shape == (480,)
    for count in (-1, 1.5, 480.0, True, "480", None, np.nan):
        with pytest.raises(se.StreamError, match="whole number of samples"):
            decoder.pull(count)
        with pytest.raises(se.StreamError, match="whole number of samples"):
            decoder.decode_lost(count)
    for packet in (None, "packet", 5, [1, 2]):
        with pytest.raises(se.PacketError, match="a packet is bytes"):
            decoder.push(packet)
    for setting in ({"frames_per_packet": 1.5}, {"redundant_frames": 0.5}, {"redundant_codebooks": True}):
        with pytest.raises(se.StreamError, match="frames"):
            encoder(**setting)
    for setting in ({"first_sequence": 1.5}, {"first_timestamp": "now"}):
        with pytest.raises(se.StreamError, match="first_"):
            encoder(**setting)
    stream = se.StreamingEncoder(MODEL, np.float32(6.0), batch_size=np.int64(1), frames_per_step=np.int16(2))
    assert type(stream.frames_per_step) is int
