"""The forms in which telephony hands sound over: bytes, int16 and float32."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import StreamError
from streaming_encodec.samples import as_array, check_amplitude
from streaming_encodec.stepping.arrays import as_numpy, is_tensor
from streaming_encodec.streaming.io import plain_tensor
from streaming_encodec.types import Pcm

# Beside these whatever has a buffer that says its type (array.array, ctypes), and torch tensors.
Samples: TypeAlias = bytes | bytearray | memoryview | NDArray[np.int16] | NDArray[np.float32] | Any
OutputForm = Literal["int16", "float32", "bytes"]

OUTPUT_FORMS: tuple[OutputForm, ...] = ("int16", "float32", "bytes")

_BYTES = ("B", "c")
"""The formats of buffers that do not say what their bytes mean."""


def take_pcm(samples: Samples) -> Pcm:
    """Mono samples as float32 [1, n].

    Bytes, and buffers of bytes, are int16, little-endian. Arrays, tensors and other buffers have a type: int16 of any
    byte order, which is divided by 32768, or floating point of any precision, full scale 1.0.

    Raises:
        StreamError: another type or shape, half a sample, NaN or infinity, or beyond ``MAX_AMPLITUDE``.
    """
    data = _bytes(samples)
    if data is not None:
        if len(data) % 2:
            raise StreamError(f"bytes of sound are int16, two a sample; {len(data)} is an odd number")
        return _from_array(np.frombuffer(data, "<i2").astype(np.int16))
    if is_tensor(samples):
        samples = as_numpy(plain_tensor(samples, "samples").resolve_conj())
    try:
        return _from_array(as_array(samples, "samples"))
    except TypeError as error:  # a tensor of a type that numpy has not
        raise StreamError(f"samples are int16 or floating point within -1 to 1, not {error}") from error


def _bytes(samples: Samples) -> bytes | None:
    """The bytes of a buffer of bytes; None for anything that has a type."""
    if isinstance(samples, bytes | bytearray):
        return bytes(samples)
    if isinstance(samples, np.ndarray | np.generic) or is_tensor(samples):
        return None
    try:
        view = memoryview(samples)
    except TypeError:
        raise StreamError(f"sound is bytes, a numpy array or a tensor, not {type(samples).__name__}") from None
    return view.tobytes() if view.format.lstrip("<>=@") in _BYTES else None


def _from_array(samples: NDArray[Any]) -> Pcm:
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1:
        raise StreamError(f"a voice is mono: [n] or [1, n], not {list(samples.shape)}; mix it down first")
    if samples.dtype == np.int16:
        return (samples.astype(np.float32) / np.float32(32768))[None]
    if samples.dtype.kind != "f":
        raise StreamError(f"samples are int16 or floating point within -1 to 1, not {samples.dtype}")
    check_amplitude(samples)
    return samples.astype(np.float32)[None]


def give_pcm(sound: Pcm, form: OutputForm) -> bytes | NDArray[np.int16] | NDArray[np.float32]:
    """Mono float32 [n] in the form asked for; integers are rounded and clipped at full scale."""
    if form == "float32":
        return sound
    whole = np.clip(np.rint(sound * 32768), -32768, 32767)
    if form == "bytes":
        return whole.astype("<i2").tobytes()
    return whole.astype(np.int16)
