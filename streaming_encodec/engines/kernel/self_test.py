"""A library on trial: a small model with every kind of layer must give the one right sequence of bits."""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

from streaming_encodec.engines.kernel.codec import KernelCodec
from streaming_encodec.engines.kernel.image import pack
from streaming_encodec.engines.kernel.shared_library import Library, open_library
from streaming_encodec.errors import MissingExtraError
from streaming_encodec.model.architecture import make_parts
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.types import Floats

EXPECTED = "fd937ab8d724314c181910d6a5f263591b516acb718377e67cfb3a728fd50f61"
"""SHA-256 of ``result`` with every library of ``ARITHMETIC``."""

_CONFIG = EncodecConfig(
    target_bandwidths=(72.0,),
    hidden_size=20,
    num_filters=12,
    num_residual_layers=2,
    upsampling_ratios=(3, 2),
    num_lstm_layers=1,
    codebook_size=64,
)


@cache
def load_library(plain: bool = False) -> Library:
    """The library for this machine, checked and tried out.

    Args:
        plain: without AVX2 also where the processor has it.

    Raises:
        MissingExtraError: there is none for this machine, or it is damaged or wrong; the message says why.
    """
    library = open_library(plain)
    if not is_right(library):
        raise MissingExtraError(
            f"the kernel ({library.name}) computes wrong numbers on this machine: report it, please"
        )
    return library


def why_missing() -> str | None:
    """Why this machine has no library; None if it has one."""
    try:
        load_library()
    except MissingExtraError as error:
        return str(error)
    return None


def is_right(library: Library) -> bool:
    """Whether the library computes as it must on this machine."""
    return result(library) == EXPECTED


def result(library: Library) -> str:
    """SHA-256 of codes and samples of a short noise."""
    shapes = [shape for part in make_parts(_CONFIG) for layer in part.layers for shape in layer.shapes]
    # Every other matrix fits float16.
    matrices = [(_noise(i, shape, 8 + i % 2 * 8), _noise(99 + i, shape[1:], 16)) for i, shape in enumerate(shapes)]
    books = [_noise(300 + k, (_CONFIG.codebook_size, _CONFIG.hidden_size), 8) for k in range(_CONFIG.num_quantizers)]
    codec = KernelCodec(_CONFIG, pack(_CONFIG, matrices, books), library)
    x = _noise(999, (1, 101, 1), 16)
    first, state = codec.encoder.start(x[:, :72])
    second, state = codec.encoder.step(x[:, 72:96], state)
    latent = np.concatenate((first, second, codec.encoder.flush(x[:, 96:101], state)), axis=1)
    codes = codec.search(latent[0], _CONFIG.num_quantizers)
    vectors = codec.lookup(codes)[None]
    begin, state = codec.decoder.start(vectors[:, :8])
    sound = np.concatenate((begin, codec.decoder.step(vectors[:, 8:], state)[0]), axis=1)
    digest = hashlib.sha256(codes.astype("<i4").tobytes())
    digest.update(latent.astype("<f4").tobytes())
    digest.update(sound.astype("<f4").tobytes())
    return digest.hexdigest()


def _noise(seed: int, shape: tuple[int, ...], bits: int) -> Floats:
    """The same numbers on every machine, within -0.5 to 0.5, of so many bits: with 8 they fit float16."""
    count = np.uint64(np.prod(shape))
    mixed = (np.arange(count, dtype=np.uint64) + np.uint64(1 + 7919 * seed)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (mixed >> np.uint64(64 - bits)).astype(np.float64) / 2**bits - 0.5
    noise: Floats = values.astype(np.float32).reshape(shape)
    return noise
