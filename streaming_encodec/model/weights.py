"""A checkpoint's tensors as a model's plain weights: weight norm folded, everything checked. Imports no torch.

Weight norm (arXiv 1602.07868): ``weight = g * v / |v|``, one ``g`` and one norm for each row along axis 0. Axis 0 is
the output channels of a convolution, but the *input* channels of a transposed one: torch's weight norm does not tell
them apart, and so published checkpoints do not either. Files spell it in either of torch's ways, or hold plain weights.
Folding is float64 with a fixed order of additions: the same file gives the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import CheckpointError, ConfigError
from streaming_encodec.model.architecture import weight_shapes
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.size import check_size
from streaming_encodec.model.stored import StoredTensor

Array: TypeAlias = NDArray[Any]

# The two spellings of torch: ``nn.utils.weight_norm`` and ``nn.utils.parametrizations.weight_norm``.
_MAGNITUDE_SUFFIXES = (".weight_g", ".parametrizations.weight.original0")
_DIRECTION_SUFFIXES = (".weight_v", ".parametrizations.weight.original1")

TRAINING_BUFFERS = (".inited", ".cluster_size", ".embed_avg")
"""What training keeps beside each codebook; inference needs none of it."""

_BITS_IN_OLDER_FILES = 10
"""Of a code, as transformers counted until 4.51, whatever the size of the codebooks."""
_NAMES_IN_MESSAGE = 5
_FOLDED_AT_ONCE = 1 << 14  # numbers, in float64
_LOOKED_AT_ONCE = 1 << 16

_Part = dict[str, tuple[str, StoredTensor]]
"""What makes a weight, by ``g`` and ``v``, or ``weight`` alone: the tensor and its name in the file."""


class PlainWeights(Mapping[str, Array]):
    """Plain weights under Hugging Face's names, of a float type; each is read when it is asked for, and not kept.

    Args:
        config: the architecture.
        tensors: weights under Hugging Face's names, weight norm in any spelling.
        source: the file that they come from, for messages.

    Raises:
        CheckpointError: a tensor is missing, too many, of another shape or, when it is read, not finite; or the model
            would be too large (see ``size``). The message names file and tensor.
    """

    def __init__(self, config: EncodecConfig, tensors: Mapping[str, StoredTensor], source: str) -> None:
        kept = {name: tensor for name, tensor in tensors.items() if not name.endswith(TRAINING_BUFFERS)}
        self.source = source
        self._parts = _sorted_by_weight(kept, source)
        try:
            self.config = _as_stored(config, self._parts)
            """The configuration, with as many codebooks as there are."""
            check_size(self.config)
        except ConfigError as error:
            raise CheckpointError(f"{source} is not loaded: {error}") from error
        _check_fit(self._parts, weight_shapes(self.config), source)
        self.is_double = any(tensor.is_double for part in self._parts.values() for _, tensor in part.values())

    def __getitem__(self, name: str) -> Array:
        part, arrays = self._parts[name], {}
        for kind, (stored_name, tensor) in part.items():
            arrays[kind] = tensor.load()
            if not _is_finite(arrays[kind]):
                raise CheckpointError(
                    f"{self.source}: tensor {stored_name} holds NaN or infinite values: the file is damaged"
                )
        if "weight" in part:
            return arrays["weight"]
        weight = fold(arrays["g"], arrays["v"])
        if not _is_finite(weight):
            g, v = part["g"][0], part["v"][0]
            raise CheckpointError(f"{self.source}: tensor {v} has a row of zeros, to which {g} gives a length")
        return weight

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


def _is_finite(array: Array) -> bool:
    flat = array.reshape(-1)
    return all(_are_finite(flat[at : at + _LOOKED_AT_ONCE]) for at in range(0, len(flat), _LOOKED_AT_ONCE))


def _are_finite(numbers: Array) -> bool:
    if numbers.dtype == np.float16:  # as whole numbers: numpy's own look takes ten times as long
        return not ((numbers.view(np.uint16) & 0x7C00) == 0x7C00).any()
    return bool(np.isfinite(numbers).all())


def _sorted_by_weight(tensors: Mapping[str, StoredTensor], source: str) -> dict[str, _Part]:
    # Under plain names.
    parts: dict[str, _Part] = {}
    for name, tensor in tensors.items():
        kind, base = _split(name)
        part = parts.setdefault(base, {})
        if kind in part:
            raise CheckpointError(f"{source} holds {base} in two spellings: {name} is one too many")
        part[kind] = (name, tensor)
    for base, part in parts.items():
        if "weight" in part and len(part) > 1:
            raise CheckpointError(f"{source} holds {base} both with and without weight norm")
        if "weight" not in part and len(part) == 1:
            raise CheckpointError(f"{source}: tensor {next(iter(part.values()))[0]} has no counterpart (g and v)")
    return parts


def _as_stored(config: EncodecConfig, parts: Mapping[str, _Part]) -> EncodecConfig:
    """The configuration, with as many codebooks as a file of an older ``transformers`` holds."""
    held = sum(name.startswith("quantizer.layers.") and name.endswith(".codebook.embed") for name in parts)
    older = int(1000 * config.target_bandwidths[-1] // (config.frame_rate * _BITS_IN_OLDER_FILES))
    return config.with_stored_codebooks(held) if held == older and held >= 1 else config


def _check_fit(parts: Mapping[str, _Part], expected: Mapping[str, tuple[int, ...]], source: str) -> None:
    """Raise ``CheckpointError`` where names or shapes are others than the architecture's."""
    missing = sorted(expected.keys() - parts.keys())
    if missing:
        raise CheckpointError(f"{source} does not fit its configuration: it lacks {_listed(missing)}")
    unexpected = sorted(parts.keys() - expected.keys())
    if unexpected:
        raise CheckpointError(f"{source} does not fit its configuration: it has {_listed(unexpected)} too many")
    for base, part in parts.items():
        shape = expected[base]
        for kind, (name, tensor) in part.items():
            wanted = (shape[0], *[1] * (len(shape) - 1)) if kind == "g" else shape
            if tensor.shape != wanted:
                shapes = f"{list(tensor.shape)}, but its configuration wants {list(wanted)}"
                raise CheckpointError(f"{source}: tensor {name} is {shapes}")


