"""Checks of samples and codes, and of the arrays that hold them. Imports no torch."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import StreamError
from streaming_encodec.types import Pcm

MAX_AMPLITUDE = 100.0
"""The loudest sample that is taken: 40 dB above full scale, which is 1.0.

No sound is so loud, and one enormous sample would stay in a stream's state for ever: an LSTM that once computed NaN
gives nothing else. Up to here the layers stay finite in float16 too, whose numbers end at 65504 (three times louder
the bundled model's do not), and in float32 by far.
"""

_SURE_ENERGY = (MAX_AMPLITUDE / 2) ** 2
"""A block with less energy than this has no louder sample, however the sum was rounded."""

_FEW = 64
"""Numbers for which numpy's calls cost more than the interpreter's work."""

MAX_SAMPLE_RATE = 768_000
"""Hz: twice what the fastest sound cards do."""


# -- amplitude -----------------------------------------------------------------------------------------------


def is_audible(samples: NDArray[Any]) -> bool:
    """Whether all samples are finite and within ``MAX_AMPLITUDE``, in any shape: half a microsecond for a frame."""
    # One product for a block of usual loudness. NaN fails every comparison; a sum that overflows does so silently.
    if samples.dtype.char in "fd" and np.vdot(samples, samples) <= _SURE_ENERGY:
        return True
    return not samples.size or _peak(samples) <= MAX_AMPLITUDE


def check_amplitude(samples: NDArray[Any]) -> None:
    """Raise ``StreamError`` unless ``is_audible``. Call it before anything that remembers samples sees them."""
    if not is_audible(samples):
        raise_amplitude(_peak(samples))


def raise_amplitude(peak: float) -> None:
    """The error for samples whose largest magnitude is ``peak``, which is NaN, infinite or too large."""
    if not np.isfinite(peak):
        raise StreamError("samples hold NaN or infinity: drop or repair them before they enter the codec's memory")
    raise StreamError(
        f"samples reach {peak:.3g}: full scale is 1.0, and none may be beyond {MAX_AMPLITUDE:g}"
        " (40 dB above it). Divide samples in an integer's range by its full scale, such as 32768"
    )


def clip_amplitude(samples: Pcm) -> Pcm:
    """``samples`` within ``MAX_AMPLITUDE``: a resampler's overshoot of the loudest ones. The same array as a rule."""
    return samples if is_audible(samples) else np.clip(samples, -MAX_AMPLITUDE, MAX_AMPLITUDE)


def repair_amplitude(samples: Pcm) -> Pcm:
    """Samples of a device, repaired: NaN and infinity become silence, the rest is clipped."""
    if is_audible(samples):
        return samples
    return np.clip(np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0), -1.0, 1.0)


def _peak(samples: NDArray[Any]) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.abs(samples).max())


# -- codes ---------------------------------------------------------------------------------------------------


def check_codes(codes: NDArray[Any], most_codebooks: int, codebook_size: int) -> None:
    """Raise ``StreamError`` unless ``codes`` [..., B, K, F] have 1 ≤ K ≤ most_codebooks and are in range."""
    if codes.ndim < 3:
        raise StreamError(f"codes must be [B, K, F], got {list(codes.shape)}")
    if not 1 <= codes.shape[-2] <= most_codebooks:
        raise StreamError(f"codes hold {codes.shape[-2]} codebooks, this model takes 1 to {most_codebooks}")
    if codes.size:
        values: Any = codes.ravel().tolist() if codes.size <= _FEW else None
        lowest, highest = (codes.min(), codes.max()) if values is None else (min(values), max(values))
        if lowest < 0 or highest >= codebook_size:
            worst = lowest if lowest < 0 else highest
            raise StreamError(f"code {worst} is out of range: codes go from 0 to {codebook_size - 1}")


# -- arrays --------------------------------------------------------------------------------------------------


def as_array(x: Any, what: str) -> NDArray[Any]:
    """``x`` as a plain numpy array of numbers in the machine's own byte order, which torch takes too.

    Args:
        x: a numpy array of any layout, or anything with a buffer that says its type: ``memoryview``, ``array.array``, a
            ctypes array.
        what: "samples" or "codes", for messages.

    Raises:
        StreamError: nothing of this kind, or no real numbers; masked values.
    """
    array = _buffer(x, what)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind not in "fiub":
        raise StreamError(f"{what} must be numbers, got dtype {array.dtype}")
    if kind == "f" and size > 8:
        with np.errstate(over="ignore"):
            return array.astype(np.float64)
    if kind == "u" and size > 1:
        return array.astype(np.int64)  # torch has no wide unsigned arithmetic
    flags = array.flags
    plain = flags.writeable and flags.aligned and array.dtype.isnative
    for stride in array.strides:
        plain = plain and stride >= 0 and not stride % size
    return array if plain else array.astype(array.dtype.newbyteorder("="))


def _buffer(x: Any, what: str) -> NDArray[Any]:
    if isinstance(x, np.ma.MaskedArray):
        if np.ma.is_masked(x):
            raise StreamError(f"{what} are partly masked: say what stands in their place with filled(value)")
        x = x.data
    if isinstance(x, np.ndarray):
        return np.asarray(x)
    wanted = StreamError(f"{what} must be a numpy array or a torch tensor, got {type(x).__name__}")
    if isinstance(x, bytes | bytearray | np.generic):
        raise wanted
    try:
        return np.asarray(memoryview(x))
    except (TypeError, ValueError, NotImplementedError, BufferError) as error:
        raise wanted from error


# -- whole numbers -------------------------------------------------------------------------------------------


def as_count(value: object) -> int | None:
    """A whole number of Python's or numpy's as an ``int``; None for anything else, ``True`` and 1.0 among them."""
    if isinstance(value, bool | np.bool_):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def as_sample_rate(value: object, name: str = "sample_rate") -> int:
    """A sample rate in whole Hz: also 44100.0, as PortAudio spells it, and numpy's numbers.

    Raises:
        StreamError: no whole number from 1 to ``MAX_SAMPLE_RATE``.
    """
    rate = as_count(value)
    if rate is None and isinstance(value, float | np.floating) and float(value).is_integer():
        rate = int(value)
    if rate is None or not 1 <= rate <= MAX_SAMPLE_RATE:
        raise StreamError(f"{name} must be positive, in whole Hz up to {MAX_SAMPLE_RATE}, got {value!r}")
    return rate
