"""A model as one block of memory, as ``kernel.c`` reads it: header, layers, matrices, weights. Imports no torch.

Matrices lie in panels of 16 outputs, ``[out/16][in][16]``: in float16 where that holds every value as it is (those of
the bundled model it does), else in float32. With ``half`` all go into float16, rounded to the nearest, ties to even:
half the bytes, and other codes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from streaming_encodec.errors import CheckpointError
from streaming_encodec.model.architecture import (
    CONV,
    LSTM,
    TRANSPOSED,
    Layer,
    Part,
    codebook_names,
    make_parts,
    named_layers,
)
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.types import Floats

Weights: TypeAlias = Mapping[str, NDArray[Any]]

PANELS, HALF_PANELS, ROWS = range(3)

_MAGIC, _VERSION = 0x4B534543, 1
_HEADER_WORDS, _MATRIX_WORDS = 18, 5
_LANES = 16
_ROWS_AT_ONCE = 64
"""Whatever is made beside the image is small: the system does not get back what a program has used once."""
_BEYOND_HALF = 65520.0
"""From here on the nearest number of float16 is infinity."""
_MOST_ROW_OUTPUTS = 2
"""A product with so few outputs would leave a panel's lanes empty: its vectors run along the inputs."""


@dataclass(frozen=True)
class Image:
    """The block of memory, and the meaning of its tables."""

    memory: Floats
    encoder: Part
    decoder: Part
    is_rounded: bool
    """Some weights are not the model's own but the nearest in float16."""


def make_image(config: EncodecConfig, weights: Weights, half: bool = False) -> Image:
    """Pack a model's plain weights (no weight norm), under Hugging Face's names.

    ``weights`` may read a tensor when it is asked for: each is asked for once, and not kept.

    Raises:
        CheckpointError: a tensor is missing, or of another shape than the configuration wants.
    """
    matrices = (pair for name, layer in named_layers(config) for pair in _matrices(layer, weights, name))
    return pack(config, matrices, (_tensor(weights, name) for name in codebook_names(config)), half)


def pack(
    config: EncodecConfig,
    matrices: Iterable[tuple[NDArray[Any], NDArray[Any]]],
    codebooks: Iterable[NDArray[Any]],
    half: bool = False,
) -> Image:
    """Pack matrices [in, out] with their biases [out], in the order of the layers' ``shapes``, and codebooks [size, D].

    Raises:
        CheckpointError: one is of another shape.
    """
    encoder, decoder = make_parts(config)
    layers = [*encoder.layers, *decoder.layers]
    shapes = [shape for layer in layers for shape in layer.shapes]
    codebook = len(shapes)
    shapes += [(config.hidden_size, config.codebook_size)] * config.num_quantizers
    layers_at = _whole(_HEADER_WORDS)
    matrices_at = _whole(layers_at + len(layers) * len(astuple(layers[0])))
    writer = _Writer(_whole(matrices_at + len(shapes) * _MATRIX_WORDS), shapes, half)
    for matrix, bias in matrices:
        writer.add(matrix, bias)
    for table in codebooks:
        writer.add_codebook(table)

    header = [_MAGIC, _VERSION, layers_at, matrices_at]
    header += [config.num_quantizers, config.codebook_size, config.hidden_size, codebook]
    first = 0
    for part in (encoder, decoder):
        header += [first, len(part.layers), part.inputs, part.outputs, part.state_floats]
        first += len(part.layers)
    words = writer.memory.view(np.int32)
    words[: len(header)] = header
    for at, numbers in ((layers_at, [astuple(layer) for layer in layers]), (matrices_at, list(writer.table))):
        flat = np.ravel(numbers)
        words[at : at + len(flat)] = flat
    return Image(writer.memory[: writer.end], encoder, decoder, writer.is_rounded)


# -- their matrices [in, out] and biases [out] -------------------------------------------------------------------------


def _matrices(layer: Layer, weights: Weights, name: str) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    if layer.kind == CONV:
        yield _taps(weights, name)
    elif layer.kind == TRANSPOSED:
        weight, bias = (_tensor(weights, f"{name}.conv.{kind}") for kind in ("weight", "bias"))
        half = layer.stride * layer.outputs
        # [in, out, 2 * stride] → [in, 2 * stride * out]; of an output's two halves the first has the bias.
        yield (
            weight.transpose(0, 2, 1).reshape(len(weight), -1),
            np.concatenate((np.tile(bias, layer.stride), np.zeros(half, bias.dtype))),
        )
    elif layer.kind == LSTM:
        for i in range(layer.count):
            biases = [_tensor(weights, f"{name}.lstm.bias_{kind}_l{i}").astype(np.float32) for kind in ("ih", "hh")]
            yield _tensor(weights, f"{name}.lstm.weight_ih_l{i}").T, biases[0] + biases[1]
            yield _tensor(weights, f"{name}.lstm.weight_hh_l{i}").T, np.zeros_like(biases[0])
    else:
        yield _taps(weights, f"{name}.block.1")
        yield _taps(weights, f"{name}.block.3")
        if layer.count:
            yield _taps(weights, f"{name}.shortcut")


