"""Convolutions with two faces: ``forward`` over a whole input, and ``start`` / ``step`` / ``flush`` over a stream.

The whole-input face is the published mathematics. The streaming face gives the same numbers from a fixed number of
past inputs (the *history*) or of outputs that are not yet complete (the *overlap*):

* ``start(x)``: the first inputs, padded on the left as the offline model pads them; returns the state for ``step``,
* ``step(x, state)``: the steady step, no branches on data, fixed shapes for a fixed number of inputs,
* ``flush(x, state)``: the last inputs, padded on the right as the offline model pads them.

State is an explicit value: no layer keeps a tensor between calls.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.geometry import ConvGeometry, trim_right
from streaming_encodec.model.states import ConvState, ConvTransposeState


def pad1d(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    """Pad the last axis as EnCodec does; *reflect* also on inputs shorter than the padding.

    A short input is first extended on the right by zeros, reflected, and the zeros' length cut off again: this is
    what the published code does, and the published weights expect it.
    """
    if left == right == 0:
        return x  # torch refuses to pad an empty input, even by nothing
    if mode != "reflect":
        return F.pad(x, (left, right), mode)
    length = x.shape[-1]
    extra = max(0, max(left, right) - length + 1)
    padded = F.pad(F.pad(x, (0, extra)), (left, right), mode)
    return padded[..., : padded.shape[-1] - extra]


class StreamableConv1d(nn.Module):
    """``Conv1d`` padded so that T inputs give ``ceil(T / stride)`` outputs; causal, or centred.

    Contract: ``stride`` inputs make one output; ``lookahead`` inputs beyond an output's own stride are needed before
    it is known (0 where causal); the receptive field is ``(kernel - 1) * dilation + 1`` inputs.
    """

    def __init__(
        self,
        config: EncodecConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(in_channels, out_channels, kernel_size, stride, dilation=dilation)
        self.norm = nn.GroupNorm(1, out_channels) if config.norm_type == "time_group_norm" else None
        self.pad_mode = config.pad_mode
        self.stride = stride
        geometry = ConvGeometry(kernel_size, stride, dilation, config.use_causal_conv, config.pad_mode)
        self.span, self.padding_total = geometry.span, geometry.padding_total
        self.lookahead, self.padding_left = geometry.lookahead, geometry.padding_left
        self.reflected, self.history_length = geometry.reflected, geometry.history_length

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C_in, T] → [B, C_out, ceil(T / stride)]."""
        extra = -x.shape[-1] % self.stride
        y: Tensor = self.conv(pad1d(x, self.padding_left, self.lookahead + extra, self.pad_mode))
        return y if self.norm is None else self.norm(y)

    # -- streaming -------------------------------------------------------------------------------------------

    def init_state(self, batch: int) -> ConvState:
        """The state after zeros only."""
        weight = self.conv.weight
        return ConvState(weight.new_zeros(batch, self.conv.in_channels, self.history_length))

    def start_outputs(self, n: int) -> int | None:
        """Outputs of ``start`` on ``n`` inputs; None if the offline padding depends on later ones."""
        least = {"reflect": self.reflected, "replicate": 1, "constant": 0}.get(self.pad_mode)
        if least is None or n < max(least, self.lookahead) or (n - self.lookahead) % self.stride:
            return None
        return (n - self.lookahead) // self.stride

    def start(self, x: Tensor) -> tuple[Tensor, ConvState]:
        """The first inputs of a stream: ``x`` [B, C_in, n] → [B, C_out, start_outputs(n)]."""
        padded = pad1d(x, self.padding_left, 0, self.pad_mode)
        y = self._convolve(padded, (x.shape[-1] - self.lookahead) // self.stride)
        missing = max(0, self.history_length - padded.shape[-1])
        return y, ConvState(_last(F.pad(padded, (missing, 0)), self.history_length))

    def step(self, x: Tensor, state: ConvState) -> tuple[Tensor, ConvState]:
        """``x`` [B, C_in, m * stride] → [B, C_out, m]."""
        window = torch.cat((state.history, x), dim=-1)
        y = self.conv(window[..., self.history_length - self.padding_total :])
        return y, ConvState(_last(window, self.history_length))

    def flush(self, x: Tensor, state: ConvState) -> Tensor:
        """The last inputs ``x`` [B, C_in, n], any n: all outputs that are still due."""
        n = x.shape[-1]
        extra = -(self.lookahead + n) % self.stride  # the inputs before x were a whole number of strides + lookahead
        window = torch.cat((state.history, x), dim=-1)
        padded = pad1d(window, 0, self.lookahead + extra, self.pad_mode)
        outputs = (n + self.lookahead + extra) // self.stride
        return self._convolve(padded[..., self.history_length - self.padding_total :], outputs)

    def _convolve(self, window: Tensor, outputs: int) -> Tensor:
        if outputs == 0:  # torch refuses an input shorter than the kernel
            return window.new_empty(window.shape[0], self.conv.out_channels, 0)
        y: Tensor = self.conv(window)
        return y


class StreamableConvTranspose1d(nn.Module):
    """``ConvTranspose1d`` trimmed so that T inputs give ``T * stride`` outputs.

    ``trim_right_ratio`` r cuts ``ceil((kernel - stride) * r)`` outputs on the right and the rest on the left. What is
    cut on the left (``trim_left``) delays a stream: ``start`` gives that many outputs fewer, ``flush`` brings them.
    """

    def __init__(
        self, config: EncodecConfig, in_channels: int, out_channels: int, kernel_size: int, stride: int
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose1d(in_channels, out_channels, kernel_size, stride)
        self.norm = nn.GroupNorm(1, out_channels) if config.norm_type == "time_group_norm" else None
        self.stride = stride
        self.padding_total = kernel_size - stride
        self.trim_right = trim_right(config, self.padding_total)
        self.trim_left = self.padding_total - self.trim_right

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [B, C_in, T] → [B, C_out, T * stride]."""
        y: Tensor = self.conv(x)
        if self.norm is not None:
            y = self.norm(y)
        return y[..., self.trim_left : y.shape[-1] - self.trim_right]

    # -- streaming -------------------------------------------------------------------------------------------

    def init_state(self, batch: int) -> ConvTransposeState:
        """The state before the first input: no overlap."""
        return ConvTransposeState(self.conv.weight.new_zeros(batch, self.conv.out_channels, self.padding_total))

    def start_outputs(self, n: int) -> int | None:
        """Outputs of ``start`` on ``n`` inputs; None if they are fewer than those trimmed on the left."""
        outputs = n * self.stride - self.trim_left
        return outputs if n >= 1 and outputs >= 0 else None

    def start(self, x: Tensor) -> tuple[Tensor, ConvTransposeState]:
        """The first inputs: ``x`` [B, C_in, n] → [B, C_out, n * stride - trim_left]."""
        y, state = self.step(x, self.init_state(x.shape[0]))
        return y[..., self.trim_left :], state

    def step(self, x: Tensor, state: ConvTransposeState) -> tuple[Tensor, ConvTransposeState]:
        """``x`` [B, C_in, n], n ≥ 1 → [B, C_out, n * stride]."""
        done = x.shape[-1] * self.stride
        y = F.conv_transpose1d(x, self.conv.weight, None, self.stride)  # [B, C_out, done + padding_total]
        y = y + F.pad(state.overlap, (0, done))
        # The bias belongs to finished outputs only: added to the overlap it would count twice.
        return y[..., :done] + self._bias(), ConvTransposeState(y[..., done:])

    def flush(self, x: Tensor, state: ConvTransposeState) -> Tensor:
        """The last inputs ``x`` [B, C_in, n], any n: n * stride outputs and the ``trim_left`` still due."""
        parts = []
        if x.shape[-1]:
            y, state = self.step(x, state)
            parts.append(y)
        parts.append(state.overlap[..., : self.trim_left] + self._bias())
        return torch.cat(parts, dim=-1)

    def _bias(self) -> Tensor:
        bias = self.conv.bias
        return self.conv.weight.new_zeros(1) if bias is None else bias[:, None]


def _last(x: Tensor, n: int) -> Tensor:
    # x[..., -n:] would be the whole of x for n = 0
    return x[..., x.shape[-1] - n :]
