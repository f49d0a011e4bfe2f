"""SEANet, EnCodec's encoder and decoder (arXiv 2009.02095, 2210.13438), as stacks of two-faced layers.

Layer indices equal the published checkpoints' (``encoder.layers.N``), so that weights need no renaming.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from streaming_encodec.model import layers as stack
from streaming_encodec.model.config import EncodecConfig
from streaming_encodec.model.conv import StreamableConv1d, StreamableConvTranspose1d
from streaming_encodec.model.layers import Elu, ResidualLstm, ResnetBlock, Streamable
from streaming_encodec.model.states import State


class StreamableStack(nn.Module):
    """Layers one after the other, with both faces."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        """The whole input at once."""
        for layer in self.layers:
            x = layer(x)
        return x

    def init_state(self, batch: int) -> State:
        """The states of layers that have seen nothing (or zeros only)."""
        return stack.init_states(self._streamable, batch)

    def start_outputs(self, n: int) -> int | None:
        """Outputs of ``start`` on ``n`` inputs; None where the layers cannot start on just so many."""
        return stack.start_outputs(self._streamable, n)

    def start(self, x: Tensor) -> tuple[Tensor, State]:
        """The first inputs, with the offline model's left padding."""
        return stack.start_layers(self._streamable, x)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """The steady step."""
        return stack.step_layers(self._streamable, x, state)

    def flush(self, x: Tensor, state: State) -> Tensor:
        """The last inputs, with the offline model's right padding."""
        return stack.flush_layers(self._streamable, x, state)

    @property
    def _streamable(self) -> Sequence[Streamable]:
        return cast(Sequence[Streamable], self.layers)


class SeanetEncoder(StreamableStack):
    """Samples [B, channels, T] → latent frames [B, D, ceil(T / hop_length)]."""

    def __init__(self, config: EncodecConfig) -> None:
        dim = config.num_filters
        layers: list[nn.Module] = [StreamableConv1d(config, config.audio_channels, dim, config.kernel_size)]
        for ratio in reversed(config.upsampling_ratios):
            layers += [ResnetBlock(config, dim, dilation) for dilation in _dilations(config)]
            layers += [Elu(), StreamableConv1d(config, dim, 2 * dim, 2 * ratio, stride=ratio)]
            dim *= 2
        layers += _lstm(config, dim)
        layers += [Elu(), StreamableConv1d(config, dim, config.hidden_size, config.last_kernel_size)]
        super().__init__(layers)


class SeanetDecoder(StreamableStack):
    """Latent frames [B, D, F] → samples [B, channels, F * hop_length]."""

    def __init__(self, config: EncodecConfig) -> None:
        dim = config.num_filters * 2 ** len(config.upsampling_ratios)
        layers: list[nn.Module] = [StreamableConv1d(config, config.hidden_size, dim, config.kernel_size)]
        layers += _lstm(config, dim)
        for ratio in config.upsampling_ratios:
            layers += [Elu(), StreamableConvTranspose1d(config, dim, dim // 2, 2 * ratio, ratio)]
            dim //= 2
            layers += [ResnetBlock(config, dim, dilation) for dilation in _dilations(config)]
        layers += [Elu(), StreamableConv1d(config, dim, config.audio_channels, config.last_kernel_size)]
        super().__init__(layers)


def _dilations(config: EncodecConfig) -> list[int]:
    return [config.dilation_growth_rate**j for j in range(config.num_residual_layers)]


def _lstm(config: EncodecConfig, dim: int) -> list[nn.Module]:
    # Without LSTM layers the original code leaves the module out, and later indices move down by one.
    return [ResidualLstm(dim, config.num_lstm_layers)] if config.num_lstm_layers else []