def _taps(weights: Weights, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    weight = _tensor(weights, f"{name}.conv.weight")  # [out, in, kernel] → [kernel * in, out]
    return weight.transpose(2, 1, 0).reshape(-1, len(weight)), _tensor(weights, f"{name}.conv.bias")


def _tensor(weights: Weights, name: str) -> NDArray[Any]:
    try:
        tensor = weights[name]
    except KeyError:
        raise CheckpointError(f"the weights do not fit their configuration: {name} is missing") from None
    return tensor.astype(np.float16) if _is_half(tensor) else tensor  # what is made of it then has half the size


def _is_half(values: NDArray[Any]) -> bool:
    """Whether each of the values [n, …] is a number of float16."""
    if values.dtype == np.float16:
        return True
    with np.errstate(over="ignore"):
        blocks = (values[at : at + _ROWS_AT_ONCE] for at in range(0, len(values), _ROWS_AT_ONCE))
        return all(np.array_equal(block.astype(np.float16), block) for block in blocks)


class _Writer:
    """Packs one matrix after the other into memory that is large enough for all in float32."""

    def __init__(self, begin: int, shapes: list[tuple[int, int]], half: bool) -> None:
        self._shapes, self._half = shapes, half
        most = begin + sum(_whole(outputs) * (inputs + 1) for inputs, outputs in shapes) + _LANES * len(shapes)
        # Pages that are never written to are never there.
        self.memory: Floats = _aligned(most)
        self.memory[:begin] = 0
        self.end = begin
        self.table: list[tuple[int, ...]] = []
        self.is_rounded = False

    def add(self, matrix: NDArray[Any], bias: NDArray[Any]) -> None:
        """``matrix`` [in, out], ``bias`` [out]. Raises ``CheckpointError`` for another shape."""
        inputs, outputs = shape = self._shapes[len(self.table)]
        if matrix.shape != shape or bias.shape != (outputs,):
            raise CheckpointError(
                f"the weights do not fit their configuration: a matrix of {matrix.shape} with a bias of {bias.shape}"
                f" where {shape} is wanted"
            )
        width = _whole(outputs)
        self.memory[self.end : self.end + width] = 0
        self.memory[self.end : self.end + outputs] = bias
        bias_at, at = self.end, self.end + width
        if outputs <= _MOST_ROW_OUTPUTS:
            form, words = ROWS, _whole(inputs * outputs)
            self.memory[at : at + words] = 0
            self.memory[at : at + inputs * outputs] = matrix.T.ravel()
        else:
            form, dtype = (HALF_PANELS, np.float16) if self._goes_into_half(matrix) else (PANELS, np.float32)
            used = inputs * width * np.dtype(dtype).itemsize // 4
            words = _whole(used)
            self.memory[at + used : at + words] = 0
            panels = self.memory[at : at + used].view(dtype).reshape(width // _LANES, inputs, _LANES)
            whole, rest = divmod(outputs, _LANES)
            panels[:whole] = matrix[:, : whole * _LANES].reshape(inputs, whole, _LANES).transpose(1, 0, 2)
            if rest:
                panels[whole] = 0
                panels[whole, :, :rest] = matrix[:, whole * _LANES :]
        self.end = at + words
        self.table.append((form, inputs, outputs, at, bias_at))

    def add_codebook(self, table: NDArray[Any]) -> None:
        """``table`` [size, D]: its negated vectors, and half their squares. The least sum is the nearest vector."""
        vectors = table.astype(np.float16) if self._goes_into_half(table) else table
        squares = np.zeros(len(vectors), np.float64)
        for column in vectors.T.astype(np.float64):  # in one order: a library's sum depends on its vector width
            squares += column * column
        self.add(-vectors.T, squares / 2)

    def _goes_into_half(self, values: NDArray[Any]) -> bool:
        """Whether the values [n, m] are stored in float16."""
        if _is_half(values):
            return True
        if not (self._half and np.abs(values).max() < _BEYOND_HALF):  # NaN is not below it
            return False
        self.is_rounded = True
        return True


def _whole(words: int) -> int:
    """The size rounded up to 64 bytes."""
    return -(-words // _LANES) * _LANES


def _aligned(words: int) -> Floats:
    """Memory aligned to a cache line."""
    raw = np.empty(words + _LANES, np.float32)
    begin = -(raw.ctypes.data // 4) % _LANES
    return raw[begin : begin + words]
