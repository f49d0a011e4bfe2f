"""The shapes in which telephony hands sound over: bytes and int16, and float32 for everybody else."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import StreamError

Pcm = NDArray[np.float32]
Samples: TypeAlias = bytes | bytearray | memoryview | NDArray[np.int16] | NDArray[np.float32]
OutputForm = Literal["int16", "float32", "bytes"]

OUTPUT_FORMS: tuple[OutputForm, ...] = ("int16", "float32", "bytes")


def take_pcm(samples: Samples) -> Pcm:
    """Mono samples as float32 [1, n]. Bytes are int16, little-endian; int16 is divided by 32768.

    Raises:
        StreamError: another type or shape, half a sample, NaN or infinity.
    """
    if isinstance(samples, bytes | bytearray | memoryview):
        data = bytes(samples)
        if len(data) % 2:
            raise StreamError(f"bytes of sound are int16, two a sample; {len(data)} is an odd number")
        return _from_array(np.frombuffer(data, "<i2").astype(np.int16))
    if not isinstance(samples, np.ndarray):
        raise StreamError(f"sound is bytes or a numpy array, not {type(samples).__name__}")
    return _from_array(samples)


def _from_array(samples: NDArray[Any]) -> Pcm:
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1:
        raise StreamError(f"a voice is mono: [n] or [1, n], not {list(samples.shape)}; mix it down first")
    if samples.dtype == np.int16:
        return (samples.astype(np.float32) / np.float32(32768))[None]
    if samples.dtype.kind != "f":
        raise StreamError(f"samples are int16 or floating point within -1 to 1, not {samples.dtype}")
    if not np.isfinite(samples).all():
        raise StreamError("samples hold NaN or infinity: drop or repair them before they enter the codec")
    return samples.astype(np.float32)[None]


def give_pcm(sound: Pcm, form: OutputForm) -> bytes | NDArray[np.int16] | NDArray[np.float32]:
    """Mono float32 [n] in the form asked for; integers are rounded and clipped at full scale."""
    if form == "float32":
        return sound
    whole = np.clip(np.rint(sound * 32768), -32768, 32767)
    if form == "bytes":
        return whole.astype("<i2").tobytes()
    return whole.astype(np.int16)
