"""µ-law and A-law (ITU-T G.711): a byte a sample, by tables. Python 3.13 has no `audioop` any more."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.types import Pcm

_BIAS, _CLIP = 132, 32_635


def _ulaw_levels() -> NDArray[np.int32]:
    code = ~np.arange(256) & 0xFF
    magnitude = ((((code & 15) << 3) + _BIAS) << (code >> 4 & 7)) - _BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int32)


def _ulaw_codes() -> NDArray[np.uint8]:
    sample = np.arange(-32_768, 32_768)
    magnitude = np.minimum(np.abs(sample), _CLIP) + _BIAS
    segment = np.log2(magnitude).astype(int) - 7
    code = np.where(sample < 0, 0x80, 0) | segment << 4 | (magnitude >> (segment + 3) & 15)
    codes: NDArray[np.uint8] = (~code & 0xFF).astype(np.uint8)
    return codes


def _alaw_levels() -> NDArray[np.int32]:
    code = np.arange(256) ^ 0x55
    segment = code >> 4 & 7
    step = (code & 15) << 4
    magnitude = np.where(segment == 0, step + 8, (step + 0x108) << np.maximum(segment - 1, 0))
    return np.where(code & 0x80, magnitude, -magnitude).astype(np.int32)


def _alaw_codes() -> NDArray[np.uint8]:
    sample = np.arange(-32_768, 32_768)
    magnitude = np.where(sample < 0, -sample - 1, sample)
    segment = np.maximum(np.log2(np.maximum(magnitude, 1)).astype(int) - 7, 0)
    code = segment << 4 | (magnitude >> np.maximum(segment + 3, 4) & 15)
    codes: NDArray[np.uint8] = (code ^ np.where(sample < 0, 0x55, 0xD5)).astype(np.uint8)
    return codes


_LAWS = {"ulaw": (_ulaw_levels, _ulaw_codes), "alaw": (_alaw_levels, _alaw_codes)}


@cache
def _tables(law: str) -> tuple[Pcm, NDArray[np.uint8]]:
    levels, codes = _LAWS[law]
    return (levels() / 32_768).astype(np.float32), codes()


def decode_g711(data: bytes, law: str = "ulaw") -> Pcm:
    """Bytes of "ulaw" or "alaw" as samples [n]."""
    samples: Pcm = _tables(law)[0][np.frombuffer(data, np.uint8)]
    return samples


def encode_g711(samples: Pcm, law: str = "ulaw") -> bytes:
    """Samples [n] as bytes, clipped at full scale."""
    whole = np.rint(samples * np.float32(32_768)).astype(np.int32)
    whole += 32_768
    codes: NDArray[np.uint8] = _tables(law)[1].take(whole, mode="clip")
    return codes.tobytes()
