"""Encoder and decoder as matrix products, for training on a CPU: as ``forward``, about twice as fast.

Channels last, ``[B, T, C]``, so that a convolution's window is one row of a matrix; a CPU with bfloat16 products
(AVX-512 BF16, AMX) then takes half the time of its convolution kernels. The gradients are written out here, since
some of those kernels return wrong ones.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.errors import ConfigError
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.conv import StreamableConv1d, StreamableConvTranspose1d
from streaming_encodec.model.layers import Elu, ResidualLstm, ResnetBlock
from streaming_encodec.model.seanet import StreamableStack

_NARROW = 256
"""Products with fewer columns use the processor badly: then several time steps form one row."""


def can_run(config: EncodecConfig) -> bool:
    """Whether this module supports all layers of ``config``."""
    zeros_before = config.use_causal_conv and config.pad_mode == "constant"
    return zeros_before and config.norm_type == "weight_norm" and config.trim_right_ratio == 1.0


def forward(stack: StreamableStack, config: EncodecConfig, x: Tensor, low: torch.dtype | None) -> Tensor:
    """An encoder's or decoder's output for ``x`` [B, C, T], in the form that is fast on its device.

    ``low``: the precision of products, None for that of ``x``.
    """
    if x.device.type == "cpu" and can_run(config):
        return run(stack.layers, x, low or x.dtype)
    with torch.autocast(x.device.type, low or torch.bfloat16, enabled=low is not None):
        return cast(Tensor, stack(x))


def run(layers: nn.ModuleList, x: Tensor, dtype: torch.dtype) -> Tensor:
    """``layers`` of an encoder or decoder on ``x`` [B, C, T], products in ``dtype`` → [B, C', T'] in that of ``x``."""
    y = _run(layers, x.transpose(1, 2).to(dtype).contiguous())  # [B, T, C]
    return y.to(x.dtype).transpose(1, 2)


def _run(layers: nn.ModuleList, x: Tensor) -> Tensor:
    elu = False
    for layer in layers:
        if isinstance(layer, Elu):  # always before a convolution, which includes it
            elu = True
        else:
            x, elu = _layer(layer, x, elu), False
    return x


def _layer(layer: nn.Module, x: Tensor, elu: bool) -> Tensor:
    if isinstance(layer, ResnetBlock):
        straight = x if isinstance(layer.shortcut, nn.Identity) else _layer(layer.shortcut, x, False)
        return _run(layer.block, x) + straight
    if isinstance(layer, StreamableConv1d):
        conv = layer.conv
        return convolve(x, conv.weight, cast(Tensor, conv.bias), layer.stride, conv.dilation[0], elu)
    if isinstance(layer, StreamableConvTranspose1d):
        return convolve_transposed(x, layer.conv.weight, cast(Tensor, layer.conv.bias), layer.stride, elu)
    if isinstance(layer, ResidualLstm):
        return lstm(x, layer.lstm) + x
    raise ConfigError(f"{type(layer).__name__} has no form as products: `can_run` should refuse it")


def convolve(x: Tensor, weight: Tensor, bias: Tensor, stride: int = 1, dilation: int = 1, elu: bool = False) -> Tensor:
    """Causal, of ``x`` [B, T, C] or its ELU, T a multiple of ``stride``; ``weight`` [N, C, k] → [B, T / stride, N]."""
    outputs, inputs, kernel = weight.shape
    steps = 1
    if stride == 1:
        while steps < 8 and 2 * steps * outputs <= _NARROW and x.shape[1] % (2 * steps) == 0:
            steps *= 2
    taps = weight.permute(2, 1, 0)  # [k, C, N]
    if steps == 1:
        matrix = taps.reshape(kernel * inputs, outputs)
        return _windows(x, matrix, bias, kernel, stride, dilation, elu)
    # Several outputs a row: the taps once for each, moved down by one input each time.
    span = (kernel - 1) * dilation + 1
    spread = taps.new_zeros(steps + span - 1, steps, inputs, outputs)
    columns = torch.arange(steps)[:, None]
    rows = columns + torch.arange(kernel) * dilation
    spread = spread.index_put((rows.flatten(), columns.expand(-1, kernel).flatten()), taps.repeat(steps, 1, 1))
    matrix = spread.transpose(1, 2).reshape((steps + span - 1) * inputs, steps * outputs)
    y = _windows(x, matrix, bias.repeat(steps), steps + span - 1, steps, 1, elu)
    return y.view(x.shape[0], x.shape[1], outputs)


def _windows(x: Tensor, matrix: Tensor, bias: Tensor, kernel: int, stride: int, dilation: int, elu: bool) -> Tensor:
    applied = _Windows.apply(x, matrix, bias, kernel, stride, dilation, elu)  # type: ignore[no-untyped-call]
    return cast(Tensor, applied)


class _Windows(torch.autograd.Function):
    """Rows of ``kernel`` inputs, ``stride`` apart, each ending with the input of its output, times a matrix."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, matrix: Tensor, bias: Tensor, kernel: int, stride: int, dilation: int, elu: bool
    ) -> Tensor:
        batch, length, channels = x.shape
        left = (kernel - 1) * dilation + 1 - stride
        padded = F.pad(x, (0, 0, left, 0)) if left else x
        if elu:
            padded = F.elu_(padded if left else padded.clone())  # of zero it is zero
        count = length // stride
        strides = (padded.stride(0), stride * channels, dilation * channels, 1)
        rows = padded.as_strided((batch, count, kernel, channels), strides).reshape(batch * count, -1)
        low = matrix.to(x.dtype)
        ctx.save_for_backward(rows, low, *([padded] if elu else []))
        ctx.shape, ctx.window, ctx.weights = x.shape, (kernel, stride, dilation), matrix.dtype
        return torch.addmm(bias.to(x.dtype), rows, low).view(batch, count, -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, low, *activated = ctx.saved_tensors
        gradient = gradients[0].reshape(len(rows), -1)
        of_matrix = (rows.T @ gradient).to(ctx.weights)
        of_bias = gradient.sum(0, dtype=ctx.weights)
        if not ctx.needs_input_grad[0]:
            return None, of_matrix, of_bias, None, None, None, None
        kernel, stride, dilation = ctx.window
        batch, length, channels = ctx.shape
        count = length // stride
        back = (gradient @ low.T).view(batch, count, kernel, channels)
        left = (kernel - 1) * dilation + 1 - stride
        if dilation == 1 and stride > 1:  # whole strides at a time
            whole = -(-kernel // stride)
            back = back.view(batch, count, kernel * channels)
            blocks = back.new_zeros(batch, count + whole - 1, stride * channels)
            first = whole * stride - kernel  # inputs of the oldest stride that no window holds
            for i in range(whole):
                start = max(0, i * stride - first) * channels
                end = ((i + 1) * stride - first) * channels
                blocks[:, i : i + count, stride * channels - (end - start) :] += back[:, :, start:end]
            of_x = blocks[:, whole - 1 :].reshape(batch, length, channels)
        else:
            padded = back.new_zeros(batch, left + length, channels)
            for j in range(kernel):
                padded[:, j * dilation : j * dilation + count * stride : stride] += back[:, :, j]
            of_x = padded[:, left:]
        if activated:
            of_x = torch.ops.aten.elu_backward(of_x, 1, 1, 1, True, activated[0][:, left:])
        return of_x, of_matrix, of_bias, None, None, None, None


def convolve_transposed(x: Tensor, weight: Tensor, bias: Tensor, stride: int, elu: bool = False) -> Tensor:
    """Causal, of ``x`` [B, T, C] or its ELU; ``weight`` [C, N, 2 stride] → [B, T * stride, N]."""
    inputs, outputs, kernel = weight.shape
    if kernel != 2 * stride:
        raise ConfigError(f"a transposed kernel of {kernel} at stride {stride} has no form as products")
    taps = weight.permute(0, 2, 1)  # [C, k, N]
    # The window of an output is this input and the one before.
    new, old = taps[:, :stride].reshape(inputs, -1), taps[:, stride:].reshape(inputs, -1)
    y = _windows(x, torch.cat((old, new)), bias.repeat(stride), 2, 1, 1, elu)
    return y.view(x.shape[0], x.shape[1] * stride, outputs)


def lstm(x: Tensor, layers: nn.LSTM) -> Tensor:
    """``x`` [B, T, D] → same shape, from zero state; in the weights' own precision, which sums over time need."""
    by_time = x.to(next(layers.parameters()).dtype).transpose(0, 1).contiguous()
    return cast(Tensor, layers(by_time)[0]).transpose(0, 1).to(x.dtype)
