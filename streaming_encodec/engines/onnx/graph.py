"""The steady step of a stack as an ONNX graph, with the state as named inputs and outputs.

For a fixed number of frames and any batch. Inputs: ``input`` and each tensor of the state; outputs:
``output`` and each of the state with ``next.`` before its name. All are float32, channels last:

* encoder: ``input`` [batch, hop * frames, channels] → ``output`` [batch, frames, D]
* decoder: ``input`` [batch, frames, D] → ``output`` [batch, hop * frames, channels]

Convolutions are matrix products over gathered windows, as in ``fused.py``: ONNX Runtime packs a constant
matrix once, but lays a convolution's weights anew at each call. Between the layers values are [batch *
length, channels], so that product and bias are one node. A frame streams megabytes of weights through the
caches, and each node finds its own memory cold: with small models the number of nodes is the cost.

The graph for one stream alone (``single``) has fewer of them. Its tensors have no batch axis, a transposed
convolution's overlap is one row, and a ``next.`` output may begin with rows that are no longer needed: the
state is its last rows, which cost no node to cut off.

In int8 graphs large matrices hold 8-bit weights, with a scale for each block of inputs (the runtime's
``MatMulNBits``). One frame at a time is bound by the weights' bytes: a quarter of the bytes is the gain.
The runtime quantises each row's inputs by itself, so that rows of a batch stay strangers.
"""

from __future__ import annotations

from math import gcd
from typing import cast

import numpy as np
from torch import Tensor, nn

from streaming_encodec.engines.layout import turn
from streaming_encodec.engines.onnx.nodes import Nodes, TensorProto, helper, onnx
from streaming_encodec.model.conv import StreamableConv1d, StreamableConvTranspose1d
from streaming_encodec.model.layers import Elu, ResidualLstm, ResnetBlock
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.stepping.arrays import NumpyArrays
from streaming_encodec.stepping.tree import named_arrays
from streaming_encodec.types import Floats, IntArray

INPUT, OUTPUT, NEXT, STATE = "input", "output", "next.", "layers"

# Products with smaller matrices are not bound by their bytes, nor those that use a matrix for many rows at
# once.
_LEAST_QUANTISED_SIZE = 1 << 15
_MOST_QUANTISED_ROWS = 4
# A node for each frame and gate: more frames than a packet holds are better off with the runtime's own LSTM.
_MOST_SINGLE_FRAMES = 6
# To gather the windows of a convolution from or to so few channels costs more than the product: so many
# neighbouring outputs share a window.
_FEW_CHANNELS, _MOST_NEIGHBOURS = 4, 8


def step_graph(stack: StreamableStack, inputs: int, int8: bool = False, single: bool = False) -> onnx.ModelProto:
    """The graph of ``stack.step`` for ``inputs`` inputs at a time; ``single`` is for one stream only.

    Raises:
        TypeError: a layer that it does not know.
    """
    return _StepGraph(int8, single).build(stack, inputs)


def state_shapes(stack: StreamableStack) -> dict[str, tuple[int, ...]]:
    """Name and shape (without batch) of the state's tensors that hold anything, in the graph's order."""
    named = named_arrays(turn(stack.init_state(1), NumpyArrays()), STATE)
    return {name: tuple(array.shape[1:]) for name, array in named if array.size}