def _split(name: str) -> tuple[str, str]:
    for part, suffixes in (("g", _MAGNITUDE_SUFFIXES), ("v", _DIRECTION_SUFFIXES)):
        for suffix in suffixes:
            if name.endswith(suffix):
                return part, name.removesuffix(suffix) + ".weight"
    return "weight", name


def _listed(names: list[str]) -> str:
    more = len(names) - _NAMES_IN_MESSAGE
    return ", ".join(names[:_NAMES_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")


# -- weight norm -------------------------------------------------------------------------------------------------------


def fold(g: Array, v: Array) -> Array:
    """``g`` [R, 1, …] times ``v`` [R, …] over its rows' norms, at least in float32; ``v`` itself where it gives that.

    A row without direction and of magnitude zero is zero; with another magnitude the result is not finite.
    """
    norm = row_norms(v).reshape(g.shape)
    # A magnitude that is this very norm, rounded to the file's precision, means "v as it is". Multiplying by
    # nearly one instead would move weights by one bit each time that a model is saved and loaded.
    precision = np.promote_types(g.dtype, np.float32)
    same = norm.astype(precision) == g.astype(precision)
    if same.all():
        return v
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(same, 1.0, g.astype(np.float64) / norm)
        weight: Array = (v.astype(np.float64) * ratio).astype(np.promote_types(v.dtype, np.float32))
    return weight


def row_norms(v: Array) -> NDArray[np.float64]:
    """The Euclidean norm of each row along axis 0: ``v`` [R, …] → float64 [R]."""
    rows = v.reshape(len(v), -1)
    several = max(1, _FOLDED_AT_ONCE // max(1, rows.shape[1]))
    norms = [_norms(rows[at : at + several].astype(np.float64)) for at in range(0, len(rows), several)]
    return np.concatenate(norms)[:, 0]


def _norms(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    terms = np.square(rows, out=rows)
    while terms.shape[1] > 1:
        # Sums by pairs, one whole array at a time: a library's own sum depends on its vector width.
        half = terms.shape[1] // 2
        pairs = terms[:, :half] + terms[:, half : 2 * half]
        terms = pairs if terms.shape[1] == 2 * half else np.concatenate((pairs, terms[:, 2 * half :]), axis=1)
    norms: NDArray[np.float64] = np.sqrt(terms)
    return norms
