"""The size of a model, computed from its configuration before anything of it is allocated."""

from __future__ import annotations

from typing import NamedTuple

from streaming_encodec.errors import ConfigError
from streaming_encodec.model.config import EncodecConfig

MAX_PARAMETERS = 1 << 28
"""Weights and codebooks together: 1 GB in float32, twenty times what the largest published model has."""
MAX_STATE_VALUES = 1 << 24
"""Inputs that the layers of one stream remember: 64 MB in float32; the published model's are 16,000."""
MAX_LAYERS = 1024
"""Convolutions, LSTM layers and codebooks, counted one by one: making so many takes a tenth of a second."""


class ModelSize(NamedTuple):
    """What a configuration asks for."""

    layers: int
    parameters: int  # codebooks among them
    state_values: int  # of one stream, encoder and decoder


def check_size(config: EncodecConfig) -> None:
    """Raise ``ConfigError`` for a model beyond the bounds above; takes no memory."""
    depth = len(config.upsampling_ratios) * (1 + config.num_residual_layers) + config.num_lstm_layers
    if depth > MAX_LAYERS or config.num_quantizers > MAX_LAYERS:  # before it is gone through layer by layer
        raise ConfigError(
            f"the model would have {2 * depth} layers and {config.num_quantizers} codebooks:"
            f" {MAX_LAYERS} of each are the most"
        )
    size = model_size(config)
    for what, found, most in (
        ("layers", size.layers, MAX_LAYERS),
        ("parameters", size.parameters, MAX_PARAMETERS),
        ("values to remember for each stream", size.state_values, MAX_STATE_VALUES),
    ):
        if found > most:
            raise ConfigError(f"the model would have {found} {what}, {most} are the most")


def model_size(config: EncodecConfig) -> ModelSize:
    """The sums over the layers that ``seanet.py`` and ``quantizer.py`` make, biases and norms included."""
    layers = parameters = state = 0

    def conv(inputs: int, outputs: int, kernel: int, span: int) -> None:
        nonlocal layers, parameters, state
        layers += 1
        parameters += inputs * outputs * kernel + 3 * outputs
        state += inputs * 2 * span

    def blocks(dim: int) -> None:
        hidden = dim // config.compress
        for j in range(config.num_residual_layers):
            kernel = config.residual_kernel_size
            conv(dim, hidden, kernel, 1 + (kernel - 1) * config.dilation_growth_rate**j)
            conv(hidden, dim, 1, 1)
            conv(dim, dim, 1, 1)

    widest = config.num_filters * 2 ** len(config.upsampling_ratios)
    for outer, inner in ((config.audio_channels, config.num_filters), (config.hidden_size, widest)):
        conv(outer, inner, config.kernel_size, config.kernel_size)  # the first of the encoder, and of the decoder
        conv(inner, outer, config.last_kernel_size, config.last_kernel_size)  # the last of the other
    dim = config.num_filters
    for ratio in reversed(config.upsampling_ratios):
        for _ in range(2):  # encoder and decoder mirror each other
            blocks(dim)
            conv(dim, 2 * dim, 2 * ratio, 2 * ratio)
        dim *= 2
    for _ in range(2 * config.num_lstm_layers):
        layers += 1
        parameters += 8 * widest * (widest + 1)
        state += 2 * widest
    books = config.num_quantizers
    return ModelSize(layers + books, parameters + books * config.codebook_size * config.hidden_size, state)
