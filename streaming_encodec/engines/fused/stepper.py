"""``fused``: the steady step as matrix products in channels-last layout, in torch.

For one frame at a time torch's convolutions spend more time on arranging their weights than on multiplying.
Here the weights are arranged once: a convolution's window is a strided view of its input, its taps one
matrix; a transposed convolution with kernel = 2 * stride is one matrix product whose two halves belong to
two neighbouring outputs; the LSTM's input products are done for all frames of a step at once.

The arithmetic is the layers' own in another order of summation, in any dtype that the model has.
"""

from __future__ import annotations

from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.engines.fused.quantizer import FusedQuantizer
from streaming_encodec.engines.layout import turn
from streaming_encodec.engines.torch_engine import LayersStepper, TorchEngine
from streaming_encodec.errors import StreamError
from streaming_encodec.model.conv import StreamableConv1d, StreamableConvTranspose1d
from streaming_encodec.model.layers import Elu, ResidualLstm, ResnetBlock
from streaming_encodec.model.seanet import StreamableStack
from streaming_encodec.model.states import ConvState, ConvTransposeState, LstmState, ResnetState, State
from streaming_encodec.stepping.stepper import Quantizer, Stepper
from streaming_encodec.stepping.torch_arrays import TorchArrays


class FusedEngine(TorchEngine):
    """``fused``."""

    def _make_quantizer(self) -> Quantizer:
        return FusedQuantizer(self.network.quantizer)

    def _make_stepper(self, stack: StreamableStack) -> Stepper:
        return FusedStepper(stack)


class FusedStepper(LayersStepper):
    """The steady step in another way, with copies of a stack's weights; start and end are the layers' own."""

    def __init__(self, stack: StreamableStack) -> None:
        super().__init__(stack)
        self._arrays = TorchArrays(next(stack.parameters()))
        with torch.no_grad():
            self._layers = [_fuse(layer) for layer in stack.layers]

    def enter(self, layers: State) -> State:
        """The layers' state, channels last."""
        return cast(State, turn(layers, self._arrays))

    def leave(self, state: State) -> State:
        """The layers' state for the channels-last one."""
        return cast(State, turn(state, self._arrays))

    @torch.no_grad()
    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """``x`` [B, C, n] → [B, C', n']. Tensors of ``state`` stay as they are."""
        y = x.transpose(1, 2)
        after = []
        for layer, before in zip(self._layers, state, strict=True):
            y, now = layer(y, before)
            after.append(now)
        return y.transpose(1, 2), tuple(after)


class _Fused(Protocol):
    def __call__(self, x: Tensor, state: Any, /) -> tuple[Tensor, Any]: ...


def _fuse(layer: nn.Module) -> _Fused:
    if isinstance(layer, Elu):
        return _elu
    if isinstance(layer, StreamableConv1d):
        return _Conv(layer)
    if isinstance(layer, StreamableConvTranspose1d):
        return _ConvTranspose(layer)
    if isinstance(layer, ResidualLstm):
        return _Lstm(layer)
    if isinstance(layer, ResnetBlock):
        return _Resnet(layer)
    raise StreamError(f"the fused engine knows no layer {type(layer).__name__}: use engine='eager'")


def _elu(x: Tensor, state: State) -> tuple[Tensor, State]:
    # In place: an ELU's input is always another layer's fresh output. A residual block, which still needs its
    # input after the ELU, has its own.
    return F.elu_(x), state


class _Matrix:
    """``x @ weight + bias``, the weight lying as the product reads it fastest."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        """``weight`` [in, out], ``bias`` [out]."""
        self._bias = weight.new_zeros(weight.shape[1]) if bias is None else bias.detach().clone()
        # A product with one row reads the weight once: along its longer axis that is one stream through
        # memory.
        tall = weight.shape[0] >= weight.shape[1]
        self._weight = weight.t().clone(memory_format=torch.contiguous_format).t() if tall else weight.contiguous()

    def __call__(self, x: Tensor, add_to: Tensor | None = None) -> Tensor:
        """``x`` [rows, in] → [rows, out]; or onto ``add_to`` in the bias' place."""
        return torch.addmm(self._bias if add_to is None else add_to, x, self._weight)


class _Conv:
    def __init__(self, layer: StreamableConv1d) -> None:
        conv = layer.conv
        self.kernel, self.stride, self.dilation = conv.kernel_size[0], layer.stride, conv.dilation[0]
        self.history, self.skip = layer.history_length, layer.history_length - layer.padding_total
        # [out, in, k] → [k * in, out]: a window's samples lie one after the other, each with all its channels
        taps = conv.weight.detach().permute(2, 1, 0)
        self.outputs = taps.shape[2]
        self.matrix = _Matrix(taps.reshape(-1, self.outputs), conv.bias)

    def __call__(self, x: Tensor, state: ConvState) -> tuple[Tensor, ConvState]:
        batch, n, channels = x.shape
        outputs = n // self.stride
        if self.history:
            x = torch.cat((state.history, x), dim=1)
            state = ConvState(x[:, n:])
        # [B * outputs, k * in]
        windows = x.as_strided(
            (batch, outputs, self.kernel, channels),
            (x.stride(0), self.stride * x.stride(1), self.dilation * x.stride(1), x.stride(2)),
            x.storage_offset() + self.skip * x.stride(1),
        ).reshape(batch * outputs, self.kernel * channels)
        return self.matrix(windows).view(batch, outputs, self.outputs), state