class _StepGraph(Nodes):
    """Adds one layer after the other. A value is its name and its length n: [batch * n, channels].

    A value may lie with some of its steps in one row: the next layer that minds turns them into rows.
    """

    def __init__(self, int8: bool, single: bool) -> None:
        super().__init__()
        self._int8, self._single = int8, single
        self._widths: dict[str, int] = {}  # of the values known to have two axes
        self._next: dict[str, tuple[str, int]] = {}  # the value whose end is the next state, and its length

    def build(self, stack: StreamableStack, inputs: int) -> onnx.ModelProto:
        width_in = cast(StreamableConv1d, stack.layers[0]).conv.in_channels
        width_out = cast(StreamableConv1d, stack.layers[-1]).conv.out_channels
        states = {name: self._form(name, *shape) for name, shape in state_shapes(stack).items()}
        if self._single:
            self._widths = {INPUT: width_in} | {name: width for name, (_, width) in states.items()}
        y, n = INPUT, inputs
        for i, layer in enumerate(stack.layers):
            y, n = self._layer(layer, y, n, f"{STATE}.{i}")
        if self._single and self._widths.get(y) == width_out:
            self.rename(y, OUTPUT)
        else:
            self.node("Reshape", [y, self.ints(*([n] if self._single else [-1, n]), width_out)], [OUTPUT])
        for name in states:
            self.rename(self._next[name][0], NEXT + name)

        def value(name: str, length: int, width: int) -> onnx.ValueInfoProto:
            shape: list[int | str | None] = [length, width] if self._single else ["batch", length, width]
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

        after = {NEXT + name: (self._next[name][1], width) for name, (_, width) in states.items()}
        return self.model(
            [value(INPUT, inputs, width_in), *(value(name, *shape) for name, shape in states.items())],
            [value(OUTPUT, n, width_out), *(value(name, *shape) for name, shape in after.items())],
        )

    def _form(self, name: str, length: int, width: int) -> tuple[int, int]:
        one_row = self._single and name.endswith(".overlap")
        return (1, length * width) if one_row else (length, width)

    # -- layers -------------------------------------------------------------------------------------------

    def _layer(self, layer: nn.Module, x: str, n: int, state: str) -> tuple[str, int]:
        if isinstance(layer, Elu):
            y = self.op("Elu", x)
            self._widths[y] = self._widths.get(x, 0)
            return y, n
        if isinstance(layer, StreamableConv1d):
            return self._conv(layer, x, n, f"{state}.history")
        if isinstance(layer, StreamableConvTranspose1d):
            return self._conv_transpose(layer, x, n, f"{state}.overlap")
        if isinstance(layer, ResidualLstm):
            return self._lstm(layer, x, n, state), n
        if isinstance(layer, ResnetBlock):
            return self._resnet(layer, x, n, state), n
        raise TypeError(f"no graph is known for the layer {type(layer).__name__}")

    def _conv(self, layer: StreamableConv1d, x: str, n: int, history: str, ones: bool = False) -> tuple[str, int]:
        """The convolution; with ``ones``, a channel of ones beside its own."""
        taps, bias = _array(layer.conv.weight).transpose(2, 1, 0), _array(layer.conv.bias)  # [kernel, in, out]
        if ones:
            taps, bias = np.pad(taps, ((0, 0), (0, 0), (0, 1))), np.append(bias, np.float32(1))
        kernel, channels, width = taps.shape
        stride, outputs, length = layer.stride, n // layer.stride, n
        shared = 1
        if min(channels, width) <= _FEW_CHANNELS and layer.conv.dilation[0] == 1:
            shared = next(k for k in range(_MOST_NEIGHBOURS, 0, -1) if outputs % k == 0)
        if layer.history_length:
            x, length = self._remember(history, layer.history_length, x, n, channels)
        offsets = np.arange(kernel) * layer.conv.dilation[0]
        if shared > 1:  # a matrix with the taps once for each output, moved on by a stride
            offsets = np.arange((shared - 1) * stride + kernel)
            moved = np.zeros((len(offsets), channels, shared, width), np.float32)
            for k in range(shared):
                moved[k * stride : k * stride + kernel, :, k] = taps
            taps, bias = moved.reshape(len(offsets), channels, -1), np.tile(bias, shared)
        starts = layer.history_length - layer.padding_total + np.arange(outputs // shared) * shared * stride
        x = self._windows(x, length, channels, starts, offsets)
        matrix = taps.reshape(len(offsets) * channels, -1)
        return self._product(x, len(starts), matrix, bias), outputs

    def _windows(self, x: str, length: int, channels: int, starts: IntArray, offsets: IntArray) -> str:
        """The steps of ``x`` at each start with each offset: [batch * starts, offsets * channels]."""
        if len(starts) == length and len(offsets) == 1:
            return self._rows(x, channels)
        if np.array_equal(np.add.outer(starts, offsets).ravel(), np.arange(length)):
            return self._rows(x, len(offsets) * channels)  # nothing is taken twice, or left out
        piece = 1
        if len(offsets) == offsets[-1] + 1:  # few large pieces are faster to copy than many small ones
            piece = gcd(length, len(offsets), *map(int, starts))
        indices = np.add.outer(starts // piece, offsets[::piece] // piece)
        x = self._rows(x, piece * channels) if self._single else self._blocks(x, length // piece, piece * channels)
        x = self.op("Gather", x, self.constant(indices), axis=0 if self._single else 1)
        return self._rows(x, len(offsets) * channels)

    def _conv_transpose(self, layer: StreamableConvTranspose1d, x: str, n: int, overlap: str) -> tuple[str, int]:
        conv, stride, outputs = layer.conv, layer.stride, layer.conv.out_channels
        if conv.kernel_size[0] != 2 * stride:
            raise TypeError("a transposed convolution must have kernel = 2 * stride")
        # Every output is the sum of a first half and the second half of the input before: the bias goes
        # with one.
        half = stride * outputs
        taps = _array(conv.weight).transpose(0, 2, 1).reshape(conv.in_channels, 2 * half)
        bias = np.append(np.tile(_array(conv.bias), stride), np.zeros(half, np.float32))
        late = self._rows(overlap, half)  # [batch, stride * out]
        if n == 1:
            first, second = self.split(self._product(self._rows(x, conv.in_channels), n, taps, bias), 1, half, half)
            after, length = second, 1
        else:
            x = self._rows(x, conv.in_channels)
            first = self._product(x, n, taps[:, :half], bias[:half])
            second = self._product(x, n, taps[:, half:], None)
            time = 0 if self._single else 1
            both = self.op("Concat", self._blocks(late, 1, half), self._blocks(second, n, half), axis=time)
            if self._single:
                late, after, length = self.slice(both, 0, 0, n), both, n + 1
            else:
                late, after = self.split(both, time, n, 1)
                late, length = self._rows(late, half), 1
        if not self._single:
            after, length = self._blocks(after, stride, outputs), stride
        self._next[overlap] = after, length
        y = self.op("Add", first, late)
        self._widths[y] = half
        return y, n * stride

    def _resnet(self, layer: ResnetBlock, x: str, n: int, state: str) -> str:
        first, second = cast(StreamableConv1d, layer.block[1]), cast(StreamableConv1d, layer.block[3])
        channels = first.conv.in_channels
        x = self._rows(x, channels)  # once, for the block and what goes past it
        y, _ = self._layer(layer.block[0], x, n, f"{state}.block.0")
        if layer.lookahead:
            x, _ = self._remember(f"{state}.delay", layer.lookahead, x, n, channels)
            x = self._rows(self.slice(x, 0 if self._single else 1, 0, n), channels)
        matrix, bias = _array(second.conv.weight)[:, :, 0].T, _array(second.conv.bias)
        # The product adds onto what goes past it. One bias is then too many: the shortcut's takes it, or it
        # becomes the weights of a channel of ones.
        shortcut = layer.shortcut if isinstance(layer.shortcut, StreamableConv1d) else None
        y, _ = self._conv(first, y, n, f"{state}.block.1.history", ones=shortcut is None)
        y, _ = self._layer(layer.block[2], y, n, f"{state}.block.2")
        if shortcut is None:
            matrix = np.vstack((matrix, bias))
        else:
            past = _array(shortcut.conv.weight)[:, :, 0].T
            x = self._product(x, n, past, _array(shortcut.conv.bias) + bias)
        return self._product(self._rows(y, len(matrix)), n, matrix, None, add_to=x)

    def _lstm(self, layer: ResidualLstm, x: str, n: int, state: str) -> str:
        size, layers = layer.lstm.hidden_size, layer.lstm.num_layers
        x = self._rows(x, size)
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
            after = values[0] if layers == 1 else self.op("Concat", *values, axis=0 if self._single else 1)
            self._next[f"{state}.{name}"] = after, layers
        y = self.op("Add", y, x)
        self._widths[y] = size
        return y

    def _lstm_whole(self, x: str, n: int, size: int, hidden: str, cell: str, *weights: Floats) -> tuple[str, str, str]:
        w_in, w_rec, b_in, b_rec = (_gates(array, size, "iofc") for array in weights)
        constants = [self.constant(array[None]) for array in (w_in, w_rec, np.concatenate((b_in, b_rec)))]
        by_time = self.op("Reshape", x, self.ints(-1, n, size))
        by_time = self.op("Transpose", by_time, perm=[1, 0, 2])  # [n, batch, size]
        hidden, cell = (self.op("Unsqueeze", value, self.ints(0)) for value in (hidden, cell))
        outputs = [self.name() for _ in range(3)]
        self.node("LSTM", [by_time, *constants, "", hidden, cell], outputs, hidden_size=size)
        y = self.op("Transpose", outputs[0], perm=[2, 0, 1, 3])  # [n, 1, batch, size] → [batch, n, 1, size]
        return self._rows(y, size), self._rows(outputs[1], size), self._rows(outputs[2], size)

    def _lstm_frames(self, x: str, n: int, size: int, hidden: str, cell: str, *weights: Floats) -> tuple[str, str, str]:
        w_in, w_rec, b_in, b_rec = (_gates(array, size, "ifoc") for array in weights)
        if n == 1:
            both = self.op("Concat", x, hidden, axis=1)
            gates = self._product(both, 1, np.concatenate((w_in.T, w_rec.T)), b_in + b_rec)
            hidden, cell = self._lstm_cell(gates, cell, size)
            return hidden, hidden, cell
        gates_in = self._product(x, n, w_in.T, b_in + b_rec)  # [batch * n, 4 * size]
        if self._single:
            frames = [self.op("Gather", gates_in, self.constant(np.array(i)), axis=0) for i in range(n)]
        else:
            pieces = self.split(self._blocks(gates_in, n, 4 * size), 1, *[1] * n)
            frames = [self._rows(piece, 4 * size) for piece in pieces]
        outputs = []
        for frame in frames:
            gates = self._product(hidden, 1, w_rec.T, None, add_to=frame)
            hidden, cell = self._lstm_cell(gates, cell, size)
            outputs.append(self._blocks(hidden, 1, size))
        y = self.op("Concat", *outputs, axis=0 if self._single else 1)
        if self._single:
            self._widths[y] = size
        return self._rows(y, size), hidden, cell

    def _lstm_cell(self, gates: str, cell: str, size: int) -> tuple[str, str]:
        # The input, forget and output gates lie together, the cell's last.
        sigmoids, new = self.split(gates, 1, 3 * size, size)
        i, f, o = self.split(self.op("Sigmoid", sigmoids), 1, size, size, size)
        kept = self.op("Mul", f, cell)
        cell = self.op("Add", kept, self.op("Mul", i, self.op("Tanh", new)))
        hidden = self.op("Mul", o, self.op("Tanh", cell))
        self._widths |= {hidden: size, cell: size}
        return hidden, cell

    def _layer_of(self, state: str, i: int, layers: int, size: int) -> str:
        if layers == 1:
            return self._rows(state, size)
        return self._rows(self.slice(state, 0 if self._single else 1, i, i + 1), size)

    # -- values -------------------------------------------------------------------------------------------

    def _rows(self, x: str, width: int) -> str:
        if self._widths.get(x) == width:
            return x
        y = self.op("Reshape", x, self.ints(-1, width))
        self._widths[y] = width
        return y

    def _blocks(self, x: str, n: int, width: int) -> str:
        """``x`` with an axis for time, along which blocks are joined and cut."""
        return self._rows(x, width) if self._single else self.op("Reshape", x, self.ints(-1, n, width))

    def _remember(self, state: str, length: int, x: str, n: int, width: int) -> tuple[str, int]:
        """What went before and ``x``, and their length; the end of it is the next state."""
        both = self.op("Concat", state, self._blocks(x, n, width), axis=0 if self._single else 1)
        if self._single:
            self._widths[both] = width
            self._next[state] = both, length + n
        else:
            self._next[state] = self.slice(both, 1, n, n + length), length
        return both, length + n

    def _product(self, x: str, rows: int, matrix: Floats, bias: Floats | None, add_to: str | None = None) -> str:
        """``x`` [batch * rows, in] @ ``matrix`` [in, out] + ``bias`` [out], or onto ``add_to`` in its place.

        ``add_to`` of a single stream may be one row, [out].
        """
        if self._int8 and rows <= _MOST_QUANTISED_ROWS and matrix.size >= _LEAST_QUANTISED_SIZE:
            one_row = self._single and rows == 1 and add_to is not None
            y = self.quantised_product(x, matrix, add_to if one_row else bias)
            if add_to is not None and not one_row:
                y = self.op("Add", y, add_to)
        elif bias is None and add_to is None:
            y = self.op("MatMul", x, self.constant(matrix))
        else:
            y = self.op("Gemm", x, self.constant(matrix), add_to or self.constant(cast(Floats, bias)))
        self._widths[y] = matrix.shape[1]
        return y


def _array(tensor: Tensor | None) -> Floats:
    if tensor is None:  # every published layer has a bias
        raise TypeError("a layer without bias")
    return cast(Floats, tensor.detach().cpu().float().numpy())


def _gates(array: Floats, size: int, order: str) -> Floats:
    # torch's order: input, forget, cell, output
    parts = dict(zip("ifco", array.reshape(4, size, *array.shape[1:]), strict=True))
    return np.concatenate([parts[gate] for gate in order])
