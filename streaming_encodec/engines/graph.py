"""The steady step of a stack as an ONNX graph, with the state as named inputs and outputs.

For a fixed number of frames and any batch. Inputs: ``input`` and each tensor of the state; outputs:
``output`` and each of the state with ``next.`` before its name. All are float32, channels last:

* encoder: ``input`` [batch, hop * frames, channels] → ``output`` [batch, frames, D]
* decoder: ``input`` [batch, frames, D] → ``output`` [batch, hop * frames, channels]

Convolutions are matrix products over gathered windows, as in ``fused.py``: ONNX Runtime packs a constant
matrix once, but lays a convolution's weights anew at each call. Between the layers values are [batch *
length, channels], so that product and bias are one node; with small models the number of nodes is the cost.

In int8 graphs large matrices hold 8-bit weights, with a scale for each block of inputs (the runtime's
``MatMulNBits``). One frame at a time is bound by the weights' bytes: a quarter of the bytes is the gain.
The runtime quantises each row's inputs by itself, so that rows of a batch stay strangers.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from torch import Tensor, nn

from streaming_encodec.engines.layout import turn
from streaming_encodec.engines.nodes import Array, Nodes, TensorProto, helper, onnx
from streaming_encodec.model.conv import StreamableConv1d, StreamableConvTranspose1d
from streaming_encodec.model.layers import Elu, ResidualLstm, ResnetBlock
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.streaming.state import named_tensors

INPUT, OUTPUT, NEXT, STATE = "input", "output", "next.", "layers"

# Products with smaller matrices are not bound by their bytes, nor those that use a matrix for many rows at
# once.
_LEAST_QUANTISED_SIZE = 1 << 15
_MOST_QUANTISED_ROWS = 4
# A node for each frame and gate: more frames than a packet holds are better off with the runtime's own LSTM.
_MOST_SINGLE_FRAMES = 6


def step_graph(stack: StreamableStack, inputs: int, int8: bool = False) -> onnx.ModelProto:
    """The graph of ``stack.step`` for ``inputs`` inputs at a time.

    Raises:
        TypeError: a layer that it does not know.
    """
    return _StepGraph(int8).build(stack, inputs)


def state_shapes(stack: StreamableStack) -> dict[str, tuple[int, ...]]:
    """Name and shape (without batch) of the state's tensors that hold anything, in the graph's order."""
    named = named_tensors(turn(stack.init_state(1)), STATE)
    return {name: tuple(tensor.shape[1:]) for name, tensor in named if tensor.numel()}


class _StepGraph(Nodes):
    """Adds one layer after the other. A value is its name and its length n: [batch * n, channels]."""

    def __init__(self, int8: bool) -> None:
        super().__init__()
        self._int8 = int8
        self._next: dict[str, str] = {}

    def build(self, stack: StreamableStack, inputs: int) -> onnx.ModelProto:
        width_in = cast(StreamableConv1d, stack.layers[0]).conv.in_channels
        width_out = cast(StreamableConv1d, stack.layers[-1]).conv.out_channels
        y, n = self._rows(INPUT, width_in), inputs
        for i, layer in enumerate(stack.layers):
            y, n = self._layer(layer, y, n, f"{STATE}.{i}")
        self.node("Reshape", [y, self.ints(-1, n, width_out)], [OUTPUT])
        shapes = state_shapes(stack)
        for name in shapes:
            self.node("Identity", [self._next[name]], [NEXT + name])

        def value(name: str, *shape: int) -> onnx.ValueInfoProto:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape])

        return self.model(
            [value(INPUT, inputs, width_in), *(value(name, *shape) for name, shape in shapes.items())],
            [value(OUTPUT, n, width_out), *(value(NEXT + name, *shape) for name, shape in shapes.items())],
        )

    # -- layers -------------------------------------------------------------------------------------------

    def _layer(self, layer: nn.Module, x: str, n: int, state: str) -> tuple[str, int]:
        if isinstance(layer, Elu):
            return self.op("Elu", x), n
        if isinstance(layer, StreamableConv1d):
            return self._conv(layer, x, n, f"{state}.history")
        if isinstance(layer, StreamableConvTranspose1d):
            return self._conv_transpose(layer, x, n, f"{state}.overlap")
        if isinstance(layer, ResidualLstm):
            return self._lstm(layer, x, n, state), n
        if isinstance(layer, ResnetBlock):
            return self._resnet(layer, x, n, state), n
        raise TypeError(f"no graph is known for the layer {type(layer).__name__}")

    def _conv(self, layer: StreamableConv1d, x: str, n: int, history: str) -> tuple[str, int]:
        channels, kernel, stride = layer.conv.in_channels, layer.conv.kernel_size[0], layer.stride
        dilation, outputs = layer.conv.dilation[0], n // stride
        if layer.history_length:
            x = self.op("Concat", history, self._blocks(x, n, channels), axis=1)
            self._next[history] = self.slice(x, 1, n, n + layer.history_length)
        if kernel > 1 or stride > 1:
            skip, length = layer.history_length - layer.padding_total, layer.history_length + n
            x = self._windows(x, channels, kernel, stride, dilation, outputs, skip, length)
        matrix = _array(layer.conv.weight).transpose(2, 1, 0).reshape(kernel * channels, -1)
        return self._product(x, outputs, matrix, _array(layer.conv.bias)), outputs

    def _windows(
        self,
        x: str,
        channels: int,
        kernel: int,
        stride: int,
        dilation: int,
        outputs: int,
        skip: int,
        length: int,
    ) -> str:
        """``x`` [batch, length, channels] → an output's window, [batch * outputs, kernel * channels]."""
        if kernel == 2 * stride and dilation == 1 and skip == 0 and outputs > 1:
            # Windows of two whole strides each: few large pieces to copy.
            x = self.op("Reshape", x, self.ints(-1, length // stride, stride * channels))
            indices = np.arange(outputs)[:, None] + np.arange(2)
        else:
            indices = skip + np.arange(outputs)[:, None] * stride + np.arange(kernel) * dilation
        if indices.size != length or outputs > 1:  # else the one window is all of x
            x = self.op("Gather", x, self.constant(indices), axis=1)
        return self._rows(x, kernel * channels)

    def _conv_transpose(self, layer: StreamableConvTranspose1d, x: str, n: int, overlap: str) -> tuple[str, int]:
        conv, stride, outputs = layer.conv, layer.stride, layer.conv.out_channels
        if conv.kernel_size[0] != 2 * stride:
            raise TypeError("a transposed convolution must have kernel = 2 * stride")
        half = stride * outputs
        taps = _array(conv.weight).transpose(0, 2, 1).reshape(conv.in_channels, 2, half)
        # Every output is the sum of a first half and the second half of the input before: the bias goes
        # with one.
        first = self._product(x, n, taps[:, 0], np.tile(_array(conv.bias), stride))
        second = self._product(x, n, taps[:, 1], np.zeros(half, np.float32))
        late = self._rows(overlap, half)  # [batch, stride * out]
        if n > 1:
            before = self.op(
                "Concat",
                self._blocks(late, 1, half),
                self._blocks(second, n, half),
                axis=1,
            )
            second = self._rows(self.slice(before, 1, n, n + 1), half)
            late = self._rows(self.slice(before, 1, 0, n), half)
        self._next[overlap] = self._blocks(second, stride, outputs)
        y = self.op("Add", first, late)
        return self._rows(y, outputs), n * stride

    def _resnet(self, layer: ResnetBlock, x: str, n: int, state: str) -> str:
        y = x
        for i, inner in enumerate(layer.block):
            y, _ = self._layer(inner, y, n, f"{state}.block.{i}")
        channels = cast(StreamableConv1d, layer.block[1]).conv.in_channels
        if layer.lookahead:
            waited = self.op("Concat", f"{state}.delay", self._blocks(x, n, channels), axis=1)
            self._next[f"{state}.delay"] = self.slice(waited, 1, n, n + layer.lookahead)
            x = self._rows(self.slice(waited, 1, 0, n), channels)
        if isinstance(layer.shortcut, StreamableConv1d):
            x, _ = self._conv(layer.shortcut, x, n, "")
        return self.op("Add", x, y)

    def _lstm(self, layer: ResidualLstm, x: str, n: int, state: str) -> str:
        size, layers = layer.lstm.hidden_size, layer.lstm.num_layers
        # The runtime's own LSTM packs its weights once for all frames; it has no 8-bit form that quantises
        # rows one by one, and for one frame it costs more than its two products.
        single = n == 1 or (self._int8 and n <= _MOST_SINGLE_FRAMES)
        run = self._lstm_frames if single else self._lstm_whole
        y, hiddens, cells = x, [], []
        for i in range(layers):
            weights = [
                _array(getattr(layer.lstm, f"{name}_l{i}")) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            ]
            hidden, cell = (self._layer_of(f"{state}.{name}", i, layers, size) for name in ("hidden", "cell"))
            y, hidden, cell = run(y, n, size, hidden, cell, *weights)
            hiddens.append(self._blocks(hidden, 1, size))
            cells.append(self._blocks(cell, 1, size))
        for name, values in (("hidden", hiddens), ("cell", cells)):
            after = values[0] if layers == 1 else self.op("Concat", *values, axis=1)
            self._next[f"{state}.{name}"] = after
        return self.op("Add", y, x)

    def _lstm_whole(self, x: str, n: int, size: int, hidden: str, cell: str, *weights: Array) -> tuple[str, str, str]:
        w_in, w_rec, b_in, b_rec = (_gates(array, size, "iofc") for array in weights)
        constants = [self.constant(array[None]) for array in (w_in, w_rec, np.concatenate((b_in, b_rec)))]
        by_time = self.op("Transpose", self._blocks(x, n, size), perm=[1, 0, 2])  # [n, batch, size]
        hidden, cell = (self.op("Unsqueeze", value, self.ints(0)) for value in (hidden, cell))
        outputs = [self.name() for _ in range(3)]
        self.node("LSTM", [by_time, *constants, "", hidden, cell], outputs, hidden_size=size)
        y = self.op("Transpose", outputs[0], perm=[2, 0, 1, 3])  # [n, 1, batch, size] → [batch, n, 1, size]
        return self._rows(y, size), self._rows(outputs[1], size), self._rows(outputs[2], size)

    def _lstm_frames(self, x: str, n: int, size: int, hidden: str, cell: str, *weights: Array) -> tuple[str, str, str]:
        w_in, w_rec, b_in, b_rec = (_gates(array, size, "ifoc") for array in weights)
        gates_in = self._product(x, n, w_in.T, b_in + b_rec)  # [batch * n, 4 * size]
        if n == 1:
            hidden, cell = self._lstm_cell(gates_in, hidden, cell, w_rec.T, size)
            return hidden, hidden, cell
        frames = self.split(self._blocks(gates_in, n, 4 * size), 1, *[1] * n)
        outputs = []
        for frame in frames:
            hidden, cell = self._lstm_cell(self._rows(frame, 4 * size), hidden, cell, w_rec.T, size)
            outputs.append(self._blocks(hidden, 1, size))
        return self._rows(self.op("Concat", *outputs, axis=1), size), hidden, cell

    def _lstm_cell(self, gates_in: str, hidden: str, cell: str, matrix: Array, size: int) -> tuple[str, str]:
        # The product adds onto the gates' inputs; input, forget and output gates lie together, the cell's
        # last.
        gates = self.op("Add", self._product(hidden, 1, matrix, None), gates_in)
        sigmoids, new = self.split(gates, 1, 3 * size, size)
        i, f, o = self.split(self.op("Sigmoid", sigmoids), 1, size, size, size)
        kept = self.op("Mul", f, cell)
        cell = self.op("Add", kept, self.op("Mul", i, self.op("Tanh", new)))
        return self.op("Mul", o, self.op("Tanh", cell)), cell

    def _layer_of(self, state: str, i: int, layers: int, size: int) -> str:
        return self._rows(state if layers == 1 else self.slice(state, 1, i, i + 1), size)

    # -- values -------------------------------------------------------------------------------------------

    def _rows(self, x: str, width: int) -> str:
        return self.op("Reshape", x, self.ints(-1, width))

    def _blocks(self, x: str, n: int, width: int) -> str:
        return self.op("Reshape", x, self.ints(-1, n, width))

    def _product(self, x: str, rows: int, matrix: Array, bias: Array | None) -> str:
        """``x`` [batch * rows, in] @ ``matrix`` [in, out] + ``bias`` [out]."""
        if self._int8 and rows <= _MOST_QUANTISED_ROWS and matrix.size >= _LEAST_QUANTISED_SIZE:
            return self.quantised_product(x, matrix, bias)
        if bias is None:
            return self.op("MatMul", x, self.constant(matrix))
        return self.op("Gemm", x, self.constant(matrix), self.constant(bias))


def _array(tensor: Tensor | None) -> Array:
    if tensor is None:  # every published layer has a bias
        raise TypeError("a layer without bias")
    return cast(Array, tensor.detach().cpu().float().numpy())


def _gates(array: Array, size: int, order: str) -> Array:
    # torch's order: input, forget, cell, output
    parts = dict(zip("ifco", array.reshape(4, size, *array.shape[1:]), strict=True))
    return np.concatenate([parts[gate] for gate in order])