class _ConvTranspose:
    def __init__(self, layer: StreamableConvTranspose1d) -> None:
        conv = layer.conv
        self.stride, self.outputs = layer.stride, conv.out_channels
        if conv.kernel_size[0] != 2 * layer.stride:
            raise StreamError(
                "the fused engine needs transposed convolutions with kernel = 2 * stride: use engine='eager'"
            )
        # [in, out, 2 * stride] → [in, 2 * stride * out]
        taps = conv.weight.detach().permute(0, 2, 1)
        # Every output is the sum of a first and a second half: the bias goes with the first.
        bias = torch.zeros(2 * layer.stride, self.outputs, dtype=taps.dtype, device=taps.device)
        if conv.bias is not None:
            bias[: layer.stride] = conv.bias.detach()
        self.matrix = _Matrix(taps.reshape(taps.shape[0], -1), bias.reshape(-1))

    def __call__(self, x: Tensor, state: ConvTransposeState) -> tuple[Tensor, ConvTransposeState]:
        batch, n, channels = x.shape
        y = self.matrix(x.reshape(batch * n, channels)).view(batch, n, 2, self.stride, self.outputs)
        done = y[:, :, 0]  # [B, n, stride, out]
        done[:, 0] += state.overlap
        done[:, 1:] += y[:, :-1, 1]
        return done.reshape(batch, n * self.stride, self.outputs), ConvTransposeState(y[:, -1, 1])


class _Lstm:
    def __init__(self, layer: ResidualLstm) -> None:
        lstm = layer.lstm
        self.size = lstm.hidden_size
        self.layers = []
        for i in range(lstm.num_layers):
            w_in, w_rec = (cast(Tensor, getattr(lstm, f"weight_{name}_l{i}")).detach() for name in ("ih", "hh"))
            b_in, b_rec = (cast(Tensor, getattr(lstm, f"bias_{name}_l{i}")).detach() for name in ("ih", "hh"))
            self.layers.append((_Matrix(w_in.t(), b_in + b_rec), _Matrix(w_rec.t(), None)))

    def __call__(self, x: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        batch, n, size = x.shape
        y, hiddens, cells = x, [], []
        for i, (from_input, from_hidden) in enumerate(self.layers):
            gates_in = from_input(y.reshape(batch * n, size)).view(batch, n, 4 * size)
            hidden, cell = state.hidden[:, i], state.cell[:, i]
            outputs = []
            for t in range(n):
                gates = from_hidden(hidden, add_to=gates_in[:, t])  # [B, 4D]: in, forget, cell, out
                keep = gates[:, : 2 * size].sigmoid_()
                new = gates[:, 2 * size : 3 * size].tanh_()
                cell = torch.addcmul(keep[:, size:] * cell, keep[:, :size], new)
                hidden = gates[:, 3 * size :].sigmoid_() * cell.tanh()
                outputs.append(hidden)
            y = torch.stack(outputs, dim=1)
            hiddens.append(hidden)
            cells.append(cell)
        return y + x, LstmState(torch.stack(hiddens, dim=1), torch.stack(cells, dim=1))


class _Resnet:
    def __init__(self, layer: ResnetBlock) -> None:
        first, second = cast(StreamableConv1d, layer.block[1]), cast(StreamableConv1d, layer.block[3])
        self.first, self.second, self.shortcut = _Conv(first), _one_tap(second, second.conv.bias), None
        if isinstance(layer.shortcut, StreamableConv1d):
            # Both biases go with the shortcut's product, onto which the other one is then added.
            self.shortcut = _one_tap(layer.shortcut, _sum(layer.shortcut.conv.bias, second.conv.bias))
        self.lookahead = layer.lookahead

    def __call__(self, x: Tensor, state: ResnetState) -> tuple[Tensor, ResnetState]:
        batch, n, channels = x.shape
        (elu, history, _, second), delay = state
        y, history = self.first(F.elu(x), history)
        if self.lookahead:
            x = torch.cat((delay, x), dim=1)
            x, delay = x[:, :n], x[:, n:]
        rows, y = x.reshape(batch * n, channels), F.elu_(y).view(batch * n, -1)
        y = self.second(y).add_(rows) if self.shortcut is None else self.second(y, add_to=self.shortcut(rows))
        return y.view(batch, n, channels), ResnetState((elu, history, elu, second), delay)


def _one_tap(layer: StreamableConv1d, bias: Tensor | None) -> _Matrix:
    # A 1x1 convolution has no memory.
    return _Matrix(layer.conv.weight.detach()[:, :, 0].t(), bias)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return one if other is None else other
    return one + other
